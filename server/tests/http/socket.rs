//! Over a real socket: a stop that lets readers end.

use std::time::Duration;

use stepgraph_nodes::service::tls;
use stepgraph_server::HttpSettings;
use tokio::sync::oneshot;

use crate::{
    fakes::{FakeChat, Step},
    house::{House, chat_body},
};

fn client() -> reqwest::Client {
    tls::install();
    reqwest::Client::new()
}

#[tokio::test]
async fn a_stop_lets_an_open_stream_end_and_takes_no_new_caller() {
    let house = House::new().await;
    house.chat.script(
        "hi",
        &[Step::Say("Hel"), Step::Gate, Step::Say("lo"), Step::Answer("Hello")],
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(house.server.clone().serve(listener, async move {
        let _ = stopped.await;
    }));
    let http = client();
    let ask = || {
        http.post(format!("{origin}/chat/stream"))
            .header("x-api-key", &house.key)
            .json(&chat_body("hi"))
            .send()
    };
    let stream = ask().await.unwrap();

    stop.send(()).unwrap();
    // The listener is closed once a new connection is refused.
    while client().get(format!("{origin}/health")).send().await.is_ok() {}
    house.chat.gate.add_permits(1);
    let text = stream.text().await.unwrap();

    assert!(text.ends_with("event: done\ndata: [DONE]\n\n"), "{text}");
    serving.await.unwrap().unwrap();
    assert_eq!(*house.chat.ended.borrow(), 1);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let house = House::with(HttpSettings {
        drain_limit: Duration::from_millis(50),
        ..HttpSettings::default()
    })
    .await;
    house.chat.script("hi", &[Step::Say("Hel"), Step::Gate]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(house.server.clone().serve(listener, async move {
        let _ = stopped.await;
    }));
    let mut body = chat_body("hi");
    body["clientId"] = "acme".into();
    let request = client()
        .post(format!("{origin}/chat/stream"))
        .header("x-internal-secret", crate::house::SECRET);
    let _stream = request.json(&body).send().await.unwrap();
    FakeChat::reaches(&house.chat.begun, 1).await;

    stop.send(()).unwrap();

    serving.await.unwrap().unwrap();
}
