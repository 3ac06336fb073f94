//! Values by thread, in parts that are locked apart.

use std::{
    fmt,
    hash::{BuildHasher, Hash, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
};

use hashbrown::{DefaultHashBuilder, HashTable, hash_table::Entry as Found};

use crate::id::ThreadKey;

/// How many parts: more than any machine's cores wait for at once.
const PARTS: usize = 32;

/// What lies in a table knows whose it is, so that a row of a large table is small.
pub(crate) trait Keyed {
    fn key(&self) -> &ThreadKey;
}

/// Values by thread. A thread with all its namespaces lies in one part.
pub(crate) struct Table<T> {
    parts: [Mutex<Rows<T>>; PARTS],
    hasher: DefaultHashBuilder,
}

struct Rows<T> {
    table: HashTable<Row<T>>,
    /// The newest number that was drawn.
    count: u64,
}

/// A key is hashed once, and a part that grows hashes none again.
struct Row<T> {
    hash: u64,
    value: T,
}

/// Where a key lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    part: usize,
    hash: u64,
}

/// A part of a table, locked.
pub(crate) struct Part<'a, T>(MutexGuard<'a, Rows<T>>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            parts: std::array::from_fn(|_| {
                Mutex::new(Rows {
                    table: HashTable::new(),
                    count: 0,
                })
            }),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").finish_non_exhaustive()
    }
}

impl<T> Table<T> {
    pub(crate) fn place(&self, key: &ThreadKey) -> Place {
        let mut hasher = self.hasher.build_hasher();
        key.tenant.hash(&mut hasher);
        key.thread.hash(&mut hasher);
        let thread = hasher.finish();
        // The table itself looks at the highest bits and the lowest.
        let part = usize::try_from((thread >> 40) % PARTS as u64).unwrap_or_default();
        let hash = if key.namespace.is_root() {
            thread
        } else {
            self.hasher.hash_one((thread, &key.namespace))
        };
        Place { part, hash }
    }

    /// The part that a place lies in.
    pub(crate) fn lock(&self, place: Place) -> Part<'_, T> {
        let [first, ..] = &self.parts;
        let part = self.parts.get(place.part).unwrap_or(first);
        Part(part.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every part, one after another.
    pub(crate) fn all(&self) -> impl Iterator<Item = Part<'_, T>> {
        let parts = self.parts.iter();
        parts.map(|part| Part(part.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl<T: Keyed> Part<'_, T> {
    pub(crate) fn get(&self, place: Place, key: &ThreadKey) -> Option<&T> {
        self.0
            .table
            .find(place.hash, |row| row.hash == place.hash && row.value.key() == key)
            .map(|row| &row.value)
    }

    /// A number above all that were drawn in this part.
    pub(crate) fn draw(&mut self) -> u64 {
        self.0.count += 1;
        self.0.count
    }

    /// Puts a value where none is, made with a number that is drawn for it. Gives the value that lies there otherwise.
    pub(crate) fn insert_new(&mut self, place: Place, key: &ThreadKey, value: impl FnOnce(u64) -> T) -> Option<&mut T> {
        let Rows { table, count } = &mut *self.0;
        // Another row's key is looked at only where its hash is the same: it may lie far away.
        let same = |row: &Row<T>| row.hash == place.hash && row.value.key() == key;
        match table.entry(place.hash, same, |row| row.hash) {
            Found::Occupied(found) => Some(&mut found.into_mut().value),
            Found::Vacant(room) => {
                *count += 1;
                room.insert(Row {
                    hash: place.hash,
                    value: value(*count),
                });
                None
            }
        }
    }

    /// Takes out what `is` says of what lies in this place, unless it is to stay.
    pub(crate) fn remove_unless(&mut self, place: Place, is: impl Fn(&T) -> bool, stays: impl FnOnce(&mut T) -> bool) {
        let found = self.0.table.find_entry(place.hash, |row| is(&row.value));
        if let Ok(mut found) = found
            && !stays(&mut found.get_mut().value)
        {
            found.remove();
        }
    }

    /// Takes out what `goes` says.
    pub(crate) fn take(&mut self, goes: impl Fn(&ThreadKey) -> bool) -> Vec<T> {
        let taken = self.0.table.extract_if(|row| goes(row.value.key()));
        taken.map(|row| row.value).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ThreadKey, &T)> {
        self.0.table.iter().map(|row| (row.value.key(), &row.value))
    }
}
