//! The typed state of a graph, and what `#[derive(State)]` promises of it.

mod changes;
mod collection;
mod fields;
mod read;
mod reducer;
mod secret;
pub(crate) mod writes;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

pub(crate) use self::secret::{hidden, hide_members};
pub use self::{
    changes::{Changes, StateError},
    collection::{Change, Keyed, MergeMap, StoredItem, Union, Upsert},
    fields::{Field, FieldSet},
    read::FromState,
    reducer::{Append, Mark, Max, NOTES_MAX, Reducer, Replace, Sum, restore_whole},
    secret::{SECRET, shown_with},
};

/// The state that flows through a graph: named fields, each with a reducer that merges updates into it.
///
/// Write it by `#[derive(State)]` on a struct with named fields:
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use stepgraph::{Append, State, Sum};
///
/// #[derive(State, Clone, Serialize, Deserialize)]
/// struct Chat {
///     #[state(input)]
///     question: String,
///     #[state(per_run, reducer = Append)]
///     sources: Vec<String>,
///     #[state(reducer = Sum)]
///     tokens: u64,
///     #[state(per_run)]
///     answer: Option<String>,
/// }
///
/// let input = ChatInput { question: "why?".into() };
/// let update = Chat::update().sources(["manual".to_string()]).tokens(12_u64);
/// # let _ = (input, update);
/// ```
///
/// | attribute | meaning |
/// |---|---|
/// | `#[state(event = E)]` on the struct | what nodes may emit; `()` otherwise |
/// | `#[state(version = 2)]` on the struct | version of the stored form, 1 otherwise |
/// | `#[state(from = ChatV1)]` on the struct | what it was in an older version; needs `From` for the state and for its update |
/// | `#[state(input_derive(T, ..))]` on the struct | more derives on `{Name}Input`, such as `schemars::JsonSchema` |
/// | `input` | the field is part of `{Name}Input`: set when a run starts |
/// | `input, default = expr` | the same, and it may be left out, also by threads of before the field was added |
/// | `reducer = R` | how updates merge; [`Replace`] otherwise |
/// | `per_run` | reset to its default when new input arrives on the thread |
/// | `untracked` | never stored; its default after a reload |
/// | `secret` | stored and given to nodes, and shown to nobody: see below |
///
/// | reducer | fields | an update | stored of a step |
/// |---|---|---|---|
/// | [`Replace`] | any | is the new value; one writer a step | the value |
/// | [`Append`] | `Vec` | goes behind the list | the new tail |
/// | [`Sum`], [`Max`] | numbers, ordered types | is added; stays if it is the largest | the value |
/// | [`Union`] | `BTreeSet`, `HashSet`, `Vec` (kept sorted) | adds what is not there | what was added |
/// | [`MergeMap`] | `BTreeMap`, `HashMap` | its keys replace | the written entries |
/// | [`Upsert`] | `Vec` of [`Keyed`] items | puts and removes by key | the changed items |
/// | your own [`Reducer`] | | | the value, unless it says otherwise |
///
/// A node may pass any of them but `Replace` over: `Chat::update().overwrite_sources(vec![])` sets the value outright. What
/// else the step writes to that field is dropped, and two such writes in one step are a conflict.
///
/// A field marked `secret` is stored (sealed, if the store seals) and given to nodes like any other. Wherever a state or an
/// update is shown it is left out: events carry the default of its type in its place, what becomes JSON for people or other
/// programs says [`"[secret]"`](SECRET), and `Debug` of the state is written by the derive, so that one that tells it does
/// not compile. A view that reads it says `#[view(secret)]`. What a run gives back to the program that has called it
/// ([`Outcome`](crate::Outcome), [`Graph::state`](crate::Graph::state)) is whole, and so are the lines of
/// [`Graph::export`](crate::Graph::export): they are the thread. What a node itself puts elsewhere (another field, an event,
/// an error, a question, an item of a fan-out, the node cache) is not hidden there.
///
/// The derive writes `{Name}Update`, which holds what was given to its setters and no more, however many fields the state
/// has; `{Name}UpdateFields`, the same as a struct with every field optional, in its reducer's update type, to be read and
/// written as a whole (`update.into_fields()`, and `From` back); and `{Name}Input`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a graph state",
    note = "add `#[derive(State)]` to `{Self}`"
)]
pub trait State: Clone + Serialize + Send + Sync + 'static {
    /// What a run starts with.
    type Input: Clone + Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What a node gives back: some of the fields.
    type Update: Update;
    /// What nodes may emit while they run.
    type Event: Send + 'static;
    /// What must be known to make a state: `()` for a derived one, whose fields are in its type.
    type Shape: Clone + Send + Sync + 'static;

    /// Version of the stored form.
    const VERSION: u32 = 1;

    /// What secret fields are called in the state's JSON.
    const SECRETS: &'static [&'static str] = &[];

    /// The fields, in the order of their bits in a [`FieldSet`].
    fn fields(shape: &Self::Shape) -> &[Field];

    /// The state of a new thread.
    fn start(shape: &Self::Shape, input: Self::Input) -> Self;

    /// The state of a thread before its first input, if such a state can be: every field has a value without input.
    #[must_use]
    fn empty(_shape: &Self::Shape) -> Option<Self> {
        None
    }

    /// New input on an old thread: per-run fields go back to their defaults, then the input is merged.
    fn restart(&mut self, input: Self::Input, changes: &mut Changes);

    /// Merges an update, field by field, and notes in `changes` what it touched.
    fn apply(&mut self, update: Self::Update, changes: &mut Changes);

    /// Merges an update where it lies. What is left in it is of no use any more.
    fn take_in(&mut self, update: &mut Self::Update, changes: &mut Changes) {
        self.apply(std::mem::take(update), changes);
    }

    /// Whether there is anything to [`hide`](Self::hide).
    #[must_use]
    fn has_secrets(&self) -> bool {
        false
    }

    /// Takes the values of secret fields out, each for the default of its type.
    fn hide(&mut self) {}

    /// The state as JSON for people and other programs: `"[secret]"` stands for each secret field.
    ///
    /// # Errors
    /// [`StateError::Encode`] if a field does not become JSON.
    fn shown(&self) -> Result<Value, StateError> {
        if !self.has_secrets() {
            return shown_with(self, &[]);
        }
        let mut hidden = self.clone();
        hidden.hide();
        shown_with(&hidden, Self::SECRETS)
    }

    /// Encodes every stored field.
    fn encode(&self) -> Result<Vec<u8>, StateError>;

    /// Encodes the effects of `changes`: appended tails, new values; never what a reducer was given.
    fn encode_changes(&self, changes: &Changes) -> Result<Vec<u8>, StateError>;

    /// The bytes of [`encode`](Self::encode), behind what `out` holds already: memory that is used again.
    fn encode_to(&self, out: &mut Vec<u8>) -> Result<(), StateError> {
        out.append(&mut self.encode()?);
        Ok(())
    }

    /// The same with the bytes of [`encode_changes`](Self::encode_changes).
    fn encode_changes_to(&self, changes: &Changes, out: &mut Vec<u8>) -> Result<(), StateError> {
        out.append(&mut self.encode_changes(changes)?);
        Ok(())
    }

    /// Rebuilds a state from [`encode`](Self::encode)'s bytes and the changes that followed, without running reducers.
    fn decode(shape: &Self::Shape, parts: &[&[u8]]) -> Result<Self, StateError>;

    /// Version of the stored form of a state of this shape.
    #[must_use]
    fn version(_shape: &Self::Shape) -> u32 {
        Self::VERSION
    }

    /// Rebuilds a state that was stored in this version of its form, and migrates it.
    ///
    /// # Errors
    /// [`StateError::Version`] if there is no way from that version.
    fn decode_version(shape: &Self::Shape, version: u32, parts: &[&[u8]]) -> Result<Self, StateError> {
        same_version(version, Self::version(shape))?;
        Self::decode(shape, parts)
    }

    /// Reads what a task gave back in this version of the state's form, and migrates its update.
    #[doc(hidden)]
    fn decode_kept(
        shape: &Self::Shape,
        version: u32,
        body: &[u8],
    ) -> Result<crate::run::StoredOutput<Self::Update>, StateError> {
        same_version(version, Self::version(shape))?;
        crate::run::decode_record(body)
    }

    /// Migrates an input that was admitted in this version of the state's form and not merged yet.
    #[doc(hidden)]
    fn migrate_input(shape: &Self::Shape, version: u32, input: Self::Input) -> Result<Self::Input, StateError> {
        same_version(version, Self::version(shape)).map(|()| input)
    }

    /// The versions of the stored form that can be read, each with its fields: they were part of a graph's fingerprint.
    #[doc(hidden)]
    fn forms(shape: &Self::Shape) -> Vec<(u32, Vec<Field>)> {
        vec![(Self::version(shape), Self::fields(shape).to_vec())]
    }

    /// An update that changes nothing, to be filled by its setters.
    #[must_use]
    fn update() -> Self::Update {
        Self::Update::default()
    }
}

/// Some fields of a state, to be merged by their reducers. Written by `#[derive(State)]`.
pub trait Update: Default + Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The fields it writes, by their position among `fields`.
    fn touched(&self, fields: &[Field]) -> FieldSet;

    /// Whether it writes none.
    fn is_empty(&self) -> bool;

    /// The fields whose value it sets whatever else is written to them in the same step.
    fn overwritten(&self, _fields: &[Field]) -> FieldSet {
        FieldSet::new()
    }

    /// Takes out what it writes to one field.
    fn forget(&mut self, _fields: &[Field], _field: usize) {}

    /// Takes the values for secret fields out. That they are written still shows.
    fn hide(&mut self, _fields: &[Field]) {}

    /// The update as JSON for people and other programs: `"[secret]"` stands for what it writes to a secret field.
    ///
    /// # Errors
    /// [`StateError::Encode`] if a value does not become JSON.
    fn shown(&self) -> Result<Value, StateError> {
        shown_with(self, &[])
    }
}

/// For a field of an update: a value that is there is `Some`, so that `null` and absent stay distinct.
#[doc(hidden)]
pub fn present<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The error of a form that can only be read as it is.
pub(crate) const fn same_version(stored: u32, known: u32) -> Result<(), StateError> {
    if stored == known {
        Ok(())
    } else {
        Err(StateError::Version { stored, known })
    }
}
