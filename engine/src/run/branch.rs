//! Named branches of a thread, and its end.

use super::{
    busy::{Hold, OnBusy},
    error::RunError,
};
use crate::{
    checkpoint::{At, Branch, Seq},
    graph::Graph,
    id::ThreadKey,
    state::State,
};

impl<S: State> Graph<S> {
    /// A thread's branches, by name. A thread begins on the branch `main`; a run moves the branch that its thread is on.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use stepgraph::{END, Graph, Memory, START, State, Sum, TenantId, ThreadId, ThreadKey, checkpoint::{At, Seq}};
    /// # #[derive(State, Clone, Serialize, Deserialize)]
    /// # struct Count { #[state(input, reducer = Sum)] n: u64 }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut g = Graph::<Count>::builder("count");
    /// # let add = g.node("add", |_: Count| async { Ok(Count::update().n(1_u64)) });
    /// # g.edge(START, add).edge(add, END);
    /// # let graph = g.build()?.checkpointer(Memory::new());
    /// # let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
    /// graph.run(&thread, CountInput { n: 1 }).await?;
    /// graph.fork(&thread, At::Seq(Seq(1)), "retry").await?;
    /// let names: Vec<_> = graph.branches(&thread).await?.into_iter().map(|branch| branch.name).collect();
    /// assert_eq!(names, ["main", "retry"]);
    /// graph.switch(&thread, "main").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`RunError::NoCheckpointer`], or what the store says.
    pub async fn branches(&self, thread: &ThreadKey) -> Result<Vec<Branch>, RunError> {
        Ok(self.kept()?.branches(thread).await?)
    }

    /// Begins a branch at a checkpoint and puts the thread on it: what runs next grows from there. Nothing runs until the
    /// thread is resumed or gets new input. The branch that it was on stays where it is.
    ///
    /// # Errors
    /// [`RunError::BranchExists`]; [`RunError::NoCheckpoint`] if the thread has none there; [`RunError::Busy`].
    pub async fn fork(&self, thread: &ThreadKey, at: At, name: &str) -> Result<Seq, RunError> {
        let _hold = self.idle(thread).await?;
        let store = self.kept()?;
        let found = store.get(thread, at).await?.ok_or_else(|| RunError::NoCheckpoint {
            thread: Box::new(thread.clone()),
            at: at.to_string(),
        })?;
        if store.branches(thread).await?.iter().any(|branch| branch.name == name) {
            return Err(RunError::BranchExists {
                thread: thread.clone(),
                name: name.to_owned(),
            });
        }
        let epoch = store.claim(thread).await?;
        store.branch(thread, epoch, found.info.seq, name).await?;
        Ok(found.info.seq)
    }

    /// Puts the thread on another of its branches, and gives the checkpoint where it stands now.
    ///
    /// # Errors
    /// [`RunError::UnknownBranch`] with the names there are; [`RunError::Busy`].
    pub async fn switch(&self, thread: &ThreadKey, name: &str) -> Result<Seq, RunError> {
        let _hold = self.idle(thread).await?;
        let store = self.kept()?;
        let branches = store.branches(thread).await?;
        let Some(branch) = branches.iter().find(|branch| branch.name == name) else {
            return Err(RunError::UnknownBranch {
                thread: thread.clone(),
                name: name.to_owned(),
                branches: branches.into_iter().map(|branch| branch.name).collect(),
            });
        };
        if !branch.current {
            let epoch = store.claim(thread).await?;
            store.branch(thread, epoch, branch.head, name).await?;
        }
        Ok(branch.head)
    }

    /// Removes a thread with the threads of all graphs inside it, for good. A thread that is not there is no error.
    ///
    /// # Errors
    /// [`RunError::Busy`] while a run of this process has it.
    pub async fn delete(&self, thread: &ThreadKey) -> Result<(), RunError> {
        let _hold = self.idle(thread).await?;
        Ok(self.kept()?.delete(thread).await?)
    }

    /// Keeps runs of this process off a thread for a moment.
    pub(super) async fn idle(&self, thread: &ThreadKey) -> Result<Hold, RunError> {
        let hold = self.setting.busy.hold(thread, OnBusy::Reject).await;
        hold.ok_or_else(|| RunError::Busy { thread: thread.clone() })
    }
}
