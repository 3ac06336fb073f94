//! The updates of a step become one new state. Pure: values in, values out.

use crate::state::{Changes, Field, State, Update};

/// Two tasks of one step wrote a field that takes one write a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// Position of the field.
    pub(crate) field: usize,
    /// Position, among the updates, of the first writer.
    pub(crate) first: usize,
    /// Position of the second.
    pub(crate) second: usize,
}

/// Merges `updates` in their order: by node name, then send index. Conflicts are found before anything is changed. Where
/// one update overwrites a field, what the others write to it is dropped. `begins` is told the position of each update
/// before its reducers are called.
pub(crate) fn merge<S: State>(
    state: &mut S,
    fields: &[Field],
    mut updates: Vec<S::Update>,
    changes: &mut Changes,
    begins: impl Fn(usize),
) -> Result<(), Conflict> {
    if updates.len() > 1 {
        conflict(fields, &updates).map_or(Ok(()), Err)?;
        drop_overwritten(fields, &mut updates)?;
    }
    for (at, update) in updates.into_iter().enumerate() {
        begins(at);
        state.apply(update, changes);
    }
    Ok(())
}

/// What the updates of an unfinished step make of a state, to be shown: a conflict is for its end to tell.
pub(crate) fn overlay<S: State>(state: &mut S, fields: &[Field], mut updates: Vec<S::Update>, changes: &mut Changes) {
    // With a conflict all writes are shown.
    let _conflict = drop_overwritten(fields, &mut updates);
    for update in updates {
        state.apply(update, changes);
    }
}

/// Takes out what others write to a field that one update overwrites.
fn drop_overwritten<U: Update>(fields: &[Field], updates: &mut [U]) -> Result<(), Conflict> {
    for (field, only) in overwrites(fields, updates)? {
        let others = updates.iter_mut().enumerate().filter(|(at, _)| *at != only);
        for (_, update) in others {
            update.forget(fields, field);
        }
    }
    Ok(())
}

fn conflict<U: Update>(fields: &[Field], updates: &[U]) -> Option<Conflict> {
    let mut writers = vec![None; fields.len()];
    for (second, update) in updates.iter().enumerate() {
        for field in update.touched(fields).iter() {
            if fields.get(field).is_some_and(|known| known.concurrent) {
                continue;
            }
            let Some(writer) = writers.get_mut(field) else { continue };
            if let Some(first) = writer.replace(second) {
                return Some(Conflict { field, first, second });
            }
        }
    }
    None
}

/// Which update overwrites which field; two of one field are a conflict.
fn overwrites<U: Update>(fields: &[Field], updates: &[U]) -> Result<Vec<(usize, usize)>, Conflict> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (second, update) in updates.iter().enumerate() {
        for field in update.overwritten(fields).iter() {
            if let Some((_, first)) = found.iter().find(|(known, _)| *known == field) {
                let first = *first;
                return Err(Conflict { field, first, second });
            }
            found.push((field, second));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::state::{FieldSet, StateError};

    /// A state of so many fields, each a list of what was written to it: to the end of it if the field is concurrent,
    /// instead of it otherwise.
    #[derive(Debug, Clone, PartialEq, Serialize)]
    struct Cells(Vec<(bool, Vec<u32>)>);

    #[derive(Debug, Default, Clone, Serialize, Deserialize)]
    struct Writes(BTreeMap<usize, u32>);

    impl Update for Writes {
        fn touched(&self, _: &[Field]) -> FieldSet {
            let mut set = FieldSet::new();
            for field in self.0.keys() {
                set.insert(*field);
            }
            set
        }

        fn is_empty(&self) -> bool {
            self.0.is_empty()
        }
    }

    impl State for Cells {
        type Input = ();
        type Update = Writes;
        type Event = ();
        type Shape = Vec<Field>;

        fn fields(shape: &Self::Shape) -> &[Field] {
            shape
        }

        fn start(shape: &Self::Shape, (): ()) -> Self {
            Self(shape.iter().map(|field| (field.concurrent, Vec::new())).collect())
        }

        fn restart(&mut self, (): (), _: &mut Changes) {}

        fn apply(&mut self, update: Writes, changes: &mut Changes) {
            for (field, value) in update.0 {
                changes.set(field);
                let (concurrent, cell) = &mut self.0[field];
                if !*concurrent {
                    cell.clear();
                }
                cell.push(value);
            }
        }

        fn encode(&self) -> Result<Vec<u8>, StateError> {
            Err(StateError::Encode("nothing is stored here".to_owned()))
        }

        fn encode_changes(&self, _: &Changes) -> Result<Vec<u8>, StateError> {
            self.encode()
        }

        fn decode(_: &Self::Shape, _: &[&[u8]]) -> Result<Self, StateError> {
            Err(StateError::Decode("nothing is stored here".to_owned()))
        }
    }

    /// Fields beyond the first word of a set are among them.
    fn step() -> impl Strategy<Value = (Vec<Field>, Vec<Writes>)> {
        vec(any::<bool>(), 1..130).prop_flat_map(|concurrent| {
            let count = concurrent.len();
            let fields: Vec<_> = concurrent
                .into_iter()
                .enumerate()
                .map(|(at, concurrent)| Field::named(at.to_string(), "test", concurrent))
                .collect();
            let update = prop::collection::btree_map(0..count, any::<u32>(), 0..5).prop_map(Writes);
            (Just(fields), vec(update, 0..6))
        })
    }

    /// Every field that takes one write a step and gets several, with its writers.
    fn contested(fields: &[Field], updates: &[Writes]) -> BTreeMap<usize, Vec<usize>> {
        let mut writers = BTreeMap::<usize, Vec<usize>>::new();
        for (writer, update) in updates.iter().enumerate() {
            for field in update.0.keys().filter(|field| !fields[**field].concurrent) {
                writers.entry(*field).or_default().push(writer);
            }
        }
        writers.retain(|_, writers| writers.len() > 1);
        writers
    }

    proptest! {
        #[test]
        fn a_merge_is_the_fold_of_the_updates_in_their_order((mut fields, updates) in step()) {
            for field in contested(&fields, &updates).into_keys() {
                fields[field].concurrent = true;
            }
            let (mut merged, mut changes) = (Cells::start(&fields, ()), Changes::default());
            merge(&mut merged, &fields, updates.clone(), &mut changes, |_| ()).unwrap();
            let mut folded = Cells::start(&fields, ());
            let mut touched = FieldSet::new();
            for update in updates {
                for field in update.touched(&fields).iter() {
                    touched.insert(field);
                }
                folded.apply(update, &mut Changes::default());
            }
            prop_assert_eq!(merged, folded);
            prop_assert!(changes.fields().iter().eq(touched.iter()));
        }

        #[test]
        fn a_conflict_is_found_before_anything_is_applied_and_names_the_field_and_both_writers(
            (fields, updates) in step()
        ) {
            let contested = contested(&fields, &updates);
            let (mut state, mut changes) = (Cells::start(&fields, ()), Changes::default());
            match merge(&mut state, &fields, updates, &mut changes, |_| ()) {
                Ok(()) => prop_assert!(contested.is_empty()),
                Err(Conflict { field, first, second }) => {
                    prop_assert_eq!(contested.get(&field).map(|writers| &writers[..2]), Some(&[first, second][..]));
                    prop_assert_eq!(state, Cells::start(&fields, ()));
                    prop_assert!(changes.fields().is_empty());
                }
            }
        }
    }
}
