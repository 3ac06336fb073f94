//! Graphs as threads and runs: `/threads` and `/assistants`.

use axum::http::Method;
use serde_json::{Value, json};

use crate::{
    graphs::{ACME, Served},
    house,
};

const NOWHERE: &str = "/threads/00000000-0000-7000-8000-000000000000";

#[tokio::test]
async fn a_run_gives_its_values_and_the_thread_keeps_them() {
    let served = Served::new().await;
    let thread = served.thread().await;

    let reply = served
        .wait(&thread, json!({"assistant_id": "counter_loop", "input": {"limit": 2}}))
        .await;

    let location = reply.header("content-location").unwrap().to_owned();
    assert!(location.starts_with(&format!("{thread}/runs/")), "{location}");
    assert_eq!(reply.header("location").unwrap(), format!("{location}/stream"));
    assert_eq!(reply.ok(), json!({"count": 2, "limit": 2, "trail": [1, 2]}));
    let kept = served.get(&thread).await.ok();
    assert_eq!(kept["status"], "idle");
    assert_eq!(kept["values"]["trail"], json!([1, 2]));
    assert_eq!(kept["metadata"]["graph_id"], "counter_loop");
    let again = served
        .wait(&thread, json!({"assistant_id": "counter_loop", "input": {}}))
        .await;
    assert_eq!(again.ok(), json!({"count": 3, "limit": 3, "trail": [1, 2, 1, 2, 3]}));
}

#[tokio::test]
async fn state_and_history_tell_every_checkpoint_newest_first() {
    let served = Served::new().await;
    let thread = served.thread().await;
    assert_eq!(served.get(&format!("{thread}/state")).await.ok()["values"], json!({}));
    assert_eq!(served.get(&format!("{thread}/history")).await.ok(), json!([]));
    served
        .wait(&thread, json!({"assistant_id": "counter_loop", "input": {}}))
        .await
        .ok();

    let state = served.get(&format!("{thread}/state")).await.ok();
    let history = served
        .post(&format!("{thread}/history"), json!({"limit": 10}))
        .await
        .ok();

    assert_eq!(state["next"], json!([]));
    assert_eq!(state["values"]["count"], 3);
    assert_eq!(state["metadata"]["source"], "loop");
    let counts: Vec<_> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|state| state["values"]["count"].clone())
        .collect();
    assert_eq!(counts, [3, 2, 1, 0]);
    assert_eq!(history[0]["checkpoint"], state["checkpoint"]);
    assert_eq!(history[0]["parent_checkpoint_id"], history[1]["checkpoint_id"]);
    assert_eq!(history[1]["next"], json!(["inc"]));
    let second = history[1]["checkpoint_id"].as_str().unwrap();
    for before in [
        json!(second),
        json!({"checkpoint_id": second}),
        json!({"configurable": {"checkpoint_id": second}}),
    ] {
        let older = served
            .post(&format!("{thread}/history"), json!({"before": before}))
            .await
            .ok();
        assert_eq!(older.as_array().unwrap().len(), 1);
        assert_eq!(older[0]["values"]["count"], 1);
    }
    let at = served.get(&format!("{thread}/state/{second}")).await.ok();
    assert_eq!(at["values"]["count"], 2);
    let same = json!({"checkpoint": {"checkpoint_id": second, "checkpoint_ns": ""}});
    assert_eq!(served.post(&format!("{thread}/state/checkpoint"), same).await.ok(), at);
    let inputs = json!({"limit": 10, "metadata": {"source": "input"}});
    assert_eq!(
        served
            .post(&format!("{thread}/history"), inputs)
            .await
            .ok()
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_question_waits_until_it_is_answered_with_the_right_type() {
    let served = Served::new().await;
    let thread = served.thread().await;
    let run = |command: Value| json!({"assistant_id": "approval", "command": command});

    let asked = served
        .wait(&thread, json!({"assistant_id": "approval", "input": {"draft": "x"}}))
        .await
        .ok();

    let question = &asked["__interrupt__"][0];
    assert_eq!(
        question["value"],
        json!({"question": "approve?", "draft": "draft of x"})
    );
    assert_eq!(question["answer_schema"]["type"], "boolean");
    let kept = served.get(&thread).await.ok();
    assert_eq!(kept["status"], "interrupted");
    assert_eq!(kept["interrupts"].as_object().unwrap().len(), 1);

    for path in ["runs/wait", "runs/stream"] {
        let refused = served
            .post(&format!("{thread}/{path}"), run(json!({"resume": "perhaps"})))
            .await;
        assert_eq!(refused.refusal(), (422, "answer_unfit".to_owned()), "{path}");
    }
    let state = served.get(&format!("{thread}/state")).await.ok();
    assert_eq!(state["next"], json!(["approve"]));
    assert_eq!(state["tasks"][0]["interrupts"][0]["id"], question["id"]);
    let unknown = served
        .wait(&thread, run(json!({"resume": true, "goto": "nowhere"})))
        .await;
    assert_eq!(unknown.refusal(), (422, "run::unknown_node".to_owned()));

    let by_id = json!({"resume": {question["id"].as_str().unwrap(): true}});
    let done = served.wait(&thread, run(by_id)).await.ok();
    assert_eq!(done["published"], "draft of x [Some(true)]");
    let twice = served.wait(&thread, run(json!({"resume": true}))).await;
    assert_eq!(twice.refusal(), (422, "run::unknown_question".to_owned()));
}

#[tokio::test]
async fn new_input_does_not_drop_a_waiting_question_unless_it_is_told_to() {
    let served = Served::new().await;
    let thread = served.thread().await;
    let run = json!({"assistant_id": "approval", "input": {"draft": "x"}});
    served.wait(&thread, run.clone()).await.ok();

    assert_eq!(
        served.wait(&thread, run.clone()).await.refusal(),
        (409, "run::pending".to_owned())
    );
    assert_eq!(
        served.stream(&thread, run).await.refusal(),
        (409, "run::pending".to_owned())
    );
    let anew = json!({"assistant_id": "approval", "input": {"draft": "y"}, "on_pending": "discard"});
    assert_eq!(served.wait(&thread, anew).await.ok()["draft"], "draft of y");
}

#[tokio::test]
async fn a_run_may_begin_at_an_older_checkpoint_and_answer_its_question_anew() {
    let served = Served::new().await;
    let thread = served.thread().await;
    served
        .wait(&thread, json!({"assistant_id": "approval", "input": {"draft": "x"}}))
        .await
        .ok();
    let asked = served.get(&format!("{thread}/state")).await.ok();
    let yes = json!({"assistant_id": "approval", "command": {"resume": true}, "checkpoint": asked["checkpoint"]});
    assert_eq!(served.wait(&thread, yes).await.ok()["decision"], true);

    let fork = json!({"assistant_id": "approval", "command": {"resume": false}, "checkpoint_id": asked["checkpoint_id"],
        "stream_mode": ["updates"]});
    let events = served.stream(&thread, fork).await.events();

    let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["metadata", "updates", "updates"]);
    assert_eq!(events[1].1, json!({"approve": {"decision": false}}));
    let history = served
        .post(&format!("{thread}/history"), json!({"limit": 20}))
        .await
        .ok();
    let decided: Vec<_> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|state| state["values"]["decision"].clone())
        .collect();
    assert_eq!(decided[0], false);
    assert!(decided.contains(&json!(true)), "{decided:?}");
    let gone = json!({"assistant_id": "approval", "checkpoint_id": "00000000-0000-7000-8000-000000000000"});
    assert_eq!(
        served.wait(&thread, gone).await.refusal(),
        (404, "run::no_checkpoint".to_owned())
    );
}

#[tokio::test]
async fn a_stream_tells_metadata_first_and_then_every_mode_in_order() {
    let served = Served::new().await;
    let thread = served.thread().await;
    let body = json!({"assistant_id": "nested", "input": {"text": "t"}, "stream_subgraphs": true,
        "stream_mode": ["values", "updates", "tasks", "checkpoints"]});

    let reply = served.stream(&thread, body).await;

    assert_eq!(reply.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert!(reply.header("location").unwrap().ends_with("/stream"));
    let events = reply.events();
    let run = reply.header("content-location").unwrap().rsplit('/').next().unwrap();
    assert_eq!(events[0], ("metadata".to_owned(), json!({"run_id": run, "attempt": 1})));
    let inside = |name: &str| {
        let (mode, host) = name.split_once('|')?;
        let (host, id) = host.split_once(':')?;
        uuid::Uuid::parse_str(id).ok()?;
        Some(format!("{mode}|{host}"))
    };
    let names: Vec<_> = events
        .iter()
        .map(|(name, _)| inside(name).unwrap_or_else(|| name.clone()))
        .collect();
    assert_eq!(
        names,
        [
            "metadata",
            "values",
            "checkpoints",
            "tasks",
            "updates",
            "tasks",
            "values",
            "checkpoints",
            "tasks",
            "values|child",
            "checkpoints|child",
            "tasks|child",
            "updates|child",
            "tasks|child",
            "values|child",
            "checkpoints|child",
            "updates",
            "tasks",
            "values",
            "checkpoints",
        ]
    );
    assert_eq!(events[1].1, json!({"text": "t", "trail": []}));
    assert_eq!(events[3].1["name"], "before");
    assert_eq!(events[3].1["input"]["text"], "t");
    assert_eq!(events[3].1["id"], events[5].1["id"]);
    assert_eq!(
        events[4].1,
        json!({"before": {"text": "t-before", "trail": ["before"]}})
    );
    assert_eq!(events[12].1["c1"]["text"], "t-before-child");
    assert_eq!(events[7].1["next"], json!(["child"]));
    assert_eq!(events[18].1["text"], "t-before-child");
}

#[tokio::test]
async fn what_happens_inside_stays_inside_unless_it_is_asked_for() {
    let served = Served::new().await;
    let thread = served.thread().await;

    let reply = served
        .stream(
            &thread,
            json!({"assistant_id": "nested", "input": {"text": "t"}, "stream_mode": "updates"}),
        )
        .await;

    let names: Vec<_> = reply.events().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["metadata", "updates", "updates"]);
}

#[tokio::test]
async fn tokens_are_messages_and_other_events_are_custom() {
    let served = Served::new().await;
    let thread = served.thread().await;
    let body = json!({"assistant_id": "echo", "input": {"said": "hi"}, "stream_mode": ["messages-tuple", "custom"]});

    let events = served.stream(&thread, body).await.events();

    let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["metadata", "custom", "messages", "messages"]);
    assert_eq!(events[1].1, json!({"note": "custom"}));
    assert_eq!(
        (&events[2].1[0]["content"], &events[3].1[0]["content"]),
        (&json!("echo: "), &json!("hi"))
    );
    assert_eq!(events[2].1[0]["type"], "AIMessageChunk");
    assert_eq!(events[2].1[0]["id"], events[3].1[0]["id"]);
    assert_eq!(events[2].1[1]["langgraph_node"], "reply");
}

#[tokio::test]
async fn a_failed_run_is_a_result_and_the_last_event() {
    let served = Served::new().await;
    for (graph, message) in [("failing", "a node of the run failed"), ("telling", "boom on purpose")] {
        let thread = served.thread().await;
        let body = json!({"assistant_id": graph, "input": {"text": "t"}, "stream_mode": ["tasks", "updates"]});

        let waited = served.wait(&thread, body.clone()).await;
        let run = waited.header("location").unwrap().split('/').nth(4).unwrap().to_owned();
        let error = |run: &str| json!({"error": "run::node", "message": message, "trace_id": run});
        assert_eq!(waited.ok(), json!({"__error__": error(&run)}));
        // What has failed makes room for new input.
        let streamed = served.stream(&thread, body).await;
        let events = streamed.events();
        let run = events[0].1["run_id"].as_str().unwrap();
        assert_eq!(events.last().unwrap(), &("error".to_owned(), error(run)));
        let ended = events
            .iter()
            .find(|(_, data)| data["error"].is_string() && data["name"] == "boom");
        assert_eq!(ended.unwrap().1["error"], message);

        let kept = served.get(&thread).await;
        let state = served.get(&format!("{thread}/state")).await;
        let told = [&streamed.text, &kept.text, &state.text].map(|text| text.contains("on purpose"));
        assert_eq!(told, [graph == "telling"; 3], "{} {}", kept.text, state.text);
        let kept = kept.ok();
        assert_eq!(kept["status"], "error");
        let state = state.ok();
        assert_eq!(state["tasks"][0]["error"]["message"], message);
        if graph == "failing" {
            assert_eq!(kept["error"], format!("the run failed: its trace id is {run}"));
        }
    }
}

#[tokio::test]
async fn a_run_stops_at_breakpoints_and_goes_on() {
    let served = Served::new().await;
    let thread = served.thread().await;
    let body = json!({"assistant_id": "counter_loop", "input": {}, "interrupt_before": "*"});

    let stopped = served.wait(&thread, body).await.ok();
    assert_eq!(stopped["count"], 0);
    assert_eq!(
        served.get(&format!("{thread}/state")).await.ok()["next"],
        json!(["inc"])
    );
    let after = json!({"assistant_id": "counter_loop", "interrupt_after": ["inc"]});
    assert_eq!(served.wait(&thread, after).await.ok()["count"], 1);
    let on = served.wait(&thread, json!({"assistant_id": "counter_loop"})).await.ok();
    assert_eq!(on["count"], 3);
    let unknown = json!({"assistant_id": "counter_loop", "interrupt_after": ["nowhere"]});
    assert_eq!(
        served.wait(&thread, unknown).await.refusal(),
        (422, "unknown_node".to_owned())
    );
}

#[tokio::test]
async fn an_edit_writes_as_a_node_and_the_run_goes_on_from_it() {
    let served = Served::new().await;
    let thread = served.thread().await;
    let state = format!("{thread}/state");
    let early = served.post(&state, json!({"values": {"count": 1}})).await;
    assert_eq!(early.refusal(), (409, "no_graph".to_owned()));
    served
        .wait(&thread, json!({"assistant_id": "counter_loop", "input": {"limit": 5}}))
        .await
        .ok();

    let edited = served
        .post(&state, json!({"values": {"count": 3, "trail": [30]}, "as_node": "inc"}))
        .await
        .ok();
    assert_eq!(edited["checkpoint"]["checkpoint_id"], edited["checkpoint_id"]);
    let kept = served.get(&state).await.ok();
    assert_eq!(
        (&kept["checkpoint_id"], &kept["metadata"]["source"]),
        (&edited["checkpoint_id"], &json!("update"))
    );
    let on = served.wait(&thread, json!({"assistant_id": "counter_loop"})).await.ok();
    assert_eq!(on["trail"], json!([1, 2, 3, 4, 5, 30, 4, 5]));

    let unknown = served
        .post(&state, json!({"values": {"cuont": 3}, "as_node": "inc"}))
        .await;
    assert_eq!(unknown.refusal(), (422, "unfit".to_owned()));
    assert!(unknown.text.contains("cuont"), "{}", unknown.text);
}

#[tokio::test]
async fn input_that_does_not_fit_is_refused_with_its_place() {
    let served = Served::new().await;
    let thread = served.thread().await;
    let cases = [
        (json!({"limit": "three"}), "input.limit"),
        (json!({"limit": 2, "color": "red"}), "color"),
        (json!([1]), "input"),
    ];
    for (input, place) in cases {
        let refused = served
            .wait(&thread, json!({"assistant_id": "counter_loop", "input": input}))
            .await;
        assert_eq!(refused.refusal(), (422, "unfit".to_owned()));
        assert!(refused.text.contains(place), "{}", refused.text);
    }
    assert_eq!(served.get(&thread).await.ok()["values"], Value::Null);
}

#[tokio::test]
async fn every_mistake_has_its_status() {
    let served = Served::new().await;
    let thread = served.thread().await;
    let run = |more: Value| {
        let mut body = json!({"assistant_id": "counter_loop", "input": {}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let cases = [
        (
            format!("{thread}/runs/stream"),
            run(json!({"stream_mode": "everything"})),
            (422, "stream_mode"),
        ),
        (
            format!("{thread}/runs/stream"),
            run(json!({"stream_mode": ["debug"]})),
            (422, "not_built"),
        ),
        (
            format!("{thread}/runs/wait"),
            run(json!({"assistant_id": "nobody"})),
            (404, "unknown_assistant"),
        ),
        (
            format!("{thread}/runs/wait"),
            run(json!({"multitask_strategy": "rollback"})),
            (422, "not_built"),
        ),
        (
            format!("{thread}/runs/wait"),
            run(json!({"webhook": "https://x.example"})),
            (422, "not_built"),
        ),
        (
            format!("{thread}/runs/wait"),
            run(json!({"command": {"resume": 1}})),
            (422, "input_and_command"),
        ),
        (
            format!("{thread}/runs/wait"),
            run(json!({"config": {"recursion_limit": 0}})),
            (422, "recursion_limit"),
        ),
        (
            format!("{thread}/runs/wait"),
            json!({"assistant_id": "counter_loop"}),
            (422, "no_input"),
        ),
        (format!("{thread}/runs/wait"), json!({"input": {}}), (422, "body")),
        ("/threads/7/runs/wait".to_owned(), run(json!({})), (422, "id")),
        (format!("{NOWHERE}/runs/wait"), run(json!({})), (404, "unknown_thread")),
        (format!("{thread}/history"), json!({"limit": 0}), (422, "limit")),
        ("/threads".to_owned(), json!({"thread_id": "seven"}), (422, "body")),
    ];
    for (path, body, (status, code)) in cases {
        let refused = served.post(&path, body.clone()).await;
        assert_eq!(refused.refusal(), (status, code.to_owned()), "{path} {body}");
    }
}

#[tokio::test]
async fn a_run_takes_as_many_steps_as_it_may() {
    let served = Served::new().await;
    let thread = served.thread().await;
    let limited = json!({"assistant_id": "counter_loop", "input": {"limit": 9}, "config": {"recursion_limit": 2}});

    let limited = served.wait(&thread, limited).await.ok();

    assert_eq!(limited["__error__"]["error"], "run::step_limit");
}

#[tokio::test]
async fn what_is_no_right_request_is_refused_by_its_form() {
    let served = Served::new().await;
    assert_eq!(served.get("/threads/7").await.refusal().0, 422);
    assert_eq!(served.get(NOWHERE).await.refusal().0, 404);
    let method = served.call(ACME, Method::PUT, "/threads", &json!({})).await;
    assert_eq!(method.refusal(), (405, "method_not_allowed".to_owned()));
    let form = house::request(Method::POST, "/threads", &[("x-api-key", ACME)], "{}".to_owned());
    let (mut parts, body) = form.into_parts();
    parts.headers.insert("content-type", "text/plain".parse().unwrap());
    let form = served.send(axum::http::Request::from_parts(parts, body)).await;
    assert_eq!(form.refusal(), (422, "content_type".to_owned()));
    let large = json!({"metadata": {"text": "x".repeat(5 * 1024 * 1024)}});
    assert_eq!(
        served.post("/threads", large).await.refusal(),
        (413, "body_too_large".to_owned())
    );
    let nowhere = served.get("/threads/a/b/c/d").await;
    assert_eq!(
        nowhere.json()["error"]["code"],
        "INVALID_REQUEST",
        "unmatched: the other envelope"
    );
}
