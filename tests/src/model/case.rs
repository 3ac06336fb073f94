//! A case as plain data: a graph, and what is done to a thread of it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use stepgraph::Durability;

/// A state, an input, or what a task is fed with: values by name.
pub(super) type Object = BTreeMap<String, Value>;

/// Everything that a seed stands for.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Case {
    pub(super) graph: Graph,
    pub(super) ground: Ground,
    /// Nodes that fail until they are mended.
    pub(super) broken: Vec<String>,
    pub(super) script: Vec<Op>,
}

/// Where a case keeps its threads, and when they are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Ground {
    pub(super) file: bool,
    #[serde(serialize_with = "named")]
    pub(super) durability: Durability,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes what it serialises by reference"
)]
fn named<S: serde::Serializer>(durability: &Durability, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{durability:?}"))
}

/// How a channel takes what is written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Reducer {
    Last,
    Append,
    Add,
    Max,
    Union,
    MapMerge,
    Messages,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Graph {
    pub(super) name: String,
    pub(super) channels: BTreeMap<String, Reducer>,
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) ways: Vec<Way>,
    pub(super) before: Vec<String>,
    pub(super) after: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Node {
    pub(super) deferred: bool,
    /// How often it is tried, the first time included.
    pub(super) attempts: u32,
    pub(super) on_item: OnItem,
    pub(super) does: Does,
}

/// What becomes of something sent to a node that fails for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) enum OnItem {
    Fail,
    Skip,
    /// Its number is written to this channel, a list.
    Collect(String),
}

#[derive(Debug, Clone, Serialize)]
pub(super) enum Does {
    Body(Body),
    Host(Graph),
}

/// What a node does: asks, fails, writes, goes on; in this order.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Body {
    /// How often it lets others go first.
    pub(super) yields: usize,
    pub(super) asks: Vec<String>,
    /// Whether it asks all of its questions before it stops.
    pub(super) together: bool,
    pub(super) fails: Option<Fails>,
    pub(super) writes: Vec<Write>,
    pub(super) goto: Option<(Condition, Vec<Goto>)>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Fails {
    pub(super) kind: FailKind,
    /// So many attempts fail.
    pub(super) attempts: u32,
    /// Fails only while the node is broken.
    pub(super) until_mended: bool,
    /// Asks first.
    pub(super) after_asking: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum FailKind {
    Terminal,
    Retryable,
    /// Writes to a channel that is not there.
    Unfit,
}

/// Writes a number made of what `base` measures, in the form that the channel takes.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Write {
    pub(super) channel: String,
    pub(super) base: Option<String>,
    pub(super) plus: i64,
    pub(super) outright: bool,
}

#[derive(Debug, Clone, Serialize)]
pub(super) enum Condition {
    Always,
    Below(String, i64),
    Rest(String, i64, i64),
}

#[derive(Debug, Clone, Serialize)]
pub(super) enum Goto {
    Node(String),
    End,
    /// One task for each of the first items of a channel, or for each number up to so many.
    Send(String, Items),
}

#[derive(Debug, Clone, Serialize)]
pub(super) enum Items {
    Of(String),
    Numbers(i64),
}

#[derive(Debug, Clone, Serialize)]
pub(super) enum Way {
    Edge(String, String),
    Join(Rule, Vec<String>, String),
    Branch {
        from: String,
        cases: Vec<(Condition, Vec<Goto>)>,
        otherwise: Vec<Goto>,
        /// Whether the destinations are labels of a table.
        labelled: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Rule {
    All,
    Any,
    Quorum(usize),
}

/// How a run is carried out.
#[derive(Debug, Clone, Serialize)]
pub(super) struct How {
    pub(super) limit: u32,
    pub(super) before: Option<Vec<String>>,
    pub(super) after: Option<Vec<String>>,
    pub(super) crash: Option<Crash>,
    /// Whether somebody listens.
    pub(super) heard: bool,
}

/// How a run is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Crash {
    /// The store refuses this commit and everything after it.
    Refuse(u64),
    /// The store keeps this commit, says that it did not, and refuses everything after it.
    Lose(u64),
    /// The run is dropped when it has been polled so often.
    Drop(u64),
}

/// What is done with tasks that are left when new input comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Pending {
    Reject,
    Discard,
    CommitFinished,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Reply {
    /// Nothing is answered.
    None,
    /// Everything that is open.
    All,
    /// The first that is open.
    First,
    /// One answer without saying to what.
    One,
    /// An answer to a question that is not open.
    Unknown,
}

/// What a run that goes on is told besides.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Command {
    pub(super) writes: Vec<Write>,
    pub(super) goto: Vec<Goto>,
}

/// A checkpoint is named by a number that is taken modulo how many there are.
#[derive(Debug, Clone, Serialize)]
pub(super) enum Op {
    Input {
        writes: Vec<Write>,
        pending: Pending,
        at: Option<usize>,
        how: How,
    },
    Resume {
        reply: Reply,
        command: Option<Command>,
        how: How,
    },
    Rerun {
        at: usize,
        command: Option<Command>,
        how: How,
    },
    Update {
        at: Option<usize>,
        node: Option<String>,
        writes: Vec<Write>,
    },
    Fork {
        at: usize,
        name: String,
    },
    Switch {
        name: String,
    },
    Mend,
}

impl Op {
    pub(super) const fn crash(&self) -> Option<Crash> {
        match self {
            Self::Input { how, .. } | Self::Resume { how, .. } | Self::Rerun { how, .. } => how.crash,
            Self::Update { .. } | Self::Fork { .. } | Self::Switch { .. } | Self::Mend => None,
        }
    }
}
