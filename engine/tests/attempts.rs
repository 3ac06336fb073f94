//! Attempts that outlive a crash, and which errors are worth another.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    pub(crate) mod clock;
    pub(crate) mod threads;
}

use std::{
    future::{IntoFuture, ready},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Cancel, Checkpointer, Context, END, FailureKind, FromState, Graph, Memory, NodeError, NodePanic, OnFailure,
    Outcome, Policy, Retry, RunError, START, State, Sum, TaskState, checkpoint::At,
};
use support::{clock::TokioClock, threads::thread};
use tokio::time::{Instant, sleep, timeout};

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Work {
    #[state(reducer = Append)]
    log: Vec<String>,
    #[state(reducer = Sum)]
    sum: u64,
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

fn logged(line: &str) -> WorkUpdate {
    Work::update().log([line.to_owned()])
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// So many attempts, a minute apart.
fn minutely(count: u32) -> Policy {
    let retry = Retry::attempts(NonZeroU32::new(count).unwrap());
    Policy::new().retry(
        retry
            .first_delay(Duration::from_mins(1))
            .delay_max(Duration::from_mins(1)),
    )
}

/// Fails with `error` until it was entered so many times; writes the attempt it succeeds in.
fn failing(until: usize, policy: Policy, error: fn() -> NodeError) -> (Graph<Work>, Arc<AtomicUsize>) {
    let entries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&entries);
    let mut g = Graph::<Work>::builder("failing");
    let only = g.node("only", move |_: Arc<Work>, ctx: Context<()>| {
        let entry = counted.fetch_add(1, Ordering::SeqCst) + 1;
        ready(if entry > until {
            Ok(logged(&format!("attempt {}", ctx.attempt())))
        } else {
            Err(error())
        })
    });
    g.policy(only, policy).edge(START, only).edge(only, END);
    (g.build().unwrap(), entries)
}

fn broken() -> NodeError {
    NodeError::retryable("broken").with_code("test::broken")
}

async fn only_task(graph: &Graph<Work>) -> TaskState {
    let snapshot = graph.state(&thread("t"), At::Head).await.unwrap().unwrap();
    snapshot.tasks.into_iter().next().unwrap()
}

/// Runs for so long, then drops the run, as a crash would.
async fn crash_after(graph: &Graph<Work>, limit: Duration, resume: bool) {
    let run = if resume {
        graph.resume(&thread("t"))
    } else {
        graph.run(&thread("t"), WorkInput::new())
    };
    assert!(timeout(limit, run.into_future()).await.is_err(), "it was to be cut off");
}

#[tokio::test(start_paused = true)]
async fn the_count_goes_on_after_a_crash_and_the_wait_is_waited_out() {
    let (graph, entries) = failing(2, minutely(3), broken);
    let graph = graph.checkpointer(Memory::new()).clock(TokioClock::start());
    crash_after(&graph, seconds(10), false).await;
    let task = only_task(&graph).await;
    let retrying = task.retrying.unwrap();
    assert_eq!((retrying.failed, entries.load(Ordering::SeqCst)), (1, 1));
    assert_eq!(retrying.failure.unwrap().code.as_deref(), Some("test::broken"));
    // What is left of the wait is at least 30 seconds of a minute's upper half, minus the ten that have passed.
    crash_after(&graph, seconds(19), true).await;
    assert_eq!(entries.load(Ordering::SeqCst), 1, "the wait was begun anew or left out");
    let begun = Instant::now();
    let state = graph.resume(&thread("t")).await.unwrap().done().unwrap();
    assert_eq!(
        (state.log.as_slice(), entries.load(Ordering::SeqCst)),
        (["attempt 3".to_owned()].as_slice(), 3)
    );
    // The rest of the first wait, and the second.
    assert!(
        begun.elapsed() >= seconds(31) && begun.elapsed() <= seconds(92),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_whose_time_has_passed_is_not_waited_again() {
    let (graph, entries) = failing(1, minutely(3), broken);
    let graph = graph.checkpointer(Memory::new()).clock(TokioClock::start());
    crash_after(&graph, seconds(10), false).await;
    sleep(seconds(100)).await;
    let begun = Instant::now();
    let state = graph.resume(&thread("t")).await.unwrap().done().unwrap();
    assert_eq!(
        (state.log.as_slice(), entries.load(Ordering::SeqCst)),
        (["attempt 2".to_owned()].as_slice(), 2)
    );
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn attempts_of_all_entries_together_are_no_more_than_the_policy_allows() {
    let (graph, entries) = failing(usize::MAX, minutely(3), broken);
    let graph = graph.checkpointer(Memory::new()).clock(TokioClock::start());
    for round in 0..20 {
        if timeout(seconds(20), graph_run(&graph, round > 0)).await.is_ok() {
            break;
        }
    }
    assert_eq!(entries.load(Ordering::SeqCst), 3);
    let task = only_task(&graph).await;
    let failure = task.error.unwrap();
    assert_eq!(
        (failure.attempts, failure.message.as_str(), failure.retryable),
        (3, "broken", true)
    );
    assert_eq!(
        (failure.kind, failure.code.as_deref()),
        (FailureKind::Error, Some("test::broken"))
    );
    assert!(task.retrying.is_none());
}

async fn graph_run(graph: &Graph<Work>, resume: bool) -> Result<Outcome<Work>, RunError> {
    if resume {
        graph.resume(&thread("t")).await
    } else {
        graph.run(&thread("t"), WorkInput::new()).await
    }
}

#[tokio::test(start_paused = true)]
async fn resuming_after_the_last_attempt_begins_with_a_fresh_count() {
    let (graph, entries) = failing(4, minutely(3), broken);
    let graph = graph.checkpointer(Memory::new()).clock(TokioClock::start());
    graph_run(&graph, false).await.unwrap_err();
    assert_eq!(entries.load(Ordering::SeqCst), 3);
    let state = graph_run(&graph, true).await.unwrap().done().unwrap();
    assert_eq!(
        (state.log.as_slice(), entries.load(Ordering::SeqCst)),
        (["attempt 2".to_owned()].as_slice(), 5)
    );
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_wait_keeps_the_count() {
    let (graph, entries) = failing(2, minutely(3), broken);
    let graph = graph.checkpointer(Memory::new()).clock(TokioClock::start());
    let cancel = Cancel::new();
    let run = tokio::spawn(graph.run(&thread("t"), WorkInput::new()).cancel(&cancel).into_future());
    sleep(seconds(1)).await;
    cancel.cancel();
    assert_eq!(run.await.unwrap().unwrap(), Outcome::Cancelled);
    let state = graph_run(&graph, true).await.unwrap().done().unwrap();
    assert_eq!(
        (state.log.as_slice(), entries.load(Ordering::SeqCst)),
        (["attempt 3".to_owned()].as_slice(), 3)
    );
}

#[tokio::test(start_paused = true)]
async fn the_count_of_a_node_inside_another_goes_on_as_well() {
    let (inner, entries) = failing(2, minutely(3), broken);
    let mut g = Graph::<Work>::builder("outer");
    let host = g.node("host", inner.as_node::<WorkInput, Arc<Work>>());
    g.edge(START, host).edge(host, END);
    let graph = g
        .build()
        .unwrap()
        .checkpointer(Memory::new())
        .clock(TokioClock::start());
    crash_after(&graph, seconds(10), false).await;
    let state = graph_run(&graph, true).await.unwrap().done().unwrap();
    assert_eq!(
        (state.log.as_slice(), entries.load(Ordering::SeqCst)),
        (["attempt 3".to_owned()].as_slice(), 3)
    );
}

#[tokio::test(start_paused = true)]
async fn workers_are_counted_one_by_one() {
    let entries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&entries);
    let mut g = Graph::<Work>::builder("workers");
    let work = g.worker("work", move |item: u64, ctx: Context<()>| {
        counted.fetch_add(1, Ordering::SeqCst);
        // The item says which attempt succeeds.
        ready(if u64::from(ctx.attempt()) > item {
            Ok(Work::update().sum(item))
        } else {
            Err(broken())
        })
    });
    g.fan_out(START, work, |_: &Work| 0..3_u64)
        .edge(work, END)
        .policy(work, minutely(3));
    let graph = g
        .build()
        .unwrap()
        .checkpointer(Memory::new())
        .clock(TokioClock::start());
    crash_after(&graph, seconds(10), false).await;
    let state = graph_run(&graph, true).await.unwrap().done().unwrap();
    assert_eq!((state.sum, entries.load(Ordering::SeqCst)), (3, 6));
}

#[tokio::test(start_paused = true)]
async fn an_error_that_says_when_to_come_back_is_waited_for() {
    let (graph, _) = failing(1, minutely(2), || broken().retry_after(Duration::from_mins(10)));
    let begun = Instant::now();
    graph_run(&graph, false).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_mins(10));
    let (graph, entries) = failing(1, minutely(2), || broken().retry_after(seconds(100_000)));
    graph_run(&graph, false).await.unwrap_err();
    assert_eq!(entries.load(Ordering::SeqCst), 1, "longer than a day is not waited for");
}

#[derive(Debug, thiserror::Error)]
#[error("a number: {0}")]
struct NotANumber(#[source] std::num::ParseIntError);

#[tokio::test(start_paused = true)]
async fn only_errors_that_the_policy_finds_worth_it_are_tried_again() {
    let of_numbers = Retry::attempts(NonZeroU32::new(3).unwrap())
        .first_delay(seconds(1))
        .only_if(|error| error.find::<std::num::ParseIntError>().is_some());
    let parse = || NodeError::from(NotANumber("x".parse::<u64>().unwrap_err()));
    for (error, tried) in [(broken as fn() -> NodeError, 1), (parse, 3)] {
        let (graph, entries) = failing(usize::MAX, Policy::new().retry(of_numbers), error);
        graph_run(&graph, false).await.unwrap_err();
        assert_eq!(entries.load(Ordering::SeqCst), tried);
    }
    let terminal = || NodeError::terminal(NotANumber("x".parse::<u64>().unwrap_err()));
    let (graph, entries) = failing(usize::MAX, Policy::new().retry(of_numbers), terminal);
    graph_run(&graph, false).await.unwrap_err();
    assert_eq!(entries.load(Ordering::SeqCst), 1, "terminal stays terminal");
}

#[tokio::test]
async fn a_failure_is_kept_with_its_kind_and_sources() {
    let mut g = Graph::<Work>::builder("failures");
    let parses = g.node("parses", |_: Arc<Work>| {
        ready(Err::<WorkUpdate, _>(NodeError::from(NotANumber(
            "x".parse::<u64>().unwrap_err(),
        ))))
    });
    let panics = g.node("then_panics", |_: Arc<Work>| {
        assert!(std::hint::black_box(false), "oh");
        ready(Ok(logged("never")))
    });
    for node in [parses, panics] {
        g.edge(START, node).edge(node, END);
    }
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let error = graph_run(&graph, false).await.unwrap_err();
    assert!(error.node_error::<NotANumber>().is_some() && error.node_error::<NodePanic>().is_none());
    let tasks = graph.state(&thread("t"), At::Head).await.unwrap().unwrap().tasks;
    let failures: Vec<_> = tasks.into_iter().map(|task| task.error.unwrap()).collect();
    assert_eq!(failures[0].message, "a number: invalid digit found in string");
    assert_eq!(failures[0].sources, ["invalid digit found in string"]);
    assert_eq!(
        (failures[1].kind, failures[1].code.as_deref()),
        (FailureKind::Panic, Some("node::panic"))
    );
    assert!(!failures[1].retryable && failures[0].retryable);
}

/// A thousand siblings, one of which fails while some have finished and the others wait.
fn racing(policy: OnFailure) -> (Graph<Work>, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (finished, broken_yet) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(1)));
    let mut g = Graph::<Work>::builder("race");
    let (count, flag) = (Arc::clone(&finished), Arc::clone(&broken_yet));
    let work = g.worker("work", move |item: u64| {
        let (count, broken_now) = (Arc::clone(&count), flag.load(Ordering::SeqCst) == 1);
        async move {
            for _ in 0..item % 7 {
                tokio::task::yield_now().await;
            }
            if broken_now && item == 500 {
                return Err(NodeError::terminal("broken"));
            }
            count.fetch_add(1, Ordering::SeqCst);
            Ok(Work::update().sum(item))
        }
    });
    g.on_failure(policy)
        .fan_out(START, work, |_: &Work| 0..1000_u64)
        .edge(work, END);
    (g.build().unwrap().checkpointer(Memory::new()), finished, broken_yet)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_racing_siblings_lose_no_result_whether_they_are_cut_off_or_not() {
    for policy in [OnFailure::LetFinish, OnFailure::CancelSiblings] {
        let (graph, finished, broken_yet) = racing(policy);
        let error = graph_run(&graph, false).await.unwrap_err();
        assert!(
            matches!(&error, RunError::Node { task, .. } if task == "work#500"),
            "{error}"
        );
        let tasks = graph.state(&thread("t"), At::Head).await.unwrap().unwrap().tasks;
        let kept = tasks.iter().filter(|task| task.finished).count();
        let cut = tasks.iter().filter(|task| task.cut_off && task.error.is_none()).count();
        let failed = tasks.iter().filter(|task| task.error.is_some()).count();
        assert_eq!((kept, kept + cut, failed), (finished.load(Ordering::SeqCst), 999, 1));
        assert_eq!(cut > 0, policy == OnFailure::CancelSiblings);
        broken_yet.store(0, Ordering::SeqCst);
        let state = graph_run(&graph, true).await.unwrap().done().unwrap();
        assert_eq!(
            (state.sum, finished.load(Ordering::SeqCst)),
            (499_500, 1000),
            "each ran to its end once"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_ends_siblings_that_would_wait_for_long() {
    let mut g = Graph::<Work>::builder("pair");
    let fails = g.node("fails", |_: Arc<Work>| async {
        sleep(seconds(1)).await;
        Err::<WorkUpdate, _>(broken())
    });
    let waits = g.node("waits", |_: Arc<Work>| async {
        sleep(seconds(1000)).await;
        Ok(logged("waits"))
    });
    g.on_failure(OnFailure::CancelSiblings);
    for node in [fails, waits] {
        g.edge(START, node).edge(node, END);
    }
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let begun = Instant::now();
    let error = graph_run(&graph, false).await.unwrap_err();
    assert!(
        matches!(&error, RunError::Node { node, .. } if node == "fails"),
        "{error}"
    );
    assert_eq!(begun.elapsed(), seconds(1));
    let tasks = graph.state(&thread("t"), At::Head).await.unwrap().unwrap().tasks;
    assert!(tasks[0].error.is_some() && !tasks[0].cut_off);
    assert!(tasks[1].error.is_none() && tasks[1].cut_off);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_a_failed_attempt_stops_the_run() {
    let (graph, entries) = failing(1, minutely(3), broken);
    let store = Arc::new(Memory::new());
    let graph = graph.shared_checkpointer(Arc::clone(&store) as Arc<dyn Checkpointer>);
    let run = tokio::spawn(graph.run(&thread("t"), WorkInput::new()).into_future());
    while entries.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // Somebody else takes the thread over: nothing more of the run may be written.
    store.claim(&thread("t")).await.unwrap();
    let error = run.await.unwrap().unwrap_err();
    assert_eq!(error.code(), "checkpoint::fenced");
}
