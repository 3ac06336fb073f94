//! A run that was cut off: which of the places it has passed it was left at is the engine's to say, whether that is one of
//! them is the model's.

use std::collections::BTreeSet;

use super::{
    case::{Does, Graph},
    thread::{Left, Status, TaskLeft, Thread},
    view::{Head, TaskView, View},
};

/// The thread as it must be, given what was seen: `before` the run, and after the `whole` of it.
pub(super) fn cut(graph: &Graph, before: &Thread, whole: &Thread, seen: &View) -> Result<Thread, String> {
    let (low, high, count) = (before.checkpoints.len(), whole.checkpoints.len(), seen.history.len());
    if !(low..=high).contains(&count) {
        return Err(format!(
            "there are {count} checkpoints, of {low} before the run and {high} after all of it"
        ));
    }
    let mut thread = whole.clone();
    thread.checkpoints.truncate(count);
    thread.head = if count > low { Some(count - 1) } else { before.head };
    thread.status = status(before, whole, seen)?;
    let (Some(at), Some(head)) = (thread.head, &seen.head) else {
        return Ok(thread);
    };
    if count == low {
        // What was left at another checkpoint than the head is as it was.
        for (checkpoint, was) in thread.checkpoints.iter_mut().zip(&before.checkpoints) {
            let unsure = checkpoint.left.unsure;
            checkpoint.left = if unsure {
                Left {
                    unsure,
                    ..checkpoint.left.clone()
                }
            } else {
                was.left.clone()
            };
        }
    }
    let was = if at < low {
        before.checkpoints[at].left.clone()
    } else {
        Left::default()
    };
    let all = whole.checkpoints[at].left.clone();
    thread.checkpoints[at].left = kept(graph, &was, &all, head)?;
    Ok(thread)
}

fn status(before: &Thread, whole: &Thread, seen: &View) -> Result<Option<Status>, String> {
    let may = [before.status, Some(Status::Running), whole.status];
    if may.contains(&seen.status) {
        return Ok(seen.status);
    }
    Err(format!("the run is marked {:?}, which is none of {may:?}", seen.status))
}

/// What is seen to be left at a checkpoint, of all that may be.
pub(super) fn kept(graph: &Graph, was: &Left, all: &Left, seen: &Head) -> Result<Left, String> {
    if seen.commands < was.commands.len() || seen.commands > all.commands.len() {
        return Err(format!("{} commands are kept", seen.commands));
    }
    let mut left = Left {
        commands: all.commands[..seen.commands].to_vec(),
        ..Left::default()
    };
    let mut ids: BTreeSet<&String> = was.tasks.keys().chain(all.tasks.keys()).collect();
    ids.extend(seen.tasks.iter().map(|task| &task.id));
    for id in ids {
        let (was, all) = (was.tasks.get(id), all.tasks.get(id));
        let task = seen.tasks.iter().find(|task| task.id == *id);
        let of_it = task_kept(graph, id, was, all, task, seen)?;
        if of_it != TaskLeft::default() || of_it.inner.is_some() {
            left.tasks.insert(id.clone(), of_it);
        }
    }
    Ok(left)
}

fn task_kept(
    graph: &Graph,
    id: &str,
    was: Option<&TaskLeft>,
    all: Option<&TaskLeft>,
    seen: Option<&TaskView>,
    head: &Head,
) -> Result<TaskLeft, String> {
    let (was, all) = (was.cloned().unwrap_or_default(), all.cloned().unwrap_or_default());
    // A task of a command that was not kept is not there.
    let Some(seen) = seen else { return Ok(was) };
    let mut left = TaskLeft {
        answers: was.answers.clone(),
        ..TaskLeft::default()
    };
    for (name, answer) in &all.answers {
        if head.answered.contains(&(id.to_owned(), name.clone())) {
            left.answers.insert(name.clone(), answer.clone());
        }
    }
    for question in was.questions.values().chain(all.questions.values()) {
        if left.answers.contains_key(&question.name) || seen.questions.contains(&question.id) {
            left.questions.insert(question.name.clone(), question.clone());
        }
    }
    if seen.finished {
        left.output = Some(
            all.output
                .clone()
                .ok_or_else(|| format!("`{id}` has finished, which it does not"))?,
        );
    } else if was.output.is_some() {
        return Err(format!("`{id}` had finished, and has not any more"));
    }
    left.attempts = seen.retrying.unwrap_or_default();
    let most = was.attempts.max(all.attempts).max(tries(graph, id).saturating_sub(1));
    if left.attempts > most {
        return Err(format!(
            "`{id}` has failed {} times so far, at most {most} may be",
            left.attempts
        ));
    }
    left.failed = seen.failed;
    if seen.failed.is_some() && seen.failed != was.failed && seen.failed != all.failed {
        return Err(format!("`{id}` has failed after {:?} attempts", seen.failed));
    }
    left.inner = inner(graph, id, &was, &all, seen)?;
    Ok(left)
}

/// The node of a task, by the task's id.
pub(super) fn node_of(id: &str) -> &str {
    id.split('#').next().unwrap_or(id)
}

fn tries(graph: &Graph, id: &str) -> u32 {
    graph.nodes.get(node_of(id)).map_or(1, |node| node.attempts)
}

fn inner(
    graph: &Graph,
    id: &str,
    was: &TaskLeft,
    all: &TaskLeft,
    seen: &TaskView,
) -> Result<Option<Box<Thread>>, String> {
    let Some(Does::Host(inside)) = graph.nodes.get(node_of(id)).map(|node| &node.does) else {
        return Ok(None);
    };
    let Some(view) = seen.inner.as_ref() else {
        return Ok(if seen.finished {
            all.inner.clone()
        } else {
            was.inner.clone()
        });
    };
    let Some(whole) = &all.inner else {
        return Err(format!("`{id}` has a graph inside that has begun"));
    };
    let before = was.inner.as_deref().cloned().unwrap_or_default();
    cut(inside, &before, whole, view)
        .map(|thread| Some(Box::new(thread)))
        .map_err(|what| format!("in `{id}`: {what}"))
}
