//! Which tasks follow from what has finished. Pure: values in, values out.

use serde::{Deserialize, Serialize};

use crate::graph::{Join, Topology};

/// What has finished, and where the state led it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Departure<P> {
    /// The node, or [`Topology::start`].
    pub(crate) node: usize,
    /// Nodes chosen by branches and by a router, in order.
    pub(crate) chosen: Vec<usize>,
    /// Workers to start, each with its payload, in order.
    pub(crate) sends: Vec<(usize, P)>,
}

/// A task of the next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seed<P> {
    pub(crate) node: usize,
    /// For a worker: the number of the send, and what it is fed with.
    pub(crate) send: Option<(u32, P)>,
}

/// Which sources of each join have finished since it last fired.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Joins(Vec<Progress>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Progress {
    arrived: Vec<bool>,
    /// It has triggered its targets, which are about to run.
    fired: bool,
}

/// A join as it is written down: by the names of its targets, of the sources that have arrived and of the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredJoin {
    pub(crate) to: Vec<String>,
    pub(crate) arrived: Vec<String>,
    /// Tells apart joins into the same targets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) missing: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) fired: bool,
}

impl Progress {
    /// The sources that have arrived, and the others.
    fn split(&self, join: &Join) -> (Vec<usize>, Vec<usize>) {
        let sources = join.sources.iter().copied().zip(&self.arrived);
        let (arrived, missing): (Vec<_>, Vec<_>) = sources.partition(|(_, here)| **here);
        let nodes = |sources: Vec<(usize, &bool)>| sources.into_iter().map(|(node, _)| node).collect();
        (nodes(arrived), nodes(missing))
    }
}

impl StoredJoin {
    fn fits(&self, topology: &Topology, join: &Join, exactly: bool) -> bool {
        let same = join.targets.iter().map(|node| topology.name(*node).as_ref()).eq(self.to.iter());
        let known = |name: &String| join.sources.iter().any(|source| topology.name(*source) == name);
        let counted = !exactly || join.sources.len() == self.arrived.len() + self.missing.len();
        same && counted && self.arrived.iter().chain(&self.missing).all(known)
    }
}

impl Joins {
    pub(crate) fn new(topology: &Topology) -> Self {
        Self(
            topology
                .joins
                .iter()
                .map(|join| Progress {
                    arrived: vec![false; join.sources.len()],
                    fired: false,
                })
                .collect(),
        )
    }

    /// What has not fired and was not begun is left out.
    pub(crate) fn store(&self, topology: &Topology) -> Vec<StoredJoin> {
        let begun = self
            .0
            .iter()
            .zip(&topology.joins)
            .filter(|(progress, _)| progress.fired || progress.arrived.contains(&true));
        let names = |nodes: &[usize]| nodes.iter().map(|node| topology.name(*node).to_string()).collect();
        begun
            .map(|(progress, join)| {
                let (arrived, missing) = progress.split(join);
                StoredJoin {
                    to: names(&join.targets),
                    arrived: names(&arrived),
                    missing: names(&missing),
                    fired: progress.fired,
                }
            })
            .collect()
    }

    /// Reads back what was written; the name of a target or source that is no longer there is the error. A join that has
    /// been given more sources meanwhile waits for those as well.
    pub(crate) fn load(topology: &Topology, stored: &[StoredJoin]) -> Result<Self, String> {
        let mut joins = Self::new(topology);
        let mut taken = vec![false; topology.joins.len()];
        for kept in stored {
            let free = |at: &usize| taken.get(*at) == Some(&false);
            let fits = |exactly: bool| {
                let mut all = (0..topology.joins.len()).filter(free);
                all.find(|at| topology.joins.get(*at).is_some_and(|join| kept.fits(topology, join, exactly)))
            };
            let at = fits(true).or_else(|| fits(false));
            let found = at.and_then(|at| Some((joins.0.get_mut(at)?, topology.joins.get(at)?, taken.get_mut(at)?)));
            let Some((progress, join, taken)) = found else {
                return Err(kept.to.join(", "));
            };
            *taken = true;
            progress.fired = kept.fired;
            for (slot, source) in progress.arrived.iter_mut().zip(&join.sources) {
                *slot = kept.arrived.iter().any(|name| topology.name(*source) == name);
            }
        }
        Ok(joins)
    }

    /// Joins that some sources have reached and others have not: what they lead to, and for whom they wait.
    pub(crate) fn waiting(&self, topology: &Topology) -> Vec<(Vec<usize>, Vec<usize>)> {
        let begun = self
            .0
            .iter()
            .zip(&topology.joins)
            .filter(|(progress, _)| !progress.fired && progress.arrived.contains(&true));
        begun
            .map(|(progress, join)| (join.targets.clone(), progress.split(join).1))
            .collect()
    }

    fn arrive(&mut self, join: usize, source: usize) -> bool {
        let Some(progress) = self.0.get_mut(join) else {
            return false;
        };
        if let Some(slot) = progress.arrived.get_mut(source) {
            *slot = true;
        }
        progress.fired = !progress.arrived.contains(&false);
        progress.fired
    }

    /// A join whose targets have just run begins anew.
    fn rearm(&mut self) {
        for progress in self.0.iter_mut().filter(|progress| progress.fired) {
            progress.fired = false;
            progress.arrived.fill(false);
        }
    }
}

/// The tasks of the next step: nodes by name, each once however often it was triggered; then the sends, in the order in
/// which they were made. `departures` come in that same order of their own step, so who finished first plays no part.
pub(crate) fn plan<P>(topology: &Topology, departures: Vec<Departure<P>>, joins: &mut Joins) -> Vec<Seed<P>> {
    joins.rearm();
    let mut triggered = Vec::new();
    let mut sends = Vec::new();
    for departure in departures {
        let exits = topology.exits(departure.node);
        triggered.extend_from_slice(&exits.edges);
        triggered.extend(departure.chosen);
        sends.extend(departure.sends);
        for (join, source) in &exits.joins {
            if joins.arrive(*join, *source)
                && let Some(join) = topology.joins.get(*join)
            {
                triggered.extend_from_slice(&join.targets);
            }
        }
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
