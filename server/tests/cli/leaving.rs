//! A reader who leaves: the model is not asked to say the rest.

use reqwest::{Client, Response};
use serde_json::{Value, json};
use stepgraph_nodes::service::tls;
use uuid::Uuid;

use crate::support::{Home, Running};

const SECRET: &str = "the secret of the server";

struct Server {
    url: String,
    key: String,
    http: Client,
    _running: Running,
    _home: Home,
}

impl Server {
    fn start() -> Self {
        tls::install();
        let home = Home::new();
        let added = home.run(["tenant", "add", "acme", "--json"]).ok().json().remove(0);
        let mut command = home.command(["serve", "--port", "0", "--model", "scripted", "--json"]);
        // Nobody reads its log, which would stand still with a line for each time it is asked how chats have ended.
        command.env("INTERNAL_API_SECRET", SECRET).env("RUST_LOG", "warn");
        let mut running = Running::of(&mut command);
        let ready: Value = serde_json::from_str(&running.line()).unwrap();
        Self {
            url: ready["url"].as_str().unwrap().to_owned(),
            key: added["key"].as_str().unwrap().to_owned(),
            http: Client::new(),
            _running: running,
            _home: home,
        }
    }

    /// Opens a stream of an answer for which the model takes so long, and reads its beginning.
    async fn begun(&self, header: (&str, &str), model_ms: u32) -> Response {
        let body =
            json!({"clientId": "acme", "message": format!("slow:{model_ms}:words"), "sessionId": Uuid::new_v4()});
        let request = self
            .http
            .post(format!("{}/chat/stream", self.url))
            .header(header.0, header.1);
        let mut response = request.json(&body).send().await.unwrap();
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains("event: start") {
            read.extend(response.chunk().await.unwrap().unwrap());
        }
        response
    }

    /// How chats have ended so far, once there is one that has.
    async fn ended(&self) -> String {
        loop {
            let request = self
                .http
                .get(format!("{}/metrics", self.url))
                .header("x-internal-secret", SECRET);
            let metrics = request.send().await.unwrap().text().await.unwrap();
            let ended = metrics
                .lines()
                .filter(|line| line.starts_with("stepgraph_chats_total{"));
            let ended: Vec<_> = ended.collect();
            if !ended.is_empty() {
                return ended.join("\n");
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_direct_reader_who_leaves_takes_the_models_answer_along() {
    let server = Server::start();
    // Longer than the whole budget of an answer, which is 28 seconds.
    let stream = server.begun(("x-api-key", &server.key), 60_000).await;
    drop(stream);

    let ended = server.ended().await;

    // Left alone it would have ended by its budget, as an answer that was cut.
    assert!(!ended.contains("answered") && !ended.contains("TIMEOUT"), "{ended}");
}

#[tokio::test]
async fn the_internal_service_does_not_tell_when_its_reader_leaves_and_the_answer_is_made_all_the_same() {
    let server = Server::start();
    let stream = server.begun(("x-internal-secret", SECRET), 1_500).await;
    drop(stream);

    let ended = server.ended().await;

    assert!(ended.contains("outcome=\"answered\"} 1"), "{ended}");
}
