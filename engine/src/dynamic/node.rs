//! What a node of a dynamic graph is given and gives back.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{JsonState, JsonUpdate};

/// What a task of a dynamic graph is fed with.
#[derive(Debug, Clone)]
pub enum TaskInput {
    /// It was triggered: the state as it was when the step began.
    State(Arc<JsonState>),
    /// It was sent to: what it was sent, and nothing of the state.
    Sent(Value),
}

impl TaskInput {
    /// One value of it: a channel's, or a key of what was sent.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Self::State(state) => state.get(name),
            Self::Sent(value) => value.get(name),
        }
    }

    /// All of it as an object; what was sent and is none gives an empty one.
    #[must_use]
    pub fn to_object(&self) -> Map<String, Value> {
        match self {
            Self::State(state) => state.to_object(),
            Self::Sent(value) => value.as_object().cloned().unwrap_or_default(),
        }
    }
}

/// What a node of a dynamic graph gives back: an update, and where to go besides its edges.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reply {
    /// What it writes.
    pub update: JsonUpdate,
    /// Where to go besides its edges.
    pub goto: Vec<Goto>,
    /// Set to end the whole graph in favour of the one around it.
    pub leave: Option<Leave>,
}

impl From<JsonUpdate> for Reply {
    fn from(update: JsonUpdate) -> Self {
        Self {
            update,
            ..Self::default()
        }
    }
}

/// A destination, by name.
#[derive(Debug, Clone, PartialEq)]
pub enum Goto {
    /// A node; triggered however often in a step, it is one task.
    Node(String),
    /// One more task of a node, fed with this instead of the state.
    Send(String, Value),
    /// Nothing.
    End,
}

/// What a node that ends its graph leaves to the graph around it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Leave {
    /// What the hosting node writes.
    pub update: JsonUpdate,
    /// Where the hosting node goes besides its edges.
    pub goto: Vec<Goto>,
}
