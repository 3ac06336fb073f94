//! Reducers of collections: sets, maps, and lists of items with a key. The store keeps what was written, not the whole.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{BuildHasher, Hash},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned, de::Error as _};

use super::reducer::{Effect, Mark, Reducer};

/// What a collection's items must be so that it can be stored in parts.
pub trait StoredItem: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Clone + Serialize + DeserializeOwned + Send + Sync + 'static> StoredItem for T {}

/// Adds the items of each update that are not there yet: to a `BTreeSet`, a `HashSet`, or a `Vec`, which it keeps sorted.
/// The store keeps what was added in a step; the bytes of a `HashSet` follow no order.
///
/// ```
/// use std::collections::BTreeSet;
/// use stepgraph::{Reducer, Union};
///
/// let mut tags = vec!["b", "c"].into_iter().map(String::from).collect::<Vec<_>>();
/// Union::reduce(&mut tags, vec!["c".to_string(), "a".to_string()]);
/// assert_eq!(tags, ["a", "b", "c"]);
/// let mut seen = BTreeSet::from([1, 2]);
/// Union::reduce(&mut seen, BTreeSet::from([2, 3]));
/// assert_eq!(seen, BTreeSet::from([1, 2, 3]));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Union;

/// Puts the entries of each update into a `BTreeMap` or `HashMap`: a key that is there gets the new value. One level deep:
/// values are replaced, not merged. The store keeps the entries that were written in a step.
///
/// ```
/// use std::collections::BTreeMap;
/// use stepgraph::{MergeMap, Reducer};
///
/// let mut prices = BTreeMap::from([("tea", 2), ("milk", 1)]);
/// # let mut prices: BTreeMap<String, i32> = prices.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
/// MergeMap::reduce(&mut prices, BTreeMap::from([("tea".to_string(), 3)]));
/// assert_eq!(prices["tea"], 3);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct MergeMap;

/// Changes a list of items by their keys: an item whose key is known takes the old one's place, another goes behind the
/// list, and [`Change::Remove`] takes one out. The store keeps the changed items. Each change looks through the list once.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use stepgraph::{Change, Keyed, Reducer, Upsert};
///
/// #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
/// struct Message { id: u64, text: String }
///
/// impl Keyed for Message {
///     type Key = u64;
///     fn key(&self) -> &u64 { &self.id }
/// }
///
/// let message = |id, text: &str| Message { id, text: text.into() };
/// let mut messages = vec![message(1, "hello"), message(2, "world")];
/// Upsert::reduce(&mut messages, vec![Change::put(message(1, "hi")), Change::remove(2_u64)]);
/// assert_eq!(messages, [message(1, "hi")]);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Upsert;

/// An item that a list knows by its key, for [`Upsert`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no key to be known by",
    note = "implement `Keyed` for `{Self}`: say which of its fields is the key"
)]
pub trait Keyed {
    /// What tells one item from the others.
    type Key: Ord + StoredItem;

    /// The item's key.
    fn key(&self) -> &Self::Key;
}

/// A change of a list by keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "snake_case",
    bound(serialize = "T: Serialize", deserialize = "T: DeserializeOwned")
)]
pub enum Change<T: Keyed> {
    /// Puts an item in the place of the one with its key, or behind the list.
    Put(T),
    /// Takes out the item of this key, if it is there.
    Remove(T::Key),
}

impl<T: Keyed> Change<T> {
    /// Puts an item in the place of the one with its key, or behind the list.
    pub const fn put(item: T) -> Self {
        Self::Put(item)
    }

    /// Takes out the item of this key, if it is there.
    pub fn remove(key: impl Into<T::Key>) -> Self {
        Self::Remove(key.into())
    }
}

impl<T: Keyed> From<T> for Change<T> {
    fn from(item: T) -> Self {
        Self::Put(item)
    }
}

/// Applies a stored effect: a whole value, or a part that is merged once more.
fn restore<'de, T: DeserializeOwned, U: DeserializeOwned, D: Deserializer<'de>>(
    slot: &mut Option<T>,
    effect: D,
    merge: impl FnOnce(&mut T, U),
) -> Result<(), D::Error> {
    match (Effect::<T, U>::deserialize(effect)?, slot) {
        (Effect::Set(value), slot) => *slot = Some(value),
        (Effect::Merge(part), Some(value)) => merge(value, part),
        (Effect::Merge(_), None) => return Err(D::Error::custom("a part is stored before any value")),
        (Effect::Append(_), _) => return Err(D::Error::custom("an appended tail is stored for a field that merges")),
    }
    Ok(())
}

impl<T: Ord + StoredItem> Reducer<Vec<T>> for Union {
    type Update = Vec<T>;
    const ID: &'static str = "union";
    const CONCURRENT: bool = true;

    fn first(update: Vec<T>) -> Vec<T> {
        let mut list = Vec::new();
        Self::reduce(&mut list, update);
        list
    }

    fn reduce(current: &mut Vec<T>, update: Vec<T>) {
        current.extend(update);
        // Stable, so that of two equal items the older one stays.
        current.sort();
        current.dedup();
    }

    fn mark(_: &Vec<T>) -> Mark {
        Mark::notes::<T>()
    }

    fn note(mark: &mut Mark, update: &Vec<T>) {
        mark.add_notes(update.iter().cloned());
    }

    fn effect(current: &Vec<T>, mark: &Mark) -> impl Serialize {
        mark.noted::<T>()
            .map_or(Effect::Set(current.as_slice()), Effect::<_, &[T]>::Merge)
    }

    fn restore<'de, D: Deserializer<'de>>(slot: &mut Option<Vec<T>>, effect: D) -> Result<(), D::Error> {
        restore(slot, effect, <Self as Reducer<Vec<T>>>::reduce)
    }
}

macro_rules! union_of_sets {
    ($set:ty, [$($generics:tt)*]) => {
        impl<T: $($generics)* Reducer<$set> for Union {
            type Update = $set;
            const ID: &'static str = "union";
            const CONCURRENT: bool = true;

            fn first(update: $set) -> $set {
                update
            }

            fn reduce(current: &mut $set, update: $set) {
                current.extend(update);
            }

            fn mark(_: &$set) -> Mark {
                Mark::notes::<T>()
            }

            fn note(mark: &mut Mark, update: &$set) {
                mark.add_notes(update.iter().cloned());
            }

            fn effect(current: &$set, mark: &Mark) -> impl Serialize
            where
                $set: Serialize,
            {
                mark.noted::<T>().map_or(Effect::Set(current), Effect::<_, &[T]>::Merge)
            }

            fn restore<'de, D: Deserializer<'de>>(slot: &mut Option<$set>, effect: D) -> Result<(), D::Error>
            where
                $set: DeserializeOwned,
            {
                restore(slot, effect, |set: &mut $set, added: Vec<T>| set.extend(added))
            }
        }
    };
}
union_of_sets!(BTreeSet<T>, [Ord + StoredItem>]);
union_of_sets!(HashSet<T, H>, [Eq + Hash + StoredItem, H: BuildHasher + Default>]);

/// Entries of a map, written as a map.
struct Entries<'a, K, V>(Vec<(&'a K, &'a V)>);

impl<K: Serialize, V: Serialize> Serialize for Entries<'_, K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

macro_rules! merge_of_maps {
    ($map:ty, [$($generics:tt)*]) => {
        impl<K: $($generics)* Reducer<$map> for MergeMap {
            type Update = $map;
            const ID: &'static str = "merge_map";
            const CONCURRENT: bool = true;

            fn first(update: $map) -> $map {
                update
            }

            fn reduce(current: &mut $map, update: $map) {
                current.extend(update);
            }

            fn mark(_: &$map) -> Mark {
                Mark::notes::<K>()
            }

            fn note(mark: &mut Mark, update: &$map) {
                mark.add_notes(update.keys().cloned());
            }

            fn effect(current: &$map, mark: &Mark) -> impl Serialize
            where
                $map: Serialize,
            {
                let entries = |keys: &[K]| keys.iter().filter_map(|key| current.get_key_value(key)).collect();
                mark.noted::<K>()
                    .map_or(Effect::Set(current), |keys| Effect::Merge(Entries(entries(keys))))
            }

            fn restore<'de, D: Deserializer<'de>>(slot: &mut Option<$map>, effect: D) -> Result<(), D::Error>
            where
                $map: DeserializeOwned,
            {
                restore(slot, effect, |map: &mut $map, part: $map| map.extend(part))
            }
        }
    };
}
merge_of_maps!(BTreeMap<K, V>, [Ord + StoredItem, V: StoredItem>]);
merge_of_maps!(HashMap<K, V, H>, [Eq + Hash + StoredItem, V: StoredItem, H: BuildHasher + Default>]);

/// What was written of a key in a step.
struct Note<K> {
    key: K,
    removed: bool,
}

/// The changes that make the list before a step into the list after it.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum ChangeRef<'a, 'n, T: Keyed> {
    Put(&'a T),
    Remove(&'n T::Key),
}

/// First whatever was ever removed, then every changed item in its order: an item that was taken out and put back stands
/// behind the list, where putting it alone would leave it in its old place.
fn changes<'a, 'n, T: Keyed>(current: &'a [T], notes: &'n [Note<T::Key>]) -> Vec<ChangeRef<'a, 'n, T>> {
    let removed: BTreeSet<&'n T::Key> = notes.iter().filter(|note| note.removed).map(|note| &note.key).collect();
    let mut written: BTreeSet<&T::Key> = notes.iter().map(|note| &note.key).collect();
    let mut changes: Vec<_> = removed.into_iter().map(ChangeRef::Remove).collect();
    // Of two items with one key, which a list given as a whole may have, only the first is ever changed.
    changes.extend(
        current
            .iter()
            .filter(|item| written.remove(item.key()))
            .map(ChangeRef::Put),
    );
    changes
}

impl<T: Keyed + StoredItem> Reducer<Vec<T>> for Upsert {
    type Update = Vec<Change<T>>;
    const ID: &'static str = "upsert";
    const CONCURRENT: bool = true;

    fn first(update: Vec<Change<T>>) -> Vec<T> {
        let mut list = Vec::new();
        Self::reduce(&mut list, update);
        list
    }

    fn reduce(current: &mut Vec<T>, update: Vec<Change<T>>) {
        for change in update {
            match change {
                Change::Put(item) => match current.iter_mut().find(|known| known.key() == item.key()) {
                    Some(known) => *known = item,
                    None => current.push(item),
                },
                Change::Remove(key) => current.retain(|known| *known.key() != key),
            }
        }
    }

    fn mark(_: &Vec<T>) -> Mark {
        Mark::notes::<Note<T::Key>>()
    }

    fn note(mark: &mut Mark, update: &Vec<Change<T>>) {
        mark.add_notes(update.iter().map(|change| match change {
            Change::Put(item) => Note {
                key: item.key().clone(),
                removed: false,
            },
            Change::Remove(key) => Note {
                key: key.clone(),
                removed: true,
            },
        }));
    }

    fn effect(current: &Vec<T>, mark: &Mark) -> impl Serialize {
        mark.noted::<Note<T::Key>>()
            .map_or(Effect::Set(current.as_slice()), |notes| {
                Effect::Merge(changes(current, notes))
            })
    }

    fn restore<'de, D: Deserializer<'de>>(slot: &mut Option<Vec<T>>, effect: D) -> Result<(), D::Error> {
        restore(slot, effect, <Self as Reducer<Vec<T>>>::reduce)
    }
}
