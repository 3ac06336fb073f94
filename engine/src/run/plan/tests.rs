//! The planner against the same rules told by name.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::{collection::vec, option, prelude::*, sample::subsequence};

use super::*;
use crate::graph::{At, Declared, JoinRule, Kind, Slot};

/// When a join leads on.
#[derive(Debug, Clone, Copy)]
enum Count {
    All,
    Any,
    Quorum(usize),
    /// So many of ten parts.
    Tenths(u8),
}

#[derive(Debug, Clone)]
struct JoinOf {
    sources: Vec<usize>,
    targets: Vec<usize>,
    count: Count,
    within_seconds: Option<u64>,
}

impl JoinOf {
    fn rule(&self) -> JoinRule {
        let rule = match self.count {
            Count::All => JoinRule::all(),
            Count::Any => JoinRule::any(),
            Count::Quorum(sources) => JoinRule::quorum(sources),
            Count::Tenths(tenths) => JoinRule::fraction(f64::from(tenths) / 10.0),
        };
        match self.within_seconds {
            Some(seconds) => rule.within(Duration::from_secs(seconds)),
            None => rule,
        }
    }

    fn takes(&self) -> usize {
        let all = self.sources.len();
        match self.count {
            Count::All => all,
            Count::Any => 1,
            Count::Quorum(sources) => sources,
            Count::Tenths(tenths) => (all * usize::from(tenths)).div_ceil(10).max(1),
        }
    }
}

/// What leads where among so many nodes, by number; joins may lead to END alone.
#[derive(Debug, Clone)]
struct Wiring {
    nodes: usize,
    edges: Vec<(usize, usize)>,
    joins: Vec<JoinOf>,
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
        for join in &self.joins {
            let targets = join.targets.iter().map(at).chain([At::End]);
            declared.join(join.rule(), join.sources.iter().map(at).collect(), targets.collect());
        }
        Topology::new(&declared, &declared.order(), &[], 1)
    }
}

fn join(nodes: usize) -> impl Strategy<Value = JoinOf> {
    let all: Vec<_> = (0..nodes).collect();
    let sources = subsequence(all.clone(), 1..=nodes.min(3));
    (sources, subsequence(all, 0..=nodes.min(2)), option::of(1..9_u64)).prop_flat_map(|(sources, targets, within)| {
        let count = prop_oneof![
            2 => Just(Count::All),
            1 => Just(Count::Any),
            1 => (1..=sources.len()).prop_map(Count::Quorum),
            1 => (0..=10_u8).prop_map(Count::Tenths),
        ];
        count.prop_map(move |count| JoinOf {
            sources: sources.clone(),
            targets: targets.clone(),
            count,
            within_seconds: within,
        })
    })
}

fn wiring() -> impl Strategy<Value = Wiring> {
    (2..8_usize).prop_flat_map(|nodes| {
        (vec((0..nodes, 0..nodes), 0..12), vec(join(nodes), 0..5)).prop_map(move |(edges, joins)| Wiring {
            nodes,
            edges,
            joins,
        })
    })
}

/// How one task has ended.
#[derive(Debug, Clone)]
struct Ended {
    node: usize,
    chosen: Vec<usize>,
    sent: Vec<u8>,
    idle: Vec<usize>,
    cancelled: bool,
}

/// A step: how long it took, and how its tasks have ended.
#[derive(Debug, Clone)]
struct Round {
    seconds: i64,
    ended: Vec<Ended>,
}

fn rounds() -> impl Strategy<Value = (Wiring, Vec<Round>)> {
    wiring().prop_flat_map(|wiring| {
        let nodes = wiring.nodes;
        let some = move || vec(0..nodes, 0..3);
        let ended = (
            0..nodes,
            some(),
            vec(any::<u8>(), 0..3),
            some(),
            prop::bool::weighted(0.2),
        );
        let ended = ended.prop_map(|(node, chosen, sent, idle, cancelled)| Ended {
            node,
            chosen,
            sent,
            idle,
            cancelled,
        });
        let round = (0..6_i64, vec(ended, 1..6)).prop_map(|(seconds, ended)| Round { seconds, ended });
        (Just(wiring), vec(round, 1..6))
    })
}

fn departures(topology: &Topology, round: &Round) -> Vec<Departure<u8>> {
    let at = |node: usize| topology.find(&name(node)).unwrap();
    let all = |nodes: &[usize]| nodes.iter().map(|node| at(*node)).collect();
    let departure = |ended: &Ended| Departure {
        node: at(ended.node),
        chosen: all(&ended.chosen),
        sends: ended.sent.iter().map(|payload| (at(ended.node), *payload)).collect(),
        idle: all(&ended.idle),
        cancelled: ended.cancelled,
    };
    let mut departures: Vec<_> = round.ended.iter().map(departure).collect();
    departures.sort_by_key(|departure| departure.node);
    departures
}

fn time(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

/// Begins a step and plans what follows from it.
fn next(
    topology: &Topology,
    departures: Vec<Departure<u8>>,
    waiting: &mut Waiting,
    (began, ended): (i64, i64),
) -> Vec<Seed<u8>> {
    let nodes: Vec<_> = departures.iter().map(|departure| departure.node).collect();
    waiting.begin(topology, &nodes.into_iter(), time(began));
    plan(topology, departures, waiting, Some(time(ended)))
}

/// The same rules by name, without any of the numbers.
#[derive(Default)]
struct Model {
    arrived: BTreeMap<usize, BTreeSet<String>>,
    fired: BTreeSet<usize>,
    since: BTreeMap<usize, i64>,
}

impl Model {
    fn next(&mut self, wiring: &Wiring, round: &Round, (began, now): (i64, i64)) -> Vec<String> {
        let ran: BTreeSet<_> = round.ended.iter().map(|ended| ended.node).collect();
        for (at, join) in wiring.joins.iter().enumerate() {
            let over = join.targets.is_empty() || join.targets.iter().any(|target| ran.contains(target));
            if over && self.fired.remove(&at) {
                self.arrived.remove(&at);
            }
            let runs = join.sources.iter().any(|source| ran.contains(source));
            if join.within_seconds.is_some() && runs && !self.fired.contains(&at) {
                self.since.entry(at).or_insert(began);
            }
        }
        let finished: Vec<_> = round.ended.iter().filter(|ended| !ended.cancelled).collect();
        let cut: BTreeSet<_> = round
            .ended
            .iter()
            .filter(|ended| ended.cancelled)
            .map(|e| e.node)
            .collect();
        let fed: BTreeSet<_> = finished.iter().filter(|e| !e.sent.is_empty()).map(|e| e.node).collect();
        let idle = finished
            .iter()
            .flat_map(|ended| &ended.idle)
            .filter(|node| !fed.contains(node));
        let idle: BTreeSet<_> = idle.copied().collect();
        let mut left: BTreeSet<_> = finished.iter().map(|ended| ended.node).collect();
        let complete: BTreeSet<_> = left.difference(&cut).chain(&idle).copied().collect();
        left.extend(&idle);
        let chosen = finished.iter().flat_map(|ended| &ended.chosen);
        let mut next: BTreeSet<String> = chosen.map(|node| name(*node)).collect();
        let edges = wiring.edges.iter().filter(|(from, _)| left.contains(from));
        next.extend(edges.map(|(_, to)| name(*to)));
        for (at, join) in wiring
            .joins
            .iter()
            .enumerate()
            .filter(|(at, _)| !self.fired.contains(at))
        {
            let here = join.sources.iter().filter(|source| complete.contains(source));
            let arrived = self.arrived.entry(at).or_default();
            arrived.extend(here.map(|source| name(*source)));
            if join.within_seconds.is_some() && !arrived.is_empty() {
                self.since.entry(at).or_insert(now);
            }
        }
        self.lead_on(wiring, &mut next, |model, at, join| {
            let arrived = model.arrived.get(&at).map_or(0, BTreeSet::len);
            let until = model
                .since
                .get(&at)
                .zip(join.within_seconds)
                .map(|(since, s)| since + s.cast_signed());
            (arrived > 0 && arrived >= join.takes()) || until.is_some_and(|until| until <= now)
        });
        if next.is_empty() && fed.is_empty() {
            self.lead_on(wiring, &mut next, |model, at, join| {
                join.within_seconds.is_some() && model.since.contains_key(&at)
            });
        }
        next.into_iter().collect()
    }

    fn lead_on(&mut self, wiring: &Wiring, next: &mut BTreeSet<String>, holds: impl Fn(&Self, usize, &JoinOf) -> bool) {
        for (at, join) in wiring.joins.iter().enumerate() {
            if !self.fired.contains(&at) && holds(self, at, join) {
                self.fired.insert(at);
                self.since.remove(&at);
                next.extend(join.targets.iter().map(|target| name(*target)));
            }
        }
    }
}

/// The times at which each step begins and ends.
fn times(rounds: &[Round]) -> impl Iterator<Item = (i64, i64)> {
    rounds.iter().scan(0, |now, round| {
        let began = *now;
        *now += round.seconds;
        Some((began, *now))
    })
}

proptest! {
    #[test]
    fn tasks_are_the_triggered_nodes_by_name_each_once_then_the_sends_as_they_were_made(
        (wiring, rounds) in rounds()
    ) {
        let topology = wiring.topology();
        let (mut waiting, mut model) = (Waiting::new(&topology), Model::default());
        for (round, times) in rounds.iter().zip(times(&rounds)) {
            let departures = departures(&topology, round);
            let ended = departures.iter().filter(|departure| !departure.cancelled);
            let sent: Vec<_> = ended.flat_map(|departure| departure.sends.clone()).collect();
            let tasks = next(&topology, departures, &mut waiting, times);
            let split = tasks.iter().position(|task| task.send.is_some()).unwrap_or(tasks.len());
            let (nodes, sends) = tasks.split_at(split);
            let names: Vec<_> = nodes.iter().map(|task| topology.name(task.node).to_string()).collect();
            prop_assert_eq!(names, model.next(&wiring, round, times));
            let sends: Vec<_> = sends.iter().map(|task| (task.node, task.send.unwrap())).collect();
            let numbered: Vec<_> = sent.into_iter().zip(0..).map(|((node, p), number)| (node, (number, p))).collect();
            prop_assert_eq!(sends, numbered);
        }
    }

    #[test]
    fn the_targets_of_a_join_are_told_who_had_arrived((wiring, rounds) in rounds()) {
        let topology = wiring.topology();
        let (mut waiting, mut model) = (Waiting::new(&topology), Model::default());
        for (round, times) in rounds.iter().zip(times(&rounds)) {
            next(&topology, departures(&topology, round), &mut waiting, times);
            model.next(&wiring, round, times);
            let mut told: Vec<_> = waiting.arrivals(&topology).into_iter().map(|(to, from)| {
                let from: BTreeSet<_> = from.iter().map(|node| topology.name(*node).to_string()).collect();
                (topology.name(to).to_string(), from)
            }).collect();
            let fired = wiring.joins.iter().enumerate().filter(|(at, _)| model.fired.contains(at));
            let mut expected: Vec<_> = fired.flat_map(|(at, join)| {
                let arrived = model.arrived.get(&at).cloned().unwrap_or_default();
                join.targets.iter().map(move |target| (name(*target), arrived.clone()))
            }).collect();
            told.sort();
            expected.sort();
            prop_assert_eq!(told, expected);
        }
    }

    #[test]
    fn a_lone_task_is_followed_by_what_would_follow_it_among_others((wiring, rounds) in rounds()) {
        let topology = wiring.topology();
        let (mut waiting, mut lone) = (Waiting::new(&topology), Waiting::new(&topology));
        let mut tasks = Tasks::new();
        for (round, times) in rounds.iter().zip(times(&rounds)) {
            let finished = departures(&topology, round).into_iter().filter(|departure| !departure.cancelled);
            for departure in finished {
                let expected = next(&topology, vec![departure.clone()], &mut waiting, times);
                lone.begin(&topology, &std::iter::once(departure.node), time(times.0));
                let now = Some(time(times.1));
                plan_lone(&topology, &mut departure.clone(), &mut lone, now, &mut tasks);
                prop_assert_eq!(&*tasks, &*expected);
                prop_assert_eq!(&lone, &waiting);
            }
        }
    }

    #[test]
    fn who_finished_first_changes_neither_the_nodes_nor_the_joins(
        (wiring, rounds) in rounds(),
        seed in any::<prop::sample::Index>(),
    ) {
        let topology = wiring.topology();
        let (mut sorted, mut turned) = (Waiting::new(&topology), Waiting::new(&topology));
        for (round, times) in rounds.iter().zip(times(&rounds)) {
            let mut departures = departures(&topology, round);
            let nodes = |tasks: Vec<Seed<u8>>| {
                tasks.into_iter().filter(|task| task.send.is_none()).map(|task| task.node).collect::<Vec<_>>()
            };
            let expected = nodes(next(&topology, departures.clone(), &mut sorted, times));
            let by = seed.index(departures.len());
            departures.rotate_left(by);
            departures.reverse();
            prop_assert_eq!(nodes(next(&topology, departures, &mut turned, times)), expected);
            prop_assert_eq!(&turned, &sorted);
        }
    }

    #[test]
    fn joins_are_read_back_as_they_were_written_down((wiring, rounds) in rounds()) {
        let topology = wiring.topology();
        let mut waiting = Waiting::new(&topology);
        for (round, times) in rounds.iter().zip(times(&rounds)) {
            next(&topology, departures(&topology, round), &mut waiting, times);
            let bytes = rmp_serde::to_vec_named(&waiting.store_joins(&topology)).unwrap();
            let stored: Vec<StoredJoin> = rmp_serde::from_slice(&bytes).unwrap();
            let read = Waiting::load(&topology, &stored, &waiting.store_deferred(&topology));
            prop_assert_eq!(read.as_ref(), Ok(&waiting));
        }
    }
}

#[test]
fn a_join_waits_for_a_source_that_was_added_and_refuses_one_that_is_gone() {
    let wiring = |sources: Vec<usize>| Wiring {
        nodes: 4,
        edges: Vec::new(),
        joins: vec![JoinOf {
            sources,
            targets: vec![3],
            count: Count::All,
            within_seconds: None,
        }],
    };
    let before = wiring(vec![0, 1]).topology();
    let mut joins = Waiting::new(&before);
    plan::<()>(
        &before,
        vec![Departure::of(before.find("b").unwrap())],
        &mut joins,
        None,
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

#[test]
fn a_join_that_was_written_down_before_joins_had_rules_is_read() {
    #[derive(serde::Serialize)]
    struct Old {
        to: Vec<String>,
        arrived: Vec<String>,
    }
    let old = Old {
        to: vec!["a".to_owned()],
        arrived: vec!["b".to_owned()],
    };
    let bytes = rmp_serde::to_vec_named(&old).unwrap();
    let stored: StoredJoin = rmp_serde::from_slice(&bytes).unwrap();
    assert_eq!(
        (stored.to, stored.arrived, stored.fired, stored.since),
        (old.to, old.arrived, false, None)
    );
}
