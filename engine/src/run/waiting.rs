//! What has begun and waits: joins for their sources, deferred nodes for the others. Pure: values in, values out.

use std::{borrow::Cow, collections::BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::graph::{Exits, Join, Topology};

/// Which sources of each join have finished since it last fired, and which deferred nodes were triggered but not released
/// yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    joins: Vec<Progress>,
    deferred: BTreeSet<usize>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Progress {
    arrived: Vec<bool>,
    /// It has triggered its targets, which are about to run or, if they are deferred, wait to.
    fired: bool,
    /// When the step began in which its first source ran: only of joins that wait for so long and no longer.
    since: Option<DateTime<Utc>>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rule: Option<Cow<'static, str>>,
}

/// A join as the tasks of a step meet it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenJoin {
    /// Its position.
    pub(crate) join: usize,
    /// The sources that had arrived before the step.
    pub(crate) arrived: Vec<bool>,
    /// When it stops waiting.
    pub(crate) due: Option<DateTime<Utc>>,
}

impl Progress {
    /// The sources that have arrived, and the others.
    fn split(&self, join: &Join) -> (Vec<usize>, Vec<usize>) {
        let sources = join.sources.iter().copied().zip(&self.arrived);
        let (arrived, missing): (Vec<_>, Vec<_>) = sources.partition(|(_, here)| **here);
        let nodes = |sources: Vec<(usize, &bool)>| sources.into_iter().map(|(node, _)| node).collect();
        (nodes(arrived), nodes(missing))
    }

    fn begun(&self) -> bool {
        self.since.is_some() || self.arrived.contains(&true)
    }

    /// When a join stops waiting, if it has begun to and ever does.
    fn due(&self, join: &Join) -> Option<DateTime<Utc>> {
        self.since?.checked_add_signed(join.within?)
    }

    /// Whether it leads on.
    fn holds(&self, join: &Join, now: Option<DateTime<Utc>>) -> bool {
        let overdue = || self.due(join).is_some_and(|due| now.is_some_and(|now| due <= now));
        !self.fired && (join.holds(&self.arrived) || overdue())
    }

    fn fire(&mut self, join: &Join, triggered: &mut Vec<usize>) {
        self.fired = true;
        self.since = None;
        triggered.extend_from_slice(&join.targets);
    }
}

impl Join {
    /// Whether enough of its sources have arrived.
    pub(crate) fn holds(&self, arrived: &[bool]) -> bool {
        let here = arrived.iter().filter(|here| **here).count();
        here > 0 && here >= self.needed
    }

    /// Whether the run of these nodes is what it leads to.
    fn is_over(&self, mut ran: impl Iterator<Item = usize>) -> bool {
        self.targets.is_empty() || ran.any(|node| self.targets.contains(&node))
    }
}

impl StoredJoin {
    /// The same by the names that its nodes have now.
    pub(crate) fn renamed(&self, topology: &Topology) -> Self {
        let renamed = |names: &[String]| names.iter().map(|name| topology.current(name).to_owned()).collect();
        Self {
            to: renamed(&self.to),
            arrived: renamed(&self.arrived),
            missing: renamed(&self.missing),
            ..self.clone()
        }
    }

    fn fits(&self, topology: &Topology, join: &Join, exactly: bool) -> bool {
        let same = join
            .targets
            .iter()
            .map(|node| topology.name(*node).as_ref())
            .eq(self.to.iter());
        let known = |name: &String| join.sources.iter().any(|source| topology.name(*source) == name);
        let counted = join.sources.len() == self.arrived.len() + self.missing.len() && join.rule == self.rule;
        same && (counted || !exactly) && self.arrived.iter().chain(&self.missing).all(known)
    }
}

impl Waiting {
    #[inline]
    pub(crate) fn new(topology: &Topology) -> Self {
        let nobody = |join: &Join| Progress {
            arrived: vec![false; join.sources.len()],
            ..Progress::default()
        };
        Self {
            joins: topology.joins.iter().map(nobody).collect(),
            deferred: BTreeSet::new(),
        }
    }

    /// Whether nothing can be waiting: the graph has no joins, and no deferred node was triggered.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.joins.is_empty() && self.deferred.is_empty()
    }

    /// The deferred nodes that were triggered and not released, by name.
    pub(crate) fn store_deferred(&self, topology: &Topology) -> Vec<String> {
        self.deferred
            .iter()
            .map(|node| topology.name(*node).to_string())
            .collect()
    }

    /// What has not fired and was not begun is left out.
    pub(crate) fn store_joins(&self, topology: &Topology) -> Vec<StoredJoin> {
        let joins = self.joins.iter().zip(&topology.joins);
        let begun = joins.filter(|(progress, _)| progress.fired || progress.begun());
        let names = |nodes: &[usize]| nodes.iter().map(|node| topology.name(*node).to_string()).collect();
        begun
            .map(|(progress, join)| {
                let (arrived, missing) = progress.split(join);
                StoredJoin {
                    to: names(&join.targets),
                    arrived: names(&arrived),
                    missing: names(&missing),
                    fired: progress.fired,
                    since: progress.since,
                    rule: join.rule.clone(),
                }
            })
            .collect()
    }

    /// Reads back what was written; the name of a target or source that is no longer there is the error. A join that has
    /// been given more sources meanwhile waits for those as well.
    pub(crate) fn load(topology: &Topology, stored: &[StoredJoin], deferred: &[String]) -> Result<Self, String> {
        let mut waiting = Self::new(topology);
        for name in deferred {
            waiting
                .deferred
                .insert(topology.find(name).ok_or_else(|| name.clone())?);
        }
        let mut taken = vec![false; topology.joins.len()];
        for kept in stored {
            let free = |at: &usize| taken.get(*at) == Some(&false);
            let fits = |exactly: bool| {
                let mut all = (0..topology.joins.len()).filter(free);
                all.find(|at| {
                    topology
                        .joins
                        .get(*at)
                        .is_some_and(|join| kept.fits(topology, join, exactly))
                })
            };
            let at = fits(true).or_else(|| fits(false));
            let found =
                at.and_then(|at| Some((waiting.joins.get_mut(at)?, topology.joins.get(at)?, taken.get_mut(at)?)));
            let Some((progress, join, taken)) = found else {
                return Err(kept.to.join(", "));
            };
            *taken = true;
            progress.fired = kept.fired;
            progress.since = kept.since;
            for (slot, source) in progress.arrived.iter_mut().zip(&join.sources) {
                *slot = kept.arrived.iter().any(|name| topology.name(*source) == name);
            }
        }
        Ok(waiting)
    }

    /// Joins that some sources have reached and others have not: what they lead to, and for whom they wait.
    pub(crate) fn stalled(&self, topology: &Topology) -> Vec<(Vec<usize>, Vec<usize>)> {
        let begun = self
            .joins
            .iter()
            .zip(&topology.joins)
            .filter(|(progress, _)| !progress.fired && progress.begun());
        begun
            .map(|(progress, join)| (join.targets.clone(), progress.split(join).1))
            .collect()
    }

    /// Begins to count the time of joins that wait for so long and no longer: a step with these nodes begins at `now`.
    pub(crate) fn begin(
        &mut self,
        topology: &Topology,
        nodes: &(impl Iterator<Item = usize> + Clone),
        now: DateTime<Utc>,
    ) {
        for (progress, join) in self.joins.iter_mut().zip(&topology.joins) {
            let open = !progress.fired || join.is_over(nodes.clone());
            if join.within.is_some() && open && nodes.clone().any(|node| join.sources.contains(&node)) {
                progress.since.get_or_insert(now);
            }
        }
    }

    /// The joins that may cancel tasks of a step with these nodes.
    pub(crate) fn open(&self, topology: &Topology, nodes: &(impl Iterator<Item = usize> + Clone)) -> Vec<OpenJoin> {
        let mut open = Vec::new();
        for (at, (progress, join)) in self.joins.iter().zip(&topology.joins).enumerate() {
            let cancels = join.cancel_others || join.within.is_some();
            let anew = progress.fired && join.is_over(nodes.clone());
            if cancels && (anew || !progress.fired) && nodes.clone().any(|node| join.sources.contains(&node)) {
                open.push(OpenJoin {
                    join: at,
                    arrived: if anew {
                        vec![false; join.sources.len()]
                    } else {
                        progress.arrived.clone()
                    },
                    due: progress.due(join),
                });
            }
        }
        open
    }

    /// Who had arrived at the joins that have triggered their targets: each target with them.
    pub(crate) fn arrivals(&self, topology: &Topology) -> Vec<(usize, Vec<usize>)> {
        let fired = self
            .joins
            .iter()
            .zip(&topology.joins)
            .filter(|(progress, _)| progress.fired);
        fired
            .flat_map(|(progress, join)| {
                let arrived = progress.split(join).0;
                join.targets.iter().map(move |target| (*target, arrived.clone()))
            })
            .collect()
    }

    /// Notes that a node has finished at all joins that wait for it. One that has fired takes nothing until its targets have
    /// run.
    pub(super) fn arrive(&mut self, topology: &Topology, exits: &Exits, now: Option<DateTime<Utc>>) {
        for (at, source) in &exits.joins {
            let Some((progress, join)) = self.joins.get_mut(*at).zip(topology.joins.get(*at)) else {
                continue;
            };
            if progress.fired {
                continue;
            }
            if let Some(slot) = progress.arrived.get_mut(*source) {
                *slot = true;
            }
            if join.within.is_some() && progress.since.is_none() {
                progress.since = now;
            }
        }
    }

    /// Lets the joins lead on whose rule holds.
    pub(super) fn fire(&mut self, topology: &Topology, now: Option<DateTime<Utc>>, triggered: &mut Vec<usize>) {
        for (progress, join) in self.joins.iter_mut().zip(&topology.joins) {
            if progress.holds(join, now) {
                progress.fire(join, triggered);
            }
        }
    }

    /// Lets the joins lead on that wait for some time only: nothing else is left to run, so nobody else can arrive.
    pub(super) fn fire_begun(&mut self, topology: &Topology, triggered: &mut Vec<usize>) {
        for (progress, join) in self.joins.iter_mut().zip(&topology.joins) {
            if join.within.is_some() && progress.begun() && !progress.fired {
                progress.fire(join, triggered);
            }
        }
    }

    pub(super) fn defer(&mut self, nodes: Vec<usize>) {
        self.deferred.extend(nodes);
    }

    pub(super) fn release(&mut self) -> BTreeSet<usize> {
        std::mem::take(&mut self.deferred)
    }

    /// Whether a deferred node was triggered and not released yet.
    pub(super) fn is_held(&self, node: usize) -> bool {
        self.deferred.contains(&node)
    }

    /// Whether a node is the target of a join that has fired.
    pub(super) fn has_fired_for(&self, topology: &Topology, node: usize) -> bool {
        let mut joins = self.joins.iter().zip(&topology.joins);
        joins.any(|(progress, join)| progress.fired && join.targets.contains(&node))
    }

    /// How many joins into a node are not as they were before a step, in which the node itself may have run.
    pub(super) fn changed(&self, before: &Self, topology: &Topology, node: usize, ran: bool) -> usize {
        let joins = self.joins.iter().zip(&before.joins).zip(&topology.joins);
        let into = joins.filter(|(_, join)| join.targets.contains(&node));
        into.filter(|((now, before), _)| now != before || (before.fired && ran))
            .count()
    }

    /// Joins that had fired `before` are left as they were then.
    pub(super) fn keep_fired(&mut self, before: &Self) {
        for (progress, before) in self.joins.iter_mut().zip(&before.joins) {
            if before.fired {
                progress.clone_from(before);
            }
        }
    }

    /// A join whose targets have run, or whose tasks were dropped, begins anew.
    pub(crate) fn rearm(&mut self, topology: &Topology, ran: &(impl Iterator<Item = usize> + Clone)) {
        for (progress, join) in self.joins.iter_mut().zip(&topology.joins) {
            if progress.fired && join.is_over(ran.clone()) {
                progress.fired = false;
                progress.arrived.fill(false);
            }
        }
    }
}
