//! What a run tells while it runs: in which order, how much at once, and to the end.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect"
)]

mod support {
    pub(crate) mod threads;
}

use std::{
    fmt::Write,
    future::{IntoFuture, ready},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Ask, Changes, Context, END, EventKind, Graph, Memory, NodeError, Outcome, Policy, ReaderGone, Retry,
    RunEvent, START, State, Sum, checkpoint::At, events,
};
use support::threads::thread;

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[state(event = String)]
struct Talk {
    #[state(input)]
    words: u64,
    #[state(reducer = Append)]
    log: Vec<String>,
    #[state(reducer = Sum)]
    said: u64,
}

#[derive(Serialize, Ask)]
#[ask(name = "sure", answer = bool)]
struct Sure;

fn words(words: u64) -> TalkInput {
    TalkInput { words }
}

/// `a` and `b` emit side by side, then `c` ends.
fn talking() -> Graph<Talk> {
    let mut g = Graph::<Talk>::builder("talk");
    let c = g.node("c", |_: Arc<Talk>| ready(Ok(Talk::update().log(["c".to_owned()]))));
    for name in ["b", "a"] {
        let node = g.node(name, move |talk: Arc<Talk>, ctx: Context<String>| async move {
            for word in 0..talk.words {
                ctx.emit(format!("{name}{word}")).await;
            }
            Ok(Talk::update().log([name.to_owned()]).said(talk.words))
        });
        g.edge(START, node).edge(node, c);
    }
    g.edge(c, END);
    g.build().unwrap()
}

fn told(kind: &EventKind<Talk>) -> String {
    match kind {
        EventKind::Step { step, tasks } => format!(
            "step {step} {}",
            tasks
                .iter()
                .map(|task| task.node.as_ref())
                .collect::<Vec<_>>()
                .join("+")
        ),
        EventKind::Update { node, .. } => format!("update {node}"),
        EventKind::Custom { node, event } => format!("{node}: {event}"),
        EventKind::Saved { step, checkpoint, .. } => format!("saved {step} {:?}", checkpoint.map(|(seq, _)| seq.0)),
        EventKind::Retry {
            node, attempt, error, ..
        } => format!("retry {node} {attempt} {error}"),
        EventKind::Asked { question } => format!("asked {}", question.id),
        other => panic!("{other:?}"),
    }
}

/// Everything a run tells, and its outcome.
async fn all(graph: &Graph<Talk>, input: TalkInput) -> (Vec<String>, Outcome<Talk>) {
    let mut stream = graph.run(&thread("t"), input).stream();
    let (mut lines, mut seqs) = (Vec::new(), Vec::new());
    while let Some(item) = stream.next().await {
        match item.unwrap() {
            RunEvent::Event(event) => {
                seqs.push(event.seq);
                lines.push(told(&event.kind));
            }
            RunEvent::Ended(outcome) => {
                assert!(stream.next().await.is_none(), "nothing follows the end");
                assert!(seqs.iter().copied().eq(1..=seqs.len() as u64), "{seqs:?}");
                return (lines, outcome);
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("no end")
}

#[tokio::test]
async fn a_step_tells_its_tasks_then_what_they_emit_then_their_updates_then_that_it_is_saved() {
    let expected = |saved: [&str; 3]| {
        let [first, second, third] = saved;
        [
            format!("saved 0 {first}"),
            "step 1 a+b".into(),
            "a: a0".into(),
            "b: b0".into(),
            "update a".into(),
            "update b".into(),
            format!("saved 1 {second}"),
            "step 2 c".into(),
            "update c".into(),
            format!("saved 2 {third}"),
        ]
    };
    let (lines, outcome) = all(&talking(), words(1)).await;
    assert_eq!(lines, expected(["None"; 3]));
    assert_eq!(outcome.done().unwrap().log, ["a", "b", "c"]);
    let (lines, _) = all(&talking().checkpointer(Memory::new()), words(1)).await;
    assert_eq!(lines, expected(["Some(1)", "Some(2)", "Some(3)"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn numbers_count_up_by_one_however_many_tasks_emit_at_once() {
    let mut g = Graph::<Talk>::builder("many");
    let work = g.worker("work", |item: u64, ctx: Context<String>| async move {
        tokio::task::yield_now().await;
        for _ in 0..50 {
            ctx.emit(item.to_string()).await;
        }
        Ok(())
    });
    g.fan_out(START, work, |talk: &Talk| 0..talk.words).edge(work, END);
    let graph = g.build().unwrap();
    let (lines, _) = all(&graph, words(40)).await;
    assert_eq!(lines.iter().filter(|line| line.starts_with("work: ")).count(), 2000);
}

#[tokio::test]
async fn a_slow_reader_slows_the_run_and_loses_nothing() {
    let emitted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&emitted);
    let mut g = Graph::<Talk>::builder("slow");
    let node = g.node("node", move |talk: Arc<Talk>, ctx: Context<String>| {
        let count = Arc::clone(&count);
        async move {
            for word in 0..talk.words {
                ctx.emit(word.to_string()).await;
                count.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        }
    });
    g.edge(START, node).edge(node, END);
    let (sender, mut reader) = events(1, ReaderGone::Finish);
    let run = tokio::spawn(
        g.build()
            .unwrap()
            .run(&thread("t"), words(100))
            .events(sender)
            .into_future(),
    );
    let mut heard = 0;
    while let Some(event) = reader.next().await {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        heard += usize::from(matches!(event.kind, EventKind::Custom { .. }));
        let ahead = emitted.load(Ordering::SeqCst) - heard;
        assert!(ahead <= 1, "{ahead} events ahead of a reader that has room for one");
    }
    assert_eq!(heard, 100);
    run.await.unwrap().unwrap();
}

#[tokio::test]
async fn try_emit_says_when_there_is_no_room() {
    let mut g = Graph::<Talk>::builder("try");
    let node = g.node("node", |_: Arc<Talk>, ctx: Context<String>| {
        let kept = (0..5).filter(|word: &u64| ctx.try_emit(word.to_string())).count();
        ready(Ok(Talk::update().said(kept as u64)))
    });
    g.edge(START, node).edge(node, END);
    let graph = g.build().unwrap();
    // The admission and the step's beginning take two places.
    let (sender, mut reader) = events(5, ReaderGone::Finish);
    let run = tokio::spawn(graph.run(&thread("t"), words(0)).events(sender).into_future());
    let mut heard = 0;
    while let Some(event) = reader.next().await {
        heard += usize::from(matches!(event.kind, EventKind::Custom { .. }));
    }
    assert_eq!((heard, run.await.unwrap().unwrap().done().unwrap().said), (3, 3));
    let unheard = graph.run(&thread("t"), words(0)).await.unwrap();
    assert_eq!(unheard.done().unwrap().said, 0);
}

#[tokio::test]
async fn a_stream_outlives_the_graphs_handle_and_holds_more_events_than_it_has_room_for() {
    let stream = talking().run(&thread("t"), words(500)).stream();
    let items: Vec<_> = stream.collect().await;
    assert_eq!(items.len(), 1 + 3 + 1000 + 1 + 3 + 1);
    assert!(matches!(items.last(), Some(Ok(RunEvent::Ended(Outcome::Done(_))))));
}

#[tokio::test]
async fn a_stream_that_is_dropped_stops_its_run() {
    let graph = talking().checkpointer(Memory::new());
    // More than the stream holds, so that the run waits in its first step.
    let mut stream = graph.run(&thread("t"), words(100)).stream();
    assert!(stream.next().await.is_some());
    drop(stream);
    assert_eq!(graph.unfinished(1).await.unwrap(), [thread("t")]);
    assert!(graph.resume(&thread("t")).await.unwrap().done().is_some());
}

#[tokio::test]
async fn the_updates_laid_over_the_input_give_the_last_state() {
    let graph = talking().checkpointer(Memory::new());
    let mut state = Talk::start(&(), words(2));
    let mut stream = graph.run(&thread("t"), words(2)).stream();
    let mut last = None;
    while let Some(item) = stream.next().await {
        match item.unwrap() {
            RunEvent::Event(event) => {
                if let EventKind::Update { update, .. } = event.kind {
                    state.apply(update, &mut Changes::default());
                }
            }
            RunEvent::Ended(outcome) => last = outcome.done(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(last.as_ref(), Some(&state));
    assert_eq!(graph.state(&thread("t"), At::Head).await.unwrap().unwrap().state, state);
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_told_with_its_error_and_wait() {
    let mut g = Graph::<Talk>::builder("retry");
    let node = g.node("node", |_: Arc<Talk>, ctx: Context<String>| {
        ready(if ctx.attempt() < 3 {
            Err(NodeError::retryable("busy"))
        } else {
            Ok(())
        })
    });
    let retry = Retry::attempts(NonZeroU32::new(3).unwrap()).first_delay(Duration::from_secs(2));
    g.policy(node, Policy::new().retry(retry))
        .edge(START, node)
        .edge(node, END);
    let graph = g.build().unwrap();
    let mut stream = graph.run(&thread("t"), words(0)).stream();
    let mut delays = Vec::new();
    while let Some(item) = stream.next().await {
        if let RunEvent::Event(event) = item.unwrap()
            && let EventKind::Retry {
                delay, attempt, error, ..
            } = event.kind
        {
            delays.push((attempt, error, delay));
        }
    }
    assert_eq!(
        delays.iter().map(|(n, e, _)| (*n, e.as_str())).collect::<Vec<_>>(),
        [(1, "busy"), (2, "busy")]
    );
    assert!(delays[0].2 >= Duration::from_secs(1) && delays[0].2 <= Duration::from_secs(2));
    assert!(delays[1].2 >= Duration::from_secs(2) && delays[1].2 <= Duration::from_secs(4));
}

#[tokio::test]
async fn questions_are_told_when_they_are_kept_and_finished_siblings_when_they_finish() {
    let mut g = Graph::<Talk>::builder("ask");
    let asks = g.node("asks", |_: Arc<Talk>, ctx: Context<String>| {
        ready(ctx.ask(Sure).map(|_| ()))
    });
    let quick = g.node("quick", |_: Arc<Talk>| ready(Ok(Talk::update().said(1_u64))));
    g.edge(START, asks).edge(asks, END).edge(START, quick).edge(quick, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let (lines, outcome) = all(&graph, words(0)).await;
    assert_eq!(
        lines,
        [
            "saved 0 Some(1)",
            "step 1 asks+quick",
            "update quick",
            "asked asks@1/sure"
        ]
    );
    assert!(matches!(outcome, Outcome::Asked(_)));
    let mut stream = graph.resume(&thread("t")).answer::<Sure>(&true).stream();
    let mut lines = Vec::new();
    while let Some(Ok(RunEvent::Event(event))) = stream.next().await {
        lines.push(told(&event.kind));
    }
    assert_eq!(lines, ["step 1 asks+quick", "update asks", "saved 1 Some(2)"]);
}

#[tokio::test]
async fn a_streams_error_is_its_last_item() {
    let mut g = Graph::<Talk>::builder("fails");
    let node = g.node("node", |_: Arc<Talk>| {
        ready(Err::<(), _>(NodeError::terminal("broken")))
    });
    g.edge(START, node).edge(node, END);
    let items: Vec<_> = g.build().unwrap().run(&thread("t"), words(0)).stream().collect().await;
    assert_eq!(items.len(), 4);
    assert_eq!(items[3].as_ref().unwrap_err().code(), "run::node");
}

#[tokio::test]
async fn events_print_without_what_they_carry() {
    let mut stream = talking().run(&thread("t"), words(1)).stream();
    let mut printed = String::new();
    while let Some(item) = stream.next().await {
        if let RunEvent::Event(event) = item.unwrap() {
            writeln!(printed, "{event:?}").unwrap();
        }
    }
    assert!(
        printed.starts_with("#1 saved 0\n#2 step 1 [\"a\", \"b\"]\n#3 custom of a\n"),
        "{printed}"
    );
    assert!(!printed.contains("a0"), "{printed}");
}
