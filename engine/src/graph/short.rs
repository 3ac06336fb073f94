//! What of a graph runs may go the shortest way through, found out once.

use super::{
    parts::{Branch, NodeSpec},
    rules::Rules,
    topology::Topology,
};
use crate::state::State;

/// Marks the nodes of which one list of edges, or the routes of one branch, says what follows.
pub(super) fn mark<S: State>(nodes: &mut [NodeSpec<S>], topology: &Topology, branches: &[Branch<S>]) {
    for (at, spec) in nodes.iter_mut().enumerate() {
        let exits = topology.exits(at);
        let leads_on = match (exits.branches.as_slice(), exits.edges.as_slice()) {
            _ if !exits.fan_outs.is_empty() => false,
            ([], _) => true,
            ([at], []) => matches!(branches.get(*at), Some(Branch::Routes(_))),
            _ => false,
        };
        spec.short = spec.plain && leads_on;
    }
}

/// The only node that follows from START, where nothing is waited for, cut off or looked out for beside the nodes.
pub(super) fn first(topology: &Topology, rules: Rules) -> Option<usize> {
    let waits = !topology.is_plain() || topology.races();
    let cuts = rules.cuts() || rules.deadline.is_some();
    let exits = topology.exits(topology.start());
    match exits.edges.as_slice() {
        [node] if !waits && !cuts && !exits.is_conditional() => Some(*node),
        _ => None,
    }
}
