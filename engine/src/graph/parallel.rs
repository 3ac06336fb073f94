//! Which nodes may run in the same step. Pure: wiring in, pairs out.
//!
//! All tasks of a step end together, so two tasks of one step are the ends of two walks from START of the same length, and
//! where the walks part, one place has led to two at once. That is followed here pair by pair. A join leads on in the step
//! after its last source, so it counts as an edge from each source: whichever is the last. Walks by a source that is not the
//! last are taken out again where that can be proved: see [`Lockstep::orders`]. What waits by itself, a deferred node or a
//! join with a time limit, is a place of its own that leads to itself. A handler stands in for a task within its step: what
//! may run beside the task may run beside its handler, never the two of one task.

use std::collections::{BTreeSet, HashMap, HashSet};

use petgraph::{
    Direction,
    graph::{DiGraph, NodeIndex},
    visit::{Dfs, EdgeRef},
};

use super::{
    id::At,
    topology::{Declared, DeclaredJoin, Kind},
    warning::Warning,
};
use crate::state::{Field, FieldSet};

/// How often what was proved may help to prove more. Fewer rounds only name more pairs.
const ROUNDS_MAX: usize = 16;

/// Tells of every two nodes that may run in the same step and say that they write one field which takes one write a step.
/// `writes` holds what the nodes say, by position.
pub(super) fn writers(declared: &Declared, fields: &[Field], writes: &[Option<&FieldSet>]) -> Vec<Warning> {
    let contested = contested(declared, fields, writes);
    if contested.is_empty() {
        return Vec::new();
    }
    let met = Lockstep::of(declared).meetings();
    let name = |at: usize| declared.nodes.get(at).map(|(name, _)| name.clone()).unwrap_or_default();
    let meeting = contested
        .into_iter()
        .filter(|(first, second, _)| met.contains(*first, *second));
    let warning = |(first, second, field): (usize, usize, usize)| Warning::ParallelWriters {
        field: fields.get(field).map(|field| field.name.clone()).unwrap_or_default(),
        first: name(first),
        second: name(second),
    };
    meeting.map(warning).collect()
}

/// Every two nodes, or one worker or handler twice, with each field that both may write and that takes one write a step.
fn contested(declared: &Declared, fields: &[Field], said: &[Option<&FieldSet>]) -> Vec<(usize, usize, usize)> {
    let mut found = Vec::new();
    for (field, _) in fields.iter().enumerate().filter(|(_, field)| !field.concurrent) {
        let all = said.iter().enumerate();
        let nodes = all.filter(|(_, own)| own.is_some_and(|own| own.contains(field)));
        let nodes: Vec<usize> = nodes.map(|(at, _)| at).collect();
        for (position, first) in nodes.iter().enumerate() {
            if declared
                .nodes
                .get(*first)
                .is_some_and(|(_, kind)| *kind == Kind::Worker || kind.is_handler())
            {
                found.push((*first, *first, field));
            }
            found.extend(nodes.iter().skip(position + 1).map(|second| (*first, *second, field)));
        }
    }
    found.sort_unstable();
    found
}

/// A way that is taken always, or instead of the other ways of a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Always,
    Instead { choice: usize, way: usize },
}

impl Taken {
    /// Whether both can be taken at once.
    fn goes_with(self, other: Self) -> bool {
        match (self, other) {
            (
                Self::Instead { choice, way },
                Self::Instead {
                    choice: beside,
                    way: its,
                },
            ) => choice != beside || way == its,
            (Self::Always, _) | (_, Self::Always) => true,
        }
    }
}

/// Two walks under way: at the same step, or with the first of them a step ahead.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Walks {
    Level(usize, usize),
    Ahead(usize, usize),
    /// At one handler, for two tasks.
    Twice(usize),
}

/// Who may run in the same step.
#[derive(PartialEq, Eq)]
struct Meetings {
    /// Both orders of every two places.
    pairs: HashSet<(usize, usize)>,
    /// Workers and handlers of two tasks at once.
    twice: HashSet<usize>,
}

impl Meetings {
    fn contains(&self, one: usize, other: usize) -> bool {
        if one == other {
            return self.twice.contains(&one);
        }
        self.pairs.contains(&(one, other))
    }
}

/// What leads to what from one step to the next. Places are the nodes by position, START behind them, and what waits.
struct Lockstep<'a> {
    declared: &'a Declared,
    ways: DiGraph<(), Taken>,
    /// The ways, and from each node to its handler.
    failing: DiGraph<(), Taken>,
    start: usize,
    choices: usize,
    /// Where each deferred node waits.
    deferred: Vec<(usize, usize)>,
    /// Where each join waits that has a time limit.
    waiting: Vec<Option<usize>>,
    /// What each place follows from: one of these, each of which needs all that it lists.
    causes: Vec<Vec<Vec<usize>>>,
    /// The handler of each node.
    handlers: Vec<Option<usize>>,
}

impl<'a> Lockstep<'a> {
    fn of(declared: &'a Declared) -> Self {
        let mut built = Self {
            declared,
            ways: DiGraph::new(),
            failing: DiGraph::new(),
            start: declared.nodes.len(),
            choices: 0,
            deferred: Vec::new(),
            waiting: Vec::new(),
            causes: Vec::new(),
            handlers: (0..declared.nodes.len()).map(|at| handler(declared, at)).collect(),
        };
        for _ in 0..=declared.nodes.len() {
            built.place();
        }
        for (at, (_, kind)) in declared.nodes.iter().enumerate() {
            // A worker is started by its fan-out, which waits for nobody.
            if declared.deferred.contains(&at) && *kind != Kind::Worker {
                let waits = built.waiting_place();
                built.deferred.push((at, waits.place));
                built.lead(waits.place, at, waits.over);
            }
        }
        for (from, to) in &declared.edges {
            built.trigger(built.index(*from), *to, Taken::Always);
        }
        for (from, table) in declared.branches.iter().chain(&declared.routes) {
            let from = built.index(*from);
            let choice = built.choice();
            for (way, (_, ends)) in table.iter().enumerate() {
                // Such a router may take several of its routes.
                let taken = if built.is(from, Kind::Also) {
                    Taken::Always
                } else {
                    Taken::Instead { choice, way }
                };
                for end in ends {
                    built.trigger(from, *end, taken);
                }
            }
        }
        for join in &declared.joins {
            built.join(join);
        }
        for (from, to) in &declared.fan_outs {
            built.fan_out(built.index(*from), *to);
        }
        if let Some(node) = declared.on_budget {
            built.cause(node, vec![built.start]);
        }
        for (node, handler) in built.handled().collect::<Vec<_>>() {
            for cause in built.causes.get(node).cloned().unwrap_or_default() {
                built.cause(handler, cause);
            }
        }
        built.failing = built.ways.clone();
        for (node, handler) in built.handled().collect::<Vec<_>>() {
            let (node, handler) = (NodeIndex::new(node), NodeIndex::new(handler));
            built.failing.add_edge(node, handler, Taken::Always);
        }
        built
    }

    /// Nodes that have a handler, with it.
    fn handled(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let all = self.handlers.iter().enumerate();
        all.filter_map(|(node, handler)| Some((node, (*handler)?)))
    }

    fn place(&mut self) -> usize {
        self.causes.push(Vec::new());
        self.ways.add_node(()).index()
    }

    const fn choice(&mut self) -> usize {
        self.choices += 1;
        self.choices
    }

    /// A place that leads to itself until it is over.
    fn waiting_place(&mut self) -> WaitingPlace {
        let (place, choice) = (self.place(), self.choice());
        self.lead(place, place, Taken::Instead { choice, way: 0 });
        WaitingPlace {
            place,
            over: Taken::Instead { choice, way: 1 },
        }
    }

    const fn index(&self, at: At) -> usize {
        match at {
            At::Node(slot) => slot.index,
            At::Start | At::End => self.start,
        }
    }

    /// The place that is reached when something leads to a node; `None` for END.
    fn target(&self, to: At) -> Option<usize> {
        let At::Node(slot) = to else { return None };
        let waits = self.deferred.iter().find(|(node, _)| *node == slot.index);
        Some(waits.map_or(slot.index, |(_, waits)| *waits))
    }

    fn follow(&mut self, from: usize, to: usize, taken: Taken) {
        self.ways.add_edge(NodeIndex::new(from), NodeIndex::new(to), taken);
    }

    fn cause(&mut self, of: usize, all: Vec<usize>) {
        if let Some(causes) = self.causes.get_mut(of) {
            causes.push(all);
        }
    }

    fn lead(&mut self, from: usize, to: usize, taken: Taken) {
        self.follow(from, to, taken);
        self.cause(to, vec![from]);
    }

    fn trigger(&mut self, from: usize, to: At, taken: Taken) {
        if let Some(to) = self.target(to) {
            self.lead(from, to, taken);
        }
    }

    fn join(&mut self, join: &DeclaredJoin) {
        let sources: Vec<usize> = join.sources.iter().map(|source| self.index(*source)).collect();
        let targets: Vec<usize> = join.targets.iter().filter_map(|target| self.target(*target)).collect();
        let all = waits_for_all(join);
        let waits = join.rule.within.map(|_| self.waiting_place());
        for target in &targets {
            for source in &sources {
                self.follow(*source, *target, Taken::Always);
            }
            if all {
                self.cause(*target, sources.clone());
            } else {
                for source in &sources {
                    self.cause(*target, vec![*source]);
                }
            }
            if let Some(waits) = &waits {
                self.lead(waits.place, *target, waits.over);
            }
        }
        self.waiting.push(waits.as_ref().map(|waits| waits.place));
        if let Some(waits) = &waits {
            for source in sources {
                self.lead(source, waits.place, Taken::Always);
            }
        }
    }

    /// The tasks of a worker; or, without items, what always follows from it.
    fn fan_out(&mut self, from: usize, to: At) {
        let choice = self.choice();
        let At::Node(worker) = to else { return };
        self.lead(from, worker.index, Taken::Instead { choice, way: 0 });
        let idle = Taken::Instead { choice, way: 1 };
        let (declared, mut passed, mut next) = (self.declared, BTreeSet::new(), vec![to]);
        while let Some(worker) = next.pop() {
            if !passed.insert(self.index(worker)) {
                continue;
            }
            for (_, end) in declared.edges.iter().filter(|(source, _)| *source == worker) {
                self.trigger(from, *end, idle);
            }
            for (at, join) in declared.joins.iter().enumerate() {
                if join.sources.contains(&worker) {
                    self.join_idle(from, at, join, idle);
                }
            }
            next.extend(
                declared
                    .fan_outs
                    .iter()
                    .filter(|(source, _)| *source == worker)
                    .map(|(_, to)| *to),
            );
        }
    }

    /// A worker without items has arrived at a join.
    fn join_idle(&mut self, from: usize, at: usize, join: &DeclaredJoin, idle: Taken) {
        let waits = self.waiting.get(at).copied().flatten();
        // That a join follows from several sources is said there.
        let alone = waits.is_some() || join.sources.len() == 1 || !waits_for_all(join);
        let targets: Vec<usize> = join.targets.iter().filter_map(|target| self.target(*target)).collect();
        for target in targets.into_iter().chain(waits) {
            self.follow(from, target, idle);
            if alone {
                self.cause(target, vec![from]);
            }
        }
    }

    fn is(&self, place: usize, kind: Kind) -> bool {
        self.declared.nodes.get(place).is_some_and(|(_, own)| *own == kind)
    }

    /// Deferred nodes run when nothing else is left, all that wait at once: beside nothing but each other.
    fn is_apart(&self, one: usize, other: usize) -> bool {
        let deferred = |place: usize| self.deferred.iter().any(|(node, _)| *node == place);
        let waits = |place: usize| self.deferred.iter().any(|(_, waits)| *waits == place);
        let runs = |place: usize| place < self.start && !deferred(place);
        (deferred(one) && (runs(other) || waits(other))) || (deferred(other) && (runs(one) || waits(one)))
    }

    /// Who may be reached in the same step.
    fn meetings(&self) -> Meetings {
        let mut met = self.walk(&HashSet::new());
        if !self.declared.joins.iter().any(waits_for_all) {
            return met;
        }
        let before = self.before();
        for _ in 0..ROUNDS_MAX {
            let orders = self.orders(&before, &met.pairs);
            let fewer = self.walk(&orders);
            if fewer == met {
                break;
            }
            met = fewer;
        }
        met
    }

    /// The meetings that walks from START come to, without those in `never`.
    fn walk(&self, never: &HashSet<(usize, usize)>) -> Meetings {
        let begins = [Some(self.start), self.declared.on_budget];
        let mut next: Vec<Walks> = begins
            .into_iter()
            .flatten()
            .map(|place| Walks::Level(place, place))
            .collect();
        let mut seen: HashSet<Walks> = next.iter().copied().collect();
        while let Some(walks) = next.pop() {
            let found: Vec<Walks> = match walks {
                Walks::Level(one, other) if one == other => self.parting(one, self.is(one, Kind::Worker)),
                Walks::Twice(handler) => self.parting(handler, true),
                Walks::Level(one, other) => self.after(one).map(|(to, _)| Walks::Ahead(to, other)).collect(),
                Walks::Ahead(one, other) => self.after(other).map(|(to, _)| Walks::Level(one, to)).collect(),
            };
            let found = found.into_iter().filter(|walks| match walks {
                Walks::Level(one, other) => !self.is_apart(*one, *other),
                Walks::Ahead(..) | Walks::Twice(_) => true,
            });
            for walks in found.chain(self.handling(walks)) {
                let meet = match walks {
                    Walks::Level(one, other) => !never.contains(&(one, other)),
                    Walks::Ahead(..) | Walks::Twice(_) => true,
                };
                if meet && seen.insert(walks) {
                    next.push(walks);
                }
            }
        }
        let (mut pairs, mut twice) = (HashSet::new(), HashSet::new());
        for walks in seen {
            match walks {
                Walks::Level(one, other) => pairs.extend([(one, other), (other, one)]),
                Walks::Ahead(..) => {}
                Walks::Twice(handler) => twice.extend([handler]),
            }
        }
        twice.extend(
            pairs
                .iter()
                .filter_map(|(one, other)| (one == other && self.is(*one, Kind::Worker)).then_some(*one)),
        );
        Meetings { pairs, twice }
    }

    /// Where handlers stand in for tasks that walks have come to. It runs in their step, so nothing that waits keeps it apart.
    fn handling(&self, walks: Walks) -> Vec<Walks> {
        let Walks::Level(one, other) = walks else {
            return Vec::new();
        };
        let handler = |place: usize| self.handlers.get(place).copied().flatten();
        let beside = |handler: usize, place: usize| {
            if handler == place {
                Walks::Twice(handler)
            } else {
                Walks::Level(handler, place)
            }
        };
        let mut found = Vec::new();
        if one == other {
            found.extend(handler(one).map(|handler| Walks::Level(handler, handler)));
            if !self.is(one, Kind::Worker) {
                return found;
            }
        }
        if let Some(handler) = handler(one) {
            found.push(beside(handler, other));
        }
        if let Some(handler) = handler(other)
            && let Walks::Level(handler, one) = beside(handler, one)
        {
            found.push(Walks::Level(one, handler));
        }
        found
    }

    fn after(&self, place: usize) -> impl Iterator<Item = (usize, Taken)> + '_ {
        let ways = self.ways.edges_directed(NodeIndex::new(place), Direction::Outgoing);
        ways.map(|way| (way.target().index(), *way.weight()))
    }

    /// Where two walks may be a step after they were in one place. Two tasks of one node are `free` to choose each for itself.
    fn parting(&self, place: usize, free: bool) -> Vec<Walks> {
        let ways: Vec<_> = self.after(place).collect();
        let both = ways.iter().flat_map(|one| ways.iter().map(move |other| (one, other)));
        let both = both.filter(|((_, one), (_, other))| free || one.goes_with(*other));
        both.map(|((one, _), (other, _))| Walks::Level(*one, *other)).collect()
    }

    /// What has run before each place is reached, the place itself included. `None` for what nothing leads to.
    fn before(&self) -> Vec<Option<BTreeSet<usize>>> {
        let mut before: Vec<Option<BTreeSet<usize>>> = vec![None; self.causes.len()];
        if let Some(start) = before.get_mut(self.start) {
            *start = Some(BTreeSet::from([self.start]));
        }
        loop {
            let mut changed = false;
            for (place, causes) in self.causes.iter().enumerate().filter(|(place, _)| *place != self.start) {
                let sets = causes.iter().filter_map(|all| self.before_all(all, &before));
                let common = sets.reduce(|one, other| one.intersection(&other).copied().collect());
                let Some(mut common) = common else { continue };
                common.insert(place);
                if let Some(slot) = before.get_mut(place).filter(|slot| slot.as_ref() != Some(&common)) {
                    *slot = Some(common);
                    changed = true;
                }
            }
            if !changed {
                return before;
            }
        }
    }

    /// What has run before all of these have. A worker without items has finished and not run.
    fn before_all(&self, all: &[usize], before: &[Option<BTreeSet<usize>>]) -> Option<BTreeSet<usize>> {
        let mut ran = BTreeSet::new();
        for source in all {
            let own = before.get(*source)?.as_ref()?;
            let joined = all.len() > 1;
            ran.extend(own.iter().filter(|place| !(joined && self.is(**place, Kind::Worker))));
        }
        Some(ran)
    }

    /// Both orders of every two places of which one has always run before the other is reached, and runs once: they never
    /// meet. A node runs once if no way leads to it from itself, nor from anything that may run beside it.
    fn orders(&self, before: &[Option<BTreeSet<usize>>], pairs: &HashSet<(usize, usize)>) -> HashSet<(usize, usize)> {
        let earlier: BTreeSet<usize> = before.iter().flatten().flatten().copied().collect();
        let mut beside: HashMap<usize, Vec<usize>> = HashMap::new();
        for (one, other) in pairs {
            beside.entry(*one).or_default().push(*other);
        }
        let once = |node: &usize| {
            let to_it = self.leads_to(*node);
            let beside = beside.get(node);
            !beside.is_some_and(|beside| beside.iter().any(|other| to_it.contains(other)))
        };
        let once: HashSet<usize> = earlier
            .into_iter()
            .filter(|place| *place < self.start)
            .filter(once)
            .collect();
        let mut orders = HashSet::new();
        for (place, before) in before.iter().enumerate() {
            for earlier in before
                .iter()
                .flatten()
                .filter(|earlier| **earlier != place && once.contains(earlier))
            {
                orders.extend([(place, *earlier), (*earlier, place)]);
            }
        }
        orders
    }

    /// From where a way of at least one step leads to a place, by handlers as well.
    fn leads_to(&self, place: usize) -> HashSet<usize> {
        let reversed = petgraph::visit::Reversed(&self.failing);
        let stands_for = self
            .handled()
            .filter(|(_, handler)| *handler == place)
            .map(|(node, _)| node);
        let places = stands_for.chain([place]).map(NodeIndex::new);
        let mut found = HashSet::new();
        for before in places.flat_map(|place| self.ways.neighbors_directed(place, Direction::Incoming)) {
            let mut back = Dfs::new(reversed, before);
            while let Some(next) = back.next(reversed) {
                found.insert(next.index());
            }
        }
        found
    }
}

/// The handler of a node, by position.
fn handler(declared: &Declared, node: usize) -> Option<usize> {
    let At::Node(slot) = declared.handler(node)? else {
        return None;
    };
    Some(slot.index)
}

/// Whether a join leads on once every source has finished, and never before.
fn waits_for_all(join: &DeclaredJoin) -> bool {
    join.rule.needed(join.sources.len()) == join.sources.len() && join.rule.within.is_none()
}

/// A place that waits, and the way out of it.
struct WaitingPlace {
    place: usize,
    over: Taken,
}
