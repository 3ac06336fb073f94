//! Which ways the runs of a watched graph have taken, for tests.

use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(feature = "testing")]
use crate::graph::Topology;

/// One mark for each node and each way that depends on the state.
pub(crate) struct Ways {
    nodes: Vec<AtomicBool>,
    /// By branch and route.
    branches: Vec<Vec<AtomicBool>>,
    /// By node and route.
    routers: Vec<Vec<AtomicBool>>,
    fan_outs: Vec<AtomicBool>,
}

#[cfg(feature = "testing")]
fn marks(count: usize) -> Vec<AtomicBool> {
    (0..count).map(|_| AtomicBool::new(false)).collect()
}

fn set(mark: Option<&AtomicBool>) {
    if let Some(mark) = mark {
        mark.store(true, Ordering::Relaxed);
    }
}

#[cfg(feature = "testing")]
fn is_set(mark: Option<&AtomicBool>) -> bool {
    mark.is_some_and(|mark| mark.load(Ordering::Relaxed))
}

impl Ways {
    /// A node has given its output, a router with the routes it chose.
    pub(crate) fn leave(&self, node: usize, routes: impl Iterator<Item = usize>) {
        set(self.nodes.get(node));
        for route in routes {
            set(self.routers.get(node).and_then(|routes| routes.get(route)));
        }
    }

    /// A branch has led along a route.
    pub(crate) fn take(&self, branch: usize, route: usize) {
        set(self.branches.get(branch).and_then(|routes| routes.get(route)));
    }

    /// A fan-out has started so many workers.
    pub(crate) fn send(&self, fan_out: usize, workers: usize) {
        if workers > 0 {
            set(self.fan_outs.get(fan_out));
        }
    }
}

#[cfg(feature = "testing")]
impl Ways {
    pub(crate) fn new(topology: &Topology) -> Self {
        let nodes = topology.names().len();
        Self {
            nodes: marks(nodes),
            branches: topology.branches.iter().map(|table| marks(table.len())).collect(),
            routers: (0..nodes)
                .map(|node| marks(topology.exits(node).routes.len()))
                .collect(),
            fan_outs: marks(topology.fan_outs.len()),
        }
    }

    pub(crate) fn has_run(&self, node: usize) -> bool {
        is_set(self.nodes.get(node))
    }

    pub(crate) fn has_taken(&self, branch: usize, route: usize) -> bool {
        is_set(self.branches.get(branch).and_then(|routes| routes.get(route)))
    }

    pub(crate) fn has_routed(&self, node: usize, route: usize) -> bool {
        is_set(self.routers.get(node).and_then(|routes| routes.get(route)))
    }

    pub(crate) fn has_sent(&self, fan_out: usize) -> bool {
        is_set(self.fan_outs.get(fan_out))
    }
}
