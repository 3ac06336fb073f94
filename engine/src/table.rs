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
    number: u64,
    key: ThreadKey,
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

/// A row, found again without its key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowId {
    place: Place,
    number: u64,
}

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

    /// The part that a row lies in.
    pub(crate) fn lock_row(&self, id: RowId) -> Part<'_, T> {
        self.lock(id.place)
    }

    /// Every part, one after another.
    pub(crate) fn all(&self) -> impl Iterator<Item = Part<'_, T>> {
        let parts = self.parts.iter();
        parts.map(|part| Part(part.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl<T> Part<'_, T> {
    pub(crate) fn get(&self, place: Place, key: &ThreadKey) -> Option<&T> {
        self.0
            .table
            .find(place.hash, |row| row.key == *key)
            .map(|row| &row.value)
    }

    /// A number above all that were drawn in this part, for rows and others.
    pub(crate) fn draw(&mut self) -> u64 {
        self.0.count += 1;
        self.0.count
    }

    /// Puts a value where none is, made with the number that is drawn for its row. Gives the row, and the value that lies
    /// there otherwise.
    pub(crate) fn insert_new(
        &mut self,
        place: Place,
        key: &ThreadKey,
        value: impl FnOnce(u64) -> T,
    ) -> (RowId, Option<&mut T>) {
        let Rows { table, count } = &mut *self.0;
        match table.entry(place.hash, |row| row.key == *key, |row| row.hash) {
            Found::Occupied(found) => {
                let row = found.into_mut();
                let number = row.number;
                (RowId { place, number }, Some(&mut row.value))
            }
            Found::Vacant(room) => {
                *count += 1;
                let number = *count;
                room.insert(Row {
                    hash: place.hash,
                    number,
                    key: key.clone(),
                    value: value(number),
                });
                (RowId { place, number }, None)
            }
        }
    }

    /// Takes a row out, unless it is to stay.
    pub(crate) fn remove_unless(&mut self, id: RowId, stays: impl FnOnce(&mut T) -> bool) {
        let found = self.0.table.find_entry(id.place.hash, |row| row.number == id.number);
        if let Ok(mut found) = found
            && !stays(&mut found.get_mut().value)
        {
            found.remove();
        }
    }

    /// Takes out what `goes` says.
    pub(crate) fn take(&mut self, goes: impl Fn(&ThreadKey) -> bool) -> Vec<T> {
        let taken = self.0.table.extract_if(|row| goes(&row.key));
        taken.map(|row| row.value).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ThreadKey, &T)> {
        self.0.table.iter().map(|row| (&row.key, &row.value))
    }
}
