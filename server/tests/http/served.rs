//! Graphs as threads and runs: whose they are, who may call, and what outlives the process.

use axum::http::Method;
use serde_json::{Value, json};
use stepgraph::Memory;
use stepgraph_checkpoint::Sqlite;
use tempfile::TempDir;

use crate::{
    graphs::{ACME, GLOBEX, Served, reaches},
    house,
};

#[tokio::test]
async fn a_thread_is_made_once_or_with_its_first_run_and_keeps_its_graph() {
    let served = Served::new().await;
    let id = "01900000-0000-7000-8000-000000000001";
    let thread = format!("/threads/{id}");
    let body =
        json!({"assistant_id": "counter_loop", "input": {}, "if_not_exists": "create", "metadata": {"of": "me"}});

    served.wait(&thread, body).await.ok();

    assert_eq!(served.get(&thread).await.ok()["metadata"]["of"], "me");
    let again = served.post("/threads", json!({"thread_id": id})).await;
    assert_eq!(again.refusal(), (409, "thread_exists".to_owned()));
    let kept = served
        .post("/threads", json!({"thread_id": id, "if_exists": "do_nothing"}))
        .await
        .ok();
    assert_eq!(kept["values"]["count"], 3);
    let other = served
        .wait(&thread, json!({"assistant_id": "echo", "input": {"said": "x"}}))
        .await;
    assert_eq!(other.refusal(), (409, "other_graph".to_owned()));
}

#[tokio::test]
async fn another_tenants_thread_is_none_on_every_route() {
    let served = Served::new().await;
    let thread = served.thread().await;
    served
        .wait(
            &thread,
            json!({"assistant_id": "approval", "input": {"draft": "secret"}}),
        )
        .await
        .ok();
    let state = served.get(&format!("{thread}/state")).await.ok();
    let checkpoint = state["checkpoint_id"].as_str().unwrap();
    let run = json!({"assistant_id": "approval", "command": {"resume": true}});
    let calls = [
        (Method::GET, thread.clone(), Value::Null),
        (Method::GET, format!("{thread}/state"), Value::Null),
        (Method::GET, format!("{thread}/state/{checkpoint}"), Value::Null),
        (
            Method::POST,
            format!("{thread}/state/checkpoint"),
            json!({"checkpoint": {"checkpoint_id": checkpoint}}),
        ),
        (Method::GET, format!("{thread}/history"), Value::Null),
        (Method::POST, format!("{thread}/history"), json!({})),
        (
            Method::POST,
            format!("{thread}/state"),
            json!({"values": {}, "as_node": "write"}),
        ),
        (Method::POST, format!("{thread}/runs/wait"), run.clone()),
        (Method::POST, format!("{thread}/runs/stream"), run),
    ];
    for (method, path, body) in calls {
        let theirs = served.call(GLOBEX, method.clone(), &path, &body).await;
        assert_eq!(theirs.refusal(), (404, "unknown_thread".to_owned()), "{method} {path}");
        let nobodys = served.call("another-key", method.clone(), &path, &body).await;
        assert_eq!(nobodys.refusal().0, 401, "{method} {path}");
    }
    // The same id is a thread of its own for each tenant.
    let id = thread.rsplit('/').next().unwrap();
    let theirs = served
        .call(GLOBEX, Method::POST, "/threads", &json!({"thread_id": id}))
        .await
        .ok();
    assert_eq!(theirs["values"], Value::Null);
    assert_eq!(served.get(&thread).await.ok()["status"], "interrupted");
}

#[tokio::test]
async fn clients_find_the_graphs_as_assistants() {
    let served = Served::new().await;
    assert_eq!(served.get("/ok").await.ok(), json!({"ok": true}));
    assert_eq!(served.get("/info").await.ok()["flags"]["assistants"], true);

    let page = served.post("/assistants/search", json!({"limit": 2})).await;
    assert_eq!(page.header("x-pagination-total"), Some("8"));
    assert_eq!(page.header("x-pagination-next"), Some("2"));
    let one = served
        .post("/assistants/search", json!({"graph_id": "counter_loop"}))
        .await
        .ok();
    let id = one[0]["assistant_id"].as_str().unwrap();
    let expected = uuid::Uuid::new_v5(&uuid::uuid!("6ba7b821-9dad-11d1-80b4-00c04fd430c8"), b"counter_loop");
    assert_eq!(id, expected.to_string());
    assert_eq!(
        served
            .post("/assistants/count", json!({"metadata": {"created_by": "me"}}))
            .await
            .ok(),
        0
    );
    assert_eq!(served.get(&format!("/assistants/{id}")).await.ok(), one[0]);

    let graph = served.get("/assistants/counter_loop/graph").await.ok();
    let nodes: Vec<_> = graph["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["id"].clone())
        .collect();
    assert_eq!(nodes, ["__start__", "inc", "__end__"]);
    let edges = graph["edges"].as_array().unwrap();
    assert!(
        edges.contains(&json!({"source": "__start__", "target": "inc"})),
        "{edges:?}"
    );
    assert!(
        edges.contains(&json!({"source": "inc", "target": "inc", "conditional": true, "data": "more"})),
        "{edges:?}"
    );
    let schemas = served.get(&format!("/assistants/{id}/schemas")).await.ok();
    assert_eq!(schemas["input_schema"]["properties"]["limit"]["default"], 3);
    assert!(schemas["state_schema"]["properties"]["trail"].is_object());
    assert_eq!(
        served.get("/assistants/echo/schemas").await.ok()["input_schema"],
        Value::Null
    );
    assert_eq!(served.get("/assistants/nobody/graph").await.refusal().0, 404);
}

#[tokio::test]
async fn a_second_run_waits_its_turn_or_is_refused() {
    let served = std::sync::Arc::new(Served::new().await);
    let thread = served.thread().await;
    let run = |text: &str, strategy: &str| json!({"assistant_id": "gated", "input": {"text": text}, "multitask_strategy": strategy});
    let start = |body: Value| {
        let (served, thread) = (std::sync::Arc::clone(&served), thread.clone());
        tokio::spawn(async move { served.wait(&thread, body).await.ok() })
    };
    let first = start(run("one", "enqueue"));
    reaches(&served.gate.begun, 1).await;

    let refused = served.wait(&thread, run("no", "reject")).await;
    assert_eq!(refused.refusal(), (409, "run::busy".to_owned()));
    assert_eq!(served.get(&thread).await.ok()["status"], "busy");
    let second = start(run("two", "enqueue"));
    served.gate.permits.add_permits(2);

    assert_eq!(first.await.unwrap()["trail"], json!(["one"]));
    assert_eq!(second.await.unwrap()["trail"], json!(["one", "two"]));
}

#[tokio::test]
async fn a_reader_that_leaves_stops_its_run_only_if_it_said_so() {
    let served = Served::new().await;
    for (on_disconnect, status) in [("cancel", "interrupted"), ("continue", "idle")] {
        let thread = served.thread().await;
        let begun = *served.gate.begun.borrow() + 1;
        let body = json!({"assistant_id": "gated", "input": {"text": "t"}, "on_disconnect": on_disconnect});
        let request = house::request(
            Method::POST,
            &format!("{thread}/runs/stream"),
            &[("x-api-key", ACME)],
            body.to_string(),
        );
        let response = tower::ServiceExt::oneshot(served.router.clone(), request)
            .await
            .unwrap();
        reaches(&served.gate.begun, begun).await;
        drop(response);
        if on_disconnect == "cancel" {
            reaches(&served.gate.cancelled, 1).await;
        } else {
            served.gate.permits.add_permits(1);
            reaches(&served.gate.ended, 1).await;
        }
        // The run's last word is written after its node has ended.
        let mut seen = served.get(&thread).await.ok()["status"].clone();
        while seen == "busy" {
            tokio::task::yield_now().await;
            seen = served.get(&thread).await.ok()["status"].clone();
        }
        assert_eq!(seen, status);
    }
}

#[tokio::test]
async fn pages_of_named_origins_may_call_and_others_may_not() {
    let served = Served::new().await;
    let preflight = |origin: &'static str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "x-api-key"),
            ("access-control-request-private-network", "true"),
        ];
        house::request(Method::OPTIONS, "/threads", &headers, String::new())
    };

    let known = served.send(preflight("https://studio.example")).await;
    let unknown = served.send(preflight("https://evil.example")).await;

    assert_eq!(
        known.header("access-control-allow-origin"),
        Some("https://studio.example")
    );
    assert_eq!(known.header("access-control-allow-private-network"), Some("true"));
    assert_eq!(unknown.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn a_run_that_a_killed_process_has_left_is_gone_on_with_at_the_next_start() {
    let folder = TempDir::new().unwrap();
    let pool = house::pool(&folder).await;
    let first = Served::over(Sqlite::new(pool.clone()).await.unwrap(), folder).await;
    let thread = first.thread().await;
    let body = json!({"assistant_id": "gated", "input": {"text": "t"}});
    let request = house::request(
        Method::POST,
        &format!("{thread}/runs/stream"),
        &[("x-api-key", ACME)],
        body.to_string(),
    );
    let _reading = tower::ServiceExt::oneshot(first.router.clone(), request).await.unwrap();
    reaches(&first.gate.begun, 1).await;

    // A second server on the same files: the first has never said that its run is over.
    let records = stepgraph_nodes::service::embedded::SqliteRecords::open(pool.clone())
        .await
        .unwrap();
    let second = first.again(Sqlite::new(pool).await.unwrap(), records);
    second.server.start_workers();
    reaches(&second.gate.begun, 1).await;
    second.gate.permits.add_permits(1);
    reaches(&second.gate.ended, 1).await;
    second.server.drain().await;

    let kept = second.get(&thread).await.ok();
    assert_eq!(
        (&kept["status"], &kept["values"]["trail"]),
        (&json!("idle"), &json!(["t"]))
    );
}

#[tokio::test]
async fn a_server_says_what_it_lacks() {
    use stepgraph_server::{Server, ServerError, SingleTenant};

    assert_eq!(Server::builder().build().unwrap_err(), ServerError::Nothing);
    let graph = || crate::graphs::counter().unwrap();
    assert_eq!(
        Server::builder().graph(graph()).build().unwrap_err().code(),
        "server::no_checkpointer"
    );
    let stored = || Server::builder().graph(graph()).checkpointer(Memory::default());
    assert_eq!(stored().build().unwrap_err().code(), "server::no_threads");
    let folder = TempDir::new().unwrap();
    let records = stepgraph_nodes::service::embedded::SqliteRecords::open(house::pool(&folder).await)
        .await
        .unwrap();
    let known = || stored().threads(records.clone());
    assert_eq!(known().build().unwrap_err().code(), "server::no_authenticator");
    let open = || known().authenticator(SingleTenant::without_keys_for_development("me").unwrap());
    assert_eq!(open().graph(graph()).build().unwrap_err().code(), "server::twice");
    assert_eq!(
        open().allow_origin("studio.example").build().unwrap_err().code(),
        "server::origin"
    );
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let refused = open()
        .build()
        .unwrap()
        .serve(listener, std::future::ready(()))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), "server::not_loopback");
}

#[tokio::test]
async fn routes_of_the_host_program_stand_beside_the_graphs() {
    use axum::{Router, routing::get};
    use stepgraph_server::Server;

    let routes = Router::new().route("/hello", get(async || "hello"));
    let server = Server::builder().merge(routes).build().unwrap();

    let request = house::request(Method::GET, "/hello", &[], String::new());
    let response = tower::ServiceExt::oneshot(server.router(), request).await.unwrap();

    assert_eq!(response.status(), 200);
    assert!(response.headers().contains_key("x-request-id"));
}
