//! What `Compat::Recorded` does otherwise when a thread goes on; the strict engine never comes here.

use super::{
    barrier::Unmerged,
    command::Command,
    driver::Driver,
    error::RunError,
    frontier::Frontier,
    guard::guarded,
    merge::{Conflict, merge},
    plan::{Seed, Tasks, Waiting},
    step::StoredOutput,
};
use crate::{
    ask::{Answers, Question},
    checkpoint::{Checkpoint, CheckpointSource, RecordKind, Seq, TaskRecord},
    dynamic::Compat,
    graph::{Graph, Output, Payload},
    node::TaskContext,
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

/// Answers that fit no open question are passed over. One without a name is laid out instead, unless several questions are
/// shown.
pub(super) fn fitting_answers(records: &[TaskRecord], answers: Answers) -> Result<Answers, RunError> {
    let open = super::answer::open_questions(records);
    Ok(match answers {
        Answers::One(value) if value.is_null() && open.len() == 1 => Answers::One(value),
        Answers::One(_) => {
            let shown = shown(records);
            if shown.len() > 1 {
                let open = shown.into_iter().map(|(_, question)| question.id).collect();
                return Err(RunError::AmbiguousAnswer { open });
            }
            Answers::None
        }
        Answers::Many(given) => {
            let known = |id: &String| open.iter().any(|(_, question)| question.id == *id);
            Answers::Many(given.into_iter().filter(|(id, _)| known(id)).collect())
        }
        Answers::None => Answers::None,
    })
}

/// An answer without a name stays with the step, and is laid out in this run and in later ones: whoever asks first and has
/// no answer of its own takes it. A run with a command passes over an earlier one. The record of a new one, and what is
/// laid out.
pub(super) fn unnamed<S: State>(
    compat: Compat,
    records: &[TaskRecord],
    answers: &Answers,
    command: Option<&Command<S>>,
) -> (Option<TaskRecord>, Option<serde_json::Value>) {
    if compat == Compat::Strict {
        return (None, None);
    }
    if let Answers::One(value) = answers
        && !value.is_null()
    {
        return (Some(answer_record("", "", value)), Some(value.clone()));
    }
    let mut kept = of_kind(records, RecordKind::Answer);
    let kept = kept.find(|record| command.is_none() && record.task.is_empty() && record.key.is_empty());
    (None, kept.and_then(|record| serde_json::from_slice(&record.body).ok()))
}

/// Takes the answer that is laid out in the outermost run, for a question that has none of its own.
pub(crate) fn unnamed_answer(task: &TaskContext, id: &str, question: &str) -> Option<serde_json::Value> {
    let mut outermost = &task.run;
    while let Some(outer) = &outermost.outer {
        outermost = &outer.run;
    }
    let value = outermost.journal.pick_up()?;
    task.run.journal.picked_up(answer_record(id, question, &value));
    Some(value)
}

fn answer_record(task: &str, question: &str, value: &serde_json::Value) -> TaskRecord {
    TaskRecord {
        task: task.to_owned(),
        kind: RecordKind::Answer,
        key: question.to_owned(),
        body: value.to_string().into_bytes().into(),
    }
}

impl<S: State> Driver<S> {
    /// A graph inside another has to be at its end one step before the limit.
    pub(super) fn ends_too_late(&self) -> bool {
        self.steps_left == 0 && self.shared.parts.compat == Compat::Recorded && self.shared.run.outer.is_some()
    }

    /// Of a task that asks, only what it asks now is asked: what was before is taken back.
    pub(super) fn take_back_earlier(&self, task: &str, asked: &[Question]) -> Vec<TaskRecord> {
        if self.shared.parts.compat == Compat::Strict {
            return Vec::new();
        }
        let mut earlier = self.shared.run.journal.asked_before(task);
        earlier.retain(|known| asked.iter().all(|now| now.name != *known));
        let taken_back = earlier
            .into_iter()
            .map(|question| taken_back(task.to_owned(), RecordKind::Question, question));
        taken_back.collect()
    }

    /// What has finished is merged where the run stops, to be shown: the recorded engine finds a conflict there already.
    pub(super) fn refuse_conflict(&self, outputs: &[(usize, Output<S>)]) -> Result<(), RunError> {
        let updates = outputs.iter().map(|(_, output)| output.update.clone()).collect();
        let fields = S::fields(&self.shared.parts.shape);
        let mut state = S::clone(&self.shared.state);
        let merged = guarded(|| merge(&mut state, fields, updates, &mut Changes::default(), |_| ()));
        // What a reducer panics at is told at the step's end.
        merged.unwrap_or(Ok(())).map_err(|conflict| {
            let at = |update: usize| outputs.get(update).map_or(usize::MAX, |(at, _)| *at);
            self.unmerged(&Unmerged::Conflict(Conflict {
                field: conflict.field,
                first: at(conflict.first),
                second: at(conflict.second),
            }))
        })
    }
}

/// What a task has asked last is shown until it has finished or asks again, also what was answered since.
pub(super) fn shown(records: &[TaskRecord]) -> Vec<(String, Question)> {
    let finished = |task: &str| of_kind(records, RecordKind::Output).any(|record| record.task == task);
    let open = super::answer::open_questions(records);
    let answered = |task: &str| !task.is_empty() && !finished(task);
    let asked = of_kind(records, RecordKind::Question);
    let asked = asked.filter_map(|record| Some((record.task.clone(), serde_json::from_slice(&record.body).ok()?)));
    asked
        .filter(|asked| answered(&asked.0) || open.contains(asked))
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

/// What such a replay leaves of the records: commands. Questions and answers are taken back.
pub(super) fn withdrawn(records: &[TaskRecord]) -> Vec<TaskRecord> {
    let told = records
        .iter()
        .filter(|record| matches!(record.kind, RecordKind::Question | RecordKind::Answer));
    told.map(|record| taken_back(record.task.clone(), record.kind, record.key.clone()))
        .collect()
}

/// A record that says nothing any more.
fn taken_back(task: String, kind: RecordKind, key: String) -> TaskRecord {
    TaskRecord {
        task,
        kind,
        key,
        body: Vec::new().into(),
    }
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
pub(super) fn add_nodes(all: &mut Tasks<Payload>, nodes: Vec<usize>) {
    let mut tasks = all.take_list();
    let sends = tasks.iter().position(|task| task.send.is_some());
    let sends = tasks.split_off(sends.unwrap_or(tasks.len()));
    tasks.extend(nodes.into_iter().map(|node| Seed { node, send: None }));
    tasks.sort_by_key(|task| task.node);
    tasks.dedup_by_key(|task| task.node);
    tasks.extend(sends);
    *all = tasks.into();
}

/// The nodes that a step has run and was not sent to, those that commands have added included: only they count for an edit.
pub(super) fn triggered(before: &Checkpoint) -> Result<Vec<String>, RunError> {
    let tasks = Frontier::decode(&before.info.frontier)?.tasks.into_iter();
    let mut nodes: Vec<String> = tasks.filter(|task| task.send.is_none()).map(|task| task.node).collect();
    for record in of_kind(&before.records, RecordKind::Command) {
        let stored: StoredOutput<serde::de::IgnoredAny> = super::decode_record(&record.body)?;
        let gotos = stored.goto.into_iter().filter(|goto| goto.payload.is_none());
        nodes.extend(gotos.map(|goto| goto.to));
    }
    Ok(nodes)
}

fn of_kind(records: &[TaskRecord], kind: RecordKind) -> impl Iterator<Item = &TaskRecord> {
    records.iter().filter(move |record| record.kind == kind)
}

/// Whether an edit cannot tell as which node it is made although only one has run last: the recorded engine compares when
/// what triggers nodes has changed, and finds that node twice if an edge to it and a join, or two joins, have changed at the
/// same time.
pub(super) fn seen_twice<S: State>(
    graph: &Graph<S>,
    name: &str,
    before: &Checkpoint,
    earlier: Option<&Checkpoint>,
) -> Result<bool, RunError> {
    let topology = &graph.parts.topology;
    let made_by_steps = matches!(before.info.source, CheckpointSource::Step | CheckpointSource::Input);
    let (Some(node), Some(earlier), true) = (topology.place(name), earlier, made_by_steps) else {
        return Ok(false);
    };
    let load =
        |of: &Checkpoint| Ok::<_, RunError>(Frontier::decode(&of.info.frontier)?.load(topology, &graph.parts.nodes));
    let (Ok((_, waiting)), Ok((ran, was))) = (load(before)?, load(earlier)?) else {
        return Ok(false);
    };
    let ran_itself = ran.iter().any(|task| task.node == node && task.send.is_none());
    let joins = waiting.changed(&was, topology, node, ran_itself);
    let by_edge = ran.iter().any(|task| topology.exits(task.node).edges.contains(&node));
    let triggered = by_edge || !waiting.has_fired_for(topology, node);
    let passed = ran_itself && !was.has_fired_for(topology, node);
    Ok(joins + usize::from(triggered || passed) > 1)
}
