//! The model's reducers: how the updates of a step become a new state.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    body::Written,
    case::{Object, Reducer},
    mutation::Mutation,
};

type Channels = BTreeMap<String, Reducer>;

/// Two writers of a channel that takes one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Conflict {
    pub(super) channel: String,
    pub(super) first: usize,
    pub(super) second: usize,
}

/// The state before anything was written.
pub(super) fn start(channels: &Channels) -> Object {
    let value = |reducer: Reducer| match reducer {
        Reducer::Last => None,
        Reducer::Append | Reducer::Union | Reducer::Messages => Some(json!([])),
        Reducer::Add | Reducer::Max => Some(json!(0)),
        Reducer::MapMerge => Some(json!({})),
    };
    let started = channels
        .iter()
        .filter_map(|(name, reducer)| Some((name.clone(), value(*reducer)?)));
    started.collect()
}

/// Writes one update.
pub(super) fn apply(state: &mut Object, channels: &Channels, update: &[Written], mutation: Option<Mutation>) {
    for Written {
        channel,
        value,
        outright,
    } in update
    {
        let Some(reducer) = channels.get(channel) else { continue };
        let before = state.get(channel).cloned();
        let after = if *outright {
            value.clone()
        } else {
            reduce(*reducer, before, value.clone(), mutation)
        };
        state.insert(channel.clone(), after);
    }
}

/// Whole numbers for as long as they are in range.
fn added(a: &Value, b: &Value) -> Value {
    let whole = a.as_i64().zip(b.as_i64()).and_then(|(a, b)| a.checked_add(b));
    let real = || a.as_f64().unwrap_or_default() + b.as_f64().unwrap_or_default();
    whole.map_or_else(|| json!(real()), Value::from)
}

fn reduce(reducer: Reducer, before: Option<Value>, new: Value, mutation: Option<Mutation>) -> Value {
    let Some(before) = before else { return new };
    match reducer {
        Reducer::Last => new,
        Reducer::Append if mutation == Some(Mutation::AppendsInFront) => joined(new, before),
        Reducer::Append => joined(before, new),
        Reducer::Add => added(&before, &new),
        Reducer::Max if mutation == Some(Mutation::KeepsTheSmaller) => json!(number(&before).min(number(&new))),
        Reducer::Max => json!(number(&before).max(number(&new))),
        Reducer::Union => union(joined(before, new)),
        Reducer::MapMerge => {
            let mut map = before.as_object().cloned().unwrap_or_default();
            map.extend(new.as_object().cloned().unwrap_or_default());
            map.into()
        }
        Reducer::Messages => messages(before, new),
    }
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(list) => list,
        _ => Vec::new(),
    }
}

fn joined(first: Value, second: Value) -> Value {
    let mut all = list(first);
    all.extend(list(second));
    all.into()
}

/// Each once; strings first, by their bytes, then whatever else by its JSON text.
fn union(all: Value) -> Value {
    let text = |value: &Value| {
        (
            !value.is_string(),
            value.as_str().map_or_else(|| value.to_string(), str::to_owned),
        )
    };
    let mut all = list(all);
    all.sort_by_key(text);
    all.dedup();
    all.into()
}

fn messages(before: Value, new: Value) -> Value {
    let mut kept = list(before);
    for item in list(new) {
        let at = kept.iter().position(|known| known["id"] == item["id"]);
        match (at, item["remove"] == json!(true)) {
            (Some(at), true) => drop(kept.remove(at)),
            (Some(at), false) => kept[at] = item,
            (None, true) => {}
            (None, false) => kept.push(item),
        }
    }
    kept.into()
}

/// Merges the updates of a step in their order, or finds why they cannot be.
pub(super) fn merge(
    state: &mut Object,
    channels: &Channels,
    updates: &[Vec<Written>],
    mutation: Option<Mutation>,
) -> Result<(), Conflict> {
    let mut all: Vec<Vec<Written>> = updates.to_vec();
    if let Some(conflict) = conflict(channels, updates) {
        return Err(conflict);
    }
    drop_overwritten(&mut all)?;
    if mutation == Some(Mutation::MergesBackwards) {
        all.reverse();
    }
    for update in &all {
        apply(state, channels, update, mutation);
    }
    Ok(())
}

/// The same for a step that has not ended: nothing is refused.
pub(super) fn overlay(state: &mut Object, channels: &Channels, updates: &[Vec<Written>], mutation: Option<Mutation>) {
    let mut all: Vec<Vec<Written>> = updates.to_vec();
    // With two that set one channel outright, all that was written is shown.
    if drop_overwritten(&mut all).is_err() {
        all = updates.to_vec();
    }
    for update in &all {
        apply(state, channels, update, mutation);
    }
}

/// The first two writers of a channel that takes one write a step: by the second writer, then by channel.
fn conflict(channels: &Channels, updates: &[Vec<Written>]) -> Option<Conflict> {
    let mut writers: BTreeMap<&str, usize> = BTreeMap::new();
    for (second, update) in updates.iter().enumerate() {
        let mut names: Vec<&str> = update.iter().map(|written| written.channel.as_str()).collect();
        names.sort_unstable();
        for channel in names {
            if channels.get(channel) != Some(&Reducer::Last) {
                continue;
            }
            if let Some(first) = writers.insert(channel, second) {
                return Some(Conflict {
                    channel: channel.to_owned(),
                    first,
                    second,
                });
            }
        }
    }
    None
}

fn drop_overwritten(all: &mut [Vec<Written>]) -> Result<(), Conflict> {
    let mut only: BTreeMap<String, usize> = BTreeMap::new();
    for (second, update) in all.iter().enumerate() {
        let mut names: Vec<&str> = update
            .iter()
            .filter(|written| written.outright)
            .map(|written| written.channel.as_str())
            .collect();
        names.sort_unstable();
        for channel in names {
            if let Some(first) = only.insert(channel.to_owned(), second) {
                return Err(Conflict {
                    channel: channel.to_owned(),
                    first,
                    second,
                });
            }
        }
    }
    for (at, update) in all.iter_mut().enumerate() {
        update.retain(|written| only.get(&written.channel).is_none_or(|setter| *setter == at));
    }
    Ok(())
}
