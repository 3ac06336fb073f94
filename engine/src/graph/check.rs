//! Everything that can be wrong with a graph before it runs, found at once.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    fmt,
};

use petgraph::{
    Direction,
    graph::{DiGraph, NodeIndex},
    visit::{Bfs, Reversed},
};

use super::{
    id::At,
    rename,
    topology::{Declared, DeclaredJoin, Kind, Way},
    warning::Warning,
};

/// One thing that is wrong with a graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Two nodes of one name.
    #[error("node `{0}` is declared twice: give each node a name of its own")]
    DuplicateNode(Cow<'static, str>),
    /// A name that means something else.
    #[error("`{0}` cannot name a node: START, END, the empty name, and `/` or `#` inside a name are taken")]
    ReservedName(Cow<'static, str>),
    /// Nothing to begin with.
    #[error("nothing leads from START: add `g.edge(START, ..)`")]
    NoStart,
    /// A node that never runs.
    #[error("node `{0}` cannot be reached from START: lead an edge, a branch or a fan-out to it, or remove it")]
    Unreachable(Cow<'static, str>),
    /// A node after which nothing is said.
    #[error("node `{0}` leads nowhere: add an edge, or `g.edge({0}, END)`")]
    DeadEnd(Cow<'static, str>),
    /// A router that cannot go on.
    #[error("router `{0}` has no routes: add `g.routes({0}, |route| match route {{ .. }})`")]
    Unrouted(Cow<'static, str>),
    /// A router whose routes are said twice.
    #[error("router `{0}` is given routes twice: keep one `g.routes({0}, ..)`")]
    RoutedTwice(Cow<'static, str>),
    /// A way in, but none out.
    #[error("node `{0}` is on a cycle that never ends: lead a branch, a route or an edge of it to END")]
    NoExit(Cow<'static, str>),
    /// A join that waits for nobody.
    #[error("the join into `{0}` has no sources: name the nodes it waits for, or use an edge")]
    EmptyJoin(String),
    /// A join that waits for something that never finishes.
    #[error("the join into `{to}` can never complete: `{source_node}` cannot be reached from START")]
    ImpossibleJoin {
        /// What it leads to.
        to: String,
        /// What never runs.
        source_node: Cow<'static, str>,
    },
    /// A join whose rule can never do what it says.
    #[error("the join into `{to}` {problem}")]
    ImpossibleRule {
        /// What it leads to.
        to: String,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// A branch without a single route.
    #[error("a branch at `{0}` has an enum of routes without variants: add one")]
    EmptyBranch(String),
    /// A handler that no failure reaches.
    #[error("handler `{0}` handles nothing: add `g.on_error(node, {0})`, or `g.on_any_error({0})`")]
    UnusedHandler(Cow<'static, str>),
    /// A node whose failures are handed over twice.
    #[error("node `{0}` is given two handlers: keep one `g.on_error({0}, ..)`")]
    HandledTwice(Cow<'static, str>),
    /// Two handlers for every node.
    #[error("two handlers are to take every failure: keep one `g.on_any_error(..)`")]
    TwoForAny,
    /// A way leads to a node that is not there.
    #[error("a way leads to `{0}`, which is no node: declare it, or lead the way elsewhere")]
    UnknownTarget(String),
    /// A way leads out of a node that is not there.
    #[error("a way leads out of `{0}`, which is no node: declare it, or take the way out")]
    UnknownSource(String),
    /// A breakpoint at a node that is not there.
    #[error("there is a breakpoint at `{0}`, which is no node: name one that is")]
    UnknownBreakpoint(String),
    /// A policy for a node that is not there.
    #[error("something is said of `{0}`, which is no node: declare it, or take it out")]
    UnknownNode(String),
    /// A node of a dynamic graph is to handle failures and was not added as a handler.
    #[error("`{0}` is to handle failures and is no handler: add it by `handler`")]
    NotAHandler(String),
    /// A node is said to write a field that is not there.
    #[error(
        "node `{node}` is said to write `{field}`, which is no field of the state: name one that is, or take it out"
    )]
    UnknownField {
        /// The node.
        node: Cow<'static, str>,
        /// The field.
        field: String,
    },
    /// A node is said to have had a name that another node has.
    #[error("`{old}` is said to be renamed, and a node has that name: rename another, or give the node another name")]
    RenameInUse {
        /// The name.
        old: Cow<'static, str>,
    },
    /// Two nodes are said to have had one name.
    #[error("`{old}` is said to be renamed twice: say of one node only that it had this name")]
    RenamedTwice {
        /// The name.
        old: Cow<'static, str>,
    },
    /// An id that another builder has made.
    #[error(
        "an id of another builder was used: use the ids that this builder's `node`, `router`, `worker` and `handler` returned"
    )]
    ForeignId,
}

impl BuildError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::DuplicateNode(_) => "graph::duplicate_node",
            Self::ReservedName(_) => "graph::reserved_name",
            Self::NoStart => "graph::no_start",
            Self::UnknownTarget(_) => "graph::unknown_target",
            Self::UnknownSource(_) => "graph::unknown_source",
            Self::UnknownBreakpoint(_) => "graph::unknown_breakpoint",
            Self::UnknownNode(_) => "graph::unknown_node",
            Self::NotAHandler(_) => "graph::not_a_handler",
            Self::UnknownField { .. } => "graph::unknown_field",
            Self::Unreachable(_) => "graph::unreachable",
            Self::DeadEnd(_) => "graph::dead_end",
            Self::Unrouted(_) => "graph::unrouted",
            Self::RoutedTwice(_) => "graph::routed_twice",
            Self::NoExit(_) => "graph::no_exit",
            Self::EmptyJoin(_) => "graph::empty_join",
            Self::ImpossibleJoin { .. } => "graph::impossible_join",
            Self::ImpossibleRule { .. } => "graph::impossible_rule",
            Self::EmptyBranch(_) => "graph::empty_branch",
            Self::RenameInUse { .. } => "graph::rename_in_use",
            Self::RenamedTwice { .. } => "graph::renamed_twice",
            Self::UnusedHandler(_) => "graph::unused_handler",
            Self::HandledTwice(_) => "graph::handled_twice",
            Self::TwoForAny => "graph::two_for_any",
            Self::ForeignId => "graph::foreign_id",
        }
    }
}

/// Everything that is wrong with a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildErrors {
    graph: Cow<'static, str>,
    errors: Vec<BuildError>,
}

impl BuildErrors {
    /// The errors, in the order of the nodes' declaration.
    #[must_use]
    pub fn errors(&self) -> &[BuildError] {
        &self.errors
    }
}

impl fmt::Display for BuildErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "graph `{}` cannot be built", self.graph)?;
        self.errors
            .iter()
            .try_for_each(|error| write!(f, "\n  {}: {error}", error.code()))
    }
}

impl std::error::Error for BuildErrors {}

/// The checks of a dynamic graph: what would make no sense to run.
pub(super) fn check_open(declared: &Declared, mut problems: Vec<BuildError>) -> Result<(), BuildErrors> {
    let edges = declared.edges.iter().map(|(from, _)| *from);
    let branches = declared.branches.iter().map(|(from, _)| *from);
    let joins = declared.joins.iter().flat_map(|join| join.sources.iter().copied());
    if !edges.chain(branches).chain(joins).any(|from| from == At::Start) {
        problems.push(BuildError::NoStart);
    }
    let name = |at: &At| match at {
        At::Node(slot) => declared.nodes.get(slot.index).map_or("?", |(name, _)| name.as_ref()),
        At::Start => "START",
        At::End => "END",
    };
    problems.extend(declared.joins.iter().filter_map(|join| {
        let to = join.targets.iter().map(name).collect::<Vec<_>>().join(", ");
        let problem = join.rule.problem(join.sources.len())?;
        Some(BuildError::ImpossibleRule { to, problem })
    }));
    problems.extend(rename::problems(declared));
    problems.extend(unknown_fields(declared));
    let names = declared.nodes.iter().map(|(name, _)| name);
    problems.extend(
        names
            .filter(|name| is_reserved(name))
            .cloned()
            .map(BuildError::ReservedName),
    );
    if problems.is_empty() {
        return Ok(());
    }
    Err(BuildErrors {
        graph: declared.graph.clone(),
        errors: problems,
    })
}

/// What the declared ways of a dynamic graph make doubtful. Its nodes may lead elsewhere as well, and an open branch may lead
/// anywhere: with one of those nothing can be said of what is reached.
pub(super) fn doubts(declared: &Declared) -> Vec<Warning> {
    let map = Map::of(declared);
    let open: HashSet<NodeIndex> = declared
        .branches
        .iter()
        .filter(|(_, table)| table.is_empty())
        .map(|(from, _)| map.index(*from))
        .collect();
    let mut doubts = Vec::new();
    for (at, (name, kind)) in declared.nodes.iter().enumerate() {
        if !open.contains(&NodeIndex::new(at)) {
            doubts.extend(map.node_problem(at, name, *kind));
        }
    }
    doubts.extend(declared.joins.iter().flat_map(|join| map.join_problems(join)));
    if !open.is_empty() {
        doubts.retain(|doubt| matches!(doubt, BuildError::DeadEnd(_)));
    }
    doubts.into_iter().map(Warning::Structure).collect()
}

/// What nodes are said to write and the state does not have.
fn unknown_fields(declared: &Declared) -> impl Iterator<Item = BuildError> + '_ {
    declared.unknown_fields.iter().filter_map(|(at, field)| {
        Some(BuildError::UnknownField {
            node: declared.nodes.get(*at)?.0.clone(),
            field: field.clone(),
        })
    })
}

/// Names that mean something else.
fn is_reserved(name: &str) -> bool {
    name.is_empty() || matches!(name, "START" | "END") || name.contains(['/', '#'])
}

pub(super) fn check(declared: &Declared) -> Result<(), BuildErrors> {
    let fail = |errors: Vec<BuildError>| {
        Err(BuildErrors {
            graph: declared.graph.clone(),
            errors,
        })
    };
    if declared.foreign {
        // Positions of another builder mean nothing here, so nothing else can be said.
        return fail(vec![BuildError::ForeignId]);
    }
    let map = Map::of(declared);
    let mut errors = Vec::new();
    if !declared.ways().iter().any(|(from, ..)| *from == At::Start) {
        errors.push(BuildError::NoStart);
    }
    let mut names = HashSet::new();
    for (at, (name, kind)) in declared.nodes.iter().enumerate() {
        if is_reserved(name) {
            errors.push(BuildError::ReservedName(name.clone()));
        }
        if !names.insert(name) {
            errors.push(BuildError::DuplicateNode(name.clone()));
        }
        errors.extend(map.node_problem(at, name, *kind));
    }
    errors.extend(rename::problems(declared));
    errors.extend(unknown_fields(declared));
    let mut routed = HashMap::new();
    errors.extend(map.handler_problems());
    for (at, _) in &declared.routes {
        let times: &mut usize = routed.entry(map.index(*at)).or_default();
        *times += 1;
        if *times == 2 {
            errors.push(BuildError::RoutedTwice(map.name(*at)));
        }
    }
    errors.extend(
        declared
            .branches
            .iter()
            .filter(|(_, table)| table.is_empty())
            .map(|(at, _)| BuildError::EmptyBranch(map.name(*at).into_owned())),
    );
    errors.extend(declared.joins.iter().flat_map(|join| map.join_problems(join)));
    if errors.is_empty() { Ok(()) } else { fail(errors) }
}

/// The declared wiring as a petgraph, with what can be reached from its ends.
struct Map<'a> {
    declared: &'a Declared,
    graph: DiGraph<(), ()>,
    start: NodeIndex,
    end: NodeIndex,
    /// What some way leads to.
    reached: HashSet<NodeIndex>,
    /// What can run if joins keep their rules.
    startable: HashSet<NodeIndex>,
    ending: HashSet<NodeIndex>,
    /// What is on a cycle.
    cyclic: HashSet<NodeIndex>,
}

impl<'a> Map<'a> {
    fn of(declared: &'a Declared) -> Self {
        let mut graph = DiGraph::new();
        for _ in 0..declared.nodes.len() + 2 {
            graph.add_node(());
        }
        let (start, end) = (
            NodeIndex::new(declared.nodes.len()),
            NodeIndex::new(declared.nodes.len() + 1),
        );
        let mut map = Self {
            declared,
            graph,
            start,
            end,
            reached: HashSet::new(),
            startable: HashSet::new(),
            ending: HashSet::new(),
            cyclic: HashSet::new(),
        };
        let (ways, failures): (Vec<_>, Vec<_>) =
            declared.ways().into_iter().partition(|(.., way)| *way != Way::OnError);
        for (from, to, _) in ways {
            let (from, to) = (map.index(from), map.index(to));
            map.graph.add_edge(from, to, ());
        }
        if let Some(node) = declared.on_budget {
            map.graph.update_edge(start, NodeIndex::new(node), ());
        }
        // A failure reaches its handler, but leads no node to its end.
        let mut with_failures = map.graph.clone();
        for (from, to, _) in failures {
            with_failures.update_edge(map.index(from), map.index(to), ());
        }
        map.reached = reached(&with_failures, start);
        map.startable = map.startable();
        let mut back = Bfs::new(Reversed(&map.graph), end);
        while let Some(node) = back.next(Reversed(&map.graph)) {
            map.ending.insert(node);
        }
        // Whoever reaches END needs no such question.
        if map.reached.iter().any(|node| !map.ending.contains(node)) {
            map.cyclic = cyclic(&map.graph);
        }
        map
    }

    /// What runs if every way is taken and every join fires once enough of its sources have run.
    fn startable(&self) -> HashSet<NodeIndex> {
        let mut ways: HashMap<NodeIndex, Vec<NodeIndex>> = HashMap::new();
        for (from, to, way) in self.declared.ways() {
            if !matches!(way, Way::Join | Way::JoinWhen(_)) {
                ways.entry(self.index(from)).or_default().push(self.index(to));
            }
        }
        if let Some(node) = self.declared.on_budget {
            ways.entry(self.start).or_default().push(NodeIndex::new(node));
        }
        let mut joins: HashMap<NodeIndex, Vec<usize>> = HashMap::new();
        for (at, join) in self.declared.joins.iter().enumerate() {
            for source in &join.sources {
                joins.entry(self.index(*source)).or_default().push(at);
            }
        }
        let mut arrived = vec![0_usize; self.declared.joins.len()];
        let (mut reached, mut next) = (HashSet::from([self.start]), vec![self.start]);
        while let Some(place) = next.pop() {
            let mut ends = ways.get(&place).cloned().unwrap_or_default();
            for at in joins.get(&place).into_iter().flatten() {
                let (Some(count), Some(join)) = (arrived.get_mut(*at), self.declared.joins.get(*at)) else {
                    continue;
                };
                let before = fires(join, *count);
                *count += 1;
                if !before && fires(join, *count) {
                    ends.extend(join.targets.iter().map(|target| self.index(*target)));
                }
            }
            next.extend(ends.into_iter().filter(|end| reached.insert(*end)));
        }
        reached
    }

    /// Whether a join can ever lead on.
    fn fires(&self, join: &DeclaredJoin) -> bool {
        let sources = join.sources.iter();
        fires(
            join,
            sources
                .filter(|source| self.startable.contains(&self.index(**source)))
                .count(),
        )
    }

    fn join_problems(&self, join: &DeclaredJoin) -> Vec<BuildError> {
        let names = join.targets.iter().map(|target| self.name(*target));
        let to = names.collect::<Vec<_>>().join(", ");
        if join.sources.is_empty() {
            return vec![BuildError::EmptyJoin(to)];
        }
        if let Some(problem) = join.rule.problem(join.sources.len()) {
            return vec![BuildError::ImpossibleRule { to, problem }];
        }
        if self.fires(join) {
            return Vec::new();
        }
        let sources = join.sources.iter().copied();
        let unreached = sources.filter(|source| !self.startable.contains(&self.index(*source)));
        let problem = |source| BuildError::ImpossibleJoin {
            to: to.clone(),
            source_node: self.name(source),
        };
        unreached.map(problem).collect()
    }

    fn index(&self, at: At) -> NodeIndex {
        match at {
            At::Start => self.start,
            At::End => self.end,
            At::Node(slot) => NodeIndex::new(slot.index),
        }
    }

    fn name(&self, at: At) -> Cow<'static, str> {
        match at {
            At::Start => "START".into(),
            At::End => "END".into(),
            At::Node(slot) => self
                .declared
                .nodes
                .get(slot.index)
                .map_or(Cow::Borrowed("?"), |(name, _)| name.clone()),
        }
    }

    /// A router that follows its edges as well needs both routes and edges.
    fn also_problem(&self, at: usize, name: Cow<'static, str>) -> Option<BuildError> {
        let is = |from: &At| self.index(*from) == NodeIndex::new(at);
        let declared = self.declared;
        if !declared.routes.iter().any(|(from, _)| is(from)) {
            return Some(BuildError::Unrouted(name));
        }
        let pairs = declared.edges.iter().chain(&declared.fan_outs);
        let branches = declared.branches.iter().map(|(from, _)| from);
        let joins = declared.joins.iter().flat_map(|join| &join.sources);
        let mut always = pairs.map(|(from, _)| from).chain(branches).chain(joins);
        (!always.any(is)).then_some(BuildError::DeadEnd(name))
    }

    /// Failures that are handed over twice.
    fn handler_problems(&self) -> Vec<BuildError> {
        let mut problems = Vec::new();
        let given = &self.declared.on_error;
        for (first, (at, _)) in given.iter().enumerate() {
            let earlier = given.iter().take(first).filter(|(other, _)| other == at).count();
            if earlier == 1 {
                problems.push(BuildError::HandledTwice(self.name(*at)));
            }
        }
        if self.declared.on_any_error.len() > 1 {
            problems.push(BuildError::TwoForAny);
        }
        problems
    }

    /// The first that holds: not reached, no way out, no way to END.
    fn node_problem(&self, at: usize, name: &str, kind: Kind) -> Option<BuildError> {
        let name = || Cow::Owned(name.to_owned());
        let node = NodeIndex::new(at);
        let used = |(_, handler): &(At, At)| self.index(*handler) == node;
        let for_any = self
            .declared
            .on_any_error
            .iter()
            .any(|handler| self.index(*handler) == node);
        if kind.is_handler() && !for_any && !self.declared.on_error.iter().any(used) {
            return Some(BuildError::UnusedHandler(name()));
        }
        if !self.reached.contains(&node) {
            return Some(BuildError::Unreachable(name()));
        }
        if self
            .graph
            .neighbors_directed(node, Direction::Outgoing)
            .next()
            .is_none()
        {
            return Some(if matches!(kind, Kind::Router | Kind::HandlerRouter) {
                BuildError::Unrouted(name())
            } else {
                BuildError::DeadEnd(name())
            });
        }
        if kind == Kind::Also
            && let Some(problem) = self.also_problem(at, name())
        {
            return Some(problem);
        }
        (!self.ending.contains(&node) && self.cyclic.contains(&node)).then(|| BuildError::NoExit(name()))
    }
}

/// Whether a join leads on once so many of its sources have run.
fn fires(join: &DeclaredJoin, here: usize) -> bool {
    here > 0 && (here >= join.rule.needed(join.sources.len()) || join.rule.within.is_some())
}

/// What lies on a cycle.
fn cyclic(graph: &DiGraph<(), ()>) -> HashSet<NodeIndex> {
    let together = petgraph::algo::tarjan_scc(graph)
        .into_iter()
        .filter(|together| together.len() > 1);
    let loops = graph.edge_indices().filter_map(|edge| graph.edge_endpoints(edge));
    let loops = loops.filter(|(from, to)| from == to).map(|(from, _)| from);
    together.flatten().chain(loops).collect()
}

fn reached(graph: &DiGraph<(), ()>, start: NodeIndex) -> HashSet<NodeIndex> {
    let mut forth = Bfs::new(graph, start);
    std::iter::from_fn(|| forth.next(graph)).collect()
}
