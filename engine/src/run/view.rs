//! What a caller reads of a state, where a run or a thread gives it.

use std::sync::Arc;

use super::{Outcome, Snapshot};
use crate::state::{FromState, State};

impl<S: State> Outcome<S> {
    /// A view of the last state, if the run has come to its end.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use stepgraph::{Graph, START, END, State, TenantId, ThreadId, ThreadKey, View};
    /// # #[derive(State, Clone, Serialize, Deserialize)]
    /// # struct Count { #[state(input)] n: u64, notes: Vec<String> }
    /// #[derive(View)]
    /// #[view(of = Count)]
    /// struct Total {
    ///     n: u64,
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut g = Graph::<Count>::builder("count");
    /// # let add = g.node("add", |count: Count| async move { Ok(Count::update().n(count.n + 1)) });
    /// # g.edge(START, add).edge(add, END);
    /// # let graph = g.build()?;
    /// # let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
    /// let total = graph.run(&thread, CountInput { n: 1 }).await?.view::<Total>();
    /// assert_eq!(total.map(|total| total.n), Some(2));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn view<O: FromState<S>>(self) -> Option<O> {
        self.done().map(|state| O::from_state(&Arc::new(state)))
    }
}

impl<S: State> Snapshot<S> {
    /// A view of the state, without the rest.
    #[must_use]
    pub fn view<O: FromState<S>>(self) -> O {
        O::from_state(&Arc::new(self.state))
    }
}
