//! What has come out of a step, beside what was recorded of it.

use serde_json::Value;

use super::{
    difference::Difference,
    walk::{Compared, Halt},
};
use crate::{
    checkpoint::{Checkpoint, RecordKind},
    run::{
        error::RunError,
        frontier::{Frontier, StoredTask},
    },
    scrub::told,
    state::{Field, SECRET, hide_members},
    tree,
};

/// Today's graph fails where the recorded run did not.
pub(super) fn failed(error: &RunError) -> Halt {
    let error = told(error);
    Difference::Failed { task: None, error }.into()
}

/// The recorded output of a task of the step that begins at a checkpoint.
pub(super) fn output_of<'a>(at: &'a Checkpoint, task: &str) -> Option<&'a [u8]> {
    let mut records = at.records.iter();
    let found = records.find(|record| record.kind == RecordKind::Output && record.task == task);
    found.map(|record| record.body.as_ref())
}

/// Stored bytes as JSON, without secrets.
pub(super) fn shown(fields: &[Field], bytes: &[u8]) -> Value {
    let mut shown = tree::shown(bytes);
    hide_members(&mut shown, fields);
    shown
}

fn field_shown(fields: &[Field], name: &str, tree: &tree::Tree) -> Value {
    if fields.iter().any(|field| field.secret && field.name == name) {
        return SECRET.into();
    }
    tree.to_json()
}

/// The first field that differs, in the order in which they are stored.
pub(super) fn of_states(fields: &[Field], recorded: &[u8], replayed: &[u8]) -> Compared {
    if tree::same(recorded, replayed) {
        return Ok(());
    }
    let both = tree::Tree::unpack(recorded).zip(tree::Tree::unpack(replayed));
    let Some((tree::Tree::Map(was), is)) = both else {
        let whole = Difference::State {
            field: String::new(),
            recorded: Some(shown(fields, recorded)),
            replayed: Some(shown(fields, replayed)),
        };
        return Err(whole.into());
    };
    let tree::Tree::Map(is) = is else { return Ok(()) };
    let names = was.iter().chain(&is).filter_map(|(name, _)| match name {
        tree::Tree::Text(name) => Some(name.clone()),
        _ => None,
    });
    let (was, is) = (tree::Tree::Map(was.clone()), tree::Tree::Map(is.clone()));
    let first = names.into_iter().find_map(|field| {
        let (was, is) = (was.get(&field), is.get(&field));
        let sorted = |tree: Option<&tree::Tree>| tree.cloned().map(tree::Tree::sorted);
        (sorted(was) != sorted(is)).then(|| Difference::State {
            field: field.clone(),
            recorded: was.map(|tree| field_shown(fields, &field, tree)),
            replayed: is.map(|tree| field_shown(fields, &field, tree)),
        })
    });
    first.map_or(Ok(()), |first| Err(first.into()))
}

pub(super) fn of_frontiers(recorded: &Frontier, replayed: &Frontier) -> Compared {
    let id = |task: &StoredTask| match &task.send {
        None => task.node.clone(),
        Some((number, _)) => format!("{}#{number}", task.node),
    };
    let ids = |frontier: &Frontier| frontier.tasks.iter().map(id).collect::<Vec<_>>();
    let (was, is) = (ids(recorded), ids(replayed));
    if was != is {
        return Err(Difference::Tasks {
            recorded: was,
            replayed: is,
        }
        .into());
    }
    for (was, is) in recorded.tasks.iter().zip(&replayed.tasks) {
        if let (Some((_, was_fed)), Some((_, is_fed))) = (&was.send, &is.send)
            && !tree::same(&was_fed.0, &is_fed.0)
        {
            return Err(Difference::Payload {
                task: id(was),
                recorded: tree::shown(&was_fed.0),
                replayed: tree::shown(&is_fed.0),
            }
            .into());
        }
    }
    let waiting = |frontier: &Frontier| crate::run::encode_record(&(&frontier.joins, &frontier.deferred));
    let (was, is) = (waiting(recorded)?, waiting(replayed)?);
    if was == is {
        return Ok(());
    }
    Err(Difference::Waiting {
        recorded: tree::shown(&was),
        replayed: tree::shown(&is),
    }
    .into())
}
