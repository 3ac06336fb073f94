//! Handlers: what runs for a task that has failed for good.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    pub(crate) mod threads;
}

use std::{
    future::{IntoFuture, pending, ready},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Ask, Cancel, Command, Context, END, EventKind, Failed, FailureKind, FromState, Graph, GraphBuilder,
    HandlerId, Memory, NodeError, NodeId, OnFailure, Outcome, Policy, ReaderGone, Retry, Route, RunError, START, State,
    checkpoint::At, events, from, to,
};
use support::threads::thread;
use tokio::{sync::Notify, time::sleep};

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Work {
    #[state(reducer = Append)]
    log: Vec<String>,
    #[state(input, default = 0)]
    mode: u64,
}

impl FromState<Work> for WorkInput {
    fn from_state(work: &Arc<Work>) -> Self {
        Self { mode: work.mode }
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

#[derive(Debug, thiserror::Error)]
#[error("no connection")]
struct Down(#[source] std::fmt::Error);

fn input(mode: u64) -> WorkInput {
    WorkInput { mode }
}

fn logged(line: impl Into<String>) -> WorkUpdate {
    Work::update().log([line.into()])
}

fn attempts(count: u32) -> Policy {
    let retry = Retry::attempts(NonZeroU32::new(count).unwrap());
    Policy::new().retry(retry.first_delay(Duration::from_secs(1)))
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

/// A node that fails always, with an error that has a source.
fn fails(g: &mut GraphBuilder<Work>, name: &'static str) -> (NodeId<Work>, Count) {
    let count = Count::default();
    let counted = count.clone();
    let node = g.node(name, move |_: Arc<Work>| {
        counted.up();
        ready(Err::<WorkUpdate, _>(
            NodeError::retryable(Down(std::fmt::Error)).with_code("test::down"),
        ))
    });
    (node, count)
}

/// A handler that writes down what it is given.
fn notes(g: &mut GraphBuilder<Work>, name: &'static str) -> HandlerId<Work> {
    g.handler(name, move |failed: Failed<Arc<Work>>| async move {
        let failure = failed.failure();
        Ok(logged(format!(
            "{name}: {} in mode {}, {} after {} attempt(s): {failure}",
            failed.task(),
            failed.input.mode,
            failure.code.as_deref().unwrap_or("no code"),
            failure.attempts
        )))
    })
}

#[tokio::test(start_paused = true)]
async fn a_handler_runs_in_the_same_step_and_its_ways_on_are_followed() {
    for kept in [false, true] {
        let mut g = Graph::<Work>::builder("handled");
        let (generate, entries) = fails(&mut g, "generate");
        let sibling = g.node("sibling", |_: Arc<Work>| ready(Ok(logged("sibling"))));
        let next = g.node("next", |_: Arc<Work>| ready(Ok(logged("next"))));
        let after = g.node("after", |_: Arc<Work>| ready(Ok(logged("after"))));
        let recover = notes(&mut g, "recover");
        g.edge(START, generate).edge(generate, next).edge(next, END);
        g.edge(START, sibling).edge(sibling, END);
        g.policy(generate, attempts(3));
        g.on_error(generate, recover).edge(recover, after).edge(after, END);
        let graph = g.build().unwrap();
        let graph = if kept { graph.checkpointer(Memory::new()) } else { graph };
        let (sender, mut reader) = events(100, ReaderGone::Finish);
        let outcome = graph.run(&thread("t"), input(7)).events(sender).await.unwrap();
        let recovered = "recover: generate in mode 7, test::down after 3 attempt(s): no connection";
        assert_eq!(outcome.done().unwrap().log, [recovered, "sibling", "after"]);
        assert_eq!(entries.get(), 3);
        let (mut steps, mut handed, mut updates) = (0, Vec::new(), Vec::new());
        while let Some(event) = reader.next().await {
            match event.kind {
                EventKind::Step { .. } => steps += 1,
                EventKind::Handed {
                    task, handler, error, ..
                } => handed.push((task, handler.into_owned(), error)),
                EventKind::Update { node, task, .. } => updates.push((node.into_owned(), task)),
                EventKind::Failed { .. } => panic!("it was handled"),
                _ => {}
            }
        }
        let expected = ("generate".to_owned(), "recover".to_owned(), "no connection".to_owned());
        assert_eq!((steps, handed), (2, vec![expected]));
        assert!(
            updates.contains(&("recover".to_owned(), "generate".to_owned())),
            "{updates:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn panics_and_timeouts_are_handled_too() {
    let mut g = Graph::<Work>::builder("ways");
    let panics = g.node("panics", |_: Arc<Work>| {
        assert!(std::hint::black_box(false), "oh");
        ready(Ok(logged("never")))
    });
    let hangs = g.node("hangs", |_: Arc<Work>| pending::<Result<WorkUpdate, NodeError>>());
    g.policy(hangs, Policy::new().timeout(Duration::from_secs(1)));
    let recover = g.handler("recover", |failed: Failed<Arc<Work>>| {
        ready(Ok(logged(format!("{} {:?}", failed.node(), failed.failure().kind))))
    });
    for node in [panics, hangs] {
        g.edge(START, node).edge(node, END).on_error(node, recover);
    }
    g.edge(recover, END);
    let state = g
        .build()
        .unwrap()
        .run(&thread("t"), input(0))
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(state.log, ["hangs Timeout", "panics Panic"]);
}

#[derive(Route, Clone, Copy)]
enum After {
    Again,
    Stop,
}

#[tokio::test]
async fn a_handler_may_choose_among_routes_of_its_own() {
    let mut g = Graph::<Work>::builder("routed");
    let fragile = g.node("fragile", |work: Arc<Work>| {
        ready(if work.log.len() < 2 {
            Err(NodeError::from(Down(std::fmt::Error)))
        } else {
            Ok(logged("well"))
        })
    });
    let recover = g.handler_router("recover", |failed: Failed<Arc<Work>>| async move {
        let goto = if failed.failure().retryable {
            After::Again
        } else {
            After::Stop
        };
        Ok(Command {
            update: logged("recovered"),
            goto,
        })
    });
    g.edge(START, fragile).edge(fragile, END).on_error(fragile, recover);
    g.routes(recover, |after| match after {
        After::Again => to(fragile),
        After::Stop => to(END),
    });
    let state = g
        .build()
        .unwrap()
        .run(&thread("t"), input(0))
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(state.log, ["recovered", "recovered", "well"]);
}

#[tokio::test]
async fn workers_are_handled_one_by_one_with_what_they_were_fed() {
    let mut g = Graph::<Work>::builder("workers");
    let work = g.worker("work", |item: u64| {
        ready(if item.is_multiple_of(2) {
            Ok(logged(format!("{item}")))
        } else {
            Err(NodeError::terminal("odd"))
        })
    });
    let recover = g.handler("recover", |failed: Failed<Arc<Work>>| {
        let item = failed.payload::<u64>().copied();
        ready(Ok(logged(format!("{} of {item:?}", failed.task()))))
    });
    let gather = g.node("gather", |work: Arc<Work>| {
        ready(Ok(logged(format!("{} done", work.log.len()))))
    });
    g.fan_out(START, work, |_: &Work| 0..4_u64).on_error(work, recover);
    // A join that waits for the worker and its handler has both.
    g.join([from(work), from(recover)], gather).edge(gather, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let state = graph.run(&thread("t"), input(0)).await.unwrap().done().unwrap();
    assert_eq!(
        state.log,
        ["0", "work#1 of Some(1)", "2", "work#3 of Some(3)", "4 done"],
        "updates apply in the order of the sends"
    );
}

/// `fails` and its handler, which waits to be told in its first entry.
fn crashing(told: &Arc<Notify>) -> (Graph<Work>, Count, Count) {
    let mut g = Graph::<Work>::builder("crashing");
    let (node, entries) = fails(&mut g, "fails");
    let handled = Count::default();
    let (count, notify) = (handled.clone(), Arc::clone(told));
    let recover = g.handler("recover", move |failed: Failed<Arc<Work>>| {
        let (entry, told) = (count.up(), Arc::clone(&notify));
        async move {
            if entry == 1 {
                told.notify_one();
                pending::<()>().await;
            }
            let failure = failed.failure();
            let (code, source) = (failure.code.clone(), failure.sources.first().cloned());
            Ok(logged(format!(
                "{code:?} {source:?} {} {:?}",
                failure.attempts, failure.kind
            )))
        }
    });
    let sibling = g.node("sibling", |_: Arc<Work>| ready(Ok(logged("sibling"))));
    g.policy(node, attempts(2)).on_error(node, recover);
    g.edge(START, node).edge(node, END).edge(recover, END);
    g.edge(START, sibling).edge(sibling, END);
    (g.build().unwrap(), entries, handled)
}

#[tokio::test(start_paused = true)]
async fn a_crash_goes_on_in_the_handler_and_not_in_the_node() {
    let told = Arc::new(Notify::new());
    let (graph, entries, handled) = crashing(&told);
    let graph = graph.checkpointer(Memory::new());
    let run = tokio::spawn(graph.run(&thread("t"), input(0)).into_future());
    told.notified().await;
    run.abort();
    assert!(run.await.unwrap_err().is_cancelled());
    let snapshot = graph.state(&thread("t"), At::Head).await.unwrap().unwrap();
    let failure = snapshot.tasks[0].error.as_ref().unwrap();
    assert_eq!((failure.handler.as_deref(), failure.attempts), (Some("recover"), 2));
    let state = graph.resume(&thread("t")).await.unwrap().done().unwrap();
    let source = std::fmt::Error.to_string();
    assert_eq!(
        state.log,
        [
            format!("{:?} {:?} 2 Error", Some("test::down"), Some(source)),
            "sibling".to_owned()
        ]
    );
    assert_eq!((entries.get(), handled.get()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_fails_ends_the_run_and_names_both() {
    let broken = Arc::new(AtomicUsize::new(1));
    let mut g = Graph::<Work>::builder("both");
    let (node, entries) = fails(&mut g, "generate");
    let flag = Arc::clone(&broken);
    let (handled, count) = (Count::default(), Count::default());
    let counted = handled.clone();
    let recover = g.handler("recover", move |_: Failed<Arc<Work>>, ctx: Context<()>| {
        counted.up();
        ready(if flag.load(Ordering::SeqCst) == 1 {
            Err(NodeError::retryable("no way out"))
        } else {
            Ok(logged(format!("attempt {}", ctx.attempt())))
        })
    });
    g.policy(recover, attempts(2)).on_error(node, recover);
    g.edge(START, node).edge(node, END).edge(recover, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let error = graph.run(&thread("t"), input(0)).await.unwrap_err();
    let RunError::Handler {
        handler,
        node,
        attempts,
        failure,
        ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!(
        (handler.as_str(), node.as_str(), *attempts),
        ("recover#generate", "generate", 2)
    );
    assert_eq!(
        (failure.message.as_str(), error.code()),
        ("no connection", "run::handler")
    );
    let text = error.to_string();
    assert!(
        text.contains("no way out; it was handling a failure of node `generate`: no connection"),
        "{text}"
    );
    let task = graph
        .state(&thread("t"), At::Head)
        .await
        .unwrap()
        .unwrap()
        .tasks
        .remove(0);
    assert_eq!(task.error.unwrap().message, "no connection");
    assert_eq!(task.handler_error.unwrap().message, "no way out");
    // What was handed over stays handed over; the handler has fresh attempts.
    broken.store(0, Ordering::SeqCst);
    let state = graph.resume(&thread("t")).await.unwrap().done().unwrap();
    assert_eq!(state.log, ["attempt 1"]);
    assert_eq!((entries.get(), handled.get(), count.get()), (1, 3, 0));
}

#[tokio::test]
async fn a_handler_may_ask_next_to_a_sibling_that_asks() {
    let mut g = Graph::<Work>::builder("asking");
    let (node, entries) = fails(&mut g, "generate");
    let recover = g.handler("recover", |_: Failed<Arc<Work>>, ctx: Context<()>| async move {
        Ok(logged(format!("sure: {}", ctx.ask(Sure)?)))
    });
    let asks = g.node("other", |_: Arc<Work>, ctx: Context<()>| async move {
        Ok(logged(format!("other: {}", ctx.ask(Sure)?)))
    });
    g.edge(START, node)
        .edge(node, END)
        .on_error(node, recover)
        .edge(recover, END);
    g.edge(START, asks).edge(asks, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let Outcome::Asked(questions) = graph.run(&thread("t"), input(0)).await.unwrap() else {
        panic!("two questions")
    };
    let ids: Vec<_> = questions.iter().map(|question| question.id.as_str()).collect();
    assert_eq!(ids, ["recover#generate@1/sure", "other@1/sure"]);
    let shown = graph.state(&thread("t"), At::Head).await.unwrap().unwrap();
    assert_eq!((shown.tasks[0].questions.len(), shown.questions.len()), (1, 2));
    // One answer: the other question is still there, and neither node nor handler is entered for it.
    let one = stepgraph::Answers::Many(vec![(ids[1].to_owned(), false.into())]);
    let Outcome::Asked(left) = graph.resume(&thread("t")).answers(one).await.unwrap() else {
        panic!("one question")
    };
    assert_eq!(left.len(), 1);
    let state = graph
        .resume(&thread("t"))
        .answer::<Sure>(&true)
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(state.log, ["sure: true", "other: false"]);
    assert_eq!(entries.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn questions_cancellations_and_the_runs_own_limits_are_not_handled() {
    let handled = Count::default();
    let mut g = Graph::<Work>::builder("bypassed");
    let node = g.node("node", |work: Arc<Work>, ctx: Context<()>| async move {
        if work.mode == 0 {
            ctx.ask(Sure)?;
        }
        sleep(Duration::from_secs(100)).await;
        Ok(logged("node"))
    });
    let count = handled.clone();
    let recover = g.handler("recover", move |_: Failed<Arc<Work>>| {
        count.up();
        ready(Ok(logged("recovered")))
    });
    g.step_timeout(Duration::from_secs(50));
    g.edge(START, node)
        .edge(node, END)
        .on_error(node, recover)
        .edge(recover, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    assert!(matches!(
        graph.run(&thread("asks"), input(0)).await.unwrap(),
        Outcome::Asked(_)
    ));
    let late = graph
        .run(&thread("late"), input(1))
        .time_limit(Duration::from_secs(1))
        .await;
    assert!(matches!(late.unwrap_err(), RunError::TimeLimit { .. }));
    let slow = graph.run(&thread("slow"), input(1)).await;
    assert!(matches!(slow.unwrap_err(), RunError::StepTimeout { .. }));
    let cancel = Cancel::new();
    let run = tokio::spawn(graph.run(&thread("cancelled"), input(1)).cancel(&cancel).into_future());
    sleep(Duration::from_secs(1)).await;
    cancel.cancel();
    assert_eq!(run.await.unwrap().unwrap(), Outcome::Cancelled);
    assert_eq!(handled.get(), 0);
}

#[tokio::test]
async fn a_handler_for_every_failure_takes_those_without_one_of_their_own() {
    let mut g = Graph::<Work>::builder("any");
    let (a, _) = fails(&mut g, "a");
    let (b, _) = fails(&mut g, "b");
    let own = g.handler("own", |failed: Failed<Arc<Work>>| {
        ready(Ok(logged(format!("own {}", failed.node()))))
    });
    let any = g.handler("any", |failed: Failed<Arc<Work>>| {
        ready(Ok(logged(format!("any {}", failed.node()))))
    });
    let last = g.handler("last", |failed: Failed<Arc<Work>>| {
        ready(Err::<WorkUpdate, _>(NodeError::terminal(format!(
            "last {}",
            failed.node()
        ))))
    });
    let (c, _) = fails(&mut g, "c");
    g.on_error(a, own).on_any_error(any).on_error(c, last);
    g.edge(START, a).edge(a, END).edge(START, b).edge(b, END);
    g.edge(own, END).edge(any, c).edge(c, END).edge(last, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let error = graph.run(&thread("t"), input(0)).await.unwrap_err();
    let RunError::Handler { handler, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(handler, "last#c", "a handler has no handler");
    let state = graph.state(&thread("t"), At::Head).await.unwrap().unwrap().state;
    assert_eq!(state.log, ["own a", "any b"]);
}

#[tokio::test]
async fn failures_inside_a_graph_are_handled_inside_or_by_the_host() {
    let inner = |handled: bool| {
        let mut g = Graph::<Work>::builder("inner");
        let (node, _) = fails(&mut g, "deep");
        g.edge(START, node).edge(node, END);
        if handled {
            let recover = notes(&mut g, "inside");
            g.on_error(node, recover).edge(recover, END);
        }
        g.build().unwrap()
    };
    for (handled, expected) in [
        (
            true,
            "inside: deep in mode 5, test::down after 1 attempt(s): no connection",
        ),
        (
            false,
            "outside: host in mode 5, run::node after 1 attempt(s): node `deep` failed",
        ),
    ] {
        let mut g = Graph::<Work>::builder("outer");
        let host = g.node("host", inner(handled).as_node::<WorkInput, Arc<Work>>());
        let recover = notes(&mut g, "outside");
        g.edge(START, host)
            .edge(host, END)
            .on_error(host, recover)
            .edge(recover, END);
        let graph = g.build().unwrap().checkpointer(Memory::new());
        let state = graph.run(&thread("t"), input(5)).await.unwrap().done().unwrap();
        assert!(state.log[0].starts_with(expected), "{:?}", state.log);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handled_failure_cuts_off_no_sibling() {
    let mut g = Graph::<Work>::builder("calm");
    let (node, _) = fails(&mut g, "fails");
    let recover = g.handler("recover", |_: Failed<Arc<Work>>| ready(Ok(logged("recovered"))));
    let slow = g.node("slow", |_: Arc<Work>| async {
        sleep(Duration::from_secs(5)).await;
        Ok(logged("slow"))
    });
    g.on_failure(OnFailure::CancelSiblings)
        .on_error(node, recover)
        .edge(recover, END);
    for node in [node, slow] {
        g.edge(START, node).edge(node, END);
    }
    let state = g
        .build()
        .unwrap()
        .run(&thread("t"), input(0))
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(state.log, ["recovered", "slow"]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_is_cut_off_goes_on_when_the_thread_is_resumed() {
    let mut g = Graph::<Work>::builder("cut");
    let (node, entries) = fails(&mut g, "fails");
    let handled = Count::default();
    let count = handled.clone();
    let recover = g.handler("recover", move |_: Failed<Arc<Work>>| {
        let entry = count.up();
        async move {
            if entry == 1 {
                pending::<()>().await;
            }
            Ok(logged("recovered"))
        }
    });
    g.step_timeout(Duration::from_secs(5)).on_error(node, recover);
    g.edge(START, node).edge(node, END).edge(recover, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    graph.run(&thread("t"), input(0)).await.unwrap_err();
    let task = graph
        .state(&thread("t"), At::Head)
        .await
        .unwrap()
        .unwrap()
        .tasks
        .remove(0);
    assert!(task.cut_off && task.handler_error.is_none());
    assert_eq!(task.error.unwrap().kind, FailureKind::Error);
    graph.resume(&thread("t")).await.unwrap();
    assert_eq!((entries.get(), handled.get()), (1, 2));
}
