//! Over a real socket: a stop that lets readers end.

use std::{sync::atomic::Ordering, time::Duration};

use stepgraph_nodes::service::tls;
use stepgraph_server::HttpSettings;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
    sync::oneshot,
};

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

#[tokio::test]
async fn a_reader_who_does_not_read_holds_up_nobody_and_what_waits_for_it_is_bounded() {
    const PIECE: &str = "thirty-two bytes of an answer. \n";
    const TEXT_BYTES_MAX: usize = 1024 * 1024;
    /// Events between the run and its log, one at its sender's hand and one in the server's.
    const ON_THEIR_WAY: usize = 66;
    let house = House::new().await;
    house.chat.script("flood", &[Step::SayForEver(PIECE)]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(house.server.clone().serve(listener, async move {
        let _ = stopped.await;
    }));
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut reader = socket.connect(address).await.unwrap();
    let body = chat_body("flood").to_string();
    let request = format!(
        "POST /chat/stream HTTP/1.1\r\nhost: {address}\r\nx-api-key: {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        house.key,
        body.len()
    );
    reader.write_all(request.as_bytes()).await.unwrap();

    // The run comes to its limit and is ended though nobody reads; another is answered meanwhile.
    FakeChat::reaches(&house.chat.cancelled, 1).await;
    assert_eq!(house.say("hi").await.json()["response"], "Hello world");

    let said = house.chat.said.load(Ordering::SeqCst);
    let most = TEXT_BYTES_MAX / PIECE.len();
    assert!((most..=most + ON_THEIR_WAY).contains(&said), "{said} of {most}");
    let mut all = Vec::new();
    reader.read_to_end(&mut all).await.unwrap();
    let all = String::from_utf8(all).unwrap();
    assert_eq!(
        all.matches("thirty-two bytes").count(),
        most,
        "all that was kept is told"
    );
    assert!(all.contains("the answer became too long"), "and how it ended");
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}
