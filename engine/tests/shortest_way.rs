//! A plain run goes on in its own future, and with a driver once a step is not plain: both ways come to the same.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    pub(crate) mod fragile;
    pub(crate) mod threads;
}

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Answers, Append, Ask, Command, Context, END, Effect, Graph, GraphBuilder, Memory, NodeError, NodeId, OnBusy,
    Outcome, Route, Run, RunError, START, Spend, State,
    checkpoint::{At, Checkpointer, Page},
    to,
};
use support::{fragile::Fragile, threads::thread};
use tokio::sync::Notify;

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Work {
    #[state(input)]
    n: u64,
    #[state(reducer = Append)]
    log: Vec<String>,
    #[state(reducer = Fragile)]
    fragile: u64,
}

#[derive(Serialize, Ask)]
#[ask(name = "go_on", answer = bool)]
struct GoOn;

#[derive(Route, Clone, Copy)]
enum Way {
    Again,
    Enough,
}

fn log(line: impl Into<String>) -> WorkUpdate {
    Work::update().log([line.into()])
}

/// A node that logs its name, in a chain behind another.
fn after(g: &mut GraphBuilder<Work>, before: Option<NodeId<Work>>, name: &'static str) -> NodeId<Work> {
    let node = g.node(name, move |_: Arc<Work>| async move { Ok(log(name)) });
    match before {
        None => g.edge(START, node),
        Some(before) => g.edge(before, node),
    };
    node
}

/// What a node may know of its run, but for names that are drawn.
async fn told(ctx: Context<()>) -> Result<WorkUpdate, NodeError> {
    let done = ctx
        .once("told", Effect::read(|| async { Ok::<_, NodeError>(7) }))
        .await?;
    let same = ctx.uuid("a") == ctx.uuid("a");
    let (node, left, spent) = (ctx.node(), ctx.steps_left(), ctx.spent());
    ctx.spend(Spend {
        tokens: 5,
        cost_micros: 7,
    });
    Ok(log(format!(
        "{node} {left} {spent:?} {done} {same} {}",
        ctx.arrived().len()
    )))
}

/// What stands in the middle of a chain: between `a`, `b` and `y`, `z`.
const MIDDLES: &[&str] = &[
    "plain",
    "context",
    "two contexts",
    "waits",
    "fails",
    "panics",
    "fails in a reducer",
    "is not encoded",
    "fails in a branch",
    "several",
    "router",
    "loop",
    "undeclared",
    "asks",
    "ends",
    "leaves",
];

/// The node of that name.
fn node(g: &mut GraphBuilder<Work>, middle: &str) -> NodeId<Work> {
    match middle {
        "context" | "two contexts" => g.node("m", |_: Arc<Work>, ctx: Context<()>| told(ctx)),
        "waits" => g.node("m", |_: Arc<Work>| async {
            tokio::task::yield_now().await;
            Ok(log("m"))
        }),
        "fails" => g.node("m", |_: Arc<Work>| async {
            Err::<WorkUpdate, _>(NodeError::terminal("it is out of order"))
        }),
        "panics" => g.node("m", |work: Arc<Work>| async move {
            assert!(work.n == u64::MAX, "out of order");
            Ok(log("m"))
        }),
        "fails in a reducer" => g.node("m", |_: Arc<Work>| async { Ok(Work::update().fragile(13_u64)) }),
        "is not encoded" => g.node("m", |_: Arc<Work>| async { Ok(Work::update().fragile(17_u64)) }),
        "asks" => g.node("m", |_: Arc<Work>, ctx: Context<()>| async move {
            let on = ctx.ask(GoOn)?;
            Ok(log(format!("m {on}")))
        }),
        "leaves" => g.node("m", |_: Arc<Work>, ctx: Context<()>| async move {
            Err::<WorkUpdate, _>(ctx.leave(&7))
        }),
        _ => g.node("m", |_: Arc<Work>| async { Ok(log("m")) }),
    }
}

fn graph(middle: &str) -> Graph<Work> {
    let mut g = Graph::<Work>::builder("work");
    let first = after(&mut g, None, "a");
    let second = after(&mut g, Some(first), "b");
    let next = g.node("y", |work: Arc<Work>| async move {
        Ok(log(format!("y of {}", work.log.len())))
    });
    let last = after(&mut g, Some(next), "z");
    g.edge(last, END);
    if middle == "router" {
        let router = g.router("m", |work: Arc<Work>| async move {
            let enough = work.log.len() > 2;
            let goto = if enough { Way::Enough } else { Way::Again };
            Ok(Command { update: log("m"), goto })
        });
        g.edge(second, router);
        g.routes(router, move |way| match way {
            Way::Again => to(first),
            Way::Enough => to(next),
        });
        return g.build().unwrap();
    }
    let node = node(&mut g, middle);
    g.edge(second, node);
    match middle {
        "fails in a branch" => {
            let broken = |work: &Work| {
                assert!(work.n == u64::MAX, "no way on");
                Way::Enough
            };
            g.branch(node, broken, move |_| to(next));
        }
        "loop" => {
            let enough = |work: &Work| if work.log.len() < 9 { Way::Again } else { Way::Enough };
            g.branch(node, enough, move |way| match way {
                Way::Again => to(first),
                Way::Enough => to(next),
            });
        }
        "several" => {
            let aside = after(&mut g, Some(node), "c");
            g.edge(aside, next).edge(node, next);
        }
        "two contexts" => {
            let again = g.node("again", |_: Arc<Work>, ctx: Context<()>| told(ctx));
            g.edge(node, again).edge(again, next);
        }
        "ends" => {
            let enough = |work: &Work| if work.n == 1 { Way::Enough } else { Way::Again };
            g.branch(node, enough, move |way| match way {
                Way::Again => to(next),
                Way::Enough => to(END),
            });
        }
        "undeclared" => {
            g.writes(node, ["n"]);
            g.edge(node, next);
        }
        _ => {
            g.edge(node, next);
        }
    }
    g.build().unwrap()
}

/// What a run has come to, in words.
fn words(end: &Result<Outcome<Work>, RunError>) -> String {
    match end {
        Ok(Outcome::Asked(questions)) => format!("asked {:?}", questions.iter().map(|q| &q.name).collect::<Vec<_>>()),
        Ok(outcome) => format!("{outcome:?}"),
        Err(error) => format!("{} {error} {error:?}", error.code()),
    }
}

/// What a thread has, but for names that are drawn and the time.
async fn kept(store: &Memory) -> Vec<String> {
    let key = thread("t");
    let mut all = Vec::new();
    for info in store.list(&key, Page::default()).await.unwrap() {
        let found = store.get(&key, At::Seq(info.seq)).await.unwrap().unwrap();
        let run = found.run.map(|run| (run.graph, run.status, run.error));
        let records: Vec<_> = found
            .records
            .iter()
            .map(|record| (&record.task, record.kind, &record.key))
            .collect();
        let (info, parts) = (found.info, found.parts);
        let same_run = info.run.is_some();
        all.push(format!(
            "{:?} {:?} {} {:?} {:?} {} {} {parts:?} {records:?} {run:?} {same_run}",
            info.seq, info.parent, info.step, info.source, info.frontier, info.fingerprint, info.state_version
        ));
    }
    all
}

type Begin = fn(Run<Work>) -> Run<Work>;

/// The shortest way, and the driver's, which any option leads to that is not the limit of steps.
const WAYS: [Begin; 2] = [|run| run, |run| run.on_busy(OnBusy::Reject)];

#[tokio::test]
async fn both_ways_come_to_the_same_whatever_stands_in_the_middle() {
    let mut ends = Vec::new();
    for middle in MIDDLES {
        let graph = graph(middle);
        for limit in [1, 2, 3, 100] {
            let [short, long] = WAYS.map(|way| way(graph.run(&thread("t"), WorkInput { n: 1 }).step_limit(limit)));
            let (short, long) = (words(&short.await), words(&long.await));
            assert_eq!(short, long, "{middle}, at most {limit} steps");
            ends.push(short);
        }
    }
    assert!(ends.iter().any(|end| end.contains("run::step_limit")), "{ends:?}");
    assert!(ends.iter().any(|end| end.contains("thirteen")), "{ends:?}");
}

#[tokio::test]
async fn both_ways_keep_the_same_and_go_on_alike_when_they_are_resumed() {
    for middle in MIDDLES {
        let mut both = Vec::new();
        for way in WAYS {
            let store = Arc::new(Memory::new());
            let graph = graph(middle).shared_checkpointer(Arc::clone(&store) as Arc<dyn Checkpointer>);
            let mut seen = vec![words(&way(graph.run(&thread("t"), WorkInput { n: 1 })).await)];
            seen.extend(kept(&store).await);
            let again = graph.resume(&thread("t"));
            let again = if *middle == "asks" {
                again.answers(Answers::One(true.into()))
            } else {
                again
            };
            seen.push(words(&again.await));
            seen.extend(kept(&store).await);
            // New input on what is there, if it is let.
            seen.push(words(&way(graph.run(&thread("t"), WorkInput { n: 2 })).await));
            seen.extend(kept(&store).await);
            both.push(seen);
        }
        assert_eq!(both.first(), both.last(), "{middle}");
    }
}

#[tokio::test]
async fn the_thread_of_a_run_that_goes_the_shortest_way_is_busy_until_it_ends() {
    let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut g = Graph::<Work>::builder("work");
    let a = after(&mut g, None, "a");
    let (told, wait) = (Arc::clone(&entered), Arc::clone(&go));
    let waits = g.node("waits", move |_: Arc<Work>| {
        let (told, wait) = (Arc::clone(&told), Arc::clone(&wait));
        async move {
            told.notify_one();
            wait.notified().await;
            Ok(log("waits"))
        }
    });
    g.edge(a, waits).edge(waits, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let first = tokio::spawn(graph.run(&thread("t"), WorkInput { n: 1 }).into_future());
    entered.notified().await;
    let second = graph.run(&thread("t"), WorkInput { n: 2 }).await;
    assert_eq!(second.unwrap_err().code(), "run::busy");
    go.notify_one();
    assert!(matches!(first.await.unwrap(), Ok(Outcome::Done(_))));
    go.notify_one();
    assert!(matches!(
        graph.run(&thread("t"), WorkInput { n: 3 }).await,
        Ok(Outcome::Done(_))
    ));
}

#[tokio::test]
async fn a_run_that_is_dropped_on_the_shortest_way_gives_its_thread_on_and_is_resumed() {
    let mut g = Graph::<Work>::builder("work");
    let before = after(&mut g, None, "before");
    let count = g.node(
        "count",
        |work: Arc<Work>| async move { Ok(Work::update().n(work.n + 1)) },
    );
    g.edge(before, count);
    g.branch(
        count,
        |work| if work.n < 1_000 { Way::Again } else { Way::Enough },
        move |way| match way {
            Way::Again => to(count),
            Way::Enough => to(END),
        },
    );
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let mut run = graph
        .run(&thread("t"), WorkInput { n: 0 })
        .step_limit(2_000)
        .into_future();
    // It lets others run after some steps, and is dropped there.
    assert!(futures_util::poll!(run.as_mut()).is_pending());
    drop(run);
    let snapshot = graph.state(&thread("t"), At::Head).await.unwrap().unwrap();
    assert!((1..999).contains(&snapshot.state.n), "{}", snapshot.state.n);
    let end = graph
        .resume(&thread("t"))
        .step_limit(2_000)
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(end.n, 1_000);
}

#[tokio::test]
async fn a_node_that_keeps_the_state_it_was_given_sees_no_later_one() {
    let kept: Arc<Mutex<Vec<Arc<Work>>>> = Arc::default();
    let mut g = Graph::<Work>::builder("work");
    let keeper = Arc::clone(&kept);
    let a = g.node("a", move |work: Arc<Work>| {
        keeper.lock().unwrap().push(work);
        async { Ok(log("a")) }
    });
    let b = after(&mut g, Some(a), "b");
    g.edge(START, a).edge(b, END);
    let end = g.build().unwrap().run(&thread("t"), WorkInput { n: 1 }).await;
    assert_eq!(end.unwrap().done().unwrap().log, ["a", "b"]);
    assert_eq!(kept.lock().unwrap().first().unwrap().log, Vec::<String>::new());
}

#[tokio::test]
async fn a_run_that_has_ended_keeps_its_thread_from_nobody_even_while_its_future_is_there() {
    for (middle, ended) in [("plain", "Done"), ("is not encoded", "state::encode")] {
        let graph = graph(middle).checkpointer(Memory::new());
        let mut run = graph.run(&thread("t"), WorkInput { n: 1 }).into_future();
        let end = words(&run.as_mut().await);
        assert!(end.contains(ended), "{end}");
        let next = words(&graph.resume(&thread("t")).await);
        assert!(next.contains(ended), "{next}");
        drop(run);
    }
}
