//! One test for each weakness that was measured in the field's best-known engine: what ours does instead.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect"
)]

use std::{
    future::IntoFuture,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use futures_util::future::join_all;
use serde::Serialize;
use serde_json::{Value, json};
use stepgraph::{
    Answers, Ask, Checkpointer, Context, Effect, Graph, Memory, NodeError, OnPending, Outcome, Question, TenantId,
    ThreadId, ThreadKey,
    checkpoint::{At, Page},
    dynamic::{Channels, DynamicBuilder, Goto, JsonInput, JsonState, JsonUpdate, Merge, Reply, TaskInput},
};
use tokio::sync::Notify;

/// The store of the test kit: it counts, and fails where it is told.
type Watched = stepgraph::testing::FaultyStore<Memory>;

#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    fn up(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[derive(Serialize)]
struct Asked(&'static str);

impl Ask for Asked {
    type Answer = Value;
    const NAME: &'static str = "asked";
}

fn thread(name: &str) -> ThreadKey {
    ThreadKey::new(TenantId::authenticated("acme").unwrap(), ThreadId::new(name).unwrap())
}

fn channels() -> Channels {
    Channels::new([("log", Merge::Append), ("n", Merge::Add), ("x", Merge::Last)]).unwrap()
}

fn input() -> JsonInput {
    JsonInput::new().set("log", json!(["in"]))
}

fn says(line: &str) -> JsonUpdate {
    JsonUpdate::new().set("log", json!([line]))
}

fn log(state: &JsonState) -> Vec<String> {
    serde_json::from_value(state.get("log").unwrap().clone()).unwrap()
}

/// Adds a node that says its name and counts its entries.
fn counted(g: &mut DynamicBuilder, name: &'static str, entries: &Count) {
    let entries = entries.clone();
    g.node(name, move |_: TaskInput, _| {
        entries.up();
        async move { Ok(says(name).into()) }
    });
}

/// `a`, `b`, `c` and `d`, one after the other.
fn line(entries: &Count) -> Graph<JsonState> {
    let mut g = DynamicBuilder::new("line", channels());
    for name in ["a", "b", "c", "d"] {
        counted(&mut g, name, entries);
    }
    g.edge("START", "a")
        .edge("a", "b")
        .edge("b", "c")
        .edge("c", "d")
        .edge("d", "END");
    g.build().unwrap()
}

fn asked(outcome: Outcome<JsonState>) -> Vec<Question> {
    match outcome {
        Outcome::Asked(questions) => questions,
        other => panic!("not asked: {other:?}"),
    }
}

#[tokio::test]
async fn w01_a_failed_save_stops_the_run_before_the_next_node() {
    let (entries, store) = (Count::default(), Watched::default());
    let graph = line(&entries).checkpointer(store.clone());
    // The admission is commit 1, the step of `a` commit 2.
    store.fail_commit_at(2);
    let error = graph.run(&thread("t"), input()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the checkpoint store is unavailable: it was told to fail"
    );
    assert_eq!(entries.get(), 1);
}

/// 1,000 workers of which one fails until it is mended.
fn siblings(mended: &Arc<AtomicBool>, entries: &Count) -> Graph<JsonState> {
    let mut g = DynamicBuilder::new("siblings", channels());
    let (mended, entries) = (Arc::clone(mended), entries.clone());
    g.node("work", move |input: TaskInput, _| {
        let number = input.get("number").and_then(Value::as_u64).unwrap();
        let (broken, entries) = (number == 500 && !mended.load(Ordering::SeqCst), entries.clone());
        async move {
            tokio::task::yield_now().await;
            if broken {
                return Err(NodeError::terminal("broken"));
            }
            entries.up();
            Ok(JsonUpdate::new().set("n", json!(1)).into())
        }
    });
    g.branch("START", |_| {
        (0..1000)
            .map(|number| Goto::Send("work".to_owned(), json!({"number": number})))
            .collect()
    });
    g.build().unwrap()
}

#[tokio::test]
async fn w02_no_sibling_that_finished_beside_a_failure_is_lost_or_run_again() {
    let (mended, entries) = (Arc::default(), Count::default());
    let graph = siblings(&mended, &entries).checkpointer(Memory::new());
    graph.run(&thread("t"), input()).await.unwrap_err();
    let kept = graph.state(&thread("t"), At::Head).await.unwrap().unwrap();
    let finished = kept.tasks.iter().filter(|task| task.finished).count();
    assert_eq!(
        (finished, kept.state.get("n")),
        (entries.get(), Some(&json!(entries.get())))
    );
    mended.store(true, Ordering::SeqCst);
    let state = graph.resume(&thread("t")).await.unwrap().done().unwrap();
    assert_eq!((state.get("n"), entries.get()), (Some(&json!(1000)), 1000));
}

#[tokio::test]
async fn w04_new_input_on_an_unfinished_thread_is_refused_unless_told_to_discard() {
    let (mended, entries) = (Arc::default(), Count::default());
    let graph = siblings(&mended, &entries).checkpointer(Memory::new());
    graph.run(&thread("t"), input()).await.unwrap_err();
    let error = graph.run(&thread("t"), input()).await.unwrap_err();
    assert_eq!(error.code(), "run::pending");
    mended.store(true, Ordering::SeqCst);
    let again = graph.run(&thread("t"), input()).on_pending(OnPending::Discard);
    let state = again.await.unwrap().done().unwrap();
    assert_eq!(state.get("n"), Some(&json!(1000)), "what was discarded counts no more");
}

#[tokio::test]
async fn w05_as_many_steps_as_the_limit_says_are_enough_and_a_resumed_run_counts_the_same() {
    let entries = Count::default();
    let graph = line(&entries).checkpointer(Memory::new());
    let state = graph.run(&thread("exact"), input()).step_limit(4).await.unwrap();
    assert_eq!(log(&state.done().unwrap()), ["in", "a", "b", "c", "d"]);
    let error = graph.run(&thread("short"), input()).step_limit(1).await.unwrap_err();
    assert_eq!(error.code(), "run::step_limit");
    let error = graph.resume(&thread("short")).step_limit(2).await.unwrap_err();
    assert_eq!((error.code(), entries.get()), ("run::step_limit", 7));
    let state = graph.resume(&thread("short")).step_limit(1).await.unwrap();
    assert_eq!(log(&state.done().unwrap()), ["in", "a", "b", "c", "d"]);
    graph
        .update(&thread("exact"), At::Head, says("edited"), "b")
        .await
        .unwrap();
    let error = graph.resume(&thread("exact")).step_limit(1).await.unwrap_err();
    assert_eq!(error.code(), "run::step_limit");
    assert!(
        graph
            .resume(&thread("exact"))
            .step_limit(1)
            .await
            .unwrap()
            .done()
            .is_some()
    );
}

#[tokio::test]
async fn w06_of_a_hundred_writers_every_one_that_succeeds_is_in_the_state_and_every_other_is_told() {
    // Yields within each commit, so that the runs get in each other's way.
    let store: Arc<dyn Checkpointer> = Arc::new(Watched::default());
    // Each has a graph of its own, as each process would have.
    let entries = Count::default();
    let graphs: Vec<_> = (0..100)
        .map(|_| line(&entries).shared_checkpointer(Arc::clone(&store)))
        .collect();
    let key = thread("t");
    let runs = graphs.iter().map(|graph| {
        let run = graph.run(&key, JsonInput::new().set("n", json!(1)));
        run.on_pending(OnPending::Discard).into_future()
    });
    let ended = join_all(runs).await;
    let (won, lost): (Vec<_>, Vec<_>) = ended.into_iter().partition(Result::is_ok);
    for error in lost {
        let code = error.unwrap_err().code().to_owned();
        assert!(
            code == "checkpoint::conflict" || code == "checkpoint::fenced" || code == "run::busy",
            "{code}"
        );
    }
    assert!(!won.is_empty());
    let page = Page {
        before: None,
        limit: u32::MAX,
    };
    let history = graphs.first().unwrap().history(&key, page).await.unwrap();
    let seqs: Vec<_> = history.iter().map(|entry| entry.seq.0).collect();
    let mut parents: Vec<_> = history.iter().filter_map(|entry| entry.parent).collect();
    parents.dedup();
    assert_eq!(parents.len() + 1, seqs.len(), "no head was written over: {history:?}");
}

#[tokio::test]
async fn w07_a_stalled_join_is_reported_with_whom_it_waits_for() {
    let mut g = DynamicBuilder::new("stalled", channels());
    for name in ["a", "b", "d"] {
        counted(&mut g, name, &Count::default());
    }
    g.branch("START", |_| vec![Goto::Node("a".to_owned())]);
    g.join(["a", "b"], "d").edge("d", "END");
    match g.build().unwrap().run(&thread("t"), input()).await.unwrap() {
        Outcome::Stalled { waiting, .. } => {
            let [join] = waiting.as_slice() else {
                panic!("{waiting:?}")
            };
            assert_eq!(
                (join.to.as_slice(), join.missing.as_slice()),
                (&["d".to_owned()][..], &["b".to_owned()][..])
            );
        }
        other => panic!("not stalled: {other:?}"),
    }
}

#[tokio::test]
async fn w08_a_target_that_no_node_has_is_an_error_at_build_or_at_run() {
    let mut g = DynamicBuilder::new("unknown", channels());
    counted(&mut g, "a", &Count::default());
    g.edge("START", "a").edge("a", "nowhere");
    assert_eq!(
        g.build().unwrap_err().errors().first().unwrap().code(),
        "graph::unknown_target"
    );
    for to in [
        Goto::Node("nowhere".to_owned()),
        Goto::Send("nowhere".to_owned(), json!({})),
    ] {
        let mut g = DynamicBuilder::new("unknown", channels());
        g.node("a", move |_: TaskInput, _| {
            let goto = vec![to.clone()];
            async move {
                Ok(Reply {
                    goto,
                    ..Reply::default()
                })
            }
        });
        g.edge("START", "a");
        let error = g.build().unwrap().run(&thread("t"), input()).await.unwrap_err();
        assert_eq!(error.code(), "run::unknown_target");
        assert!(error.to_string().contains("nowhere"), "{error}");
    }
}

/// The error of a graph with one node that writes this.
async fn refused(update: JsonUpdate) -> String {
    let mut g = DynamicBuilder::new("refused", channels());
    g.node("a", move |_: TaskInput, _| {
        let update = update.clone();
        async move { Ok(update.into()) }
    });
    g.edge("START", "a");
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let error = graph.run(&thread("t"), input()).await.unwrap_err();
    let kept = graph.state(&thread("t"), At::Head).await.unwrap().unwrap();
    assert_eq!(log(&kept.state), ["in"]);
    assert_eq!(error.code(), "run::node");
    std::error::Error::source(&error).unwrap().to_string()
}

#[tokio::test]
async fn w09_an_undeclared_key_is_refused_by_name_in_updates_and_in_input() {
    let error = refused(JsonUpdate::new().set("typo", json!(1))).await;
    assert!(error.contains("typo"), "{error}");
    let Value::Object(input) = json!({"typo": 1}) else {
        panic!("no object")
    };
    let error = channels().input(input).unwrap_err();
    assert!(error.to_string().contains("typo"), "{error}");
}

#[tokio::test]
async fn w10_a_value_that_does_not_fit_its_channel_is_refused_by_name() {
    let error = refused(JsonUpdate::new().set("n", json!("no number"))).await;
    assert!(error.contains("`n`"), "{error}");
}

#[tokio::test]
async fn w11_what_a_node_does_to_its_input_is_seen_by_nobody() {
    let mut g = DynamicBuilder::new("mutating", channels());
    g.node("a", |input: TaskInput, _| async move {
        let mut seen = input.to_object();
        if let Some(Value::Array(list)) = seen.get_mut("log") {
            list.push(json!("smuggled"));
        }
        Ok(JsonUpdate::new().into())
    });
    g.node("b", |input: TaskInput, _| async move {
        tokio::task::yield_now().await;
        let seen = input.get("log").cloned().unwrap();
        Ok(JsonUpdate::new().set("x", seen).into())
    });
    g.edge("START", "a").edge("START", "b");
    let state = g
        .build()
        .unwrap()
        .run(&thread("t"), input())
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(
        (log(&state), state.get("x")),
        (vec!["in".to_owned()], Some(&json!(["in"])))
    );
}

/// A node that asks twice, after an effect.
fn asking(entries: &Count, effects: &Count) -> Graph<JsonState> {
    let mut g = DynamicBuilder::new("asking", channels());
    let (entries, effects) = (entries.clone(), effects.clone());
    g.node("ask", move |_: TaskInput, ctx: Context<Value>| {
        entries.up();
        let effects = effects.clone();
        async move {
            let pay = Effect::idempotent(|_| std::future::ready(Ok(effects.up())));
            let paid: usize = ctx.once("pay", pay).await?;
            let first = ctx.ask_as("first", Asked("first?"))?;
            let second = ctx.ask_as("second", Asked("second?"))?;
            Ok(JsonUpdate::new().set("x", json!([paid, first, second])).into())
        }
    });
    g.edge("START", "ask").edge("ask", "END");
    g.build().unwrap()
}

#[tokio::test]
async fn w12_an_answer_to_no_open_question_is_refused_and_nothing_is_written() {
    let store = Watched::default();
    let graph = asking(&Count::default(), &Count::default()).checkpointer(store.clone());
    asked(graph.run(&thread("t"), input()).await.unwrap());
    let before = store.commits();
    let wrong = Answers::Many(vec![("no such question".to_owned(), json!(1))]);
    let error = graph.resume(&thread("t")).answers(wrong).await.unwrap_err();
    assert_eq!((error.code(), store.commits()), ("run::unknown_question", before));
    for answer in [1, 2] {
        graph
            .resume(&thread("t"))
            .answers(Answers::One(json!(answer)))
            .await
            .unwrap();
    }
    let before = store.commits();
    let error = graph
        .resume(&thread("t"))
        .answers(Answers::One(json!(3)))
        .await
        .unwrap_err();
    assert_eq!((error.code(), store.commits()), ("run::unknown_question", before));
}

#[tokio::test]
async fn w13_null_is_an_answer() {
    let graph = asking(&Count::default(), &Count::default()).checkpointer(Memory::new());
    asked(graph.run(&thread("t"), input()).await.unwrap());
    asked(
        graph
            .resume(&thread("t"))
            .answers(Answers::One(Value::Null))
            .await
            .unwrap(),
    );
    let ended = graph
        .resume(&thread("t"))
        .answers(Answers::One(Value::Null))
        .await
        .unwrap();
    assert_eq!(ended.done().unwrap().get("x"), Some(&json!([1, null, null])));
}

#[tokio::test]
async fn w14_a_question_that_nobody_could_answer_is_an_error() {
    let graph = asking(&Count::default(), &Count::default());
    let error = graph.run(&thread("t"), input()).await.unwrap_err();
    let mut said = error.to_string();
    let mut next = std::error::Error::source(&error);
    while let Some(source) = next {
        said = format!("{said}: {source}");
        next = source.source();
    }
    assert!(said.contains("checkpointer"), "{said}");
}

#[tokio::test]
async fn w15_an_effect_runs_once_however_often_its_node_is_entered() {
    let (entries, effects) = (Count::default(), Count::default());
    let graph = asking(&entries, &effects).checkpointer(Memory::new());
    asked(graph.run(&thread("t"), input()).await.unwrap());
    for answer in ["yes", "no"] {
        graph
            .resume(&thread("t"))
            .answers(Answers::One(json!(answer)))
            .await
            .unwrap();
    }
    assert_eq!((entries.get(), effects.get()), (3, 1));
    let kept = graph.state(&thread("t"), At::Head).await.unwrap().unwrap();
    assert_eq!(kept.state.get("x"), Some(&json!([1, "yes", "no"])));
}

/// Two siblings: `quick` finishes at once, `slow` waits to be let go.
fn pair(started: &Arc<Notify>, go: &Arc<AtomicBool>, quick: &Count) -> Graph<JsonState> {
    let mut g = DynamicBuilder::new("pair", channels());
    counted(&mut g, "quick", quick);
    let (started, go) = (Arc::clone(started), Arc::clone(go));
    g.node("slow", move |_: TaskInput, _| {
        let (started, go) = (Arc::clone(&started), go.load(Ordering::SeqCst));
        async move {
            // `quick` was begun before and needs no second turn.
            tokio::task::yield_now().await;
            started.notify_one();
            if !go {
                std::future::pending::<()>().await;
            }
            Ok(says("slow").into())
        }
    });
    g.edge("START", "quick").edge("START", "slow");
    g.build().unwrap()
}

#[tokio::test]
async fn w16_a_run_that_dies_in_its_first_step_has_left_its_admission() {
    let (started, go) = (Arc::default(), Arc::new(AtomicBool::new(false)));
    let graph = pair(&started, &go, &Count::default()).checkpointer(Memory::new());
    tokio::select! {
        outcome = graph.run(&thread("t"), input()).into_future() => panic!("{outcome:?}"),
        () = started.notified() => {}
    }
    assert_eq!(graph.unfinished(10).await.unwrap(), [thread("t")]);
    go.store(true, Ordering::SeqCst);
    let state = graph.resume(&thread("t")).await.unwrap().done().unwrap();
    assert_eq!(log(&state), ["in", "quick", "slow"]);
}

#[tokio::test]
async fn w17_a_sibling_that_was_told_done_is_durable_when_the_process_dies() {
    use futures_util::StreamExt;
    use stepgraph::{EventKind, RunEvent};

    for _ in 0..50 {
        let (started, go) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let quick = Count::default();
        let graph = pair(&started, &go, &quick).checkpointer(Memory::new());
        let mut events = graph.run(&thread("t"), input()).stream();
        loop {
            match events.next().await.unwrap().unwrap() {
                RunEvent::Event(event) if matches!(event.kind, EventKind::Update { .. }) => break,
                RunEvent::Event(_) => {}
                other => panic!("{other:?}"),
            }
        }
        drop(events);
        go.store(true, Ordering::SeqCst);
        let state = graph.resume(&thread("t")).await.unwrap().done().unwrap();
        assert_eq!(
            (log(&state), quick.get()),
            (["in", "quick", "slow"].map(str::to_owned).to_vec(), 1)
        );
    }
}

#[tokio::test]
async fn w18_ten_thousand_turns_store_at_most_three_times_what_they_say() {
    let store = Watched::default();
    let mut g = DynamicBuilder::new("turns", channels());
    g.node("turn", |_: TaskInput, _| async { Ok(says(&"a".repeat(100)).into()) });
    g.branch("turn", |state| {
        let turns = state.get("log").and_then(Value::as_array).map_or(0, Vec::len);
        if turns < 10_000 {
            vec![Goto::Node("turn".to_owned())]
        } else {
            Vec::new()
        }
    });
    g.edge("START", "turn");
    let graph = g.build().unwrap().checkpointer(store.clone());
    let state = graph
        .run(&thread("t"), JsonInput::new())
        .step_limit(10_000)
        .await
        .unwrap()
        .done()
        .unwrap();
    let size = serde_json::to_vec(&state).unwrap().len();
    assert!(
        log(&state).len() == 10_000 && usize::try_from(store.bytes()).unwrap() <= 3 * size,
        "{} bytes for {size}",
        store.bytes()
    );
}

#[tokio::test]
async fn w19_a_destination_of_a_dynamic_node_adds_to_its_edges() {
    // A typed router has no edges besides its routes: see `weaknesses_typed.rs`.
    let entries = Count::default();
    let mut g = DynamicBuilder::new("goto", channels());
    g.node("a", |_: TaskInput, _| async {
        let goto = vec![Goto::End];
        Ok(Reply {
            goto,
            ..Reply::default()
        })
    });
    counted(&mut g, "b", &entries);
    g.edge("START", "a").edge("a", "b");
    g.build().unwrap().run(&thread("t"), input()).await.unwrap();
    assert_eq!(entries.get(), 1);
}

#[tokio::test]
async fn w20_a_step_of_one_task_costs_one_commit() {
    let store = Watched::default();
    let graph = line(&Count::default()).checkpointer(store.clone());
    graph.run(&thread("t"), input()).await.unwrap();
    assert_eq!(store.commits(), 5, "the admission and four steps");
}

#[tokio::test]
async fn w21_a_thread_that_waits_at_a_node_which_is_gone_is_refused_by_name() {
    let store: Arc<dyn Checkpointer> = Arc::new(Memory::new());
    let graph = line(&Count::default()).shared_checkpointer(Arc::clone(&store));
    graph.run(&thread("t"), input()).step_limit(1).await.unwrap_err();
    let mut g = DynamicBuilder::new("line", channels());
    for name in ["a", "renamed"] {
        counted(&mut g, name, &Count::default());
    }
    g.edge("START", "a").edge("a", "renamed");
    let error = g
        .build()
        .unwrap()
        .shared_checkpointer(store)
        .resume(&thread("t"))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "run::incompatible");
    assert!(error.to_string().contains("`b`"), "{error}");
}

#[tokio::test]
async fn w22_a_channel_that_is_gone_is_told_and_its_value_is_not_dropped() {
    let store: Arc<dyn Checkpointer> = Arc::new(Memory::new());
    let graph = line(&Count::default()).shared_checkpointer(Arc::clone(&store));
    graph.run(&thread("t"), input()).step_limit(1).await.unwrap_err();
    let mut g = DynamicBuilder::new("line", Channels::new([("log", Merge::Append)]).unwrap());
    for name in ["a", "b", "c", "d"] {
        counted(&mut g, name, &Count::default());
    }
    g.edge("START", "a").edge("a", "b").edge("b", "c").edge("c", "d");
    let error = g
        .build()
        .unwrap()
        .shared_checkpointer(store)
        .resume(&thread("t"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("there is no channel `n`"), "{error}");
    assert!(graph.resume(&thread("t")).await.unwrap().done().is_some());
}
