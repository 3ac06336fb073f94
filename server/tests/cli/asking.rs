//! `stepgraph chat` and `stepgraph search` over ingested documents.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    thread,
};

use super::support::{Home, Ran, knowledge};

fn home_with_knowledge() -> Home {
    let home = Home::with_tenant();
    home.run([
        "ingest".as_ref(),
        knowledge().as_os_str(),
        "--tenant".as_ref(),
        "acme".as_ref(),
    ])
    .ok();
    home
}

#[test]
fn a_question_is_answered_with_its_source_and_an_unanswered_one_without() {
    let home = home_with_knowledge();

    let answered = home.run(["chat", "--tenant", "acme", "how long is the warranty?"]).ok();
    let unanswered = home
        .run([
            "chat",
            "--tenant",
            "acme",
            "Which moons of Jupiter did Galileo discover?",
            "--json",
        ])
        .ok();

    assert!(answered.stdout.contains("36 months"), "{answered:?}");
    assert!(
        answered.stdout.contains("Sources") && answered.stdout.contains("warranty-and-returns"),
        "{answered:?}"
    );
    assert_eq!(unanswered.json()[0]["sources"], serde_json::json!([]));
    assert_eq!(unanswered.json()[0]["model"], "extractive");
}

#[test]
fn a_second_turn_has_an_answer_and_sources_of_its_own() {
    let home = home_with_knowledge();
    let first = home
        .run(["chat", "--tenant", "acme", "how long is the warranty?", "--json"])
        .ok()
        .json()
        .remove(0);
    let session = first["session"].as_str().unwrap();

    let second = home
        .run([
            "chat",
            "--tenant",
            "acme",
            "--session",
            session,
            "what does a scale filter cost?",
            "--json",
        ])
        .ok()
        .json()
        .remove(0);

    assert_eq!(second["session"], session);
    assert!(!second["answer"].as_str().unwrap().contains("36 months"), "{second}");
}

#[test]
fn search_answers_one_line_a_query_and_nothing_of_other_tenants() {
    let home = home_with_knowledge();
    home.run(["tenant", "add", "other"]).ok();
    let queries = home.write(
        "queries.jsonl",
        "{\"id\": \"q1\", \"text\": \"length of the warranty\"}\n{\"id\": \"q2\", \"text\": \"scale filter\"}\n",
    );
    let search = |tenant: &str| {
        home.run([
            "search".as_ref(),
            "--tenant".as_ref(),
            tenant.as_ref(),
            "--queries".as_ref(),
            queries.as_os_str(),
            "--top".as_ref(),
            "3".as_ref(),
        ])
        .ok()
        .json()
    };

    let (own, others) = (search("acme"), search("other"));

    assert_eq!(
        own.iter()
            .map(|answer| answer["id"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["q1", "q2"]
    );
    assert_eq!(own[0]["hits"][0]["document_id"], "warranty-and-returns");
    assert!(own[0]["hits"][0]["score"].as_f64().unwrap() >= own[0]["hits"][1]["score"].as_f64().unwrap());
    assert!(
        others.iter().all(|answer| answer["hits"] == serde_json::json!([])),
        "{others:?}"
    );
}

#[test]
fn a_scripted_model_does_as_the_message_says_even_without_documents() {
    let home = Home::with_tenant();
    let ask = |message: &str| home.run(["chat", "--tenant", "acme", "--model", "scripted", "--json", message]);

    assert_eq!(ask("say:\"as told\"").ok().json()[0]["answer"], "as told");
    assert_eq!(ask("src:").ok().json()[0]["sources"].as_array().unwrap().len(), 2);
    let failed = ask("fail:LLM_ERROR");
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stderr.contains("LLM_ERROR"), "{failed:?}");
}

#[test]
fn a_data_folder_that_is_not_there_is_not_made_by_a_question() {
    let home = Home::new();

    let ran = home.run(["chat", "--tenant", "acme", "hello?"]).refused();

    assert!(
        ran.stderr.contains("there is no data folder") && ran.stderr.contains("stepgraph demo"),
        "{ran:?}"
    );
    assert!(!home.data().exists());
}

#[test]
fn an_unknown_model_is_refused_with_the_ones_there_are() {
    let home = Home::with_tenant();

    let ran = home
        .run(["chat", "--tenant", "acme", "--model", "no-such-model", "hello?"])
        .refused();

    assert!(
        ran.stderr
            .contains("unknown model `no-such-model`: use extractive or scripted"),
        "{ran:?}"
    );
}

/// A provider that refuses every key.
fn provider_that_refuses() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let body = r#"{"error": {"message": "Incorrect API key provided", "type": "invalid_request_error", "param": null, "code": "invalid_api_key"}}"#;
            let _ = write!(
                stream,
                "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    url
}

#[test]
fn a_wrong_key_of_the_provider_is_said_in_one_sentence() {
    let home = home_with_knowledge();
    let mut command = home.command(["chat", "--tenant", "acme", "how long is the warranty?"]);
    command
        .env("OPENAI_BASE_URL", provider_that_refuses())
        .env("OPENAI_API_KEY", "sk-hush");

    let ran = Ran::of(&mut command).refused();

    assert!(ran.stderr.contains("key"), "{ran:?}");
    assert!(!ran.stderr.contains("sk-hush"), "{ran:?}");
}
