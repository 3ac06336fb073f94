//! The builder: what can be declared.

use std::{
    any::{TypeId, type_name},
    borrow::Cow,
    fmt,
    future::ready,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Graph,
    around::{self, Around},
    check::{self, BuildError, BuildErrors},
    fan_out::OnItemFailure,
    id::{AnyNode, At, EdgeFrom, EdgeTo, NodeId, Opaque, RouterId, RoutesFrom, Slot, WorkerId},
    join::JoinRule,
    parallel,
    parts::{Adopt, Branch, Call, FanOut, NodeSpec, Output, Parts, Payload, PayloadCodec},
    rules::Rules,
    running::Running,
    short,
    topology::{Declared, Kind, Topology},
    warning::{self, Warning},
};
use crate::{
    dynamic::Compat,
    node::{IntoNode, NodeError, Policy},
    route::{Command, Route},
    run::{Breakpoints, PlainFrontiers, Recording, Versions},
    state::{FromState, State},
};

/// Declares a graph: nodes first, then the edges between them.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use stepgraph::{Graph, START, END, State};
///
/// #[derive(State, Clone, Serialize, Deserialize)]
/// struct Count { #[state(input)] n: u64 }
///
/// let mut g = Graph::<Count>::builder("count");
/// let add = g.node("add", |count: Count| async move { Ok(Count::update().n(count.n + 1)) });
/// g.edge(START, add).edge(add, END);
/// let graph = g.build()?;
/// # Ok::<(), stepgraph::BuildErrors>(())
/// ```
#[must_use = "a graph is made by `build`"]
pub struct GraphBuilder<S: State> {
    pub(super) tag: u32,
    pub(super) shape: S::Shape,
    pub(crate) declared: Declared,
    pub(super) nodes: Vec<NodeSpec<S>>,
    pub(crate) branches: Vec<Branch<S>>,
    fan_outs: Vec<FanOut<S>>,
    requires: Vec<(TypeId, &'static str)>,
    pub(crate) compat: Compat,
    pub(crate) breakpoints: Breakpoints,
    pub(super) defaults: Policy,
    pub(super) rules: Rules,
}

/// Numbers builders, so that an id of one is not taken by another.
static BUILDERS: AtomicU32 = AtomicU32::new(0);

impl<S: State> GraphBuilder<S> {
    /// Begins a graph whose fields are known only now.
    pub fn with_shape(name: impl Into<Cow<'static, str>>, shape: S::Shape) -> Self {
        Self {
            tag: BUILDERS.fetch_add(1, Ordering::Relaxed),
            shape,
            declared: Declared::named(name.into()),
            nodes: Vec::new(),
            branches: Vec::new(),
            fan_outs: Vec::new(),
            requires: Vec::new(),
            compat: Compat::Strict,
            breakpoints: Breakpoints::default(),
            defaults: Policy::default(),
            rules: Rules::default(),
        }
    }

    /// Adds a node that reads the state and gives an update.
    pub fn node<M, N>(&mut self, name: impl Into<Cow<'static, str>>, node: N) -> NodeId<S>
    where
        N: IntoNode<S, M>,
        N::Input: FromState<S>,
        N::Output: Into<S::Update>,
    {
        let node = Arc::new(node);
        let call: Call<S> = Box::new(move |state, _, ctx| {
            let running = N::enter(&node, N::Input::from_state(state), ctx);
            Running::made(running, |given: N::Output| Output::of(given.into()))
        });
        NodeId(self.push(name.into(), Kind::Node, call, None), PhantomData)
    }

    /// Adds a node that also chooses where to go on, among routes of its own.
    #[must_use = "a router needs `routes`"]
    pub fn router<M, N, U, R>(&mut self, name: impl Into<Cow<'static, str>>, node: N) -> RouterId<S, R>
    where
        N: IntoNode<S, M, Output = Command<U, R>>,
        N::Input: FromState<S>,
        U: Into<S::Update> + Send + 'static,
        R: Route,
    {
        let node = Arc::new(node);
        let call: Call<S> = Box::new(move |state, _, ctx| {
            let running = N::enter(&node, N::Input::from_state(state), ctx);
            Running::made(running, |Command { update, goto }: Command<U, R>| {
                Output::routed(update.into(), goto.index())
            })
        });
        RouterId(self.push(name.into(), Kind::Router, call, None), PhantomData)
    }

    /// Adds a node that runs once for each item of a fan-out, fed with the item instead of the state.
    #[must_use = "a worker is started by `fan_out`"]
    pub fn worker<M, N>(&mut self, name: impl Into<Cow<'static, str>>, node: N) -> WorkerId<S, N::Input>
    where
        N: IntoNode<S, M>,
        N::Input: Clone + Serialize + DeserializeOwned + Sync,
        N::Output: Into<S::Update>,
    {
        let node = Arc::new(node);
        let call: Call<S> = Box::new(move |_, payload, ctx| {
            let input = payload.and_then(|payload| payload.downcast_ref::<N::Input>()).cloned();
            let Some(input) = input else {
                let given = type_name::<N::Input>();
                let error = format!("a worker was started without its `{given}`");
                return Running::of(ready(Err(NodeError::terminal(error))));
            };
            Running::made(N::enter(&node, input, ctx), |given: N::Output| Output::of(given.into()))
        });
        let codec = PayloadCodec::of::<N::Input>();
        WorkerId(self.push(name.into(), Kind::Worker, call, Some(codec)), PhantomData)
    }

    /// Leads from one place to another, always. Several edges from one place run their ends side by side.
    pub fn edge(&mut self, from: impl EdgeFrom<S>, to: impl EdgeTo<S>) -> &mut Self {
        let from = self.at(from.source().0);
        for to in self.targets(to) {
            self.declared.edge(from, to);
        }
        self
    }

    /// Leads on once every one of `all` has finished. A source that finishes twice meanwhile counts once.
    pub fn join<F: EdgeFrom<S>>(&mut self, all: impl IntoIterator<Item = F>, to: impl EdgeTo<S>) -> &mut Self {
        self.join_when(JoinRule::all(), all, to)
    }

    /// Leads on once enough of `all` have finished, or time is up: `rule` says when. A join that has led on takes nothing
    /// until what it leads to has run, and then begins anew: a source that finishes later counts for the next time. Which
    /// sources had finished, the nodes it leads to learn from [`Context::arrived`](crate::Context::arrived).
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use serde::{Deserialize, Serialize};
    /// # use stepgraph::{Append, Graph, START, END, State};
    /// use stepgraph::JoinRule;
    ///
    /// # #[derive(State, Clone, Serialize, Deserialize)]
    /// # struct Search { #[state(reducer = Append)] found: Vec<String> }
    /// # let mut g = Graph::<Search>::builder("search");
    /// let [web, files, mail] = ["web", "files", "mail"].map(|name| {
    ///     g.node(name, move |_: Arc<Search>| async move { Ok(Search::update().found([name.to_owned()])) })
    /// });
    /// let show = g.node("show", |_: Arc<Search>| async { Ok(()) });
    /// g.edge(START, web).edge(START, files).edge(START, mail);
    /// g.join_when(JoinRule::quorum(2), [web, files, mail], show).edge(show, END);
    /// # g.build()?;
    /// # Ok::<(), stepgraph::BuildErrors>(())
    /// ```
    pub fn join_when<F: EdgeFrom<S>>(
        &mut self,
        rule: JoinRule,
        all: impl IntoIterator<Item = F>,
        to: impl EdgeTo<S>,
    ) -> &mut Self {
        let sources = all.into_iter().map(|source| self.at(source.source().0)).collect();
        let targets = self.targets(to);
        self.declared.join(rule, sources, targets);
        self
    }

    /// Leads on as soon as one of `any` has finished, and cancels the others that still run in the same step: short for
    /// `join_when(JoinRule::any().cancel_others(), ..)`.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use serde::{Deserialize, Serialize};
    /// # use stepgraph::{Graph, START, END, State};
    /// # #[derive(State, Clone, Serialize, Deserialize)]
    /// # struct Ask { answer: Option<String> }
    /// # let mut g = Graph::<Ask>::builder("ask");
    /// let [here, there] = ["here", "there"].map(|name| {
    ///     g.node(name, move |_: Arc<Ask>| async move { Ok(Ask::update().answer(name.to_owned())) })
    /// });
    /// g.edge(START, here).edge(START, there);
    /// g.race([here, there], END);
    /// # g.build()?;
    /// # Ok::<(), stepgraph::BuildErrors>(())
    /// ```
    pub fn race<F: EdgeFrom<S>>(&mut self, any: impl IntoIterator<Item = F>, to: impl EdgeTo<S>) -> &mut Self {
        self.join_when(JoinRule::any().cancel_others(), any, to)
    }

    /// Leads on where `choose` says, which sees the state at the step's start plus the task's own update. `wire` is
    /// called once for every variant when the graph is built, so a variant without an end does not compile.
    pub fn branch<R: Route, T: EdgeTo<S>>(
        &mut self,
        from: impl EdgeFrom<S>,
        choose: impl Fn(&S) -> R + Send + Sync + 'static,
        wire: impl Fn(R) -> T,
    ) -> &mut Self {
        let from = self.at(from.source().0);
        let table = R::ALL
            .iter()
            .map(|route| (Cow::Borrowed(route.label()), self.targets(wire(*route))))
            .collect();
        self.declared.branch(from, table);
        self.branches
            .push(Branch::Routes(Box::new(move |state| choose(state).index())));
        self
    }

    /// Says where each of a router's routes leads.
    pub fn routes<R: Route, T: EdgeTo<S>>(&mut self, from: impl RoutesFrom<S, R>, wire: impl Fn(R) -> T) -> &mut Self {
        let from = self.at(from.router().0);
        let table = R::ALL
            .iter()
            .map(|route| (Cow::Borrowed(route.label()), self.targets(wire(*route))))
            .collect();
        self.declared.routes(from, table);
        self
    }

    /// Starts a worker once for each item, side by side in the next step. Without items the worker counts as finished at
    /// once: what always follows from it, edges and joins, follows in the next step. Branches of the worker are asked for
    /// each item, and so not at all.
    pub fn fan_out<I, It>(
        &mut self,
        from: impl EdgeFrom<S>,
        to: WorkerId<S, I>,
        items: impl Fn(&S) -> It + Send + Sync + 'static,
    ) -> &mut Self
    where
        I: Send + Sync + 'static,
        It: IntoIterator<Item = I>,
    {
        let (from, to) = (self.at(from.source().0), self.at(At::Node(to.0)));
        self.declared.fan_out(from, to);
        let spread = move |state: &S| items(state).into_iter().map(|item| Arc::new(item) as Payload).collect();
        self.fan_outs.push(FanOut {
            spread: Box::new(spread),
        });
        self
    }

    /// Says how a node, router, worker or handler is run.
    pub fn policy(&mut self, of: impl AnyNode<S>, policy: Policy) -> &mut Self {
        if let At::Node(slot) = self.at(of.slot().0)
            && slot.builder == self.tag
        {
            self.set_policy(slot, policy);
        }
        self
    }

    pub(crate) fn adopt(&mut self, slot: Slot, adopt: Adopt<S>) {
        if let Some(node) = self.nodes.get_mut(slot.index) {
            node.adopt = Some(adopt);
        }
    }

    pub(crate) fn set_policy(&mut self, slot: Slot, policy: Policy) {
        if let Some(node) = self.nodes.get_mut(slot.index) {
            node.policy = policy;
        }
    }

    /// Lets a node wait, once it is triggered, until a step leaves nothing else to run. However often it was triggered
    /// meanwhile, it runs once.
    pub fn defer(&mut self, node: impl AnyNode<S>) -> &mut Self {
        if let At::Node(slot) = self.at(node.slot().0) {
            self.declared.defer(slot.index);
        }
        self
    }

    /// Names the node that a run goes to, instead of what was next, when it has spent a budget of
    /// [`OnBudget::Route`](crate::OnBudget::Route). Other ways may lead there as well.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use stepgraph::{END, Graph, START, State};
    /// # #[derive(State, Clone, Serialize, Deserialize)]
    /// # struct Chat { answer: String }
    /// # fn main() -> Result<(), stepgraph::BuildErrors> {
    /// # let mut g = Graph::<Chat>::builder("chat");
    /// # let search = g.node("search", |_: Chat| async { Ok(()) });
    /// let sum_up = g.node("sum_up", |_: Chat| async { Ok(Chat::update().answer("as far as I got".to_owned())) });
    /// g.edge(START, search).edge(search, END);
    /// g.on_budget(sum_up).edge(sum_up, END);
    /// # g.build().map(drop) }
    /// ```
    pub fn on_budget(&mut self, node: NodeId<S>) -> &mut Self {
        if let At::Node(slot) = self.at(At::Node(node.0)) {
            self.declared.on_budget = Some(slot.index);
        }
        self
    }

    /// Says that every run must be provided with a `T`, for nodes to read by [`Context::provided`](crate::Context::provided).
    pub fn requires<T: Send + Sync + 'static>(&mut self) -> &mut Self {
        self.requires.push((TypeId::of::<T>(), type_name::<T>()));
        self
    }

    /// Checks everything and makes the graph.
    ///
    /// # Errors
    /// All problems at once, each with a code and its remedy.
    pub fn build(self) -> Result<Graph<S>, BuildErrors> {
        check::check(&self.declared)?;
        Ok(self.made(Vec::new()))
    }

    /// Checks of a dynamic graph only what would make no sense to run.
    pub(crate) fn build_open(self, problems: Vec<BuildError>) -> Result<Graph<S>, BuildErrors> {
        check::check_open(&self.declared, problems)?;
        let doubts = check::doubts(&self.declared);
        Ok(self.made(doubts))
    }

    fn made(self, mut warnings: Vec<Warning>) -> Graph<S> {
        let writes: Vec<_> = self.nodes.iter().map(|spec| spec.writes.as_ref()).collect();
        warnings.extend(parallel::writers(&self.declared, S::fields(&self.shape), &writes));
        let order = self.declared.order();
        let topology = Topology::new(&self.declared, &order, S::fields(&self.shape), S::version(&self.shape));
        let defaults = self.defaults;
        let named = self.nodes.into_iter().zip(&self.declared.nodes);
        let mut slots: Vec<Option<NodeSpec<S>>> = named
            .map(|(mut spec, (name, _))| {
                spec.policy = spec.policy.or(defaults);
                Some(around::within_policy(spec, name.clone()))
            })
            .collect();
        let mut nodes: Vec<_> = order
            .iter()
            .filter_map(|old| slots.get_mut(*old).and_then(Option::take))
            .collect();
        for (at, spec) in nodes.iter_mut().enumerate() {
            let within = !spec.around.limits.is_empty() || spec.around.cache.is_some();
            let policed = spec.policy.retries() || spec.policy.is_limited();
            spec.plain = !within && !policed && topology.handler(at).is_none();
        }
        short::mark(&mut nodes, &topology, &self.branches);
        warnings.extend(warning::of_policies(topology.names(), &nodes, self.rules));
        let cache = around::own_cache(&nodes);
        let apart = self.compat == Compat::Recorded || !self.requires.is_empty();
        let stops = self.breakpoints.names().next().is_some();
        let first = short::first(&topology, self.rules).filter(|_| !apart && !stops);
        let topology = Arc::new(topology);
        Graph::from(super::Built {
            setting: Arc::new(super::Setting::new(Arc::clone(&topology))),
            parts: Arc::new(Parts {
                shape: self.shape,
                topology,
                nodes,
                branches: self.branches,
                fan_outs: self.fan_outs,
                requires: self.requires,
                compat: self.compat,
                breakpoints: self.breakpoints,
                warnings,
                cache,
                on_budget: order.iter().position(|old| Some(*old) == self.declared.on_budget),
                rules: self.rules,
                frontiers: PlainFrontiers::default(),
                first,
            }),
            store: None,
            cache: None,
            versions: Versions::default(),
            older: None,
            recording: Recording::Off,
        })
    }

    pub(crate) fn push(
        &mut self,
        name: Cow<'static, str>,
        kind: Kind,
        call: Call<S>,
        payload: Option<PayloadCodec>,
    ) -> Slot {
        self.nodes.push(NodeSpec {
            call,
            policy: Policy::default(),
            payload,
            adopt: None,
            around: Around::default(),
            on_failure: OnItemFailure::Fail,
            plain: false,
            short: false,
            writes: None,
        });
        Slot {
            builder: self.tag,
            index: self.declared.node(name, kind),
        }
    }

    /// The place of a node of this builder; nothing for an id of another, which is noted as an error.
    pub(super) fn own(&mut self, of: Opaque) -> Option<Slot> {
        match self.at(of.0) {
            At::Node(slot) if slot.builder == self.tag => Some(slot),
            At::Node(_) | At::Start | At::End => None,
        }
    }

    /// Notes an id of another builder as an error.
    pub(super) fn at(&mut self, at: At) -> At {
        if let At::Node(slot) = at
            && slot.builder != self.tag
        {
            self.declared.foreign_id();
        }
        at
    }

    fn targets(&mut self, targets: impl EdgeTo<S>) -> Vec<At> {
        targets
            .targets()
            .into_ends()
            .into_iter()
            .map(|end| self.at(end))
            .collect()
    }
}

impl<S: State> fmt::Debug for GraphBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphBuilder")
            .field("declared", &self.declared)
            .finish_non_exhaustive()
    }
}
