//! What a run has left in a file when its process died, and what the next process makes of it: attempts, failures on their
//! way to a handler, threads of older versions; and what a file that promises less is no ground for.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::{
    future::{IntoFuture, pending},
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Ask, Clock, Context, END, Failed, Graph, NodeError, Outcome, Policy, Retry, RunError, START, State,
    SystemClock, TenantId, ThreadId, ThreadKey, Versions,
    checkpoint::{At, RunStatus},
};
use stepgraph_checkpoint::{Durability, Sqlite, SqliteOptions};
use tempfile::TempDir;
use tokio::sync::Notify;
use uuid::Uuid;

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[state(version = 1)]
struct Work {
    #[state(reducer = Append)]
    log: Vec<String>,
    count: u32,
}

fn logged(line: String) -> WorkUpdate {
    Work::update().log([line])
}

fn thread() -> ThreadKey {
    ThreadKey::new(TenantId::authenticated("acme").unwrap(), ThreadId::new("t").unwrap())
}

/// A folder with a file of threads.
struct File(TempDir);

impl File {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("threads.db")
    }

    /// What each process does at its start.
    async fn opened<S: State>(&self, graph: Graph<S>) -> Graph<S> {
        graph.checkpointer(Sqlite::open(self.path()).await.unwrap())
    }
}

/// Drops a run, and all that it holds, once `ready` says so.
async fn die_when<S: State>(run: stepgraph::Run<S>, ready: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        ended = run.into_future() => panic!("it was to die, not to end: {:?}", ended.map(|_| ()).map_err(|error| error.code())),
        () = ready => {}
    }
}

/// Fails `until` times over all processes; tells which attempt it was, and counts entries.
fn failing(until: u32, wait: Duration, entries: &Arc<AtomicUsize>) -> Graph<Work> {
    let mut g = Graph::<Work>::builder("failing");
    let entries = Arc::clone(entries);
    let node = g.node("node", move |_: Arc<Work>, ctx: Context<()>| {
        entries.fetch_add(1, Ordering::SeqCst);
        async move {
            if ctx.attempt() <= until {
                return Err(NodeError::retryable("not yet").with_code("test::not_yet"));
            }
            Ok(logged(format!("attempt {}", ctx.attempt())))
        }
    });
    let retry = Retry::attempts(const { NonZeroU32::new(4).unwrap() });
    g.policy(node, Policy::new().retry(retry.first_delay(wait).delay_max(wait)));
    g.edge(START, node).edge(node, END);
    g.build().unwrap()
}

/// Until so many attempts of the thread's only task have failed, as another process sees it.
async fn attempts_failed(file: &Path, attempts: u32) {
    let graph = failing(0, HOUR, &Arc::default()).checkpointer(Sqlite::open(file).await.unwrap());
    loop {
        let snapshot = graph.state(&thread(), At::Head).await.unwrap();
        let task = snapshot.and_then(|snapshot| snapshot.tasks.into_iter().next());
        if task
            .and_then(|task| task.retrying)
            .is_some_and(|retrying| retrying.failed >= attempts)
        {
            return;
        }
        tokio::task::yield_now().await;
    }
}

const HOUR: Duration = Duration::from_hours(1);

/// The clock of a process that begins when the wait is over.
#[derive(Debug)]
struct NextDay;

impl Clock for NextDay {
    fn now(&self) -> DateTime<Utc> {
        SystemClock.now() + TimeDelta::days(1)
    }

    fn id(&self) -> Uuid {
        SystemClock.id()
    }
}

#[tokio::test]
async fn attempts_go_on_counting_in_the_next_process_and_end_where_the_policy_ends() {
    let (file, entries) = (File::new(), Arc::default());
    let graph = file.opened(failing(9, HOUR, &entries)).await;
    die_when(graph.run(&thread(), WorkInput::new()), attempts_failed(&file.path(), 1)).await;
    drop(graph);
    assert_eq!(entries.load(Ordering::SeqCst), 1, "the second waits for an hour");
    let next_day = |until| failing(until, Duration::ZERO, &entries).clock(NextDay);
    let graph = file.opened(next_day(9)).await;
    let task = graph.state(&thread(), At::Head).await.unwrap().unwrap().tasks.remove(0);
    let failure = task.retrying.unwrap().failure.unwrap();
    assert_eq!(failure.code.as_deref(), Some("test::not_yet"));
    let RunError::Node { attempts, .. } = graph.resume(&thread()).await.unwrap_err() else {
        panic!("another error")
    };
    assert_eq!(
        (attempts, entries.load(Ordering::SeqCst)),
        (4, 4),
        "four in all, over both processes"
    );
    // The last attempt has failed: resuming begins with a fresh count.
    let graph = file.opened(next_day(0)).await;
    assert_eq!(
        graph.resume(&thread()).await.unwrap().done().unwrap().log,
        ["attempt 1"]
    );
}

/// A node that fails for good, and its handler, which hangs while told to.
fn handled(entries: &Arc<AtomicUsize>, hangs: Option<&Arc<Notify>>) -> Graph<Work> {
    let mut g = Graph::<Work>::builder("handled");
    let (entries, hangs) = (Arc::clone(entries), hangs.cloned());
    let breaks = g.node("breaks", move |_: Arc<Work>| {
        entries.fetch_add(1, Ordering::SeqCst);
        async { Err::<WorkUpdate, _>(NodeError::terminal("it is broken").with_code("test::broken")) }
    });
    let recover = g.handler("recover", move |failed: Failed<Arc<Work>>| {
        let hangs = hangs.clone();
        async move {
            if let Some(begun) = hangs {
                begun.notify_one();
                pending::<()>().await;
            }
            let failure = failed.failure();
            let code = failure.code.as_deref().unwrap_or_default();
            Ok(logged(format!(
                "{} failed: {} ({code})",
                failed.node(),
                failure.message
            )))
        }
    });
    g.edge(START, breaks).edge(breaks, END);
    g.on_error(breaks, recover).edge(recover, END);
    g.build().unwrap()
}

#[tokio::test]
async fn a_failure_finds_its_handler_though_the_process_dies_between_them() {
    let (file, entries, begun) = (File::new(), Arc::default(), Arc::new(Notify::new()));
    let graph = file.opened(handled(&entries, Some(&begun))).await;
    die_when(graph.run(&thread(), WorkInput::new()), begun.notified()).await;
    drop(graph);
    let graph = file.opened(handled(&entries, None)).await;
    assert_eq!(graph.unfinished(10).await.unwrap(), [thread()]);
    let task = graph.state(&thread(), At::Head).await.unwrap().unwrap().tasks.remove(0);
    assert_eq!(task.error.unwrap().handler.as_deref(), Some("recover"));
    let state = graph.resume(&thread()).await.unwrap().done().unwrap();
    assert_eq!(state.log, ["breaks failed: it is broken (test::broken)"]);
    assert_eq!(entries.load(Ordering::SeqCst), 1, "the node itself was entered again");
}

#[derive(Serialize, Ask)]
#[ask(name = "sure", answer = bool)]
struct Sure;

/// One node of this name that asks, and says which version of the program it is.
fn asking(name: &'static str, version: &'static str, more: bool) -> Graph<Work> {
    let mut g = Graph::<Work>::builder("asking");
    let ask = g.node(name, move |_: Arc<Work>, ctx: Context<()>| async move {
        let sure = ctx.ask(Sure)?;
        Ok(logged(format!("{version}: {sure}")).count(7_u32))
    });
    g.edge(START, ask);
    if more {
        let more = g.node("more", |_: Arc<Work>| async { Ok(logged("more".to_owned())) });
        g.edge(ask, more).edge(more, END);
    } else {
        g.edge(ask, END);
    }
    g.build().unwrap()
}

/// A file in which a thread of the first version waits for its answer.
async fn waiting() -> File {
    let file = File::new();
    let outcome = file
        .opened(asking("ask", "first", false))
        .await
        .run(&thread(), WorkInput::new())
        .await
        .unwrap();
    assert!(matches!(outcome, Outcome::Asked(_)), "{outcome:?}");
    file
}

async fn answered<S: State>(file: &File, graph: Graph<S>) -> Result<S, RunError> {
    let graph = file.opened(graph).await;
    let outcome = graph.resume(&thread()).answer::<Sure>(&true).await?;
    Ok(outcome.done().unwrap())
}

#[tokio::test]
async fn a_waiting_thread_is_pinned_taken_over_or_refused_by_the_next_version_as_it_says() {
    let next = || asking("ask", "next", true);
    let file = waiting().await;
    let pinned = next().versions(Versions::Pin).with_older(asking("ask", "first", false));
    assert_eq!(answered(&file, pinned).await.unwrap().log, ["first: true"]);
    let file = waiting().await;
    assert_eq!(
        answered(&file, next().versions(Versions::Latest)).await.unwrap().log,
        ["next: true", "more"]
    );
    let file = waiting().await;
    for graph in [next().versions(Versions::Refuse), next().versions(Versions::Pin)] {
        assert_eq!(answered(&file, graph).await.unwrap_err().code(), "run::other_version");
    }
    // Refused, it is as it was.
    assert_eq!(
        answered(&file, asking("ask", "first", false)).await.unwrap().log,
        ["first: true"]
    );
}

#[tokio::test]
async fn w21_a_node_renamed_under_a_waiting_thread_is_refused_by_name_until_the_next_version_says_what_it_was() {
    let file = waiting().await;
    let error = answered(&file, asking("ask2", "next", false)).await.unwrap_err();
    assert_eq!(error.code(), "run::incompatible");
    assert!(error.to_string().contains("`ask`"), "{error}");
    let mut g = Graph::<Work>::builder("asking");
    let ask = g.node("ask2", |_: Arc<Work>, ctx: Context<()>| async move {
        Ok(logged(format!("renamed: {}", ctx.ask(Sure)?)))
    });
    g.renamed("ask", ask).edge(START, ask).edge(ask, END);
    assert_eq!(
        answered(&file, g.build().unwrap()).await.unwrap().log,
        ["renamed: true"]
    );
}

/// `count` is a word now.
#[derive(State, Clone, Debug, Serialize, Deserialize)]
#[state(version = 2, from = Work)]
struct Worded {
    #[state(reducer = Append)]
    log: Vec<String>,
    words: String,
}

impl From<Work> for Worded {
    fn from(old: Work) -> Self {
        Self {
            log: old.log,
            words: format!("{} times", old.count),
        }
    }
}

impl From<WorkUpdate> for WordedUpdate {
    fn from(old: WorkUpdate) -> Self {
        let old = old.into_fields();
        WordedUpdateFields {
            log: old.log,
            overwrite_log: old.overwrite_log,
            words: old.count.map(|count| format!("{count} times")),
        }
        .into()
    }
}

/// The same without a way from the version before.
#[derive(State, Clone, Debug, Serialize, Deserialize)]
#[state(version = 2)]
struct Unmigrated {
    #[state(reducer = Append)]
    log: Vec<String>,
    words: String,
}

/// The field's type has changed under the same version.
#[derive(State, Clone, Debug, Serialize, Deserialize)]
#[state(version = 1)]
struct Retyped {
    #[state(reducer = Append)]
    log: Vec<String>,
    count: String,
}

macro_rules! asks {
    ($state:ty) => {{
        let mut g = Graph::<$state>::builder("asking");
        let ask = g.node("ask", |_: Arc<$state>, ctx: Context<()>| async move {
            Ok(<$state>::update().log([format!("new: {}", ctx.ask(Sure)?)]))
        });
        g.edge(START, ask).edge(ask, END);
        g.build().unwrap()
    }};
}

#[tokio::test]
async fn w22_a_state_of_another_form_is_migrated_or_refused_and_never_dropped() {
    let file = waiting().await;
    assert_eq!(
        answered(&file, asks!(Unmigrated)).await.unwrap_err().code(),
        "state::version"
    );
    assert_eq!(
        answered(&file, asks!(Retyped)).await.unwrap_err().code(),
        "state::decode"
    );
    let state = answered(&file, asks!(Worded)).await.unwrap();
    assert_eq!(
        (state.log, state.words.as_str()),
        (vec!["new: true".to_owned()], "0 times")
    );
    // What has been migrated and saved, the program before it no longer reads, and says so.
    let older = file.opened(asking("ask", "first", false)).await;
    assert_eq!(
        older.state(&thread(), At::Head).await.unwrap_err().code(),
        "state::version"
    );
    let newer = file.opened(asks!(Worded)).await;
    let kept = newer.state(&thread(), At::Head).await.unwrap().unwrap();
    assert_eq!(
        (kept.state.words.as_str(), kept.run.unwrap().status),
        ("0 times", RunStatus::Done)
    );
}

#[tokio::test]
async fn a_file_that_may_lose_its_newest_commits_is_no_ground_for_a_run_that_is_durable_at_each_step() {
    let file = waiting().await;
    let normal = SqliteOptions::default().durability(Durability::Normal);
    let store = Sqlite::open_with(file.path(), normal).await.unwrap();
    let graph = asking("ask", "first", false).checkpointer(store);
    let error = graph.resume(&thread()).answer::<Sure>(&true).await.unwrap_err();
    assert_eq!(error.code(), "run::not_durable");
    assert!(error.to_string().contains("Durability::Async"), "{error}");
    let late = graph
        .resume(&thread())
        .answer::<Sure>(&true)
        .durability(stepgraph::Durability::Async);
    assert_eq!(late.await.unwrap().done().unwrap().log, ["first: true"]);
    // The file itself is as good as whoever opens it.
    let graph = file.opened(asking("ask", "first", false)).await;
    assert!(graph.run(&thread(), WorkInput::new()).await.is_ok());
}
