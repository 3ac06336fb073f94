//! Which tasks follow from what has finished. Pure: values in, values out.

use chrono::{DateTime, Utc};

pub(crate) use super::{
    tasks::Tasks,
    waiting::{StoredJoin, Waiting},
};
use crate::graph::Topology;

/// What has finished, and where the state led it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Departure<P> {
    /// The node, or [`Topology::start`].
    pub(crate) node: usize,
    /// Nodes chosen by branches and by a router, in order.
    pub(crate) chosen: Vec<usize>,
    /// Workers to start, each with its payload, in order.
    pub(crate) sends: Vec<(usize, P)>,
    /// Workers of fan-outs that had no items.
    pub(crate) idle: Vec<usize>,
    /// It was cancelled by a join: nothing follows from it.
    pub(crate) cancelled: bool,
}

impl<P> Departure<P> {
    pub(crate) const fn of(node: usize) -> Self {
        Self {
            node,
            chosen: Vec::new(),
            sends: Vec::new(),
            idle: Vec::new(),
            cancelled: false,
        }
    }
}

impl<P> Default for Departure<P> {
    fn default() -> Self {
        Self::of(0)
    }
}

/// A task of the next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seed<P> {
    pub(crate) node: usize,
    /// For a worker: the number of the send, and what it is fed with.
    pub(crate) send: Option<(u32, P)>,
}

/// The tasks of the next step: nodes by name, each once however often it was triggered; then the sends, in the order in
/// which they were made. `departures` come in that same order of their own step, so who finished first plays no part.
/// Deferred nodes wait until nothing else is triggered, and are then released together. `now` is the time of the step's end
/// for joins that wait for some time only.
pub(crate) fn plan<P>(
    topology: &Topology,
    departures: Vec<Departure<P>>,
    waiting: &mut Waiting,
    now: Option<DateTime<Utc>>,
) -> Vec<Seed<P>> {
    waiting.rearm(topology, &departures.iter().map(|departure| departure.node));
    let cancelled = departures.iter().filter(|departure| departure.cancelled);
    // A worker has arrived when all its tasks have finished, and not if one of them was cancelled.
    let incomplete: Vec<usize> = cancelled.map(|departure| departure.node).collect();
    let (mut triggered, mut sends, mut idle) = (Vec::new(), Vec::new(), Vec::new());
    for departure in departures.into_iter().filter(|departure| !departure.cancelled) {
        let exits = topology.exits(departure.node);
        triggered.extend_from_slice(&exits.edges);
        triggered.extend(departure.chosen);
        sends.extend(departure.sends);
        idle.extend(departure.idle);
        if !incomplete.contains(&departure.node) {
            waiting.arrive(topology, exits, now);
        }
    }
    pass_idle(topology, idle, &sends, waiting, now, &mut triggered);
    waiting.fire(topology, now, &mut triggered);
    hold_deferred(topology, &mut triggered, &sends, waiting);
    if triggered.is_empty() && sends.is_empty() {
        waiting.fire_begun(topology, &mut triggered);
        hold_deferred(topology, &mut triggered, &sends, waiting);
    }
    triggered.sort_unstable();
    triggered.dedup();
    let nodes = triggered.into_iter().map(|node| Seed { node, send: None });
    let workers = sends.into_iter().zip(0..).map(|((node, payload), number)| Seed {
        node,
        send: Some((number, payload)),
    });
    nodes.chain(workers).collect()
}

/// The same for a step with one task, into `tasks`: without any list where nothing but edges leads on.
pub(crate) fn plan_lone<P>(
    topology: &Topology,
    departure: &mut Departure<P>,
    waiting: &mut Waiting,
    now: Option<DateTime<Utc>>,
    tasks: &mut Tasks<P>,
) {
    let sends = !departure.sends.is_empty() || !departure.idle.is_empty();
    if sends || !topology.joins.is_empty() || topology.defers() {
        *tasks = plan(topology, vec![std::mem::take(departure)], waiting, now).into();
        return;
    }
    let edges = topology.exits(departure.node).edges.as_slice();
    let only = match (edges, departure.chosen.as_slice()) {
        ([node], []) | ([], [node]) => Some(*node),
        _ => None,
    };
    if let Some(node) = only {
        tasks.set_node(node);
        departure.chosen.clear();
        return;
    }
    let nodes = edges.iter().copied().chain(departure.chosen.drain(..));
    let mut next: Vec<_> = nodes.map(|node| Seed { node, send: None }).collect();
    if next.len() > 1 {
        next.sort_unstable_by_key(|task| task.node);
        next.dedup_by_key(|task| task.node);
    }
    *tasks = next.into();
}

/// Lets the deferred nodes that were triggered wait, and all that wait go when there is nothing else.
fn hold_deferred<P>(topology: &Topology, triggered: &mut Vec<usize>, sends: &[(usize, P)], waiting: &mut Waiting) {
    if !topology.defers() {
        return;
    }
    let (deferred, others) = triggered.drain(..).partition(|node| topology.is_deferred(*node));
    waiting.defer(deferred);
    *triggered = others;
    if triggered.is_empty() && sends.is_empty() {
        triggered.extend(waiting.release());
    }
}

/// A worker that was given no items has finished at once: what always follows from it follows now, and the workers that it
/// would have fed are given no items either.
fn pass_idle<P>(
    topology: &Topology,
    mut idle: Vec<usize>,
    sends: &[(usize, P)],
    waiting: &mut Waiting,
    now: Option<DateTime<Utc>>,
    triggered: &mut Vec<usize>,
) {
    let mut passed = Vec::new();
    while let Some(worker) = idle.pop() {
        let fed = sends.iter().any(|(fed, _)| *fed == worker);
        if fed || passed.contains(&worker) {
            continue;
        }
        passed.push(worker);
        let exits = topology.exits(worker);
        triggered.extend_from_slice(&exits.edges);
        waiting.arrive(topology, exits, now);
        idle.extend(exits.fan_outs.iter().filter_map(|at| topology.fan_outs.get(*at)));
    }
}

#[cfg(test)]
#[path = "plan/tests.rs"]
mod tests;
