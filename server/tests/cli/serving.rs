//! `stepgraph serve` and `stepgraph demo`: ready, useful, alone on their folder, and gone when asked.

use std::net::TcpListener;

use serde_json::{Value, json};

use super::support::{Home, Running};

fn ready(running: &mut Running) -> Value {
    serde_json::from_str(&running.line()).unwrap()
}

fn call(request: impl FnOnce(&reqwest::Client) -> reqwest::RequestBuilder) -> (u16, String) {
    stepgraph_nodes::service::tls::install();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let answer = request(&reqwest::Client::new()).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    })
}

#[test]
fn the_demo_answers_from_its_documents_and_keeps_its_key() {
    let home = Home::new();
    let mut demo = home.start(["demo", "--json"]);
    let told = ready(&mut demo);
    let (url, key) = (told["url"].as_str().unwrap(), told["key"].as_str().unwrap());
    let ask = |message: &str| {
        let body = json!({ "sessionId": uuid::Uuid::new_v4(), "message": message });
        call(|client| {
            client
                .post(format!("{url}/api/widget/chat"))
                .header("x-api-key", key)
                .json(&body)
        })
    };

    let (status, answered) = ask("how long is the warranty?");
    let (_, unanswered) = ask("Which moons of Jupiter did Galileo discover?");
    let (page_status, page) = call(|client| client.get(told["page"].as_str().unwrap()));

    let answered: Value = serde_json::from_str(&answered).unwrap();
    assert_eq!(
        (status, &answered["sources"][0]["documentId"]),
        (200, &json!("warranty-and-returns")),
        "{answered}"
    );
    assert!(
        answered["response"].as_str().unwrap().contains("36 months"),
        "{answered}"
    );
    assert_eq!(
        serde_json::from_str::<Value>(&unanswered).unwrap()["sources"],
        json!([])
    );
    assert!(page_status == 200 && page.contains(key), "{page_status}");
    assert_eq!(demo.signal("TERM").code, Some(0));
    assert_eq!(ready(&mut home.start(["demo", "--json"]))["key"], key);
}

#[test]
fn the_lines_to_paste_carry_address_and_key() {
    let home = Home::new();
    let mut demo = home.start(["demo", "--json"]);

    let told = ready(&mut demo);

    let lines = told["curl"].as_array().unwrap();
    assert_eq!(lines.len(), 3);
    for line in lines {
        let line = line.as_str().unwrap();
        assert!(
            line.contains(told["url"].as_str().unwrap()) && line.contains(told["key"].as_str().unwrap()),
            "{line}"
        );
    }
}

#[test]
fn a_folder_that_a_server_uses_is_refused_to_others_but_can_be_searched() {
    let home = Home::with_tenant();
    let queries = home.write("queries.jsonl", "{\"id\": \"q\", \"text\": \"anything\"}\n");
    let mut server = home.start(["serve", "--port", "0", "--json"]);
    ready(&mut server);

    let refused = [
        home.run(["tenant", "add", "late"]).refused(),
        home.run(["chat", "--tenant", "acme", "hello?"]).refused(),
        home.run(["serve", "--port", "0"]).refused(),
    ];

    for ran in refused {
        assert!(
            ran.stderr.contains("in use by `stepgraph serve`") && ran.stderr.contains("--data"),
            "{ran:?}"
        );
    }
    home.run([
        "search".as_ref(),
        "--tenant".as_ref(),
        "acme".as_ref(),
        "--queries".as_ref(),
        queries.as_os_str(),
    ])
    .ok();
    home.run(["doctor"]).ok();
    assert_eq!(server.signal("INT").code, Some(0));
}

#[test]
fn a_port_that_is_taken_is_said_before_any_work() {
    let home = Home::new();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port().to_string();

    let ran = home.run(["demo", "--port", &port]).refused();

    assert!(
        ran.stderr.contains(&format!("port {port} on 127.0.0.1 is taken")),
        "{ran:?}"
    );
}

#[test]
fn an_unknown_model_makes_no_data_folder() {
    let home = Home::new();

    let ran = home.run(["demo", "--model", "no-such-model"]).refused();

    assert!(ran.stderr.contains("unknown model"), "{ran:?}");
    assert!(!home.data().exists());
}
