//! What goes wrong: errors, retries, time limits, panics, cancellation; and what is kept of the step.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect"
)]

mod support {
    pub(crate) mod store;
    pub(crate) mod threads;
}

use std::{
    fmt,
    future::{pending, ready},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Context, END, FromState, Graph, Memory, NodeError, NodePanic, NodeTimeout, OnPending, Policy, Reducer,
    Retry, Route, RunError, START, State, Sum, TimeoutKind, checkpoint::At, to,
};
use support::{store::Watched, threads::thread};
use tokio::{sync::Notify, time::Instant};

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[state(event = u64)]
struct Work {
    #[state(reducer = Append)]
    log: Vec<String>,
    #[state(input, default = 0)]
    mode: u64,
    #[state(reducer = Sum)]
    sum: u64,
    #[state(reducer = Fragile)]
    fragile: u64,
}

/// A reducer that panics at 13.
struct Fragile;

impl Reducer<u64> for Fragile {
    type Update = u64;
    const ID: &'static str = "fragile";
    const CONCURRENT: bool = true;

    fn first(update: u64) -> u64 {
        update
    }

    fn reduce(current: &mut u64, update: u64) {
        assert!(update != 13, "thirteen");
        *current += update;
    }
}

#[derive(Debug)]
struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken")
    }
}

impl std::error::Error for Broken {}

fn input(mode: u64) -> WorkInput {
    WorkInput { mode }
}

fn logged(line: &str) -> WorkUpdate {
    Work::update().log([line.to_owned()])
}

fn attempts(count: u32) -> Retry {
    Retry::attempts(NonZeroU32::new(count).unwrap()).first_delay(Duration::from_secs(1))
}

/// Counts that survive the closures of a graph.
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

/// A graph of one node.
fn single<M, N>(node: N, policy: Policy) -> Graph<Work>
where
    N: stepgraph::IntoNode<Work, M>,
    N::Input: FromState<Work>,
    N::Output: Into<WorkUpdate>,
{
    let mut g = Graph::<Work>::builder("single");
    let node = g.node("only", node);
    g.policy(node, policy).edge(START, node).edge(node, END);
    g.build().unwrap()
}

/// Fails retryably in the first so many attempts.
fn failing(first: usize, policy: Policy) -> (Graph<Work>, Count) {
    let count = Count::default();
    let counted = count.clone();
    let node = move |_: Arc<Work>, ctx: Context<u64>| {
        let attempt = counted.up();
        async move {
            assert_eq!(u32::try_from(attempt).unwrap(), ctx.attempt());
            if attempt <= first {
                Err(Broken.into())
            } else {
                Ok(logged("ok"))
            }
        }
    };
    (single(node, policy), count)
}

#[tokio::test(start_paused = true)]
async fn a_retryable_error_is_tried_again_after_growing_waits() {
    let (graph, count) = failing(2, Policy::new().retry(attempts(3)));
    let begun = Instant::now();
    let state = graph.run(&thread("t"), input(0)).await.unwrap().done().unwrap();
    assert_eq!((state.log.len(), count.get()), (1, 3));
    // The upper halves of one and of two seconds.
    let waited = begun.elapsed();
    assert!(
        waited >= Duration::from_millis(1500) && waited <= Duration::from_millis(3010),
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_last_attempt_ends_the_run_with_its_error() {
    let (graph, count) = failing(usize::MAX, Policy::new().retry(attempts(3)));
    let error = graph.run(&thread("t"), input(0)).await.unwrap_err();
    let RunError::Node {
        node,
        task,
        step,
        attempts,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(
        (node.as_str(), task.as_str(), *step, *attempts, count.get()),
        ("only", "only", 1, 3, 3)
    );
    assert!(error.node_error::<Broken>().is_some());
    assert_eq!(
        error.to_string(),
        "node `only` failed in step 1 of thread acme/t after 3 attempt(s) (once the cause is mended, run it again): broken"
    );
}

#[tokio::test]
async fn without_a_policy_a_node_has_one_attempt() {
    let (graph, count) = failing(1, Policy::default());
    graph.run(&thread("t"), input(0)).await.unwrap_err();
    assert_eq!(count.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_terminal_error_is_not_tried_again() {
    let count = Count::default();
    let counted = count.clone();
    let node = move |_: Arc<Work>| {
        counted.up();
        ready(Err::<WorkUpdate, _>(NodeError::terminal(Broken)))
    };
    let graph = single(node, Policy::new().retry(attempts(5)));
    let error = graph.run(&thread("t"), input(0)).await.unwrap_err();
    assert!(error.node_error::<Broken>().is_some());
    assert_eq!(count.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_holds_for_each_attempt() {
    let count = Count::default();
    let counted = count.clone();
    let node = move |_: Arc<Work>| {
        counted.up();
        pending::<Result<WorkUpdate, NodeError>>()
    };
    let policy = Policy::new().timeout(Duration::from_secs(10)).retry(attempts(2));
    let begun = Instant::now();
    let error = single(node, policy).run(&thread("t"), input(0)).await.unwrap_err();
    let timeout = error.node_error::<NodeTimeout>().unwrap();
    assert_eq!(
        (timeout.kind, timeout.limit),
        (TimeoutKind::Run, Duration::from_secs(10))
    );
    assert_eq!(count.get(), 2);
    assert!(begun.elapsed() >= Duration::from_millis(20_500) && begun.elapsed() <= Duration::from_millis(21_010));
}

/// A view that cannot be made.
struct Unreadable;

impl FromState<Work> for Unreadable {
    fn from_state(_: &Arc<Work>) -> Self {
        panic!("no view")
    }
}

#[tokio::test]
async fn a_panic_in_a_node_is_its_error_wherever_it_happens() {
    let before = single(
        |_: Arc<Work>| {
            assert!(std::hint::black_box(false), "before the first await");
            ready(Ok(logged("never")))
        },
        Policy::new(),
    );
    let inside = single(
        |_: Arc<Work>| async {
            tokio::task::yield_now().await;
            assert!(std::hint::black_box(false), "after an await");
            Ok(logged("never"))
        },
        Policy::new(),
    );
    let view = single(|_: Unreadable| ready(Ok(logged("never"))), Policy::new());
    for (graph, message) in [
        (before, "before the first await"),
        (inside, "after an await"),
        (view, "no view"),
    ] {
        let error = graph.run(&thread("t"), input(0)).await.unwrap_err();
        let panic = error.node_error::<NodePanic>().unwrap();
        assert_eq!(panic.message, message);
        assert_eq!(error.code(), "run::node");
    }
}

#[derive(Route, Clone, Copy)]
enum Way {
    On,
}

/// Panics in a closure of the graph, where and only while told by the input's mode.
fn fragile_closures() -> Graph<Work> {
    let mut g = Graph::<Work>::builder("fragile");
    let a = g.node("a", |work: Arc<Work>| {
        ready(Ok(logged("a").fragile(if work.mode == 3 { 13_u64 } else { 1 })))
    });
    let work = g.worker("work", |_: u64| ready(Ok(logged("work"))));
    let check = |at: u64, message: &'static str| {
        move |work: &Work| {
            assert!(work.mode != at, "{message}");
            Way::On
        }
    };
    g.branch(START, check(1, "branch at start"), |way| match way {
        Way::On => to(a),
    });
    g.branch(a, check(4, "branch"), |way| match way {
        Way::On => to(END),
    });
    g.fan_out(START, work, |work: &Work| {
        assert!(work.mode != 2, "fan-out at start");
        None::<u64>
    });
    g.fan_out(a, work, |work: &Work| {
        assert!(work.mode != 5, "fan-out");
        [work.mode]
    });
    g.edge(work, END);
    g.build().unwrap()
}

#[tokio::test]
async fn a_panic_in_a_reducer_branch_or_fan_out_ends_the_run_and_keeps_nothing_of_the_step() {
    let messages = [
        (1, "branch at start"),
        (2, "fan-out at start"),
        (3, "thirteen"),
        (4, "branch"),
        (5, "fan-out"),
    ];
    for (mode, message) in messages {
        let graph = fragile_closures().checkpointer(Memory::new());
        graph.run(&thread("t"), input(0)).await.unwrap();
        let before = graph.state(&thread("t"), At::Head).await.unwrap().unwrap();
        let error = graph.run(&thread("t"), input(mode)).await.unwrap_err();
        let RunError::Panic {
            step, message: said, ..
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!(said, message);
        let after = graph.state(&thread("t"), At::Head).await.unwrap().unwrap();
        assert_eq!(after.state.log, before.state.log);
        if mode < 3 {
            assert_eq!((after, *step), (before, 4), "nothing was admitted");
        } else {
            assert_eq!((after.entry.next, *step), (vec!["a".to_owned()], 5));
        }
        assert!(
            graph
                .run(&thread("t"), input(0))
                .on_pending(OnPending::Discard)
                .await
                .is_ok()
        );
    }
}

/// Two siblings: `fails` fails while `broken`; `slow` ends only after `fails` has been entered.
fn siblings(broken: &Arc<AtomicU64>) -> (Graph<Work>, Count, Count) {
    let (fails, slow) = (Count::default(), Count::default());
    let entered = Arc::new(Notify::new());
    let mut g = Graph::<Work>::builder("siblings");
    let (count, flag, notify) = (fails.clone(), Arc::clone(broken), Arc::clone(&entered));
    let a = g.node("fails", move |_: Arc<Work>| {
        count.up();
        notify.notify_one();
        ready(if flag.load(Ordering::SeqCst) == 0 {
            Ok(logged("fails"))
        } else {
            Err(NodeError::terminal(Broken))
        })
    });
    let count = slow.clone();
    let b = g.node("slow", move |_: Arc<Work>| {
        count.up();
        let entered = Arc::clone(&entered);
        async move {
            entered.notified().await;
            Ok(logged("slow"))
        }
    });
    let quick = g.node("quick", |_: Arc<Work>| ready(Ok(logged("quick"))));
    for node in [a, b, quick] {
        g.edge(START, node).edge(node, END);
    }
    (g.build().unwrap(), fails, slow)
}

#[tokio::test]
async fn finished_siblings_of_a_failed_task_are_kept_and_not_run_again() {
    let broken = Arc::new(AtomicU64::new(1));
    let (graph, fails, slow) = siblings(&broken);
    let graph = graph.checkpointer(Watched::default());
    for round in 1..=3 {
        let run = if round == 1 {
            graph.run(&thread("t"), input(0))
        } else {
            graph.resume(&thread("t"))
        };
        let error = run.await.unwrap_err();
        assert!(
            matches!(&error, RunError::Node { node, .. } if node == "fails"),
            "{error}"
        );
        assert_eq!((fails.get(), slow.get()), (round, 1));
    }
    broken.store(0, Ordering::SeqCst);
    let state = graph.resume(&thread("t")).await.unwrap().done().unwrap();
    assert_eq!(state.log, ["fails", "quick", "slow"]);
    assert_eq!((fails.get(), slow.get()), (4, 1));
}

#[tokio::test]
async fn a_thousand_racing_siblings_of_a_failed_task_lose_no_result() {
    let runs = Count::default();
    let broken = Arc::new(AtomicU64::new(1));
    let mut g = Graph::<Work>::builder("race");
    let (count, flag) = (runs.clone(), Arc::clone(&broken));
    let work = g.worker("work", move |item: u64| {
        let (count, broken) = (count.clone(), flag.load(Ordering::SeqCst) == 1);
        async move {
            for _ in 0..item % 7 {
                tokio::task::yield_now().await;
            }
            if broken && item == 500 {
                return Err(NodeError::terminal(Broken));
            }
            count.up();
            Ok(Work::update().sum(item))
        }
    });
    g.fan_out(START, work, |_: &Work| 0_u64..1000).edge(work, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    graph.run(&thread("t"), input(0)).await.unwrap_err();
    assert_eq!(runs.get(), 999);
    broken.store(0, Ordering::SeqCst);
    let state = graph.resume(&thread("t")).await.unwrap().done().unwrap();
    assert_eq!((state.sum, runs.get()), (499_500, 1000));
}
