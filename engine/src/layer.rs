//! Layers: what is wrapped around the nodes, steps and runs of a graph.

mod timing;
mod tracing;

use std::{borrow::Cow, future::Future, pin::Pin, sync::Arc};

use async_trait::async_trait;

pub use self::{
    timing::{Times, Timing},
    tracing::Tracing,
};
use crate::{
    id::{RunId, TenantId, ThreadKey},
    node::NodeError,
};

/// Something around every node of a graph, given by [`Graph::layer`](crate::Graph::layer): it may measure, trace, and refuse
/// to let a node run. It sees who runs what, and never the state or what a node gives back; it cannot change them, nor turn
/// a question or a cancellation into something else.
///
/// ```
/// use stepgraph::{Layer, Next, NodeError, Ran, TaskInfo};
///
/// /// Lets nobody but one tenant run the node `bill`.
/// struct OnlyAcme;
///
/// #[stepgraph::async_trait]
/// impl Layer for OnlyAcme {
///     async fn around(&self, task: &TaskInfo, next: Next<'_>) -> Result<Ran, NodeError> {
///         if task.node == "bill" && task.tenant().as_str() != "acme" {
///             return Err(NodeError::terminal("billing is not for this tenant"));
///         }
///         next.run().await
///     }
/// }
/// ```
#[async_trait]
pub trait Layer: Send + Sync + 'static {
    /// Around one attempt of a task. It counts to the node's time limit, and a panic in it is the node's.
    async fn around(&self, task: &TaskInfo, next: Next<'_>) -> Result<Ran, NodeError> {
        let _ = task;
        next.run().await
    }

    /// Around a step, its tasks and its checkpoint. A step runs whether it is passed on or not.
    async fn around_step(&self, step: &StepInfo, whole: Whole<'_>) {
        let _ = step;
        whole.run().await;
    }

    /// Around a run, from its first step to its end. A run goes on whether it is passed on or not.
    async fn around_run(&self, run: &RunInfo, whole: Whole<'_>) {
        let _ = run;
        whole.run().await;
    }
}

/// The run that something happens in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunInfo {
    /// The graph.
    pub graph: Cow<'static, str>,
    /// The thread, and whose it is.
    pub thread: ThreadKey,
    /// The run.
    pub run: RunId,
}

/// A step about to run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepInfo {
    /// Its run.
    pub run: RunInfo,
    /// Its number on the thread.
    pub step: i64,
    /// How many tasks it has.
    pub tasks: usize,
}

/// An attempt about to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskInfo {
    /// Its run.
    pub run: RunInfo,
    /// Number of its step on the thread.
    pub step: i64,
    /// The node.
    pub node: Cow<'static, str>,
    /// The task inside its step: the node's name, and `#` with the number of the send behind it for a fan-out.
    pub task: String,
    /// Which attempt it is, from 1.
    pub attempt: u32,
}

impl TaskInfo {
    /// Who it runs for.
    #[must_use]
    pub const fn tenant(&self) -> &TenantId {
        &self.run.thread.tenant
    }
}

/// Proof that the node has run and given something back.
#[derive(Debug)]
pub struct Ran(());

type Inner<'a, T> = Pin<&'a mut (dyn Future<Output = T> + Send + 'a)>;

/// The layers further in, and the node itself.
#[must_use = "a node that is not run gives nothing"]
pub struct Next<'a> {
    layers: &'a [Arc<dyn Layer>],
    task: &'a TaskInfo,
    node: Inner<'a, Result<(), NodeError>>,
}

impl<'a> Next<'a> {
    pub(crate) const fn new(
        layers: &'a [Arc<dyn Layer>],
        task: &'a TaskInfo,
        node: Inner<'a, Result<(), NodeError>>,
    ) -> Self {
        Self { layers, task, node }
    }

    /// Runs them.
    ///
    /// # Errors
    /// What the node, or a layer further in, has said.
    ///
    /// # Cancel safety
    /// Dropping it drops the node, as a time limit does.
    pub async fn run(self) -> Result<Ran, NodeError> {
        let Self { layers, task, node } = self;
        match layers.split_first() {
            None => node.await.map(Ran),
            Some((first, layers)) => first.around(task, Next { layers, task, node }).await,
        }
    }
}

/// What a layer is around, when it is around more than a node.
#[derive(Clone, Copy)]
pub(crate) enum Scope<'a> {
    Run(&'a RunInfo),
    Step(&'a StepInfo),
}

/// A run or a step within the layers further in.
#[must_use = "it is run by `run`"]
pub struct Whole<'a> {
    layers: &'a [Arc<dyn Layer>],
    scope: Scope<'a>,
    inner: Inner<'a, ()>,
}

impl<'a> Whole<'a> {
    pub(crate) const fn new(layers: &'a [Arc<dyn Layer>], scope: Scope<'a>, inner: Inner<'a, ()>) -> Self {
        Self { layers, scope, inner }
    }

    /// Runs it.
    pub async fn run(self) {
        let Self { layers, scope, inner } = self;
        let Some((first, layers)) = layers.split_first() else {
            return inner.await;
        };
        let whole = Whole { layers, scope, inner };
        match scope {
            Scope::Run(run) => first.around_run(run, whole).await,
            Scope::Step(step) => first.around_step(step, whole).await,
        }
    }
}

macro_rules! opaque {
    ($($name:ident),*) => { $(
        impl std::fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).field("layers", &self.layers.len()).finish_non_exhaustive()
            }
        }
    )* };
}
opaque!(Next, Whole);
