//! Threads: runs one after the other and side by side, what is kept of them, and stores that fail.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    pub(crate) mod store;
    pub(crate) mod threads;
}

use std::{
    future::{IntoFuture, pending, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Answers, Append, Cancel, Checkpointer, Context, END, Graph, Memory, NodeError, OnBusy, OnPending, Outcome,
    RunError, RunId, START, State, Sum,
    checkpoint::{At, CheckpointSource, OutboxMessage, Page, RunStatus, Seq},
    events,
};
use support::{store::Watched, threads::thread};
use tokio::sync::Notify;

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Chat {
    #[state(input)]
    question: String,
    #[state(input, reducer = Append, default = Vec::new())]
    messages: Vec<String>,
    #[state(per_run, reducer = Append)]
    sources: Vec<String>,
    #[state(per_run)]
    answer: Option<String>,
    #[state(reducer = Sum)]
    turns: u64,
}

fn says(question: &str) -> ChatInput {
    ChatInput {
        question: question.to_owned(),
        messages: vec![question.to_owned()],
    }
}

type Count = Arc<AtomicUsize>;

fn got(count: &Count) -> usize {
    count.load(Ordering::SeqCst)
}

/// `retrieve`, then `answer`; each entry is counted.
fn chat(entries: &Count) -> Graph<Chat> {
    let mut g = Graph::<Chat>::builder("chat");
    let (first, second) = (Arc::clone(entries), Arc::clone(entries));
    let retrieve = g.node("retrieve", move |chat: Arc<Chat>| {
        first.fetch_add(1, Ordering::SeqCst);
        assert!(chat.sources.is_empty() && chat.answer.is_none(), "of an earlier run");
        ready(Ok(Chat::update().sources([format!("about {}", chat.question)])))
    });
    let answer = g.node("answer", move |chat: Arc<Chat>| {
        second.fetch_add(1, Ordering::SeqCst);
        ready(Ok(Chat::update()
            .answer(chat.sources.join(", "))
            .messages(["ok".to_owned()])
            .turns(1_u64)))
    });
    g.edge(START, retrieve).edge(retrieve, answer).edge(answer, END);
    g.build().unwrap()
}

/// One node that waits for `go` while the question is `wait`.
fn gated(started: &Arc<Notify>, go: &Arc<Notify>) -> Graph<Chat> {
    let (started, go) = (Arc::clone(started), Arc::clone(go));
    let mut g = Graph::<Chat>::builder("gated");
    let node = g.node("node", move |chat: Arc<Chat>| {
        let (started, go) = (Arc::clone(&started), Arc::clone(&go));
        async move {
            if chat.question == "wait" {
                started.notify_one();
                go.notified().await;
            }
            Ok(Chat::update().answer(chat.question.clone()))
        }
    });
    g.edge(START, node).edge(node, END);
    g.build().unwrap()
}

#[tokio::test]
async fn a_second_run_remembers_the_messages_and_forgets_what_belongs_to_a_run() {
    let graph = chat(&Count::default()).checkpointer(Memory::new());
    graph.run(&thread("t"), says("a")).await.unwrap();
    let state = graph.run(&thread("t"), says("b")).await.unwrap().done().unwrap();
    assert_eq!(state.messages, ["a", "ok", "b", "ok"]);
    assert_eq!((state.sources, state.turns), (vec!["about b".to_owned()], 2));
    assert_eq!(state.answer.as_deref(), Some("about b"));
    let kept = graph.state(&thread("t"), At::Head).await.unwrap().unwrap().state;
    assert_eq!((kept.messages, kept.answer), (state.messages, state.answer));
}

#[tokio::test]
async fn without_a_checkpointer_every_run_begins_afresh() {
    let graph = chat(&Count::default());
    graph.run(&thread("t"), says("a")).await.unwrap();
    let state = graph.run(&thread("t"), says("b")).await.unwrap().done().unwrap();
    assert_eq!((state.messages.len(), state.turns), (2, 1));
    let error = graph.resume(&thread("t")).await.unwrap_err();
    assert_eq!(error.code(), "run::no_checkpointer");
    assert_eq!(
        graph.state(&thread("t"), At::Head).await.unwrap_err().code(),
        "run::no_checkpointer"
    );
}

#[tokio::test]
async fn history_numbers_steps_from_the_input_and_leaves_one_for_the_next_input() {
    let graph = chat(&Count::default()).checkpointer(Memory::new());
    let (first, second) = (RunId::random(), RunId::random());
    graph.run(&thread("t"), says("a")).id(first).await.unwrap();
    graph.run(&thread("t"), says("b")).id(second).await.unwrap();
    let history = graph.history(&thread("t"), Page::default()).await.unwrap();
    let told: Vec<_> = history
        .iter()
        .map(|e| (e.seq.0, e.parent.map(|p| p.0), e.step, e.source, e.run))
        .collect();
    let (input, step) = (CheckpointSource::Input, CheckpointSource::Step);
    assert_eq!(
        told,
        [
            (6, Some(5), 6, step, Some(second)),
            (5, Some(4), 5, step, Some(second)),
            (4, Some(3), 4, input, Some(second)),
            (3, Some(2), 2, step, Some(first)),
            (2, Some(1), 1, step, Some(first)),
            (1, None, 0, input, Some(first)),
        ]
    );
    let next: Vec<_> = history.iter().rev().map(|entry| entry.next.join(",")).collect();
    assert_eq!(next, ["retrieve", "answer", "", "retrieve", "answer", ""]);
    assert!(history.is_sorted_by(|newer, older| newer.created_at >= older.created_at));
    let page = Page {
        before: Some(Seq(4)),
        limit: 2,
    };
    assert_eq!(graph.history(&thread("t"), page).await.unwrap(), history[3..5]);
}

#[tokio::test]
async fn the_state_at_every_checkpoint_is_found_by_number_and_by_id() {
    let graph = chat(&Count::default()).checkpointer(Memory::new());
    graph.run(&thread("t"), says("a")).await.unwrap();
    graph.run(&thread("t"), says("b")).await.unwrap();
    let history = graph.history(&thread("t"), Page::default()).await.unwrap();
    let ids: std::collections::HashSet<_> = history.iter().map(|entry| entry.id).collect();
    assert_eq!(ids.len(), 6);
    let mut lengths = Vec::new();
    for entry in history.iter().rev() {
        let by_seq = graph.state(&thread("t"), At::Seq(entry.seq)).await.unwrap().unwrap();
        let by_id = graph.state(&thread("t"), At::Id(entry.id)).await.unwrap().unwrap();
        assert_eq!((&by_seq, &by_seq.entry), (&by_id, entry));
        lengths.push((by_seq.state.messages.len(), by_seq.state.sources.len()));
    }
    assert_eq!(lengths, [(1, 0), (1, 1), (2, 1), (3, 0), (3, 1), (4, 1)]);
    assert!(graph.state(&thread("t"), At::Seq(Seq(7))).await.unwrap().is_none());
    assert!(graph.state(&thread("other"), At::Head).await.unwrap().is_none());
    assert!(
        graph
            .history(&thread("other"), Page::default())
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn new_input_is_refused_while_tasks_are_left_unless_they_are_to_be_discarded() {
    let (store, entries) = (Watched::default(), Count::default());
    let graph = chat(&entries).checkpointer(store.clone());
    graph.run(&thread("t"), says("a")).step_limit(1).await.unwrap_err();
    let commits = store.commits();
    let error = graph.run(&thread("t"), says("b")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "thread acme/t has unfinished tasks (answer): resume it, or start with `on_pending(OnPending::Discard)`"
    );
    assert_eq!(store.commits(), commits);
    let run = graph.run(&thread("t"), says("b")).on_pending(OnPending::Discard);
    let state = run.await.unwrap().done().unwrap();
    assert_eq!(
        (state.messages, got(&entries)),
        (vec!["a".to_owned(), "b".to_owned(), "ok".to_owned()], 3)
    );
}

#[tokio::test]
async fn a_run_that_has_ended_is_returned_as_it_ended() {
    let entries = Count::default();
    let graph = chat(&entries).checkpointer(Memory::new());
    let outcome = graph.run(&thread("t"), says("a")).await.unwrap();
    assert_eq!(graph.resume(&thread("t")).await.unwrap(), outcome);
    assert_eq!(
        (
            got(&entries),
            graph.history(&thread("t"), Page::default()).await.unwrap().len()
        ),
        (2, 3)
    );
}

#[tokio::test]
async fn resuming_an_unknown_thread_makes_none() {
    let store = Arc::new(Memory::new());
    let graph = chat(&Count::default()).shared_checkpointer(store.clone());
    let error = graph.resume(&thread("t")).await.unwrap_err();
    assert_eq!(error.to_string(), "thread acme/t was never run: start it with `run`");
    assert!(!format!("{store:?}").contains("acme"), "{store:?}");
}

#[tokio::test]
async fn a_busy_thread_refuses_a_second_run_and_others_do_not() {
    let (started, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let graph = gated(&started, &go).checkpointer(Memory::new());
    let first = tokio::spawn(graph.run(&thread("t"), says("wait")).into_future());
    started.notified().await;
    let error = graph.clone().run(&thread("t"), says("now")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "thread acme/t has a run already: wait for it, or start with `on_busy(OnBusy::Wait)`"
    );
    assert_eq!(graph.resume(&thread("t")).await.unwrap_err().code(), "run::busy");
    assert!(graph.run(&thread("u"), says("now")).await.unwrap().done().is_some());
    go.notify_one();
    assert!(first.await.unwrap().unwrap().done().is_some());
    assert!(graph.run(&thread("t"), says("now")).await.unwrap().done().is_some());
}

#[tokio::test]
async fn runs_that_wait_for_a_thread_come_in_the_order_of_their_asking() {
    let (started, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let graph = gated(&started, &go).checkpointer(Watched::default());
    let first = tokio::spawn(graph.run(&thread("t"), says("wait")).into_future());
    started.notified().await;
    let mut waiting = Vec::new();
    for question in ["1", "2", "3", "4"] {
        let run = graph.run(&thread("t"), says(question)).on_busy(OnBusy::Wait);
        waiting.push(tokio::spawn(run.into_future()));
        tokio::task::yield_now().await;
    }
    waiting.remove(1).abort();
    go.notify_one();
    first.await.unwrap().unwrap();
    for run in waiting {
        run.await.unwrap().unwrap();
    }
    let state = graph.state(&thread("t"), At::Head).await.unwrap().unwrap().state;
    assert_eq!(state.messages, ["wait", "1", "3", "4"]);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_thread_counts_for_the_time_limit_and_can_be_cancelled() {
    let (started, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let graph = gated(&started, &go).checkpointer(Memory::new());
    let _first = tokio::spawn(graph.run(&thread("t"), says("wait")).into_future());
    started.notified().await;
    let limit = Duration::from_secs(28);
    let run = graph
        .run(&thread("t"), says("late"))
        .on_busy(OnBusy::Wait)
        .time_limit(limit);
    assert!(matches!(run.await, Err(RunError::TimeLimit { limit: said, .. }) if said == limit));
    let cancel = Cancel::new();
    let run = graph
        .run(&thread("t"), says("late"))
        .on_busy(OnBusy::Wait)
        .cancel(&cancel);
    let run = tokio::spawn(run.into_future());
    tokio::task::yield_now().await;
    cancel.cancel();
    assert_eq!(run.await.unwrap().unwrap(), Outcome::Cancelled);
}

#[tokio::test]
async fn a_run_whose_thread_was_taken_over_is_fenced_off_and_stops() {
    let store: Arc<dyn Checkpointer> = Arc::new(Memory::new());
    let (started, go, after) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Count::default());
    let process = |waits: bool| {
        let (started, go, after) = (Arc::clone(&started), Arc::clone(&go), Arc::clone(&after));
        let mut g = Graph::<Chat>::builder("process");
        let slow = g.node("slow", move |_: Arc<Chat>| {
            let (started, go) = (Arc::clone(&started), Arc::clone(&go));
            async move {
                if waits {
                    started.notify_one();
                    go.notified().await;
                }
                Ok(Chat::update().turns(1_u64))
            }
        });
        let next = g.node("next", move |_: Arc<Chat>| {
            after.fetch_add(1, Ordering::SeqCst);
            ready(Ok(()))
        });
        g.edge(START, slow).edge(slow, next).edge(next, END);
        g.build().unwrap().shared_checkpointer(Arc::clone(&store))
    };
    let older = tokio::spawn(process(true).run(&thread("t"), says("a")).into_future());
    started.notified().await;
    let state = process(false).resume(&thread("t")).await.unwrap().done().unwrap();
    assert_eq!(state.turns, 1);
    go.notify_one();
    let error = older.await.unwrap().unwrap_err();
    assert_eq!(error.code(), "checkpoint::fenced");
    assert_eq!(got(&after), 1, "the older run went on after it had lost its thread");
    let kept = process(false).state(&thread("t"), At::Head).await.unwrap().unwrap();
    assert_eq!((kept.state, kept.run.unwrap().status), (state, RunStatus::Done));
}

#[tokio::test]
async fn a_call_that_is_refused_leaves_the_run_of_another_process_alone() {
    let store: Arc<dyn Checkpointer> = Arc::new(Memory::new());
    let (started, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let running = gated(&started, &go).shared_checkpointer(Arc::clone(&store));
    let other = gated(&started, &go).shared_checkpointer(Arc::clone(&store));
    let run = tokio::spawn(running.run(&thread("t"), says("wait")).into_future());
    started.notified().await;
    assert_eq!(
        other.run(&thread("t"), says("b")).await.unwrap_err().code(),
        "run::pending"
    );
    let answer = Answers::One(serde_json::Value::Null);
    assert_eq!(
        other.resume(&thread("t")).answers(answer).await.unwrap_err().code(),
        "run::unknown_question"
    );
    go.notify_one();
    assert!(run.await.unwrap().unwrap().done().is_some());
}

#[tokio::test]
async fn threads_that_were_cut_off_are_found_and_no_others() {
    let store: Arc<dyn Checkpointer> = Arc::new(Memory::new());
    let (started, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let graph = gated(&started, &go).shared_checkpointer(Arc::clone(&store));
    graph.run(&thread("done"), says("now")).await.unwrap();
    for name in ["first", "second"] {
        tokio::select! {
            outcome = graph.run(&thread(name), says("wait")).into_future() => panic!("{outcome:?}"),
            () = started.notified() => {}
        }
    }
    graph
        .run(&thread("stopped"), says("now"))
        .step_limit(0)
        .await
        .unwrap_err();
    chat(&Count::default())
        .shared_checkpointer(store)
        .run(&thread("other"), says("a"))
        .await
        .unwrap();
    assert_eq!(graph.unfinished(10).await.unwrap(), [thread("first"), thread("second")]);
    assert_eq!(graph.unfinished(1).await.unwrap(), [thread("first")]);
    go.notify_one();
    graph.resume(&thread("first")).await.unwrap();
    assert_eq!(graph.unfinished(10).await.unwrap(), [thread("second")]);
}

#[tokio::test]
async fn a_resumed_run_keeps_its_id() {
    let graph = chat(&Count::default()).checkpointer(Memory::new());
    let id = RunId::random();
    graph
        .run(&thread("t"), says("a"))
        .id(id)
        .step_limit(1)
        .await
        .unwrap_err();
    graph.resume(&thread("t")).await.unwrap();
    let history = graph.history(&thread("t"), Page::default()).await.unwrap();
    assert!(history.iter().all(|entry| entry.run == Some(id)), "{history:?}");
}

#[tokio::test]
async fn a_store_that_fails_stops_the_run_before_the_next_node() {
    // Commit 1 is the admission, 2 the step of `retrieve`, 3 the step of `answer`.
    for (commit, nodes) in [(1, 0), (2, 1), (3, 2)] {
        let (store, entries) = (Watched::default(), Count::default());
        let graph = chat(&entries).checkpointer(store.clone());
        store.fail_commit_at(commit);
        let error = graph.run(&thread("t"), says("a")).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the checkpoint store is unavailable: it was told to fail"
        );
        assert_eq!(got(&entries), nodes, "commit {commit}");
        if commit > 1 {
            assert_eq!(graph.unfinished(10).await.unwrap(), [thread("t")]);
            let state = graph.resume(&thread("t")).await.unwrap().done().unwrap();
            assert_eq!((state.turns, state.sources.len(), got(&entries)), (1, 1, 3));
        } else {
            assert_eq!(
                graph.resume(&thread("t")).await.unwrap_err().code(),
                "run::unknown_thread"
            );
        }
    }
}

#[tokio::test]
async fn the_admission_is_durable_before_any_node_runs() {
    let memory: Arc<dyn Checkpointer> = Arc::new(Memory::new());
    let (seen, store) = (Arc::new(Mutex::new(None)), Arc::clone(&memory));
    let kept = Arc::clone(&seen);
    let mut g = Graph::<Chat>::builder("admission");
    let node = g.node("node", move |_: Arc<Chat>, ctx: Context<()>| {
        let (store, kept) = (Arc::clone(&store), Arc::clone(&kept));
        async move {
            let found = store.get(ctx.thread(), At::Head).await?;
            let outbox = store.outbox("jobs", 10).await?;
            *kept.lock().unwrap() = Some((found.unwrap(), outbox.len()));
            Ok::<(), NodeError>(())
        }
    });
    g.edge(START, node).edge(node, END);
    let graph = g.build().unwrap().shared_checkpointer(memory);
    let message = OutboxMessage {
        id: RunId::random().as_uuid(),
        topic: "jobs".to_owned(),
        body: vec![1],
    };
    graph.run(&thread("t"), says("a")).outbox(message).await.unwrap();
    let (found, outbox) = seen.lock().unwrap().take().unwrap();
    assert_eq!(
        (found.info.seq, found.info.step, found.run.unwrap().status),
        (Seq(1), 0, RunStatus::Running)
    );
    assert_eq!((found.info.source, outbox), (CheckpointSource::Input, 1));
}

#[tokio::test]
async fn a_run_without_what_its_graph_requires_is_not_admitted() {
    let mut g = Graph::<Chat>::builder("needs");
    let node = g.node("node", |_: Arc<Chat>, ctx: Context<()>| {
        ready(
            ctx.provided::<u32>()
                .map(|answer| Chat::update().answer(answer.to_string())),
        )
    });
    g.requires::<u32>().edge(START, node).edge(node, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let error = graph.run(&thread("t"), says("a")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "graph `needs` needs a `u32`: start the run with `provide(..)`"
    );
    assert!(graph.state(&thread("t"), At::Head).await.unwrap().is_none());
    let state = graph
        .run(&thread("t"), says("a"))
        .provide(7_u32)
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(state.answer.as_deref(), Some("7"));
}

#[tokio::test]
async fn a_thread_that_waits_at_a_node_which_is_gone_is_refused_by_name() {
    let store: Arc<dyn Checkpointer> = Arc::new(Memory::new());
    let graph = chat(&Count::default()).shared_checkpointer(Arc::clone(&store));
    graph.run(&thread("t"), says("a")).step_limit(1).await.unwrap_err();
    let mut g = Graph::<Chat>::builder("chat");
    let renamed = g.node("respond", |_: Arc<Chat>| pending::<Result<ChatUpdate, NodeError>>());
    g.edge(START, renamed).edge(renamed, END);
    let error = g
        .build()
        .unwrap()
        .shared_checkpointer(store)
        .resume(&thread("t"))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "thread acme/t waits at `answer`, which graph `chat` does not have any more: say by `renamed` which node it is now, or run it with the version that has it"
    );
}

#[tokio::test]
async fn a_reader_is_told_of_the_admission_first() {
    let graph = chat(&Count::default()).checkpointer(Memory::new());
    let (sender, mut reader) = events(64, stepgraph::ReaderGone::Finish);
    graph.run(&thread("t"), says("a")).events(sender).await.unwrap();
    let first = reader.next().await.unwrap();
    assert!(
        matches!(
            first.kind,
            stepgraph::EventKind::Saved {
                step: 0,
                checkpoint: Some((Seq(1), _)),
                ..
            }
        ),
        "{first:?}"
    );
}
