//! The test kit: what it finds, and what it says.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    pub(crate) mod threads;
}

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use serde_json::json;
use stepgraph::{
    Append, Ask, CheckpointError, Checkpointer, Clock, Command, Context, END, Effect, FromState, Graph, Memory, Node,
    NodeError, Outcome, Route, RunError, START, State, Sum, async_trait,
    checkpoint::{CheckpointSource, Commit, NewCheckpoint, Payload, RecordKind, TaskRecord},
    from,
    testing::{Coverage, FaultyStore, ManualClock, TestRun, assert_path, run_node, torture},
    to,
};
use support::threads::thread;

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Tale {
    #[state(input)]
    items: u64,
    #[state(reducer = Append)]
    log: Vec<String>,
    #[state(reducer = Sum)]
    rounds: u64,
}

#[derive(Serialize, Ask)]
#[ask(name = "sure", answer = bool)]
struct Sure;

#[derive(Route, Clone, Copy)]
enum Round {
    Again,
    Enough,
}

#[derive(Route, Clone, Copy)]
enum Way {
    Near,
    Far,
}

impl FromState<Tale> for TaleInput {
    fn from_state(tale: &Arc<Tale>) -> Self {
        Self { items: tale.items }
    }
}

impl From<Arc<Tale>> for TaleUpdate {
    fn from(inner: Arc<Tale>) -> Self {
        Tale::update().log(inner.log.clone())
    }
}

fn items(items: u64) -> TaleInput {
    TaleInput { items }
}

/// Pays, then asks.
fn inner() -> Graph<Tale> {
    let mut g = Graph::<Tale>::builder("inner");
    let pays = g.node("pays", |_: Arc<Tale>, ctx: Context<()>| async move {
        let paid: u64 = ctx.once("pay", Effect::idempotent(|_| async { Ok(7) })).await?;
        Ok(Tale::update().log([format!("paid {paid}")]))
    });
    let asks = g.node("asks", |_: Arc<Tale>, ctx: Context<()>| async move {
        Ok(Tale::update().log([format!("sure: {}", ctx.ask(Sure)?)]))
    });
    g.edge(START, pays).edge(pays, asks).edge(asks, END);
    g.build().unwrap()
}

/// Rounds of workers and a graph inside side by side, and a join behind them.
fn outer() -> Graph<Tale> {
    let mut g = Graph::<Tale>::builder("outer");
    let plan = g.node("plan", |_: Arc<Tale>| async { Ok(Tale::update().rounds(1_u64)) });
    let work = g.worker("work", |item: u64, ctx: Context<()>| async move {
        let done: u64 = ctx.once("look", Effect::read(|| async move { Ok(item) })).await?;
        Ok(Tale::update().log([format!("item {done}")]))
    });
    let host = g.node("host", inner().as_node::<TaleInput, Arc<Tale>>());
    let gather = g.node("gather", |tale: Arc<Tale>| async move {
        Ok(Tale::update().log([tale.rounds.to_string()]))
    });
    g.edge(START, plan).edge(plan, host);
    g.fan_out(plan, work, |tale: &Tale| 0..tale.items);
    g.join([from(work), from(host)], gather);
    g.branch(
        gather,
        |tale: &Tale| if tale.rounds < 2 { Round::Again } else { Round::Enough },
        |round| match round {
            Round::Again => to(plan),
            Round::Enough => to(END),
        },
    );
    g.build().unwrap()
}

#[tokio::test]
async fn a_path_names_each_step_and_its_tasks() {
    let run = TestRun::of(outer().checkpointer(Memory::new()).run(&thread("t"), items(2))).await;
    assert!(matches!(run.outcome, Ok(Outcome::Asked(_))));
    assert_path(&run, ["plan", "[host, work*2]"]);
    let run = TestRun::of(outer().run(&thread("t"), items(1))).await;
    assert!(run.outcome.is_err(), "no question can be kept without a store");
    let text = AssertUnwindSafe(async { assert_path(&run, ["plan", "[host, work*2]", "gather"]) }).catch_unwind();
    let text = *text.await.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("    1. ran plan"), "{text}");
    assert!(
        text.contains(">   2. ran [host, work]             expected [host, work*2]"),
        "{text}"
    );
    assert!(
        text.contains(">   3. ran -                        expected gather"),
        "{text}"
    );
    assert!(text.contains("it ended with: node `host`"), "{text}");
}

#[tokio::test]
async fn coverage_tells_the_nodes_and_ways_that_no_run_has_taken() {
    let mut g = Graph::<Tale>::builder("covered");
    let first = g.router("first", |tale: Arc<Tale>| async move {
        let goto = if tale.items > 0 { Way::Near } else { Way::Far };
        Ok(Command {
            update: Tale::update(),
            goto,
        })
    });
    let near = g.node("near", |_: Arc<Tale>| async { Ok(Tale::update().rounds(1_u64)) });
    let far = g.node("far", |_: Arc<Tale>| async { Ok(()) });
    let work = g.worker(
        "work",
        |item: u64| async move { Ok(Tale::update().log([item.to_string()])) },
    );
    g.edge(START, first).edge(far, END);
    g.routes(first, |way| match way {
        Way::Near => to(near),
        Way::Far => to(far),
    });
    g.branch(
        near,
        |tale: &Tale| if tale.rounds < 2 { Round::Again } else { Round::Enough },
        |round| match round {
            Round::Again => to(near),
            Round::Enough => to(END),
        },
    );
    g.fan_out(near, work, |tale: &Tale| 0..tale.items.saturating_sub(1));
    g.edge(work, END);
    let (graph, coverage) = Coverage::of(g.build().unwrap());
    assert_eq!(coverage.missing().len(), 4 + 2 + 2 + 1);
    graph.run(&thread("t"), items(1)).await.unwrap();
    let rest = [
        "node `far`",
        "node `work`",
        "the route `far` of router `first`",
        "the fan-out from `near` to `work`",
    ];
    assert_eq!(coverage.missing(), rest);
    let shown = "5 of 9 nodes and ways were covered; never:\n- node `far`\n- node `work`\n";
    assert!(coverage.to_string().starts_with(shown), "{coverage}");
    graph.clone().run(&thread("t"), items(2)).await.unwrap();
    graph.run(&thread("t"), items(0)).await.unwrap();
    assert_eq!(coverage.to_string(), "9 of 9 nodes and ways were covered");
}

#[tokio::test]
async fn a_sound_graph_stands_two_hundred_seeds_of_accidents() {
    let report = torture(outer, items(3))
        .answers(|_| json!(true))
        .seeds(0..200)
        .run()
        .await
        .unwrap();
    assert_eq!(report.seeds, 200);
    let struck = [report.store_failures, report.drops, report.node_failures];
    assert!(struck.iter().all(|times| *times >= 30), "{report:?}");
    assert!(report.resumes >= 200, "{report:?}");
}

#[tokio::test]
async fn a_seed_can_be_repeated() {
    let one = torture(outer, items(3)).seeds(17..18).run().await.unwrap();
    let two = torture(outer, items(3)).seeds(17..18).run().await.unwrap();
    assert_eq!(one, two);
}

/// A node that counts its entries outside of the journal: entered twice, it gives something else.
fn forgetful() -> Graph<Tale> {
    let entered = Arc::new(Mutex::new(0));
    let mut g = Graph::<Tale>::builder("forgetful");
    let node = g.node("node", move |_: Arc<Tale>| {
        *entered.lock().unwrap() += 1;
        let entry = *entered.lock().unwrap();
        async move {
            tokio::task::yield_now().await;
            Ok(Tale::update().log([format!("entry {entry}")]))
        }
    });
    g.edge(START, node).edge(node, END);
    g.build().unwrap()
}

#[tokio::test]
async fn torture_finds_a_node_that_is_not_the_same_when_it_is_entered_again_and_names_the_seed() {
    let failure = torture(forgetful, items(0)).run().await.unwrap_err();
    let text = failure.to_string();
    assert!(
        text.contains("the thread ended otherwise than without accidents"),
        "{text}"
    );
    assert!(text.contains("entry 1") && text.contains("entry 2"), "{text}");
    let seed = failure.seed;
    assert!(
        text.contains(&format!("run it alone by `.seeds({seed}..{})`", seed + 1)),
        "{text}"
    );
    let again = torture(forgetful, items(0))
        .seeds(seed..seed + 1)
        .run()
        .await
        .unwrap_err();
    assert_eq!(again.to_string(), text);
}

/// The order in which tasks end shows in what they share.
fn racing() -> Graph<Tale> {
    let order = Arc::new(Mutex::new(0));
    let mut g = Graph::<Tale>::builder("racing");
    for name in ["a", "b", "c"] {
        let order = Arc::clone(&order);
        let node = g.node(name, move |_: Arc<Tale>| {
            let order = Arc::clone(&order);
            async move {
                *order.lock().unwrap() += 1;
                let place = *order.lock().unwrap();
                Ok(Tale::update().log([format!("{name} {place}")]))
            }
        });
        g.edge(START, node).edge(node, END);
    }
    g.build().unwrap()
}

#[tokio::test]
async fn torture_finds_what_depends_on_the_order_of_tasks_side_by_side() {
    let failure = torture(racing, items(0)).run().await.unwrap_err();
    assert!(failure.to_string().contains("ended otherwise"), "{failure}");
}

#[tokio::test]
async fn a_graph_that_fails_by_itself_is_told_before_any_accident() {
    let failing = || {
        let mut g = Graph::<Tale>::builder("failing");
        let node = g.node("node", |_: Arc<Tale>| async {
            Err::<TaleUpdate, _>(NodeError::terminal("broken"))
        });
        g.edge(START, node).edge(node, END);
        g.build().unwrap()
    };
    let failure = torture(failing, items(0)).run().await.unwrap_err();
    let text = format!("{failure:?}");
    assert!(
        text.contains("before any accident") && text.contains("broken"),
        "{text}"
    );
}

#[tokio::test]
async fn a_faulty_store_fails_the_call_it_is_told_and_loses_the_answer_it_is_told() {
    let store = FaultyStore::over(Memory::new());
    store.fail_at(2);
    store.lose_answer_at(1);
    let key = thread("t");
    let epoch = store.claim(&key).await.unwrap();
    let failed = store.commit(&key, epoch, None, Commit::default()).await;
    assert!(matches!(failed, Err(CheckpointError::Unavailable { .. })));
    assert_eq!((store.calls(), store.commits(), store.accidents()), (2, 0, 1));
    let graph = outer().checkpointer(store.clone());
    let error = graph.run(&key, items(0)).await.unwrap_err();
    assert!(matches!(error, RunError::Checkpoint(_)), "{error}");
    assert_eq!((store.commits(), store.accidents()), (1, 2));
    // What was told to have failed was kept.
    assert!(matches!(graph.resume(&key).await, Ok(Outcome::Asked(_))));
    let effects: HashMap<_, _> = store
        .effects()
        .into_iter()
        .map(|(_, task, key, times)| ((task, key), times))
        .collect();
    assert_eq!(effects, HashMap::from([(("pays".to_owned(), "pay".to_owned()), 1)]));
    // An engine that ran a recorded effect again would be seen.
    let store = FaultyStore::over(Memory::new());
    let epoch = store.claim(&key).await.unwrap();
    let checkpoint = NewCheckpoint {
        id: ManualClock::new().id(),
        step: 0,
        source: CheckpointSource::Input,
        payload: Payload::Snapshot(Arc::from([0])),
        frontier: Arc::from([0]),
        fingerprint: ManualClock::new().id(),
        state_version: 1,
        created_at: ManualClock::new().now(),
    };
    let first = Commit {
        checkpoint: Some(checkpoint),
        ..Commit::default()
    };
    let head = store.commit(&key, epoch, None, first).await.unwrap();
    for _ in 0..2 {
        let record = TaskRecord {
            task: "pays".to_owned(),
            kind: RecordKind::Effect,
            key: "pay".to_owned(),
            body: Arc::from([0]),
        };
        let commit = Commit {
            records: vec![record],
            ..Commit::default()
        };
        store.commit(&key, epoch, head, commit).await.unwrap();
    }
    let times: Vec<_> = store.effects().into_iter().map(|effect| effect.3).collect();
    assert_eq!(times, [2]);
}

/// Looks something up, asks, emits, and says for whom.
struct Clerk;

#[async_trait]
impl Node for Clerk {
    type Input = String;
    type Output = String;
    type Event = u64;

    async fn run(&self, input: String, ctx: Context<u64>) -> Result<String, NodeError> {
        ctx.emit(1).await;
        let price = *ctx.provided::<u64>()?;
        let found: u64 = ctx.once("look", Effect::read(|| async move { Ok(price) })).await?;
        if !ctx.ask(Sure)? {
            return Err(NodeError::terminal("not wanted"));
        }
        Ok(format!("{} {input} {found} {}", ctx.tenant(), ctx.now().timestamp()))
    }
}

#[tokio::test]
async fn a_node_alone_is_given_what_it_needs_and_tells_what_it_did() {
    let clock = ManualClock::new();
    clock.advance(Duration::from_secs(42));
    let ran = run_node(Clerk, "tea".to_owned())
        .tenant("acme")
        .provide(7_u64)
        .clock(&clock);
    let ran = ran.answer::<Sure>(&true).run().await;
    assert_eq!(ran.output.as_deref(), Some("acme tea 7 42"), "{ran:?}");
    assert_eq!(
        (ran.entered, ran.events, ran.effects),
        (2, vec![1, 1], vec!["look".to_owned()])
    );
    assert!(ran.questions.is_empty() && ran.error.is_none());

    let asked = run_node(Clerk, "tea".to_owned()).provide(7_u64).run().await;
    assert_eq!((asked.output, asked.entered, asked.questions.len()), (None, 1, 1));
    let refused = run_node(Clerk, "tea".to_owned())
        .provide(7_u64)
        .answer_as("sure", json!(false))
        .run()
        .await;
    assert!(refused.error.unwrap().to_string().ends_with("not wanted"));
    let without = run_node(Clerk, "tea".to_owned()).run().await;
    assert!(without.error.unwrap().to_string().contains("u64"));
    let nobody = run_node(Clerk, "tea".to_owned()).tenant("no such/tenant").run().await;
    assert!(nobody.error.unwrap().to_string().contains("tenant"));
}

#[test]
fn a_manual_clock_stands_until_it_is_set_and_counts_its_ids() {
    let (clock, same) = (ManualClock::new(), ManualClock::new());
    let later = clock.now() + Duration::from_secs(5);
    clock.clone().set(later);
    assert_eq!((clock.now(), clock.now()), (later, later));
    assert_eq!([clock.id(), clock.id()], [same.id(), same.id()]);
}
