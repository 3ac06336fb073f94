//! Time limits: of an attempt, of its silence, of a step, of a run; and what becomes of what comes too late.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect"
)]

mod support {
    pub(crate) mod threads;
}

use std::{
    future::{pending, ready},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Ask, Context, END, Effect, EventKind, FromState, Graph, GraphBuilder, Memory, NodeError, NodeTimeout,
    Outcome, Policy, ReaderGone, Retry, RunError, START, State, TimeoutKind, Warning, checkpoint::At, events,
};
use support::threads::thread;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep},
};

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[state(event = u64)]
struct Work {
    #[state(reducer = Append)]
    log: Vec<String>,
}

impl FromState<Work> for WorkInput {
    fn from_state(_: &Arc<Work>) -> Self {
        Self::new()
    }
}

impl From<Arc<Work>> for WorkUpdate {
    fn from(inner: Arc<Work>) -> Self {
        Work::update().log(inner.log.clone())
    }
}

#[derive(Serialize, Ask)]
#[ask(name = "sure", answer = bool)]
struct Sure;

fn logged(line: &str) -> WorkUpdate {
    Work::update().log([line.to_owned()])
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn twice() -> Retry {
    Retry::attempts(NonZeroU32::new(2).unwrap()).first_delay(Duration::ZERO)
}

/// A graph of one node with this policy.
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

async fn timeout_of(graph: &Graph<Work>) -> NodeTimeout {
    let error = graph.run(&thread("t"), WorkInput::new()).await.unwrap_err();
    *error.node_error::<NodeTimeout>().unwrap_or_else(|| panic!("{error}"))
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_ended_and_says_how_long_it_ran() {
    let node = |_: Arc<Work>, ctx: Context<u64>| async move {
        for _ in 0..3 {
            sleep(seconds(4)).await;
            ctx.heartbeat();
        }
        pending::<Result<WorkUpdate, NodeError>>().await
    };
    let graph = single(node, Policy::new().idle_timeout(seconds(5)));
    let timeout = timeout_of(&graph).await;
    assert_eq!((timeout.kind, timeout.limit), (TimeoutKind::Idle, seconds(5)));
    assert!(timeout.ran >= seconds(17) && timeout.ran < seconds(18), "{timeout}");
    assert_eq!(timeout.code(), "node::idle_timeout");
    assert!(
        timeout.to_string().starts_with("no sign of life for 5s (it ran for 17"),
        "{timeout}"
    );
}

#[tokio::test(start_paused = true)]
async fn events_and_recorded_effects_are_signs_of_life() {
    let node = |_: Arc<Work>, ctx: Context<u64>| async move {
        for round in 0..3 {
            sleep(seconds(4)).await;
            ctx.emit(round).await;
            sleep(seconds(4)).await;
            let _heard = ctx.try_emit(round);
            sleep(seconds(4)).await;
            let key = format!("round {round}");
            ctx.once(&key, Effect::read(|| ready(Ok(round)))).await?;
        }
        Ok(logged("done"))
    };
    let graph = single(node, Policy::new().idle_timeout(seconds(5))).checkpointer(Memory::new());
    let state = graph.run(&thread("t"), WorkInput::new()).await.unwrap().done().unwrap();
    assert_eq!(state.log, ["done"]);
}

/// A graph of so many steps of four seconds each.
fn inner(steps: usize) -> Graph<Work> {
    let mut g = Graph::<Work>::builder("inner");
    let mut before = None;
    for step in 0..steps {
        let node = g.node(format!("{step}"), |_: Arc<Work>| async {
            sleep(seconds(4)).await;
            Ok(logged("inner"))
        });
        match before.replace(node) {
            None => g.edge(START, node),
            Some(before) => g.edge(before, node),
        };
    }
    g.edge(before.unwrap(), END);
    g.build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_happens_in_a_graph_inside_is_a_sign_of_life_at_any_depth() {
    let middle = {
        let mut g = Graph::<Work>::builder("middle");
        let host = g.node("host", inner(5).as_node::<WorkInput, Arc<Work>>());
        g.edge(START, host).edge(host, END);
        g.build().unwrap()
    };
    let hosting = |graph: Graph<Work>, limit| {
        single(
            graph.as_node::<WorkInput, Arc<Work>>(),
            Policy::new().idle_timeout(limit),
        )
    };
    let run = hosting(middle.clone(), seconds(5))
        .run(&thread("t"), WorkInput::new())
        .await;
    assert_eq!(run.unwrap().done().unwrap().log.len(), 5);
    let timeout = timeout_of(&hosting(middle, seconds(3))).await;
    assert_eq!((timeout.kind, timeout.limit), (TimeoutKind::Idle, seconds(3)));
}

#[tokio::test(start_paused = true)]
async fn the_longest_duration_is_no_limit() {
    let node = |_: Arc<Work>| async {
        sleep(seconds(1_000_000)).await;
        Ok(logged("done"))
    };
    let mut g = Graph::<Work>::builder("free");
    let only = g.node("only", node);
    g.defaults(Policy::new().timeout(seconds(1)).idle_timeout(seconds(1)));
    g.policy(only, Policy::new().timeout(Duration::MAX).idle_timeout(Duration::MAX));
    g.edge(START, only).edge(only, END);
    g.build().unwrap().run(&thread("t"), WorkInput::new()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_attempt_still_does_is_dropped() {
    let (late, entries) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (told, told_late) = oneshot::channel();
    let told = Arc::new(std::sync::Mutex::new(Some(told)));
    let (notify, counted) = (Arc::clone(&late), Arc::clone(&entries));
    let node = move |_: Arc<Work>, ctx: Context<u64>| {
        let (entry, late, told) = (
            counted.fetch_add(1, Ordering::SeqCst),
            Arc::clone(&notify),
            Arc::clone(&told),
        );
        async move {
            if entry > 0 {
                late.notify_one();
                sleep(seconds(1)).await;
                return Ok(logged("second"));
            }
            // Goes on after its attempt was ended, as what a node spawns may.
            tokio::spawn(async move {
                late.notified().await;
                ctx.emit(1).await;
                let heard = ctx.try_emit(2);
                let kept = ctx.once("late", Effect::idempotent(|_| ready(Ok(1_u64)))).await.is_ok();
                let asked = ctx.ask(Sure).is_ok_and(|sure| sure);
                let told = told.lock().unwrap().take().unwrap();
                told.send((heard, kept, asked)).unwrap();
            });
            pending().await
        }
    };
    let graph = single(node, Policy::new().timeout(seconds(5)).retry(twice())).checkpointer(Memory::new());
    let (sender, mut reader) = events(100, ReaderGone::Finish);
    let outcome = graph.run(&thread("t"), WorkInput::new()).events(sender).await.unwrap();
    assert_eq!(
        outcome.done().unwrap().log,
        ["second"],
        "the late question stops nobody"
    );
    assert_eq!(told_late.await.unwrap(), (false, false, false));
    while let Some(event) = reader.next().await {
        assert!(!matches!(event.kind, EventKind::Custom { .. }), "{event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_ends_after_its_step_is_not_written_to_a_later_one() {
    let (late, over) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut g = Graph::<Work>::builder("late");
    let (notified, notify) = (Arc::clone(&late), Arc::clone(&over));
    let first = g.node("first", move |_: Arc<Work>, ctx: Context<u64>| {
        let (late, over) = (Arc::clone(&notified), Arc::clone(&notify));
        tokio::spawn(async move {
            let effect = Effect::idempotent(|_| async {
                late.notified().await;
                Ok(1_u64)
            });
            assert!(ctx.once("late", effect).await.is_err());
            over.notify_one();
        });
        ready(Ok(logged("first")))
    });
    let second = g.node("second", move |_: Arc<Work>| {
        let (late, over) = (Arc::clone(&late), Arc::clone(&over));
        async move {
            sleep(seconds(1)).await;
            late.notify_one();
            over.notified().await;
            Ok(logged("second"))
        }
    });
    g.edge(START, first).edge(first, second).edge(second, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    graph.run(&thread("t"), WorkInput::new()).await.unwrap();
}

/// One quick node, one that waits for so long, and one that never ends the first time; with ten seconds a step.
fn slow_step(g: &mut GraphBuilder<Work>, entries: &Arc<AtomicUsize>) {
    let quick = g.node("quick", |_: Arc<Work>| ready(Ok(logged("quick"))));
    let counted = Arc::clone(entries);
    let stuck = g.node("stuck", move |_: Arc<Work>| {
        let entry = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            if entry == 0 {
                pending::<()>().await;
            }
            Ok(logged("stuck"))
        }
    });
    let just = g.node("in_time", |_: Arc<Work>| async {
        sleep(seconds(9)).await;
        Ok(logged("in_time"))
    });
    g.step_timeout(seconds(10));
    for node in [quick, stuck, just] {
        g.edge(START, node).edge(node, END);
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_that_takes_too_long_is_cut_off_and_keeps_what_has_finished() {
    let entries = Arc::default();
    let mut g = Graph::<Work>::builder("slow");
    slow_step(&mut g, &entries);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let begun = Instant::now();
    let error = graph.run(&thread("t"), WorkInput::new()).await.unwrap_err();
    let RunError::StepTimeout { limit, step, tasks, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(
        (*limit, *step, tasks.as_slice()),
        (seconds(10), 1, ["stuck".to_owned()].as_slice())
    );
    assert_eq!((error.code(), begun.elapsed().as_secs()), ("run::step_timeout", 10));
    let kept = graph.state(&thread("t"), At::Head).await.unwrap().unwrap();
    assert_eq!(kept.state.log, ["in_time", "quick"]);
    let stuck = kept.tasks.iter().find(|task| task.node == "stuck").unwrap();
    assert!(stuck.cut_off && stuck.error.is_none(), "{stuck:?}");
    let state = graph.resume(&thread("t")).await.unwrap().done().unwrap();
    assert_eq!((state.log.len(), entries.load(Ordering::SeqCst)), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn a_step_of_one_task_is_cut_off_as_well_also_inside_a_node() {
    let stuck = || {
        let mut g = Graph::<Work>::builder("stuck");
        let only = g.node("only", |_: Arc<Work>| pending::<Result<WorkUpdate, NodeError>>());
        g.step_timeout(seconds(10)).edge(START, only).edge(only, END);
        g.build().unwrap()
    };
    let alone = stuck().run(&thread("t"), WorkInput::new()).await.unwrap_err();
    assert!(matches!(alone, RunError::StepTimeout { .. }), "{alone}");
    let host = single(stuck().as_node::<WorkInput, Arc<Work>>(), Policy::new().retry(twice()));
    let begun = Instant::now();
    let inside = host.run(&thread("t"), WorkInput::new()).await.unwrap_err();
    assert!(
        matches!(
            &inside,
            RunError::Node {
                attempts: 2,
                retryable: true,
                ..
            }
        ),
        "{inside}"
    );
    assert!(inside.node_error::<RunError>().is_some());
    assert_eq!(begun.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_step_timeout_waits_for_an_effect_that_must_not_happen_twice() {
    let node = |_: Arc<Work>, ctx: Context<u64>| async move {
        let effect = Effect::other(|| async {
            sleep(seconds(15)).await;
            Ok("charged".to_owned())
        });
        let said: String = ctx.once("charge", effect).await?;
        sleep(seconds(1)).await;
        Ok(logged(&said))
    };
    let mut g = Graph::<Work>::builder("charges");
    let only = g.node("only", node);
    g.step_timeout(seconds(10)).edge(START, only).edge(only, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    graph.run(&thread("t"), WorkInput::new()).await.unwrap_err();
    // Nothing is in doubt: the effect had landed before the step was given up.
    let state = graph.resume(&thread("t")).await.unwrap().done().unwrap();
    assert_eq!(state.log, ["charged"]);
}

#[tokio::test(start_paused = true)]
async fn a_graphs_deadline_holds_for_its_runs_unless_they_say_otherwise() {
    let mut g = Graph::<Work>::builder("deadline");
    let only = g.node("only", |_: Arc<Work>| async {
        sleep(seconds(20)).await;
        Ok(logged("done"))
    });
    g.deadline(seconds(10)).edge(START, only).edge(only, END);
    let graph = g.build().unwrap();
    let error = graph.run(&thread("t"), WorkInput::new()).await.unwrap_err();
    assert!(
        matches!(error, RunError::TimeLimit { limit, .. } if limit == seconds(10)),
        "{error}"
    );
    let longer = graph.run(&thread("t"), WorkInput::new()).time_limit(seconds(30)).await;
    assert!(matches!(longer.unwrap(), Outcome::Done(_)));

    // As a node it fails its host, whose own time is not over, and the host's time cuts it short.
    let host = single(graph.clone().as_node::<WorkInput, Arc<Work>>(), Policy::new());
    let error = host
        .run(&thread("t"), WorkInput::new())
        .time_limit(Duration::from_mins(1))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, RunError::Node { node, .. } if node == "only"),
        "{error}"
    );
    let error = host
        .run(&thread("t"), WorkInput::new())
        .time_limit(seconds(5))
        .await
        .unwrap_err();
    assert!(
        matches!(error, RunError::TimeLimit { limit, .. } if limit == seconds(5)),
        "{error}"
    );
}

#[test]
fn retries_that_outlast_the_deadline_are_warned_of() {
    let graph = |deadline| {
        let mut g = Graph::<Work>::builder("warned");
        let only = g.node("only", |_: Arc<Work>| ready(Ok(logged("done"))));
        g.defaults(Policy::new().timeout(seconds(10)));
        g.policy(only, Policy::new().retry(twice()));
        g.deadline(deadline).edge(START, only).edge(only, END);
        g.build().unwrap()
    };
    assert_eq!(graph(seconds(20)).warnings(), []);
    let late = graph(seconds(19));
    let warnings = late.warnings();
    let [warning @ Warning::RetriesOutlastDeadline { node, worst, .. }] = warnings else {
        panic!("{warnings:?}")
    };
    assert_eq!((node.as_ref(), *worst), ("only", seconds(20)));
    assert_eq!(warning.code(), "graph::retries_outlast_deadline");
}
