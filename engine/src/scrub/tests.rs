use proptest::prelude::*;

use super::*;

#[test]
fn what_looks_like_a_secret_goes_and_what_is_around_it_stays() {
    let cases = [
        ("the key sk-proj-4fGh7Kq2Lm9 is wrong", "the key [secret] is wrong"),
        ("(sk-ant-api03-Abc_def-123).", "([secret])."),
        ("pk_live_51H8abcdEFGH and AKIAIOSFODNN7EXAMPLE", "[secret] and [secret]"),
        (
            "authorization: Bearer abc.def-ghi_jk1",
            "authorization: Bearer [secret]",
        ),
        ("Bearer: abcdefgh1234", "Bearer: [secret]"),
        (
            "postgres://user:p:a@ss@host/db is down",
            "postgres://user:[secret]@host/db is down",
        ),
        (
            "postgres://user:p/a#s?s@host/db is down",
            "postgres://user:[secret]@host/db is down",
        ),
        ("redis://:pass@host", "redis://:[secret]@host"),
        (
            "https://0123456789abcdef0123@sentry.io/1",
            "https://[secret]@sentry.io/1",
        ),
        ("password=x&user=y", "password=[secret]&user=y"),
        ("(password=x,y) is wrong", "(password=[secret]) is wrong"),
        (
            r#"{"password": "größe \" 2", "n": 1}"#,
            r#"{"password": "[secret]", "n": 1}"#,
        ),
        (
            r#""{\"api_key\": \"a b\", \"n\": 1}""#,
            r#""{\"api_key\": \"[secret]\", \"n\": 1}""#,
        ),
        (
            r#"Login { password: Some("a b"), n: 1 }"#,
            r#"Login { password: Some("[secret]"), n: 1 }"#,
        ),
        (
            r#"{"password":null,"token":"0123456789abcdef"}"#,
            r#"{"password":null,"token":"[secret]"}"#,
        ),
        ("?token=0123456789abcdef0123", "?token=[secret]"),
        ("STRIPE_SECRET_KEY=abcdefghijklmnop", "STRIPE_SECRET_KEY=[secret]"),
        ("sessionKey: 0123456789abcdef", "sessionKey: [secret]"),
        ("cookie: a=b; c=d\nhost: x", "cookie: [secret]\nhost: x"),
        (
            "a\n-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\nb",
            "a\n[secret]\nb",
        ),
    ];
    for (text, clean) in cases {
        assert_eq!(scrubbed(text), clean);
    }
}

#[test]
fn labels_in_a_row_name_the_same_secret() {
    let key = "sk-4fGh7Kq2Lm9Pq3";
    for before in [
        "authorization: bearer ",
        "authorization: bearer: ",
        "authorization: token: ",
        "password: secret: ",
        "api_key: password = ",
        "token: bearer password=",
        "headers: {\"authorization\": \"Bearer ",
        "Authorization=Basic ",
        "key: token ",
    ] {
        assert_eq!(scrubbed(&format!("{before}{key} !")), format!("{before}[secret] !"));
    }
    assert_eq!(scrubbed("password: secret: hunter2"), "password: secret: [secret]");
}

#[test]
fn plain_words_stay() {
    for text in [
        "key: 3",
        "token: unexpected end",
        "a bearer of news, and bearer certificates",
        "basic authentication failed",
        "Basic Authentication is off",
        "see https://host:8080/path?x=1@y and a@b.c",
        "https://medium.com/@somebody/a-text",
        "the task-queue is full",
        "node `sk-1` failed, and so did sk-learn-based-scoring",
        "duplicate key value violates unique constraint \"pk_chat_log_v2\"",
        "the monkey: 0123456789abcdef0123",
        "ask the author: he knows",
        "-----BEGIN CERTIFICATE-----",
        "größe: 3",
        "run 018f6c1e-7b3a-7c52-9d1e-0a2b3c4d5e6f of thread acme/session-1 failed in step 3 (2025-11-25T13:00:00Z)",
        "sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 of the document differs",
        "field `password` is missing: add it",
        "`user.api_key` does not fit",
    ] {
        assert!(
            matches!(scrubbed(text), Cow::Borrowed(same) if same == text),
            "{}",
            scrubbed(text)
        );
    }
}

/// A secret of each shape: the whole of it, and the part that must not be read.
fn secret() -> impl Strategy<Value = (String, String)> {
    let random = "[A-Za-z0-9]{24,48}";
    let prefixed = prop::sample::select(PREFIXES.map(|(prefix, _)| prefix).to_vec());
    let labels = prop::sample::select(vec![
        "password=",
        "token: ",
        "\"api_key\":\"",
        "secret = ",
        "X-Api-Key: ",
        "Authorization: Bearer ",
        "Bearer ",
        "authorization: basic ",
        "client_secret=",
        "?sig=",
        "AWS_SECRET_ACCESS_KEY=",
        "key='",
        "Set-Cookie: sid=",
        "authorization: bearer token=",
        "password: Some(\"",
    ]);
    prop_oneof![
        (prefixed, random).prop_map(|(prefix, random)| match prefix {
            "AKIA" | "ASIA" => {
                let key = format!("{prefix}{}", &random.to_ascii_uppercase()[..16]);
                (key.clone(), key)
            }
            _ => (format!("{prefix}{random}"), random),
        }),
        (labels, random).prop_map(|(label, random)| (format!("{label}{random}"), random)),
        ("[a-z]{2,8}", "[a-z]{0,6}", "[!-.0-9;<=>A-Z_a-z]{1,20}").prop_filter_map(
            "a quote ends an address",
            |(scheme, user, password)| {
                // Digits before a slash are a port, and the rest is the path.
                let port = password.trim_start_matches(|digit: char| digit.is_ascii_digit());
                let is_port = port.len() < password.len() && port.starts_with(['/', '?', '#']);
                let plain = !password.contains(['"', '\'', '<', '>', '\\']) && !is_port;
                plain.then(|| {
                    (
                        format!("{scheme}://{user}:{password}@host/x"),
                        format!("{user}:{password}@"),
                    )
                })
            }
        ),
        "eyJ[A-Za-z0-9_-]{20}\\.[A-Za-z0-9_-]{20,40}\\.[A-Za-z0-9_-]{40}[A-Za-z]".prop_map(|jwt| (jwt.clone(), jwt)),
        "[A-Za-z0-9+/\n]{64,200}".prop_map(|body| {
            (
                format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----"),
                body,
            )
        }),
    ]
}

/// Words, signs and numbers, but no label.
fn around() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zß ,.]{0,40}", "[ -~]{0,30}", "(?s).{0,30}"]
}

proptest! {
    #[test]
    fn any_text_is_taken_and_a_clean_one_stays(text in "(?s).{0,200}") {
        let once = scrubbed(&text).into_owned();
        prop_assert_eq!(scrubbed(&once), once.as_str());
    }

    #[test]
    fn a_secret_of_any_shape_never_stays(before in around(), (text, secret) in secret(), after in around()) {
        let text = format!("{before} {text} {after}");
        prop_assert!(!scrubbed(&text).contains(&secret), "{}\n{}", text, scrubbed(&text));
    }

    #[test]
    fn benign_text_stays(
        words in prop::collection::vec("[A-Z]?[a-z]{1,14}[,.]?", 1..20),
        id in any::<u128>(),
        digest in "[0-9a-f]{64}",
        path in "[a-z]{1,10}/[a-z0-9]{1,6}-[a-z0-9-]{1,9}",
    ) {
        let id = uuid::Uuid::from_u128(id);
        let words = words.join(" ");
        let text = format!("{words}; run {id}, document {digest} at https://host.example:8443/{path}?page=2#{words}");
        prop_assert_eq!(scrubbed(&text), text.as_str());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn it_takes_no_longer_than_the_text_is_long(
        part in "[:/=@\" -]{1,4}|key=|key=a\\.|://|://:a/|sk-|bearer |-----BEGIN |-----BEGIN PRIVATE KEY|password=\\[secret\\]|password: |token:token:|\"password\": \"\\\\",
    ) {
        // Quadratic work on so much text would not end within a test's time.
        let text = part.repeat(100_000 / part.len());
        prop_assert!(scrubbed(&text).len() <= text.len() * SECRET.len());
    }
}
