//! What stands at a checkpoint whose step has not ended.

use std::collections::BTreeMap;

use super::{
    body::{To, Written},
    case::{self, Object},
    merge::{apply, overlay},
    mutation::Mutation,
    plan::Task,
    thread::Checkpoint,
};

/// The updates of the tasks of an unfinished step that have finished, in the order of the step.
pub(super) fn finished(at: &Checkpoint) -> Vec<Vec<Written>> {
    let tasks = with_commanded(at);
    let outputs = tasks
        .iter()
        .filter_map(|task| at.left.tasks.get(&task.id())?.output.as_ref());
    outputs.map(|output| output.update.clone()).collect()
}

/// The ids of those tasks.
pub(super) fn finished_ids(at: &Checkpoint) -> Vec<String> {
    let ids = with_commanded(at).into_iter().map(|task| task.id());
    let finished = |id: &String| at.left.tasks.get(id).is_some_and(|left| left.output.is_some());
    ids.filter(finished).collect()
}

/// The tasks of a step with those that commands have added.
pub(super) fn with_commanded(at: &Checkpoint) -> Vec<Task> {
    let mut tasks = at.tasks.clone();
    for command in &at.left.commands {
        add(&mut tasks, &command.to);
    }
    tasks
}

/// The state as it is shown while a step has not ended.
pub(super) fn shown(at: &Checkpoint, channels: &BTreeMap<String, case::Reducer>, mutation: Option<Mutation>) -> Object {
    let mut state = at.state.clone();
    for command in &at.left.commands {
        apply(&mut state, channels, &command.update, mutation);
    }
    overlay(&mut state, channels, &finished(at), mutation);
    state
}

/// Adds tasks to those of a step: nodes among the nodes, what is sent behind what was sent.
pub(super) fn add(tasks: &mut Vec<Task>, to: &[To]) {
    let (mut nodes, mut sends): (Vec<Task>, Vec<Task>) = tasks.drain(..).partition(|task| task.sent.is_none());
    for to in to {
        match to {
            To::Node(name) => nodes.push(Task {
                node: name.clone(),
                sent: None,
            }),
            To::Send(name, value) => {
                let number = sends
                    .last()
                    .and_then(|task| task.sent.as_ref())
                    .map_or(0, |(number, _)| number + 1);
                sends.push(Task {
                    node: name.clone(),
                    sent: Some((number, value.clone())),
                });
            }
        }
    }
    nodes.sort_by(|a, b| a.node.cmp(&b.node));
    nodes.dedup_by(|a, b| a.node == b.node);
    tasks.extend(nodes.into_iter().chain(sends));
}
