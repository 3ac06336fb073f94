//! What a built graph is made of: the nodes ready to run, and the closures that lead on from them.

use std::{
    any::{Any, TypeId, type_name},
    borrow::Cow,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    around::Around, fan_out::OnItemFailure, rules::Rules, running::Running, topology::Topology, warning::Warning,
};
use crate::{
    cache::NodeCache,
    dynamic::Compat,
    node::{Calls, LazyContext, NodeError, Policy},
    run::{Breakpoints, PlainFrontiers, Spend, decode_record, encode_record},
    state::{FieldSet, State, StateError},
};

/// What a task is fed with beside the state: the payload of a fan-out.
pub(crate) type Payload = Arc<dyn Any + Send + Sync>;

/// What a task gives back. What few tasks give stands apart, so that an output is small where it is moved.
pub(crate) struct Output<S: State> {
    pub(crate) update: S::Update,
    /// Position of the route a router has chosen.
    pub(crate) route: Option<usize>,
    rare: Option<Box<Rare>>,
}

/// What few outputs have; read as fields of the output itself.
#[derive(Default)]
pub(crate) struct Rare {
    /// The handler that gave it in the task's stead; its ways on are followed.
    pub(crate) by: Option<usize>,
    /// Positions of the routes that a node takes besides its edges.
    pub(crate) also: Vec<usize>,
    /// Where a node of a dynamic graph goes besides its edges.
    pub(crate) goto: Vec<Goto>,
    /// Set when the node ends its whole graph, in favour of the graph around it.
    pub(crate) leave: Option<Box<Leave>>,
    /// What the task has spent.
    pub(crate) spend: Spend,
    /// When a join has cancelled the task, if one has: it has given nothing, and nothing follows from it.
    pub(crate) cancelled: Option<DateTime<Utc>>,
    /// It comes from the node cache.
    pub(crate) cached: bool,
    /// What it has asked of services, if its run records that.
    pub(crate) calls: Option<Arc<Calls>>,
}

impl Rare {
    const NOTHING: Self = Self {
        by: None,
        also: Vec::new(),
        goto: Vec::new(),
        leave: None,
        spend: Spend::NOTHING,
        cancelled: None,
        cached: false,
        calls: None,
    };
}

impl<S: State> Output<S> {
    pub(crate) const fn of(update: S::Update) -> Self {
        Self {
            update,
            route: None,
            rare: None,
        }
    }

    /// With what few outputs have.
    pub(crate) fn with(update: S::Update, rare: Rare) -> Self {
        Self {
            rare: Some(Box::new(rare)),
            ..Self::of(update)
        }
    }

    /// Of a node that has chosen a route.
    pub(crate) const fn routed(update: S::Update, route: usize) -> Self {
        Self {
            update,
            route: Some(route),
            rare: None,
        }
    }

    /// The positions of all routes it takes.
    pub(crate) fn routes(&self) -> impl Iterator<Item = usize> {
        self.route.into_iter().chain(self.also.iter().copied())
    }

    /// Whether only its node's place in the graph says what follows.
    #[inline]
    pub(crate) const fn leads_nowhere_itself(&self) -> bool {
        self.route.is_none() && self.rare.is_none()
    }

    /// Takes out the places that it goes to by name.
    pub(crate) fn take_goto(&mut self) -> Vec<Goto> {
        let rare = self.rare.as_mut();
        rare.map(|rare| std::mem::take(&mut rare.goto)).unwrap_or_default()
    }

    /// Of a task that a join has cancelled.
    pub(crate) fn cancelled(at: DateTime<Utc>) -> Self {
        let rare = Rare {
            cancelled: Some(at),
            ..Rare::default()
        };
        Self::with(S::Update::default(), rare)
    }
}

impl<S: State> Deref for Output<S> {
    type Target = Rare;

    fn deref(&self) -> &Rare {
        static NOTHING: Rare = Rare::NOTHING;
        self.rare.as_deref().unwrap_or(&NOTHING)
    }
}

impl<S: State> DerefMut for Output<S> {
    fn deref_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

/// Where to go on, by name; with a payload, one more task that is fed with it.
#[derive(Clone)]
pub(crate) struct Goto {
    pub(crate) to: Cow<'static, str>,
    pub(crate) payload: Option<Payload>,
}

/// What a node that ends its graph leaves to the graph around it: writes and destinations there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Leave {
    pub(crate) update: Value,
    pub(crate) goto: Vec<(String, Option<Value>)>,
}

pub(crate) type Call<S> =
    Box<dyn Fn(&Arc<S>, Option<&Payload>, LazyContext<'_, <S as State>::Event>) -> Running<S> + Send + Sync>;
pub(super) type Choose<S> = Box<dyn Fn(&S) -> usize + Send + Sync>;
pub(super) type Name<S> = Box<dyn Fn(&S) -> Result<Vec<Goto>, UnknownTarget> + Send + Sync>;
pub(super) type Spread<S> = Box<dyn Fn(&S) -> Vec<Payload> + Send + Sync>;

/// How a worker's payload is written down and read back.
pub(crate) struct PayloadCodec {
    pub(crate) encode: fn(&Payload) -> Result<Arc<[u8]>, StateError>,
    pub(crate) decode: fn(&[u8]) -> Result<Payload, StateError>,
    /// As JSON, for whoever listens to the run.
    pub(crate) show: fn(&Payload) -> Result<Value, StateError>,
}

impl PayloadCodec {
    pub(crate) fn of<I: Serialize + DeserializeOwned + Send + Sync + 'static>() -> Self {
        Self {
            encode: encode_payload::<I>,
            decode: decode_payload::<I>,
            show: show_payload::<I>,
        }
    }
}

/// One node, ready to run.
pub(crate) struct NodeSpec<S: State> {
    pub(crate) call: Call<S>,
    pub(crate) policy: Policy,
    pub(crate) payload: Option<PayloadCodec>,
    /// What becomes of what a graph inside has left to this one, if that means anything here.
    pub(crate) adopt: Option<Adopt<S>>,
    /// What becomes of a fan-out's item that fails for good.
    pub(crate) on_failure: OnItemFailure<S>,
    pub(crate) around: Around<S>,
    /// Whether nothing stands around it: one attempt without a limit, a cache, a handler, places to wait for.
    pub(crate) plain: bool,
    /// Whether it is plain, and one list of edges or the routes of one branch say what follows from it.
    pub(crate) short: bool,
    /// The only fields it writes, if it has said so.
    pub(crate) writes: Option<FieldSet>,
}

pub(crate) type Adopt<S> = Box<dyn Fn(Leave) -> Result<Output<S>, NodeError> + Send + Sync>;

/// A branch: the closure that says where it leads.
pub(crate) enum Branch<S> {
    /// To a position in the topology's table of targets.
    Routes(Choose<S>),
    /// To places by name.
    Named(Name<S>),
}

/// A destination that the graph does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnknownTarget(pub(crate) String);

/// A fan-out: the closure that makes the payloads.
pub(crate) struct FanOut<S> {
    pub(crate) spread: Spread<S>,
}
/// What never changes after the build.
pub(crate) struct Parts<S: State> {
    pub(crate) shape: S::Shape,
    pub(crate) topology: Arc<Topology>,
    pub(crate) nodes: Vec<NodeSpec<S>>,
    pub(crate) branches: Vec<Branch<S>>,
    pub(crate) fan_outs: Vec<FanOut<S>>,
    pub(crate) requires: Vec<(TypeId, &'static str)>,
    pub(crate) compat: Compat,
    pub(crate) breakpoints: Breakpoints,
    pub(crate) warnings: Vec<Warning>,
    /// Of this graph alone, when nodes of it are cached and nobody has given another.
    pub(crate) cache: Option<Arc<dyn NodeCache>>,
    /// The node that a run goes to when its budget is spent.
    pub(crate) on_budget: Option<usize>,
    pub(crate) rules: Rules,
    pub(crate) frontiers: PlainFrontiers,
    /// The only node that follows from START, if runs of the graph may go the shortest way.
    pub(crate) first: Option<usize>,
}

fn encode_payload<I: Serialize + 'static>(payload: &Payload) -> Result<Arc<[u8]>, StateError> {
    match payload.downcast_ref::<I>() {
        Some(item) => encode_record(item),
        None => Err(StateError::Encode(format!(
            "a worker's payload is not a `{}`",
            type_name::<I>()
        ))),
    }
}

fn show_payload<I: Serialize + 'static>(payload: &Payload) -> Result<Value, StateError> {
    let item = payload.downcast_ref::<I>();
    serde_json::to_value(item).map_err(|error| StateError::Encode(error.to_string()))
}

fn decode_payload<I: DeserializeOwned + Send + Sync + 'static>(bytes: &[u8]) -> Result<Payload, StateError> {
    decode_record::<I>(bytes).map(|item| Arc::new(item) as Payload)
}
