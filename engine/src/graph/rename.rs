//! Names that nodes had before.

use std::{borrow::Cow, collections::HashSet};

use super::{GraphBuilder, check::BuildError, id::AnyNode, id::At, topology::Declared};
use crate::state::State;

impl<S: State> GraphBuilder<S> {
    /// Says that a node had another name before, so that threads which wait there under it go on here: with their results,
    /// questions, effects and the runs of graphs inside. Keep it as long as such threads live; a node may have had several.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use stepgraph::{Graph, START, END, State};
    /// # #[derive(State, Clone, Serialize, Deserialize)]
    /// # struct Count { #[state(input)] n: u64 }
    /// let mut g = Graph::<Count>::builder("count");
    /// let increase = g.node("increase", |count: Count| async move { Ok(Count::update().n(count.n + 1)) });
    /// g.renamed("add", increase).edge(START, increase).edge(increase, END);
    /// # g.build()?;
    /// # Ok::<(), stepgraph::BuildErrors>(())
    /// ```
    pub fn renamed(&mut self, old: impl Into<Cow<'static, str>>, node: impl AnyNode<S>) -> &mut Self {
        if let At::Node(slot) = self.at(node.slot().0) {
            self.declared.renamed.push((old.into(), slot.index));
        }
        self
    }
}

/// What is wrong with them.
pub(super) fn problems(declared: &Declared) -> Vec<BuildError> {
    if declared.renamed.is_empty() {
        return Vec::new();
    }
    let names: HashSet<&str> = declared.nodes.iter().map(|(name, _)| name.as_ref()).collect();
    let mut seen = HashSet::new();
    let mut problems = Vec::new();
    for (old, _) in &declared.renamed {
        if names.contains(old.as_ref()) {
            problems.push(BuildError::RenameInUse { old: old.clone() });
        }
        if !seen.insert(old) {
            problems.push(BuildError::RenamedTwice { old: old.clone() });
        }
    }
    problems
}
