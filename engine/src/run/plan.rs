//! Which tasks follow from what has finished. Pure: values in, values out.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::graph::{Join, Topology};

/// What has finished, and where the state led it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Departure<P> {
    /// The node, or [`Topology::start`].
    pub(crate) node: usize,
    /// Nodes chosen by branches and by a router, in order.
    pub(crate) chosen: Vec<usize>,
    /// Workers to start, each with its payload, in order.
    pub(crate) sends: Vec<(usize, P)>,
}

impl<P> Default for Departure<P> {
    fn default() -> Self {
        Self {
            node: 0,
            chosen: Vec::new(),
            sends: Vec::new(),
        }
    }
}

/// A task of the next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seed<P> {
    pub(crate) node: usize,
    /// For a worker: the number of the send, and what it is fed with.
    pub(crate) send: Option<(u32, P)>,
}

/// What has begun and waits: which sources of each join have finished since it last fired, and which deferred nodes were
/// triggered but not released yet.
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
        let same = join
            .targets
            .iter()
            .map(|node| topology.name(*node).as_ref())
            .eq(self.to.iter());
        let known = |name: &String| join.sources.iter().any(|source| topology.name(*source) == name);
        let counted = !exactly || join.sources.len() == self.arrived.len() + self.missing.len();
        same && counted && self.arrived.iter().chain(&self.missing).all(known)
    }
}

impl Waiting {
    pub(crate) fn new(topology: &Topology) -> Self {
        let nobody = |join: &Join| Progress {
            arrived: vec![false; join.sources.len()],
            fired: false,
        };
        Self {
            joins: topology.joins.iter().map(nobody).collect(),
            deferred: BTreeSet::new(),
        }
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
        let begun = self
            .joins
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
            .filter(|(progress, _)| !progress.fired && progress.arrived.contains(&true));
        begun
            .map(|(progress, join)| (join.targets.clone(), progress.split(join).1))
            .collect()
    }

    /// Notes that a source has finished; whether that completes the join. One that has fired takes nothing until its
    /// targets have run.
    fn arrive(&mut self, join: usize, source: usize) -> bool {
        let Some(progress) = self.joins.get_mut(join).filter(|progress| !progress.fired) else {
            return false;
        };
        if let Some(slot) = progress.arrived.get_mut(source) {
            *slot = true;
        }
        progress.fired = !progress.arrived.contains(&false);
        progress.fired
    }

    /// A join whose targets have run, or whose tasks were dropped, begins anew.
    pub(crate) fn rearm(&mut self, topology: &Topology, ran: &(impl Iterator<Item = usize> + Clone)) {
        for (progress, join) in self.joins.iter_mut().zip(&topology.joins) {
            let over = || join.targets.is_empty() || ran.clone().any(|node| join.targets.contains(&node));
            if progress.fired && over() {
                progress.fired = false;
                progress.arrived.fill(false);
            }
        }
    }
}

/// The tasks of the next step: nodes by name, each once however often it was triggered; then the sends, in the order in
/// which they were made. `departures` come in that same order of their own step, so who finished first plays no part.
/// Deferred nodes wait until nothing else is triggered, and are then released together.
pub(crate) fn plan<P>(topology: &Topology, departures: Vec<Departure<P>>, waiting: &mut Waiting) -> Vec<Seed<P>> {
    waiting.rearm(topology, &departures.iter().map(|departure| departure.node));
    let mut triggered = Vec::new();
    let mut sends = Vec::new();
    for departure in departures {
        let exits = topology.exits(departure.node);
        triggered.extend_from_slice(&exits.edges);
        triggered.extend(departure.chosen);
        sends.extend(departure.sends);
        for (join, source) in &exits.joins {
            if waiting.arrive(*join, *source)
                && let Some(join) = topology.joins.get(*join)
            {
                triggered.extend_from_slice(&join.targets);
            }
        }
    }
    if topology.defers() {
        let (deferred, others) = triggered.into_iter().partition(|node| topology.is_deferred(*node));
        let deferred: Vec<usize> = deferred;
        waiting.deferred.extend(deferred);
        triggered = others;
        if triggered.is_empty() && sends.is_empty() {
            triggered.extend(std::mem::take(&mut waiting.deferred));
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

/// The same for a step with one task, into `tasks`: without any list where nothing but edges leads on.
pub(crate) fn plan_lone<P>(
    topology: &Topology,
    departure: &mut Departure<P>,
    waiting: &mut Waiting,
    tasks: &mut Vec<Seed<P>>,
) {
    if !topology.joins.is_empty() || topology.defers() || !departure.sends.is_empty() {
        *tasks = plan(topology, vec![std::mem::take(departure)], waiting);
        return;
    }
    let edges = topology.exits(departure.node).edges.iter().copied();
    let nodes = edges.chain(departure.chosen.drain(..));
    tasks.clear();
    tasks.extend(nodes.map(|node| Seed { node, send: None }));
    if tasks.len() > 1 {
        tasks.sort_unstable_by_key(|task| task.node);
        tasks.dedup_by_key(|task| task.node);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::{collection::vec, prelude::*, sample::subsequence};

    use super::*;
    use crate::graph::{At, Declared, Kind, Slot};

    /// What leads where among so many nodes, by number; joins may lead to END alone.
    #[derive(Debug, Clone)]
    struct Wiring {
        nodes: usize,
        edges: Vec<(usize, usize)>,
        joins: Vec<(Vec<usize>, Vec<usize>)>,
    }

    /// Names whose bytewise order is not the order of declaration.
    fn name(node: usize) -> String {
        let letters = ["b", "Z", "a0", "_", "a", "B", "z", "aa"];
        letters
            .get(node)
            .map_or_else(|| node.to_string(), |name| (*name).to_owned())
    }

    impl Wiring {
        fn topology(&self) -> Topology {
            let mut declared = Declared::named("random".into());
            for node in 0..self.nodes {
                declared.node(name(node).into(), Kind::Node);
            }
            let at = |index: &usize| {
                At::Node(Slot {
                    builder: 0,
                    index: *index,
                })
            };
            for (from, to) in &self.edges {
                declared.edge(at(from), at(to));
            }
            for (sources, targets) in &self.joins {
                let targets = targets.iter().map(at).chain([At::End]);
                declared.join(sources.iter().map(at).collect(), targets.collect());
            }
            Topology::new(&declared, &declared.order(), &[], 1)
        }
    }

    fn wiring() -> impl Strategy<Value = Wiring> {
        (2..8_usize).prop_flat_map(|nodes| {
            let all: Vec<_> = (0..nodes).collect();
            let join = (
                subsequence(all.clone(), 1..=nodes.min(3)),
                subsequence(all, 0..=nodes.min(2)),
            );
            (vec((0..nodes, 0..nodes), 0..12), vec(join, 0..5)).prop_map(move |(edges, joins)| Wiring {
                nodes,
                edges,
                joins,
            })
        })
    }

    /// Rounds of departures: which nodes have finished, whom they chose, whom they sent what.
    type Round = Vec<(usize, Vec<usize>, Vec<u8>)>;

    fn rounds() -> impl Strategy<Value = (Wiring, Vec<Round>)> {
        wiring().prop_flat_map(|wiring| {
            let nodes = wiring.nodes;
            let departure = (0..nodes, vec(0..nodes, 0..3), vec(any::<u8>(), 0..3));
            (Just(wiring), vec(vec(departure, 1..6), 1..6))
        })
    }

    fn departures(topology: &Topology, round: &Round) -> Vec<Departure<u8>> {
        let at = |node: usize| topology.find(&name(node)).unwrap();
        let departure = |(node, chosen, sends): &(usize, Vec<usize>, Vec<u8>)| Departure {
            node: at(*node),
            chosen: chosen.iter().map(|node| at(*node)).collect(),
            sends: sends.iter().map(|payload| (at(*node), *payload)).collect(),
        };
        let mut departures: Vec<_> = round.iter().map(departure).collect();
        departures.sort_by_key(|departure| departure.node);
        departures
    }

    /// The same rules by name, without any of the numbers.
    #[derive(Default)]
    struct Model {
        arrived: BTreeMap<usize, BTreeSet<String>>,
        fired: BTreeSet<usize>,
    }

    impl Model {
        fn next(&mut self, wiring: &Wiring, round: &Round) -> Vec<String> {
            let finished: BTreeSet<_> = round.iter().map(|(node, ..)| *node).collect();
            for (at, (_, targets)) in wiring.joins.iter().enumerate() {
                let ran = targets.is_empty() || targets.iter().any(|target| finished.contains(target));
                if ran && self.fired.remove(&at) {
                    self.arrived.remove(&at);
                }
            }
            let mut next: BTreeSet<String> = round
                .iter()
                .flat_map(|(_, chosen, _)| chosen)
                .map(|n| name(*n))
                .collect();
            let edges = wiring.edges.iter().filter(|(from, _)| finished.contains(from));
            next.extend(edges.map(|(_, to)| name(*to)));
            for (at, (sources, targets)) in wiring.joins.iter().enumerate() {
                if self.fired.contains(&at) {
                    continue;
                }
                let arrived = self.arrived.entry(at).or_default();
                let before = arrived.len();
                arrived.extend(sources.iter().filter(|s| finished.contains(s)).map(|s| name(*s)));
                if arrived.len() == sources.len() && arrived.len() > before {
                    self.fired.insert(at);
                    next.extend(targets.iter().map(|target| name(*target)));
                }
            }
            next.into_iter().collect()
        }
    }

    proptest! {
        #[test]
        fn tasks_are_the_triggered_nodes_by_name_each_once_then_the_sends_as_they_were_made(
            (wiring, rounds) in rounds()
        ) {
            let topology = wiring.topology();
            let (mut joins, mut model) = (Waiting::new(&topology), Model::default());
            for round in &rounds {
                let departures = departures(&topology, round);
                let sent: Vec<_> = departures.iter().flat_map(|d| d.sends.clone()).collect();
                let tasks = plan(&topology, departures, &mut joins);
                let split = tasks.iter().position(|task| task.send.is_some()).unwrap_or(tasks.len());
                let (nodes, sends) = tasks.split_at(split);
                let names: Vec<_> = nodes.iter().map(|task| topology.name(task.node).to_string()).collect();
                prop_assert_eq!(names, model.next(&wiring, round));
                let sends: Vec<_> = sends.iter().map(|task| (task.node, task.send.unwrap())).collect();
                let numbered: Vec<_> = sent.into_iter().zip(0..).map(|((node, p), number)| (node, (number, p))).collect();
                prop_assert_eq!(sends, numbered);
            }
        }

        #[test]
        fn a_lone_task_is_followed_by_what_would_follow_it_among_others((wiring, rounds) in rounds()) {
            let topology = wiring.topology();
            let (mut waiting, mut lone) = (Waiting::new(&topology), Waiting::new(&topology));
            let mut tasks = Vec::new();
            for departure in rounds.iter().flat_map(|round| departures(&topology, round)) {
                let expected = plan(&topology, vec![departure.clone()], &mut waiting);
                plan_lone(&topology, &mut departure.clone(), &mut lone, &mut tasks);
                prop_assert_eq!(&tasks, &expected);
                prop_assert_eq!(&lone, &waiting);
            }
        }

        #[test]
        fn who_finished_first_changes_neither_the_nodes_nor_the_joins(
            (wiring, rounds) in rounds(),
            seed in any::<prop::sample::Index>(),
        ) {
            let topology = wiring.topology();
            let (mut sorted, mut turned) = (Waiting::new(&topology), Waiting::new(&topology));
            for round in &rounds {
                let mut departures = departures(&topology, round);
                let nodes = |tasks: Vec<Seed<u8>>| {
                    tasks.into_iter().filter(|task| task.send.is_none()).map(|task| task.node).collect::<Vec<_>>()
                };
                let expected = nodes(plan(&topology, departures.clone(), &mut sorted));
                let by = seed.index(departures.len());
                departures.rotate_left(by);
                departures.reverse();
                prop_assert_eq!(nodes(plan(&topology, departures, &mut turned)), expected);
                prop_assert_eq!(&turned, &sorted);
            }
        }

        #[test]
        fn joins_are_read_back_as_they_were_written_down((wiring, rounds) in rounds()) {
            let topology = wiring.topology();
            let mut joins = Waiting::new(&topology);
            for round in &rounds {
                plan(&topology, departures(&topology, round), &mut joins);
                let read = Waiting::load(&topology, &joins.store_joins(&topology), &joins.store_deferred(&topology));
                prop_assert_eq!(read.as_ref(), Ok(&joins));
            }
        }
    }

    #[test]
    fn a_join_waits_for_a_source_that_was_added_and_refuses_one_that_is_gone() {
        let wiring = |sources: Vec<usize>| Wiring {
            nodes: 4,
            edges: Vec::new(),
            joins: vec![(sources, vec![3])],
        };
        let before = wiring(vec![0, 1]).topology();
        let mut joins = Waiting::new(&before);
        plan::<()>(
            &before,
            vec![Departure {
                node: before.find("b").unwrap(),
                ..Departure::default()
            }],
            &mut joins,
        );
        let stored = joins.store_joins(&before);
        let more = wiring(vec![0, 1, 2]).topology();
        let waiting = Waiting::load(&more, &stored, &[]).unwrap().stalled(&more);
        let missing: Vec<_> = waiting[0].1.iter().map(|node| more.name(*node).to_string()).collect();
        assert_eq!(missing, ["Z", "a0"]);
        assert_eq!(
            Waiting::load(&wiring(vec![1, 2]).topology(), &stored, &[]),
            Err("_".to_owned())
        );
    }
}
