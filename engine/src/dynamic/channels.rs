//! The channels of a dynamic graph: fields whose names and reducers are known at run time.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value, json};

use super::{JsonInput, JsonUpdate, Write, migrate::Migrate};
use crate::state::Field;

/// How a channel takes what is written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// Holds the newest write, one a step, and has no value until then.
    Last,
    /// A list; new items go behind the old. Starts empty.
    Append,
    /// A number; writes are added to it. Starts at 0.
    Add,
    /// A number; the larger one stays. Starts at 0.
    Max,
    /// A list without duplicates, kept sorted: strings bytewise, other values by their JSON text. Starts empty.
    Union,
    /// An object; keys of a write replace keys of the same name, one level deep. Starts empty.
    MapMerge,
    /// A list of objects with an `id`: a known id is replaced in place, `{"id", "remove": true}` removes, others go behind.
    /// Starts empty.
    Messages,
}

impl Merge {
    const fn id(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Append => "append",
            Self::Add => "add",
            Self::Max => "max",
            Self::Union => "union",
            Self::MapMerge => "map_merge",
            Self::Messages => "messages",
        }
    }

    pub(super) fn start(self) -> Option<Value> {
        match self {
            Self::Last => None,
            Self::Append | Self::Union | Self::Messages => Some(json!([])),
            Self::Add | Self::Max => Some(json!(0)),
            Self::MapMerge => Some(json!({})),
        }
    }

    /// What a write must be.
    const fn wants(self) -> &'static str {
        match self {
            Self::Last => "any value",
            Self::Append | Self::Union => "a list",
            Self::Messages => "a list of objects with an `id`",
            Self::Add | Self::Max => "a number",
            Self::MapMerge => "an object",
        }
    }

    fn takes(self, value: &Value) -> bool {
        match self {
            Self::Last => true,
            Self::Append | Self::Union => value.is_array(),
            Self::Messages => value
                .as_array()
                .is_some_and(|items| items.iter().all(|item| item.get("id").is_some())),
            Self::Add | Self::Max => value.is_number(),
            Self::MapMerge => value.is_object(),
        }
    }
}

/// The channels of a dynamic graph, in order. Cheap to clone.
///
/// ```
/// use stepgraph::dynamic::{Channels, Merge};
///
/// let channels = Channels::new([("question", Merge::Last), ("log", Merge::Append)])?.inputs(["question"])?;
/// assert_eq!(Channels::new([("n", Merge::Add), ("n", Merge::Last)]).unwrap_err().code(), "channel::duplicate");
/// # Ok::<(), stepgraph::dynamic::ChannelError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Channels(Arc<Inner>);

#[derive(Debug, Clone)]
pub(super) struct Inner {
    fields: Vec<Field>,
    merges: Vec<Merge>,
    positions: BTreeMap<String, usize>,
    inputs: Option<Vec<usize>>,
    outputs: Option<Vec<usize>>,
    pub(super) version: u32,
    pub(super) migrate: Option<Migrate>,
}

impl Channels {
    /// Channels by name.
    ///
    /// # Errors
    /// [`ChannelError::Duplicate`].
    pub fn new<N: Into<String>>(channels: impl IntoIterator<Item = (N, Merge)>) -> Result<Self, ChannelError> {
        let mut inner = Inner {
            fields: Vec::new(),
            merges: Vec::new(),
            positions: BTreeMap::new(),
            inputs: None,
            outputs: None,
            version: 1,
            migrate: None,
        };
        for (name, merge) in channels {
            let name = name.into();
            if inner.positions.insert(name.clone(), inner.fields.len()).is_some() {
                return Err(ChannelError::Duplicate(name));
            }
            inner.fields.push(Field::named(name, merge.id(), merge != Merge::Last));
            inner.merges.push(merge);
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Takes only these from a run's input.
    ///
    /// # Errors
    /// [`ChannelError::Unknown`].
    pub fn inputs<N: AsRef<str>>(self, names: impl IntoIterator<Item = N>) -> Result<Self, ChannelError> {
        let inputs = self.all(names)?;
        Ok(self.changed(|inner| inner.inputs = Some(inputs)))
    }

    /// Shows only these of a run's state, in [`JsonState::output`](super::JsonState::output).
    ///
    /// # Errors
    /// [`ChannelError::Unknown`].
    pub fn outputs<N: AsRef<str>>(self, names: impl IntoIterator<Item = N>) -> Result<Self, ChannelError> {
        let outputs = self.all(names)?;
        Ok(self.changed(|inner| inner.outputs = Some(outputs)))
    }

    /// Hides the values of these wherever a state or an update is shown: `"[secret]"` stands there.
    ///
    /// # Errors
    /// [`ChannelError::Unknown`].
    pub fn secret<N: AsRef<str>>(self, names: impl IntoIterator<Item = N>) -> Result<Self, ChannelError> {
        let secret = self.all(names)?;
        Ok(self.changed(|inner| {
            for at in secret {
                if let Some(field) = inner.fields.get_mut(at) {
                    field.secret = true;
                }
            }
        }))
    }

    /// Says which version of the stored form these channels are, and how an object of an older one becomes one of this:
    /// the whole state as it was stored, and also what tasks of an unfinished step have written, and an input that was not
    /// merged yet; those hold only some of the channels, and `{"__overwrite__": value}` where a node has set one outright.
    ///
    /// ```
    /// use stepgraph::dynamic::{Channels, Merge};
    ///
    /// let channels = Channels::new([("question", Merge::Last)])?.version(2, |_from, mut values| {
    ///     if let Some(query) = values.remove("query") {
    ///         values.insert("question".into(), query);
    ///     }
    ///     Ok(values)
    /// });
    /// # Ok::<(), stepgraph::dynamic::ChannelError>(())
    /// ```
    #[must_use]
    pub fn version(
        self,
        version: u32,
        migrate: impl Fn(u32, Map<String, Value>) -> Result<Map<String, Value>, String> + Send + Sync + 'static,
    ) -> Self {
        self.changed(|inner| {
            inner.version = version;
            inner.migrate = Some(Migrate(Arc::new(migrate)));
        })
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }

    fn changed(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        change(&mut inner);
        Self(Arc::new(inner))
    }

    fn all<N: AsRef<str>>(&self, names: impl IntoIterator<Item = N>) -> Result<Vec<usize>, ChannelError> {
        names.into_iter().map(|name| self.find(name.as_ref())).collect()
    }

    fn find(&self, name: &str) -> Result<usize, ChannelError> {
        self.position(name).ok_or_else(|| ChannelError::Unknown {
            channel: name.to_owned(),
            known: self.0.fields.iter().map(|field| field.name.to_string()).collect(),
        })
    }

    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.0.positions.get(name).copied()
    }

    pub(super) fn fields(&self) -> &[Field] {
        &self.0.fields
    }

    pub(super) fn merge(&self, at: usize) -> Merge {
        self.0.merges.get(at).copied().unwrap_or(Merge::Last)
    }

    pub(super) fn name(&self, at: usize) -> &str {
        self.0.fields.get(at).map_or("", |field| &field.name)
    }

    pub(super) fn starts(&self) -> impl Iterator<Item = Option<Value>> + '_ {
        self.0.merges.iter().map(|merge| merge.start())
    }

    pub(super) fn is_output(&self, at: usize) -> bool {
        self.0.outputs.as_ref().is_none_or(|outputs| outputs.contains(&at))
    }

    /// Whether every write of an update is to a channel and fits it.
    ///
    /// # Errors
    /// The first that is not, by name.
    pub fn check(&self, update: &JsonUpdate) -> Result<(), ChannelError> {
        for (name, write) in update.iter() {
            let at = self.find(name)?;
            self.fits(at, write)?;
        }
        Ok(())
    }

    fn fits(&self, at: usize, write: &Write) -> Result<(), ChannelError> {
        let (merge, value) = (self.merge(at), write.value());
        if merge.takes(value) {
            return Ok(());
        }
        Err(ChannelError::Unfit {
            channel: self.name(at).to_owned(),
            wants: merge.wants(),
            found: kind(value),
        })
    }

    /// A run's input, checked.
    ///
    /// # Errors
    /// [`ChannelError::Unknown`] for what is no channel, or none that takes input; [`ChannelError::Unfit`].
    pub fn input(&self, values: Map<String, Value>) -> Result<JsonInput, ChannelError> {
        for (name, value) in &values {
            let at = self.find(name)?;
            if !self.is_input(at) {
                return Err(ChannelError::NoInput(name.clone()));
            }
            self.fits(at, &Write::Reduce(value.clone()))?;
        }
        Ok(JsonInput::from(values))
    }

    fn is_input(&self, at: usize) -> bool {
        self.0.inputs.as_ref().is_none_or(|inputs| inputs.contains(&at))
    }

    /// An update without its writes to what is no channel.
    #[must_use]
    pub fn known(&self, mut update: JsonUpdate) -> JsonUpdate {
        update.retain(|name| self.position(name).is_some());
        update
    }

    /// An input without what is no channel, or none that takes input.
    #[must_use]
    pub fn known_input(&self, mut input: JsonInput) -> JsonInput {
        input.retain(|name| self.position(name).is_some_and(|at| self.is_input(at)));
        input
    }
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Why channels, or a write to one, do not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// Two channels of one name.
    #[error("channel `{0}` is declared twice: give each channel a name of its own")]
    Duplicate(String),
    /// There is no such channel.
    #[error("there is no channel `{channel}`: declare it, or write to one of {known:?}")]
    Unknown {
        /// The name.
        channel: String,
        /// The channels there are.
        known: Vec<String>,
    },
    /// The channel takes no input.
    #[error("channel `{0}` takes no input: leave it out, or name it in `inputs`")]
    NoInput(String),
    /// A value that its reducer cannot merge.
    #[error("channel `{channel}` takes {wants}, not {found}: write {wants}, or give the channel another reducer")]
    Unfit {
        /// The channel.
        channel: String,
        /// What it takes.
        wants: &'static str,
        /// What was written.
        found: &'static str,
    },
}

impl ChannelError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Duplicate(_) => "channel::duplicate",
            Self::Unknown { .. } => "channel::unknown",
            Self::NoInput(_) => "channel::no_input",
            Self::Unfit { .. } => "channel::unfit",
        }
    }
}
