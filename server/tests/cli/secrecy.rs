//! What is secret or private never shows in what the program says about its work: a full run is scanned, with a mark in
//! everything that must stay inside.

use std::{process::Command, sync::mpsc, thread};

use axum::{Json, Router, http::StatusCode, response::IntoResponse, routing::post};
use serde_json::{Value, json};

use super::support::{Home, Ran, Running};

/// Everything that must not be printed, by what it is. Each is looked for as it is.
const MARKS: [(&str, &str); 11] = [
    ("the internal secret", "mark-internal-7f31c2"),
    ("the provider's key", "sk-mark-provider-90ab17"),
    ("a wrong key", "pk_live_markwrong55d0"),
    ("a key in the query", "pk_live_markquery1188"),
    ("a message", "markmessagezebra"),
    ("a system message", "markpromptwalrus"),
    ("a document", "markdocumentheron"),
    ("a database's password", "markpasswordotter"),
    ("a comment", "markcommentbadger"),
    ("a Qdrant's key", "markqdrantgecko"),
    ("a session's fields", "markfieldslemur"),
];

fn mark(what: &str) -> &'static str {
    MARKS.iter().find(|(name, _)| *name == what).unwrap().1
}

/// All that was printed, by what printed it.
#[derive(Default)]
struct Printed(Vec<(String, String)>);

impl Printed {
    /// What a command says about its work. Its data is on standard output, and is what it was asked for.
    fn add(&mut self, name: &str, ran: &Ran) {
        self.0.push((name.to_owned(), ran.stderr.clone()));
    }

    fn scan(&self, more: &[(&str, String)]) {
        let marks = MARKS.iter().map(|(what, mark)| (*what, (*mark).to_owned()));
        for (what, mark) in marks.chain(more.iter().cloned()) {
            for (name, text) in &self.0 {
                let line = text.lines().find(|line| line.contains(&mark));
                assert_eq!(line, None, "{what} is printed by {name}");
            }
        }
    }
}

/// A provider that quotes what it was sent when it refuses, as some do, in the answer or in the middle of it.
fn provider() -> String {
    async fn refuse(Json(request): Json<Value>) -> impl IntoResponse {
        let said = request["messages"].to_string();
        let error = json!({ "error": { "message": format!("cannot answer {said}"), "type": "invalid_request_error" } });
        if said.contains("midway") {
            let piece = json!({ "choices": [{ "index": 0, "delta": { "content": "It is" } }] });
            let body = format!("data: {piece}\n\ndata: {error}\n\n");
            return ([("content-type", "text/event-stream")], body).into_response();
        }
        (StatusCode::BAD_REQUEST, Json(error)).into_response()
    }
    let (address, told) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            address.send(listener.local_addr().unwrap()).unwrap();
            let router = Router::new().route("/v1/chat/completions", post(refuse));
            axum::serve(listener, router).await.unwrap();
        });
    });
    format!("http://{}/v1", told.recv().unwrap())
}

struct Server {
    running: Running,
    url: String,
    key: String,
}

impl Server {
    fn call(&self, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        stepgraph_nodes::service::tls::install();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let mut request = reqwest::Client::new().post(format!("{}{path}", self.url));
            request = request.header("content-type", "application/json").body(body.to_owned());
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        })
    }

    fn ask(&self, path: &str, message: &str) -> (u16, String) {
        let body = json!({
            "sessionId": uuid::Uuid::new_v4(), "message": message,
            "metadata": { "customFields": { "note": mark("a session's fields") } },
        });
        self.call(path, &[("x-api-key", &self.key)], &body.to_string())
    }
}

fn logging(mut command: Command, format: &str) -> Command {
    command
        .env("RUST_LOG", "info")
        .env("STEPGRAPH_LOG_FORMAT", format)
        .env("INTERNAL_API_SECRET", mark("the internal secret"))
        .env("OPENAI_API_KEY", mark("the provider's key"));
    command
}

/// Tenant, documents and settings by the commands.
fn prepared(home: &Home, format: &str, printed: &mut Printed) -> String {
    let mut run = |arguments: &[&str]| {
        let ran = Ran::of(&mut logging(home.command(arguments), format));
        printed.add(&arguments.join(" "), &ran);
        ran
    };
    let added = run(&["tenant", "add", "acme", "--tier", "paid", "--json"]).ok();
    let key = added.json()[0]["key"].as_str().unwrap().to_owned();
    let prompt = format!("system-prompt=Never say {} aloud, please.", mark("a system message"));
    run(&["tenant", "set", "acme", &prompt, "--json"]).ok();
    let text = format!("The warranty of the {} lasts 36 months.", mark("a document"));
    let file = home.write("warranty.txt", &text);
    run(&["ingest", file.to_str().unwrap(), "--tenant", "acme"]).ok();
    let bulk = home.write(
        "bulk.jsonl",
        json!({ "id": "b", "title": "t", "text": text }).to_string(),
    );
    run(&["ingest", bulk.to_str().unwrap(), "--tenant", "acme"]).ok();
    let broken = home.write("broken.pdf", format!("%PDF-1.7\n{text}"));
    run(&["ingest", broken.to_str().unwrap(), "--tenant", "acme"]);
    let line = home.write("line.jsonl", format!("{{\"id\": 7, \"text\": \"{text}\""));
    run(&["ingest", line.to_str().unwrap(), "--tenant", "acme"]);
    let question = format!("how long is the warranty of {}?", mark("a message"));
    let chat = ["chat", "--tenant", "acme", &question];
    printed.add(
        "chat",
        &Ran::of(logging(home.command(chat), format).env("STEPGRAPH_MODEL", "extractive")),
    );
    printed.add("doctor", &Ran::of(&mut logging(home.command(["doctor"]), format)));
    key
}

/// Commands whose servers are not there, with a password in each address.
fn failing(home: &Home, format: &str, printed: &mut Printed) {
    let password = mark("a database's password");
    for (setting, scheme) in [
        ("DATABASE_URL", "postgres"),
        ("REDIS_URL", "redis"),
        ("STEPGRAPH_CHECKPOINTS_URL", "postgres"),
        ("STEPGRAPH_CHECKPOINTS_URL", "redis"),
        ("DATABASE_URL", "mysql"),
    ] {
        let address = format!("{scheme}://user:{password}@127.0.0.1:1/db");
        for arguments in [&["doctor"][..], &["chat", "--tenant", "acme", "hello?"]] {
            let mut command = logging(home.command(arguments), format);
            command.env("STEPGRAPH_MODEL", "extractive").env(setting, &address);
            let ran = Ran::of(&mut command);
            printed.add(&format!("{arguments:?} with {setting} of {scheme}"), &ran);
            printed.0.push((format!("{arguments:?}"), ran.stdout));
        }
    }
    let mut command = logging(home.command(["doctor"]), format);
    command
        .env("QDRANT_URL", "http://127.0.0.1:1")
        .env("QDRANT_API_KEY", mark("a Qdrant's key"));
    let ran = Ran::of(&mut command);
    printed.add("doctor with a Qdrant", &ran);
    printed.0.push(("doctor with a Qdrant".to_owned(), ran.stdout));
}

fn served(home: &Home, format: &str, key: &str, more: &[(&str, &str)]) -> Server {
    let mut command = logging(home.command(["serve", "--port", "0", "--json"]), format);
    command.envs(more.iter().copied());
    let mut running = Running::of(&mut command);
    let told: Value = serde_json::from_str(&running.line()).unwrap();
    Server {
        url: told["url"].as_str().unwrap().to_owned(),
        running,
        key: key.to_owned(),
    }
}

/// Every way in, well and badly used.
fn used(server: &Server) {
    let message = mark("a message");
    let (status, answer) = server.ask("/api/widget/chat", &format!("say:\"{message}\""));
    assert!(status == 200 && answer.contains(message), "{answer}");
    let trace: Value = serde_json::from_str(&answer).unwrap();
    for text in [
        format!("how long is the warranty of {message}?"),
        format!("fail:LLM_ERROR {message}"),
        "fail:LLM_ERROR".to_owned(),
        "failmid:LLM_ERROR".to_owned(),
        "echo-prompt:".to_owned(),
        message.repeat(200),
    ] {
        server.ask("/chat", &text);
        server.ask("/chat/stream", &text);
    }
    let secret = [("x-internal-secret", mark("the internal secret"))];
    let document = |id: &str, kind: &str, data: &str| {
        json!({ "documentId": id, "clientId": "acme", "fileData": data, "fileType": kind, "originalName": "w" })
            .to_string()
    };
    // "The markdocumentheron is repaired free of charge."
    let data = "VGhlIG1hcmtkb2N1bWVudGhlcm9uIGlzIHJlcGFpcmVkIGZyZWUgb2YgY2hhcmdlLg==";
    let (status, reply) = server.call("/process-document", &secret, &document("uploaded", "txt", data));
    assert!(status == 200 && reply.contains("\"success\":true"), "{reply}");
    server.call("/process-document", &secret, &document("hostile", "pdf", data));
    server.call(
        "/process-document",
        &secret,
        &document("torn", "docx", mark("a document")),
    );
    let feedback = json!({ "traceId": trace["traceId"], "rating": "up", "comment": mark("a comment") }).to_string();
    let key = [("x-api-key", server.key.as_str())];
    assert_eq!(server.call("/feedback", &key, &feedback).0, 200);
    let texts = json!({ "clientId": "acme", "texts": [mark("a document")] }).to_string();
    server.call("/embed", &secret, &texts);
    for (path, headers, body) in [
        ("/chat", [("x-api-key", mark("a wrong key"))], "{}".to_owned()),
        ("/chat", [("x-internal-secret", mark("a wrong key"))], "{}".to_owned()),
        (
            "/chat",
            key,
            format!("{{\"message\": \"{message}\", \"sessionId\": 7}}"),
        ),
        ("/chat", key, format!("{{\"message\": \"{message}")),
        (
            "/internal/validate-client",
            secret,
            json!({ "apiKey": mark("a wrong key") }).to_string(),
        ),
    ] {
        server.call(path, &headers, &body);
    }
    let query = format!("/internal/validate-client?apiKey={}", mark("a key in the query"));
    server.call(&query, &secret, "{}");
    server.call(
        &format!("/nowhere/{}?key={}", mark("a wrong key"), mark("a key in the query")),
        &[],
        "{}",
    );
}

fn a_full_run_prints_nothing_private(format: &str) {
    let (home, mut printed) = (Home::new(), Printed::default());
    let key = prepared(&home, format, &mut printed);
    failing(&home, format, &mut printed);

    let server = served(&home, format, &key, &[("STEPGRAPH_MODEL", "scripted")]);
    used(&server);
    let ended = server.running.signal("TERM");
    assert!(ended.stderr.contains("answered"), "it logs at all: {ended:?}");
    if format == "json" {
        let mut lines = ended.stderr.lines().filter(|line| !line.starts_with("stopping"));
        assert!(
            lines.all(|line| serde_json::from_str::<Value>(line).is_ok()),
            "{ended:?}"
        );
    }
    printed.0.push(("serve".to_owned(), ended.stdout + &ended.stderr));

    let quoting = provider();
    let settings = [
        ("OPENAI_BASE_URL", quoting.as_str()),
        ("STEPGRAPH_MODEL", "gpt-4o-mini"),
    ];
    let server = served(&home, format, &key, &settings);
    for how in ["at once", "midway"] {
        let about = "is it true that the warranty of the";
        let (document, message) = (mark("a document"), mark("a message"));
        let question = format!("{about} {document} lasts 36 months, {message}, {how}?");
        let (status, answer) = server.ask("/chat", &question);
        assert_ne!(status, 200, "{answer}");
        server.ask("/chat/stream", &question);
    }
    let ended = server.running.signal("TERM");
    assert!(ended.stderr.contains("no answer"), "the failure is told: {ended:?}");
    printed.0.push((
        "serve with a provider that quotes".to_owned(),
        ended.stdout + &ended.stderr,
    ));

    printed.scan(&[("the tenant's key", key)]);
}

#[test]
fn at_info_level_no_secret_message_or_document_is_printed_as_text() {
    a_full_run_prints_nothing_private("text");
}

#[test]
fn at_info_level_no_secret_message_or_document_is_printed_as_json() {
    a_full_run_prints_nothing_private("json");
}
