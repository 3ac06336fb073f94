//! The wiring of a graph as plain data: first as declared, then interned for the planner.

use std::borrow::Cow;

use chrono::TimeDelta;
use uuid::Uuid;

use super::{
    id::{At, Slot},
    join::JoinRule,
};
use crate::state::Field;

/// What may run in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Node,
    Router,
    /// A router that follows its edges as well.
    Also,
    Worker,
    /// Runs for a task that has failed.
    Handler,
    /// The same, and chooses among routes of its own.
    HandlerRouter,
    /// Of a dynamic graph: run on the state or on what it is sent.
    Open,
}

impl Kind {
    pub(crate) const fn is_handler(self) -> bool {
        matches!(self, Self::Handler | Self::HandlerRouter)
    }
}

/// A table of routes: label and ends, by the route's position.
pub(crate) type Table = Vec<(Cow<'static, str>, Vec<At>)>;

/// A join as it was declared.
#[derive(Debug)]
pub(crate) struct DeclaredJoin {
    pub(crate) sources: Vec<At>,
    pub(crate) targets: Vec<At>,
    pub(crate) rule: JoinRule,
}

/// Wiring in the order in which it was declared.
#[derive(Debug)]
pub(crate) struct Declared {
    pub(crate) graph: Cow<'static, str>,
    pub(crate) nodes: Vec<(Cow<'static, str>, Kind)>,
    pub(crate) edges: Vec<(At, At)>,
    pub(crate) joins: Vec<DeclaredJoin>,
    pub(crate) branches: Vec<(At, Table)>,
    pub(crate) routes: Vec<(At, Table)>,
    pub(crate) fan_outs: Vec<(At, At)>,
    /// Nodes, by position, that wait until nothing else is left.
    pub(crate) deferred: Vec<usize>,
    /// Names that nodes had before, each with the node by position.
    pub(crate) renamed: Vec<(Cow<'static, str>, usize)>,
    /// The node, by position, that runs go to when their budget is spent.
    pub(crate) on_budget: Option<usize>,
    /// Which node's failures go to which handler.
    pub(crate) on_error: Vec<(At, At)>,
    /// The handler of every other node.
    pub(crate) on_any_error: Vec<At>,
    /// Fields that nodes, by position, are said to write and the state does not have.
    pub(crate) unknown_fields: Vec<(usize, String)>,
    pub(crate) foreign: bool,
}

impl Declared {
    pub(crate) const fn named(graph: Cow<'static, str>) -> Self {
        Self {
            graph,
            nodes: Vec::new(),
            edges: Vec::new(),
            joins: Vec::new(),
            branches: Vec::new(),
            routes: Vec::new(),
            fan_outs: Vec::new(),
            deferred: Vec::new(),
            renamed: Vec::new(),
            on_budget: None,
            on_error: Vec::new(),
            on_any_error: Vec::new(),
            unknown_fields: Vec::new(),
            foreign: false,
        }
    }

    pub(crate) fn node(&mut self, name: Cow<'static, str>, kind: Kind) -> usize {
        self.nodes.push((name, kind));
        self.nodes.len() - 1
    }

    pub(crate) fn edge(&mut self, from: At, to: At) {
        self.edges.push((from, to));
    }

    /// A source that is named twice counts once.
    pub(crate) fn join(&mut self, rule: JoinRule, all: Vec<At>, targets: Vec<At>) {
        let mut sources = Vec::with_capacity(all.len());
        for source in all {
            if !sources.contains(&source) {
                sources.push(source);
            }
        }
        self.joins.push(DeclaredJoin { sources, targets, rule });
    }

    pub(crate) fn branch(&mut self, from: At, table: Table) {
        self.branches.push((from, table));
    }

    pub(crate) fn routes(&mut self, from: At, table: Table) {
        self.routes.push((from, table));
    }

    pub(crate) fn fan_out(&mut self, from: At, to: At) {
        self.fan_outs.push((from, to));
    }

    pub(crate) fn defer(&mut self, node: usize) {
        self.deferred.push(node);
    }

    pub(crate) fn on_error(&mut self, of: At, handler: At) {
        self.on_error.push((of, handler));
    }

    pub(crate) fn on_any_error(&mut self, handler: At) {
        self.on_any_error.push(handler);
    }

    /// The handler of a node, by position.
    pub(crate) fn handler(&self, node: usize) -> Option<At> {
        let is = |at: &At| matches!(at, At::Node(slot) if slot.index == node);
        let own = self.on_error.iter().find(|(of, _)| is(of)).map(|(_, handler)| *handler);
        let handles = self.nodes.get(node).is_some_and(|(_, kind)| kind.is_handler());
        own.or_else(|| self.on_any_error.first().copied().filter(|_| !handles))
    }

    pub(crate) const fn foreign_id(&mut self) {
        self.foreign = true;
    }

    /// The positions of the nodes, sorted by name bytewise: the order in which updates apply.
    pub(crate) fn order(&self) -> Vec<usize> {
        let mut order: Vec<_> = (0..self.nodes.len()).collect();
        order.sort_by_key(|at| self.nodes.get(*at).map(|(name, _)| name.as_bytes()));
        order
    }

    /// Every way from one place to another, with its label if it has one.
    pub(crate) fn ways(&self) -> Vec<(At, At, Way)> {
        let mut ways = Vec::new();
        ways.extend(self.edges.iter().map(|(from, to)| (*from, *to, Way::Always)));
        for DeclaredJoin { sources, targets, rule } in &self.joins {
            let way = rule.label(sources.len()).map_or(Way::Join, Way::JoinWhen);
            let pairs = sources.iter().flat_map(|from| targets.iter().map(move |to| (from, to)));
            ways.extend(pairs.map(|(from, to)| (*from, *to, way.clone())));
        }
        for (from, table) in self.branches.iter().chain(&self.routes) {
            for (label, ends) in table {
                ways.extend(ends.iter().map(|to| (*from, *to, Way::Route(label.clone()))));
            }
        }
        ways.extend(self.fan_outs.iter().map(|(from, to)| (*from, *to, Way::FanOut)));
        // Positions here; who asks for them knows the builder.
        let builder = self
            .on_error
            .iter()
            .map(|(_, handler)| handler)
            .chain(&self.on_any_error);
        let builder = builder.filter_map(|at| {
            if let At::Node(slot) = at {
                Some(slot.builder)
            } else {
                None
            }
        });
        if let Some(builder) = builder.min() {
            let handled = (0..self.nodes.len()).filter_map(|index| Some((index, self.handler(index)?)));
            ways.extend(handled.map(|(index, handler)| (At::Node(Slot { builder, index }), handler, Way::OnError)));
        }
        ways
    }
}

/// How a way is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    Always,
    Join,
    /// By a join with a rule of its own.
    JoinWhen(Cow<'static, str>),
    Route(Cow<'static, str>),
    FanOut,
    OnError,
}

/// One end of a drawn way, after interning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Start,
    Node(usize),
    End,
}

/// What leads out of one place.
#[derive(Debug, Default, Clone)]
pub(crate) struct Exits {
    /// Nodes that always follow.
    pub(crate) edges: Vec<usize>,
    /// Branches, by position, in order of declaration.
    pub(crate) branches: Vec<usize>,
    /// Fan-outs, by position, in order of declaration.
    pub(crate) fan_outs: Vec<usize>,
    /// Joins this place is a source of: which, and as its how manieth source.
    pub(crate) joins: Vec<(usize, usize)>,
    /// For a router: the nodes each route leads to.
    pub(crate) routes: Vec<Vec<usize>>,
    /// The labels of those routes.
    pub(crate) labels: Vec<Cow<'static, str>>,
}

impl Exits {
    /// Whether where to go on depends on the state.
    pub(crate) const fn is_conditional(&self) -> bool {
        !self.branches.is_empty() || !self.fan_outs.is_empty()
    }
}

/// A join, interned.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    pub(crate) sources: Vec<usize>,
    pub(crate) targets: Vec<usize>,
    /// Tells joins of one shape apart where they are written down; `None` for the plain rule.
    pub(crate) rule: Option<Cow<'static, str>>,
    /// How many of the sources it takes.
    pub(crate) needed: usize,
    pub(crate) within: Option<TimeDelta>,
    pub(crate) cancel_others: bool,
}

/// The wiring for the planner: nodes are numbered in the order of their names.
#[derive(Debug)]
pub(crate) struct Topology {
    pub(crate) graph: Cow<'static, str>,
    pub(crate) fingerprint: Uuid,
    names: Vec<Cow<'static, str>>,
    kinds: Vec<Kind>,
    /// Which nodes are deferred; empty when none is.
    deferred: Vec<bool>,
    /// Names that nodes had before; no part of the fingerprint.
    renamed: Vec<(Cow<'static, str>, usize)>,
    /// The handler of each node; empty when no node has one.
    handlers: Vec<Option<usize>>,
    /// What leads out of each node; the last is START's.
    exits: Vec<Exits>,
    pub(crate) joins: Vec<Join>,
    /// For each branch, the nodes each of its routes leads to.
    pub(crate) branches: Vec<Vec<Vec<usize>>>,
    /// For each branch, its routes' labels.
    labels: Vec<Vec<Cow<'static, str>>>,
    /// For each fan-out, its worker.
    pub(crate) fan_outs: Vec<usize>,
    pub(crate) ways: Vec<(Place, Place, Way)>,
}

/// From positions in the order of declaration to numbers in the order of names.
struct Ranks(Vec<usize>);

impl Ranks {
    fn of(order: &[usize]) -> Self {
        let mut ranks = vec![0; order.len()];
        for (new, old) in order.iter().enumerate() {
            if let Some(slot) = ranks.get_mut(*old) {
                *slot = new;
            }
        }
        Self(ranks)
    }

    fn place(&self, at: At) -> Place {
        match at {
            At::Start => Place::Start,
            At::End => Place::End,
            At::Node(slot) => Place::Node(self.0.get(slot.index).copied().unwrap_or_default()),
        }
    }

    /// The number of a node, or the one behind all nodes for START.
    fn begin(&self, at: At) -> usize {
        if let Place::Node(node) = self.place(at) {
            node
        } else {
            self.0.len()
        }
    }

    /// The nodes among some ends; END leads to no task.
    fn nodes(&self, ends: &[At]) -> Vec<usize> {
        let places = ends.iter().map(|end| self.place(*end));
        places
            .filter_map(|end| if let Place::Node(node) = end { Some(node) } else { None })
            .collect()
    }

    fn table(&self, table: &Table) -> Vec<Vec<usize>> {
        table.iter().map(|(_, ends)| self.nodes(ends)).collect()
    }
}

impl Topology {
    pub(crate) fn new(declared: &Declared, order: &[usize], fields: &[Field], state_version: u32) -> Self {
        let ranks = Ranks::of(order);
        let named: Vec<_> = order.iter().filter_map(|old| declared.nodes.get(*old)).collect();
        let ways = declared.ways().into_iter();
        let mut built = Self {
            graph: declared.graph.clone(),
            fingerprint: Uuid::nil(),
            names: named.iter().map(|(name, _)| name.clone()).collect(),
            kinds: named.iter().map(|(_, kind)| *kind).collect(),
            deferred: deferred(declared, order),
            renamed: declared
                .renamed
                .iter()
                .map(|(old, at)| (old.clone(), ranks.0.get(*at).copied().unwrap_or_default()))
                .collect(),
            handlers: handlers(declared, order, &ranks),
            exits: vec![Exits::default(); order.len() + 1],
            joins: Vec::new(),
            branches: Vec::new(),
            labels: Vec::new(),
            fan_outs: Vec::new(),
            ways: ways
                .map(|(from, to, way)| (ranks.place(from), ranks.place(to), way))
                .collect(),
        };
        built.wire(declared, &ranks);
        built.fingerprint = built.hash(fields, state_version);
        built
    }

    /// Says of every place what leads out of it.
    fn wire(&mut self, declared: &Declared, ranks: &Ranks) {
        for (from, to) in &declared.edges {
            self.change_exits(ranks.begin(*from), |exits| exits.edges.extend(ranks.nodes(&[*to])));
        }
        for (from, table) in &declared.branches {
            let at = self.branches.len();
            self.change_exits(ranks.begin(*from), |exits| exits.branches.push(at));
            self.branches.push(ranks.table(table));
            self.labels.push(table.iter().map(|(label, _)| label.clone()).collect());
        }
        for (from, table) in &declared.routes {
            self.change_exits(ranks.begin(*from), |exits| {
                exits.routes = ranks.table(table);
                exits.labels = table.iter().map(|(label, _)| label.clone()).collect();
            });
        }
        for (from, to) in &declared.fan_outs {
            let at = self.fan_outs.len();
            self.change_exits(ranks.begin(*from), |exits| exits.fan_outs.push(at));
            self.fan_outs.extend(ranks.nodes(&[*to]));
        }
        for DeclaredJoin { sources, targets, rule } in &declared.joins {
            let at = self.joins.len();
            let sources: Vec<usize> = sources.iter().map(|source| ranks.begin(*source)).collect();
            for (position, source) in sources.iter().enumerate() {
                self.change_exits(*source, |exits| exits.joins.push((at, position)));
            }
            self.joins.push(Join {
                rule: rule.stored(sources.len()),
                needed: rule.needed(sources.len()),
                sources,
                targets: ranks.nodes(targets),
                // Longer than times can be told apart is never.
                within: rule
                    .within
                    .map(|limit| TimeDelta::from_std(limit).unwrap_or(TimeDelta::MAX)),
                cancel_others: rule.cancel_others,
            });
        }
    }

    fn change_exits(&mut self, begin: usize, change: impl FnOnce(&mut Exits)) {
        if let Some(exits) = self.exits.get_mut(begin) {
            change(exits);
        }
    }

    /// A UUID over everything that gives stored data its meaning.
    pub(crate) fn hash(&self, fields: &[Field], state_version: u32) -> Uuid {
        let mut text = format!("{}\n{state_version}\n", self.graph);
        text.extend(
            fields
                .iter()
                .map(|field| format!("field {} {}\n", field.name, field.reducer)),
        );
        text.extend(
            self.names
                .iter()
                .zip(&self.kinds)
                .map(|(name, kind)| format!("{kind:?} {name}\n")),
        );
        let mut ways: Vec<_> = self
            .ways
            .iter()
            .map(|(from, to, way)| format!("{} {way:?} {}\n", self.label(*from), self.label(*to)))
            .collect();
        ways.sort();
        text.extend(ways);
        let deferred = self.names.iter().zip(&self.deferred).filter(|(_, deferred)| **deferred);
        text.extend(deferred.map(|(name, _)| format!("deferred {name}\n")));
        Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes())
    }

    pub(crate) fn label(&self, place: Place) -> &str {
        match place {
            Place::Start => "START",
            Place::End => "END",
            Place::Node(node) => self.name(node),
        }
    }

    /// Number that stands for START among the places that are left.
    #[inline]
    pub(crate) fn start(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn names(&self) -> &[Cow<'static, str>] {
        &self.names
    }

    pub(crate) fn name(&self, node: usize) -> &Cow<'static, str> {
        static START_NAME: Cow<'static, str> = Cow::Borrowed("START");
        self.names.get(node).unwrap_or(&START_NAME)
    }

    pub(crate) fn kind(&self, node: usize) -> Kind {
        self.kinds.get(node).copied().unwrap_or(Kind::Node)
    }

    /// Whether any node is deferred.
    #[inline]
    pub(crate) const fn defers(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// Whether any join may cancel tasks.
    #[inline]
    pub(crate) fn races(&self) -> bool {
        self.joins
            .iter()
            .any(|join| join.cancel_others || join.within.is_some())
    }

    /// Whether any join waits for some time only.
    #[inline]
    pub(crate) fn times(&self) -> bool {
        self.joins.iter().any(|join| join.within.is_some())
    }

    #[inline]
    pub(crate) fn is_deferred(&self, node: usize) -> bool {
        self.deferred.get(node).copied().unwrap_or_default()
    }

    /// The handler of a node's failures.
    #[inline]
    pub(crate) fn handler(&self, node: usize) -> Option<usize> {
        self.handlers.get(node).copied().flatten()
    }

    /// The number of a node by its name, or by one that it had before.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.names
            .binary_search_by(|known| known.as_bytes().cmp(name.as_bytes()))
            .ok()
            .or_else(|| {
                let renamed = self.renamed.iter().find(|(old, _)| *old == name);
                renamed.map(|(_, node)| *node)
            })
    }

    /// Whether any node had another name before.
    pub(crate) const fn renames(&self) -> bool {
        !self.renamed.is_empty()
    }

    /// A stored name as it is now.
    pub(crate) fn current<'a>(&'a self, stored: &'a str) -> &'a str {
        let renamed = self.renamed.iter().find(|(old, _)| *old == stored);
        renamed.map_or(stored, |(_, node)| self.name(*node))
    }

    /// The number of a name that may stand among tasks: a node's, or START's.
    pub(crate) fn place(&self, name: &str) -> Option<usize> {
        if name == "START" {
            Some(self.start())
        } else {
            self.find(name)
        }
    }

    /// The labels of a branch's routes.
    #[cfg(feature = "testing")]
    pub(crate) fn labels(&self, branch: usize) -> &[Cow<'static, str>] {
        self.labels.get(branch).map_or(&[], Vec::as_slice)
    }

    #[inline]
    pub(crate) fn exits(&self, node: usize) -> &Exits {
        static NONE: Exits = Exits {
            edges: Vec::new(),
            branches: Vec::new(),
            fan_outs: Vec::new(),
            joins: Vec::new(),
            routes: Vec::new(),
            labels: Vec::new(),
        };
        self.exits.get(node).unwrap_or(&NONE)
    }

    /// Whether nothing but the ways out of a place says what follows from it: no join, no deferred node.
    #[inline]
    pub(crate) const fn is_plain(&self) -> bool {
        self.joins.is_empty() && self.deferred.is_empty()
    }

    /// A task's name inside its step: the node's, and `#` with the number of the send behind it.
    pub(crate) fn task_id(&self, node: usize, send: Option<u32>) -> String {
        match send {
            None => self.name(node).clone().into_owned(),
            Some(send) => format!("{}#{send}", self.name(node)),
        }
    }
}

/// The handlers of nodes, in the order of names; nothing when there are none.
fn handlers(declared: &Declared, order: &[usize], ranks: &Ranks) -> Vec<Option<usize>> {
    if declared.on_error.is_empty() && declared.on_any_error.is_empty() {
        return Vec::new();
    }
    let handler = |old: &usize| match ranks.place(declared.handler(*old)?) {
        Place::Node(handler) => Some(handler),
        Place::Start | Place::End => None,
    };
    order.iter().map(handler).collect()
}

/// Which nodes are deferred, in the order of names; nothing when none is.
fn deferred(declared: &Declared, order: &[usize]) -> Vec<bool> {
    if declared.deferred.is_empty() {
        return Vec::new();
    }
    order.iter().map(|old| declared.deferred.contains(old)).collect()
}
