//! What `Compat::Recorded` does otherwise when a thread goes on; the strict engine never comes here.

use std::collections::BTreeMap;

use super::{
    error::RunError,
    frontier::Frontier,
    plan::{Seed, Waiting},
    step::StoredOutput,
};
use crate::{
    ask::{Answers, Question},
    checkpoint::{Checkpoint, CheckpointSource, RecordKind, Seq, TaskRecord},
    dynamic::Compat,
    graph::{Graph, Payload},
    state::{Changes, State},
};

/// Writes of commands that no step has taken in yet stay with the checkpoint, and whatever begins there sees them.
pub(super) fn with_commands<S: State>(
    compat: Compat,
    mut state: S,
    checkpoint: &Checkpoint,
    changes: &mut Changes,
) -> Result<S, RunError> {
    if compat == Compat::Strict {
        return Ok(state);
    }
    let mut kept: Vec<&TaskRecord> = of_kind(&checkpoint.records, RecordKind::Command).collect();
    kept.sort_by_key(|record| record.key.parse::<u32>().unwrap_or(u32::MAX));
    for record in kept {
        let stored: StoredOutput<S::Update> = super::decode_record(&record.body)?;
        state.apply(stored.update, changes);
    }
    Ok(state)
}

/// Answers that fit no open question are passed over, unless there are several to choose from.
pub(super) fn fitting_answers(records: &[TaskRecord], answers: Answers) -> Answers {
    let open = super::answer::open_questions(records);
    let shown = open.len() + still_shown(records).len();
    match answers {
        Answers::One(_) if shown == 0 || (open.is_empty() && shown == 1) => Answers::None,
        Answers::Many(given) => {
            let known = |id: &String| open.iter().any(|(_, question)| question.id == *id);
            Answers::Many(given.into_iter().filter(|(id, _)| known(id)).collect())
        }
        other => other,
    }
}

/// The last question of a task that has been answered and yet has not finished, since it failed or stopped inside, is
/// shown until it finishes or asks again.
pub(super) fn still_shown(records: &[TaskRecord]) -> Vec<(String, Question)> {
    let open = super::answer::open_questions(records);
    let over = |task: &str| {
        let finished = of_kind(records, RecordKind::Output).any(|record| record.task == task);
        finished || open.iter().any(|(owner, _)| owner == task)
    };
    let mut last = BTreeMap::new();
    for asked in of_kind(records, RecordKind::Question).filter(|record| !over(&record.task)) {
        // Records come by task and key.
        last.insert(asked.task.clone(), asked);
    }
    let shown = last.into_iter();
    shown
        .filter_map(|(task, asked)| Some((task, serde_json::from_slice(&asked.body).ok()?)))
        .collect()
}

/// A replay of the head makes no fork of it if it is an edit or a fork already: its tasks run again right there.
pub(super) fn replays_in_place(compat: Compat, checkpoint: &Checkpoint, head: Option<Seq>) -> bool {
    let branch = matches!(
        checkpoint.info.source,
        CheckpointSource::Update | CheckpointSource::Fork
    );
    compat == Compat::Recorded && branch && head == Some(checkpoint.info.seq)
}

/// What such a replay leaves of the records: commands. Answers are withdrawn.
pub(super) fn withdrawn(records: &[TaskRecord]) -> Vec<TaskRecord> {
    let answers = of_kind(records, RecordKind::Answer).cloned();
    answers
        .map(|answer| TaskRecord {
            body: Vec::new().into(),
            ..answer
        })
        .collect()
}

/// What an edit leaves: what waits, and of the tasks that were to run the deferred nodes that were released and the targets
/// of joins.
pub(super) fn left_by_an_edit<S: State>(
    graph: &Graph<S>,
    found: &Checkpoint,
) -> Result<(Waiting, Vec<usize>), RunError> {
    let topology = &graph.parts.topology;
    let frontier = Frontier::decode(&found.info.frontier)?;
    let Ok((dropped, waiting)) = frontier.load(topology, &graph.parts.nodes) else {
        return Ok((Waiting::new(topology), Vec::new()));
    };
    let triggered = dropped.into_iter().filter(|task| task.send.is_none());
    let stays = |node: &usize| topology.is_deferred(*node) || waiting.has_fired_for(topology, *node);
    let left = triggered.map(|task| task.node).filter(stays).collect();
    Ok((waiting, left))
}

/// Adds nodes to the tasks of a step, each once.
pub(super) fn add_nodes(tasks: &mut Vec<Seed<Payload>>, nodes: Vec<usize>) {
    let sends = tasks.iter().position(|task| task.send.is_some());
    let sends = tasks.split_off(sends.unwrap_or(tasks.len()));
    tasks.extend(nodes.into_iter().map(|node| Seed { node, send: None }));
    tasks.sort_by_key(|task| task.node);
    tasks.dedup_by_key(|task| task.node);
    tasks.extend(sends);
}

/// Where commands led besides what was to run, by name.
pub(super) fn commanded(records: &[TaskRecord]) -> Result<Vec<String>, RunError> {
    let mut nodes = Vec::new();
    for record in of_kind(records, RecordKind::Command) {
        let stored: StoredOutput<serde::de::IgnoredAny> = super::decode_record(&record.body)?;
        nodes.extend(stored.goto.into_iter().map(|goto| goto.to));
    }
    Ok(nodes)
}

fn of_kind(records: &[TaskRecord], kind: RecordKind) -> impl Iterator<Item = &TaskRecord> {
    records.iter().filter(move |record| record.kind == kind)
}
