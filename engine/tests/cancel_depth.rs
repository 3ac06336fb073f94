//! A cancellation reaches every node of every branch at once, however deep; and only a cancellation is one.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    pub(crate) mod store;
    pub(crate) mod threads;
}

use std::{
    future::{IntoFuture, pending},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Cancel, Context, END, Effect, FromState, Graph, Memory, NodeError, Outcome, Policy, Retry, START, State,
    SubgraphMode, checkpoint::At,
};
use support::{store::Watched, threads::thread};
use tokio::{sync::oneshot, time::Instant};

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
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

impl From<Work> for WorkUpdate {
    fn from(inner: Work) -> Self {
        Work::update().log(inner.log)
    }
}

/// What the innermost nodes have come to.
#[derive(Clone, Default)]
struct Watch {
    begun: Arc<AtomicUsize>,
    /// Goes up as long as any of them runs.
    ticks: Arc<AtomicUsize>,
    /// Of each that was let go: whether its token had fired by then.
    fired: Arc<Mutex<Vec<bool>>>,
}

/// Held by a node for as long as it is there.
struct Held(Context<()>, Watch);

impl Drop for Held {
    fn drop(&mut self) {
        self.1.fired.lock().unwrap().push(self.0.is_cancelled());
    }
}

impl Watch {
    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// Begins and never ends of itself.
    async fn run(self, ctx: Context<()>, heeds: bool) -> Result<WorkUpdate, NodeError> {
        let held = Held(ctx, self.clone());
        self.begun.fetch_add(1, Ordering::SeqCst);
        let ticking = async {
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                self.ticks.fetch_add(1, Ordering::SeqCst);
            }
        };
        if heeds {
            tokio::select! {
                () = ticking => {}
                () = held.0.cancelled() => {}
            }
            return Err(NodeError::terminal("left early"));
        }
        ticking.await;
        Ok(Work::update())
    }
}

/// The innermost graph: a node that heeds its token, one that does not, and three workers.
fn leaves(watch: &Watch) -> Graph<Work> {
    let mut g = Graph::<Work>::builder("leaves");
    for (name, heeds) in [("heeds", true), ("deaf", false)] {
        let watch = watch.clone();
        let node = g.node(name, move |_: Arc<Work>, ctx: Context<()>| {
            watch.clone().run(ctx, heeds)
        });
        g.edge(START, node).edge(node, END);
    }
    let watch = watch.clone();
    let work = g.worker("work", move |item: u64, ctx: Context<()>| {
        watch.clone().run(ctx, item == 0)
    });
    g.fan_out(START, work, |_: &Work| 0..3_u64).edge(work, END);
    // Another attempt would be something that runs on.
    g.defaults(Policy::new().retry(Retry::attempts(const { std::num::NonZeroU32::new(5).unwrap() })));
    g.build().unwrap()
}

/// A graph that hosts another in three branches: fresh, unkept, and called from a node.
fn around(name: &'static str, inner: &Graph<Work>) -> Graph<Work> {
    let mut g = Graph::<Work>::builder(name);
    let fresh = g.node("fresh", inner.clone().as_node::<WorkInput, Arc<Work>>());
    let unkept = g.node(
        "unkept",
        inner
            .clone()
            .as_node::<WorkInput, Arc<Work>>()
            .mode(SubgraphMode::Unkept),
    );
    let inner = inner.clone();
    let calls = g.node("calls", move |_: Arc<Work>, ctx: Context<()>| {
        let inner = inner.clone();
        async move { ctx.call(&inner, "inner", WorkInput::new()).await }
    });
    for host in [fresh, unkept, calls] {
        g.edge(START, host).edge(host, END);
    }
    g.build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_reaches_the_third_depth_in_parallel_branches_within_a_tenth_of_a_second() {
    for kept in [false, true] {
        let watch = Watch::default();
        let graph = around("outermost", &around("middle", &leaves(&watch)));
        let graph = if kept {
            graph.checkpointer(Watched::default())
        } else {
            graph
        };
        let leaves = 3 * 3 * 5;
        let cancel = Cancel::new();
        let run = tokio::spawn(graph.run(&thread("t"), WorkInput::new()).cancel(&cancel).into_future());
        while watch.begun() < leaves {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let begun = Instant::now();
        cancel.cancel();
        assert_eq!(run.await.unwrap().unwrap(), Outcome::Cancelled);
        assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
        let ticks = watch.ticks.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(watch.ticks.load(Ordering::SeqCst), ticks, "something runs on");
        assert_eq!(watch.begun(), leaves, "something was tried again");
        assert_eq!(*watch.fired.lock().unwrap(), vec![true; leaves], "kept: {kept}");
    }
}

/// A graph of one node that ends with an error.
fn failing(error: impl Fn() -> NodeError + Send + Sync + 'static) -> Graph<Work> {
    let mut g = Graph::<Work>::builder("failing");
    let node = g.node("node", move |_: Arc<Work>| {
        let error = error();
        async { Err::<WorkUpdate, _>(error) }
    });
    g.edge(START, node).edge(node, END);
    g.build().unwrap()
}

#[tokio::test]
async fn an_error_that_is_called_cancelled_is_a_failure_where_nobody_has_cancelled() {
    for error in [
        || NodeError::terminal("cancelled"),
        || NodeError::retryable("the run was cancelled"),
        || NodeError::terminal("no").with_code("cancelled"),
    ] {
        for hosted in [false, true] {
            let graph = if hosted {
                around_one(&failing(error))
            } else {
                failing(error)
            };
            let graph = graph.checkpointer(Memory::new());
            let ended = graph.run(&thread("t"), WorkInput::new()).await.unwrap_err();
            assert_eq!(ended.code(), "run::node", "{ended}");
            let task = graph
                .state(&thread("t"), At::Head)
                .await
                .unwrap()
                .unwrap()
                .tasks
                .pop()
                .unwrap();
            assert!(task.error.is_some() && !task.cut_off && !task.cancelled, "{task:?}");
        }
    }
}

fn around_one(inner: &Graph<Work>) -> Graph<Work> {
    let mut g = Graph::<Work>::builder("around");
    let host = g.node("host", inner.clone().as_node::<WorkInput, Arc<Work>>());
    g.edge(START, host).edge(host, END);
    g.build().unwrap()
}

#[tokio::test]
async fn the_cancellation_of_another_run_that_a_node_passes_on_is_a_failure_here() {
    // One run is cancelled, and what its effect said of that reaches a node of another.
    let (tell, told) = oneshot::channel();
    let tell = Arc::new(Mutex::new(Some(tell)));
    let cancel = Cancel::new();
    let (handle, sender) = (cancel.clone(), Arc::clone(&tell));
    let mut g = Graph::<Work>::builder("other");
    let node = g.node("node", move |_: Arc<Work>, ctx: Context<()>| {
        let (cancel, tell) = (handle.clone(), sender.lock().unwrap().take());
        async move {
            cancel.cancel();
            let never = Effect::other(pending::<Result<u64, NodeError>>);
            let Err(error) = ctx.once("never", never).await else {
                panic!("the effect has ended");
            };
            assert!(tell.unwrap().send(error).is_ok());
            Ok(Work::update())
        }
    });
    g.edge(START, node).edge(node, END);
    let other = g.build().unwrap().checkpointer(Memory::new());
    drop(other.run(&thread("other"), WorkInput::new()).cancel(&cancel).await);
    let error = Arc::new(Mutex::new(Some(told.await.unwrap())));
    let graph = failing(move || error.lock().unwrap().take().unwrap());
    let ended = graph.run(&thread("t"), WorkInput::new()).await.unwrap_err();
    assert_eq!((ended.code(), ended.node()), ("run::node", Some("node")), "{ended}");
    assert!(ended.to_string().ends_with("the run was cancelled"), "{ended}");
}
