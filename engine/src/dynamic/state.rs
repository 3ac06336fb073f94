//! A state of named channels.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Number, Value};

use super::{Channels, JsonInput, JsonUpdate, Merge, Write};
use crate::{
    run::{StoredOutput, decode_record},
    state::{Changes, Field, Mark, SECRET, State, StateError},
};

/// The state of a dynamic graph: a JSON value for each channel that has one.
#[derive(Clone)]
pub struct JsonState {
    channels: Channels,
    values: Vec<Option<Value>>,
}

/// Tells no secret.
impl fmt::Debug for JsonState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut hidden = self.clone();
        hidden.hide();
        f.debug_map().entries(hidden.iter()).finish()
    }
}

impl PartialEq for JsonState {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

/// How a channel is stored: its value, or what was put behind it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Effect<V> {
    Set(V),
    Append(V),
}

impl JsonState {
    fn new(channels: &Channels) -> Self {
        Self {
            values: channels.starts().collect(),
            channels: channels.clone(),
        }
    }

    /// A channel's value, if it has one.
    #[must_use]
    pub fn get(&self, channel: &str) -> Option<&Value> {
        let at = self.channels.position(channel)?;
        self.values.get(at)?.as_ref()
    }

    /// The channels that have a value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        let values = self.values.iter().enumerate();
        values.filter_map(|(at, value)| Some((self.channels.name(at), value.as_ref()?)))
    }

    /// The same as an object.
    #[must_use]
    pub fn to_object(&self) -> Map<String, Value> {
        self.iter()
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .collect()
    }

    /// What a run shows of it: the channels of [`Channels::outputs`].
    #[must_use]
    pub fn output(&self) -> Map<String, Value> {
        let shown = self
            .values
            .iter()
            .enumerate()
            .filter(|(at, _)| self.channels.is_output(*at));
        shown
            .filter_map(|(at, value)| Some((self.channels.name(at).to_owned(), value.clone()?)))
            .collect()
    }

    fn slot(&mut self, channel: &str) -> Result<&mut Option<Value>, StateError> {
        let at = self.channels.position(channel);
        let slot = at.and_then(|at| self.values.get_mut(at));
        slot.ok_or_else(|| StateError::Decode(format!("there is no channel `{channel}`")))
    }

    /// What is not a channel, or does not fit, is left out: whoever wants an error has checked before.
    fn write(&mut self, channel: &str, write: Write, changes: &mut Changes) {
        let Some(at) = self.channels.position(channel) else {
            return;
        };
        let merge = self.channels.merge(at);
        let Some(slot) = self.values.get_mut(at) else {
            return;
        };
        match write {
            Write::Overwrite(value) => {
                changes.set(at);
                *slot = Some(value);
            }
            Write::Reduce(value) => {
                let mark = match (merge, &*slot) {
                    (Merge::Append, Some(Value::Array(list))) => Mark::len(list.len()),
                    _ => Mark::WHOLE,
                };
                changes.touch(at, || mark);
                reduce(merge, slot, value);
            }
        }
    }
}

/// Lays a stored effect over what there is.
fn lay(slot: &mut Option<Value>, name: &str, effect: Effect<Value>) -> Result<(), StateError> {
    match (effect, slot) {
        (Effect::Set(value), slot) => *slot = Some(value),
        (Effect::Append(Value::Array(tail)), Some(Value::Array(list))) => list.extend(tail),
        (Effect::Append(_), _) => return Err(StateError::Decode(format!("channel `{name}` was no list"))),
    }
    Ok(())
}

/// A stored state as an object, whatever channels it had.
fn whole(parts: &[&[u8]]) -> Result<Map<String, Value>, StateError> {
    let mut values: BTreeMap<String, Option<Value>> = BTreeMap::new();
    for part in parts {
        for (name, effect) in decode_record::<BTreeMap<String, Effect<Value>>>(part)? {
            let slot = values.entry(name.clone()).or_default();
            lay(slot, &name, effect)?;
        }
    }
    Ok(values
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect())
}

fn reduce(merge: Merge, slot: &mut Option<Value>, new: Value) {
    match (merge, slot, new) {
        (Merge::Last, slot, new) => *slot = Some(new),
        (Merge::Append, Some(Value::Array(list)), Value::Array(new)) => list.extend(new),
        (Merge::Add, Some(Value::Number(sum)), Value::Number(new)) => *sum = add(sum, &new),
        (Merge::Max, Some(Value::Number(max)), Value::Number(new)) if larger(&new, max) => *max = new,
        (Merge::Union, Some(Value::Array(list)), Value::Array(new)) => {
            list.extend(new);
            list.sort_by(order);
            list.dedup();
        }
        (Merge::MapMerge, Some(Value::Object(map)), Value::Object(new)) => map.extend(new),
        (Merge::Messages, Some(Value::Array(list)), Value::Array(new)) => {
            for item in new {
                put(list, item);
            }
        }
        _ => {}
    }
}

fn add(a: &Number, b: &Number) -> Number {
    let whole = a.as_i64().zip(b.as_i64()).and_then(|(a, b)| a.checked_add(b));
    whole.map_or_else(
        || {
            let sum = a.as_f64().unwrap_or_default() + b.as_f64().unwrap_or_default();
            Number::from_f64(sum).unwrap_or_else(|| a.clone())
        },
        Number::from,
    )
}

fn larger(a: &Number, b: &Number) -> bool {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a > b,
        _ => a.as_f64() > b.as_f64(),
    }
}

fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.as_bytes().cmp(b.as_bytes()),
        (a, b) => a.to_string().cmp(&b.to_string()),
    }
}

fn put(list: &mut Vec<Value>, item: Value) {
    let id = item.get("id").cloned();
    let at = id.and_then(|id| list.iter().position(|known| known.get("id") == Some(&id)));
    let removes = item.get("remove").and_then(Value::as_bool).unwrap_or_default();
    match (at, removes) {
        (Some(at), true) => drop(list.remove(at)),
        (None, true) => {}
        (Some(at), false) => {
            if let Some(slot) = list.get_mut(at) {
                *slot = item;
            }
        }
        (None, false) => list.push(item),
    }
}

impl Serialize for JsonState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl State for JsonState {
    type Input = JsonInput;
    type Update = JsonUpdate;
    type Event = Value;
    type Shape = Channels;

    fn fields(shape: &Channels) -> &[Field] {
        shape.fields()
    }

    fn start(shape: &Channels, input: JsonInput) -> Self {
        let mut state = Self::new(shape);
        state.restart(input, &mut Changes::default());
        state
    }

    fn empty(shape: &Channels) -> Option<Self> {
        Some(Self::new(shape))
    }

    fn restart(&mut self, input: JsonInput, changes: &mut Changes) {
        self.apply(input.into(), changes);
    }

    fn apply(&mut self, update: JsonUpdate, changes: &mut Changes) {
        for (name, write) in update.into_writes() {
            self.write(&name, write, changes);
        }
    }

    fn has_secrets(&self) -> bool {
        self.channels.fields().iter().any(|field| field.secret)
    }

    fn hide(&mut self) {
        for (field, value) in self.channels.fields().iter().zip(&mut self.values) {
            if let (true, Some(value)) = (field.secret, value) {
                *value = SECRET.into();
            }
        }
    }

    fn encode(&self) -> Result<Vec<u8>, StateError> {
        let whole: BTreeMap<_, _> = self.iter().map(|(name, value)| (name, Effect::Set(value))).collect();
        rmp_serde::to_vec_named(&whole).map_err(|error| StateError::Encode(error.to_string()))
    }

    fn encode_changes(&self, changes: &Changes) -> Result<Vec<u8>, StateError> {
        let mut effects = BTreeMap::new();
        for (at, mark) in changes.iter() {
            let Some(Some(value)) = self.values.get(at) else {
                continue;
            };
            let tail = value.as_array().and_then(|list| list.get(mark.len_before()?..));
            let effect = match tail {
                Some(tail) => Effect::Append(Value::from(tail)),
                None => Effect::Set(value.clone()),
            };
            effects.insert(self.channels.name(at), effect);
        }
        rmp_serde::to_vec_named(&effects).map_err(|error| StateError::Encode(error.to_string()))
    }

    fn version(shape: &Channels) -> u32 {
        shape.inner().version
    }

    fn decode_version(shape: &Channels, version: u32, parts: &[&[u8]]) -> Result<Self, StateError> {
        if version == Self::version(shape) {
            return Self::decode(shape, parts);
        }
        let mut state = Self::new(shape);
        for (name, value) in shape.migrated(version, whole(parts)?)? {
            *state.slot(&name)? = Some(value);
        }
        Ok(state)
    }

    fn decode_kept(shape: &Channels, version: u32, body: &[u8]) -> Result<StoredOutput<JsonUpdate>, StateError> {
        let kept: StoredOutput<JsonUpdate> = decode_record(body)?;
        if version == Self::version(shape) {
            return Ok(kept);
        }
        shape
            .migrated_writes(version, &kept.update)
            .map(|update| kept.map(|_| update))
    }

    fn migrate_input(shape: &Channels, version: u32, input: JsonInput) -> Result<JsonInput, StateError> {
        shape.migrated_writes(version, &input)
    }

    fn decode(shape: &Channels, parts: &[&[u8]]) -> Result<Self, StateError> {
        let mut state = Self::new(shape);
        for part in parts {
            let effects: BTreeMap<String, Effect<Value>> =
                rmp_serde::from_slice(part).map_err(|error| StateError::Decode(error.to_string()))?;
            for (name, effect) in effects {
                lay(state.slot(&name)?, &name, effect)?;
            }
        }
        Ok(state)
    }
}
