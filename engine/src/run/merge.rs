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

/// Merges `updates` in their order: by node name, then send index. Conflicts are found before anything is changed.
pub(crate) fn merge<S: State>(
    state: &mut S,
    fields: &[Field],
    updates: Vec<S::Update>,
    changes: &mut Changes,
) -> Result<(), Conflict> {
    if updates.len() > 1 {
        conflict(fields, &updates).map_or(Ok(()), Err)?;
    }
    for update in updates {
        state.apply(update, changes);
    }
    Ok(())
}

fn conflict<U: Update>(fields: &[Field], updates: &[U]) -> Option<Conflict> {
    let mut writers = vec![None; fields.len()];
    for (second, update) in updates.iter().enumerate() {
        for field in update.touched().iter() {
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
