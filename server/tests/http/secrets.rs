//! Secret fields over `/threads`: whatever is asked, and however, no byte of them leaves.

use serde_json::{Value, json};

use crate::graphs::{Reply, Served};

const CANARY: &str = "canary-51ab";
const SHOWN: &str = "[secret]";

/// A reply in which the secret is not.
fn clean(reply: Reply) -> Reply {
    let headers = format!("{:?}", reply.headers);
    assert!(
        !reply.text.contains("canary") && !headers.contains("canary"),
        "{}",
        reply.text
    );
    reply
}

async fn asked(served: &Served) -> String {
    let thread = served.thread().await;
    let run = json!({"assistant_id": "vault", "input": {"name": "acme", "api_key": CANARY}});
    let reply = clean(served.wait(&thread, run).await).ok();
    assert_eq!(reply["apiKey"], SHOWN);
    thread
}

#[tokio::test]
async fn no_mode_of_a_stream_tells_a_secret_of_a_graph_or_of_one_inside() {
    let served = Served::new().await;
    let thread = served.thread().await;
    let run = json!({
        "assistant_id": "vault",
        "input": {"name": "acme", "api_key": CANARY},
        "stream_mode": ["values", "updates", "custom", "tasks", "checkpoints", "messages-tuple"],
        "stream_subgraphs": true,
    });

    let reply = clean(served.stream(&thread, run).await);

    let events = reply.events();
    let of = |name: &str| events.iter().filter(|(event, _)| event.starts_with(name)).count();
    for name in ["values", "updates", "tasks", "checkpoints"] {
        assert!(
            of(name) > 2 && of(&format!("{name}|host:")) > 0,
            "{name}: {}",
            reply.text
        );
    }
    let update = json!({"rotate": {"old_keys": SHOWN, "lengths": [CANARY.len()]}});
    assert_eq!(
        events.iter().filter(|(_, data)| *data == update).count(),
        2,
        "{}",
        reply.text
    );
    let (_, last) = events.iter().rev().find(|(event, _)| event == "values").unwrap();
    assert_eq!(
        (&last["apiKey"], &last["oldKeys"], &last["pin"]),
        (&json!(SHOWN), &json!(SHOWN), &json!(SHOWN))
    );
    let go_on = json!({"assistant_id": "vault", "command": {"resume": true}, "stream_mode": "values"});
    clean(served.stream(&thread, go_on).await);
}

#[tokio::test]
async fn threads_states_histories_and_schemas_show_a_mark_in_its_place() {
    let served = Served::new().await;
    let thread = asked(&served).await;

    for path in ["", "/state", "/history?limit=100"] {
        let told = clean(served.get(&format!("{thread}{path}")).await);
        assert!(told.text.contains(SHOWN), "{path}: {}", told.text);
    }
    clean(served.post(&format!("{thread}/history"), json!({"limit": 100})).await);
    clean(served.post("/threads/search", json!({"limit": 100})).await);
    let schemas = served.get("/assistants/vault/schemas").await.ok();
    assert_eq!(schemas["state_schema"]["properties"]["apiKey"]["const"], SHOWN);
    let input = &schemas["input_schema"]["properties"]["api_key"];
    assert_eq!((&input["writeOnly"], input.get("default")), (&json!(true), None));
    clean(served.get("/assistants/vault/graph").await);
}

#[tokio::test]
async fn an_edit_may_set_a_secret_but_not_send_back_what_was_shown_of_it() {
    let served = Served::new().await;
    let thread = asked(&served).await;
    let edit = |values: Value| json!({"values": values, "as_node": "rotate"});
    let path = format!("{thread}/state");

    let other = format!("{CANARY}-longer");
    clean(served.post(&path, edit(json!({"api_key": other}))).await).ok();
    for values in [
        json!({"api_key": SHOWN}),
        json!({"overwrite_old_keys": SHOWN}),
        json!({"pin": SHOWN}),
        json!({"pin": CANARY}),
    ] {
        let refused = clean(served.post(&path, edit(values.clone())).await);
        assert_eq!(refused.refusal(), (422, "unfit".to_owned()), "{values}");
    }
    let input = json!({"assistant_id": "vault", "on_pending": "discard", "input": {"name": "acme", "api_key": SHOWN}});
    assert_eq!(served.wait(&thread, input).await.refusal(), (422, "unfit".to_owned()));
    let unfit = json!({"assistant_id": "vault", "on_pending": "discard", "input": {"name": "acme", "pin": CANARY}});
    assert_eq!(
        clean(served.wait(&thread, unfit).await).refusal(),
        (422, "unfit".to_owned())
    );

    let again = json!({"assistant_id": "vault", "command": {}});
    let went_on = clean(served.wait(&thread, again).await).ok();
    assert_eq!(
        went_on["lengths"],
        json!([CANARY.len()]),
        "the graph inside counts for itself"
    );
    let state = clean(served.get(&path).await).ok();
    assert_eq!(state["values"]["apiKey"], SHOWN);
}
