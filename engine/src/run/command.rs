//! Writes and destinations given to a run that goes on: they act at once, and are kept until the step has ended.

use std::sync::Arc;

use super::{
    driver::Driver,
    error::RunError,
    follow::lead,
    frontier::{Frontier, StoredTask},
    guard::guarded,
    plan::{Departure, Seed},
    step::StoredOutput,
};
use crate::{
    checkpoint::{RecordKind, TaskRecord},
    graph::{Goto, Output, Rare, Topology},
    state::{State, StateError},
};

/// What a run that goes on is told to write, and where to go besides what is to run anyway.
pub(crate) struct Command<S: State> {
    pub(crate) update: S::Update,
    pub(crate) goto: Vec<Goto>,
}

impl<S: State> Default for Command<S> {
    fn default() -> Self {
        Self {
            update: S::Update::default(),
            goto: Vec::new(),
        }
    }
}

/// The records of commands, as they were given one after the other.
fn in_order(records: &[TaskRecord]) -> Vec<&TaskRecord> {
    let kept = records.iter().filter(|record| record.kind == RecordKind::Command);
    let mut kept: Vec<_> = kept.collect();
    kept.sort_by_key(|record| record.key.parse::<u32>().unwrap_or(u32::MAX));
    kept
}

/// The tasks of an unfinished step as it will run them: those of its checkpoint, and those that commands have added.
pub(super) fn with_commanded(
    frontier: Frontier,
    records: &[TaskRecord],
    topology: &Topology,
) -> Result<Vec<StoredTask>, StateError> {
    let (mut nodes, mut sends): (Vec<_>, Vec<_>) = frontier.tasks.into_iter().partition(|task| task.send.is_none());
    for record in in_order(records) {
        let stored: StoredOutput<serde::de::IgnoredAny> = super::decode_record(&record.body)?;
        for goto in stored.goto {
            let last = sends.last().and_then(|task| task.send.as_ref());
            let next = last.map_or(0, |(number, _)| number + 1);
            let of_it = if goto.payload.is_some() { &mut sends } else { &mut nodes };
            of_it.push(StoredTask {
                node: goto.to,
                send: goto.payload.map(|payload| (next, payload)),
            });
        }
    }
    nodes.sort_by(|a, b| topology.current(&a.node).cmp(topology.current(&b.node)));
    nodes.dedup_by(|a, b| a.node == b.node);
    nodes.append(&mut sends);
    Ok(nodes)
}

impl<S: State> Driver<S> {
    /// Carries out the commands of earlier runs of this step, then a new one, which is given back as a record.
    pub(super) fn obey_all(
        &mut self,
        records: &[TaskRecord],
        command: Option<Command<S>>,
    ) -> Result<Option<TaskRecord>, RunError> {
        let kept = in_order(records);
        for record in &kept {
            let stored = self.kept_output(&record.body)?;
            let output = self.output(self.shared.parts.topology.start(), stored)?;
            self.obey(output)?;
        }
        let Some(Command { update, goto }) = command else {
            return Ok(None);
        };
        let rare = Rare {
            goto,
            ..Rare::default()
        };
        let output = Output::with(update, rare);
        let body = super::encode_record(&StoredOutput {
            goto: self.stored_gotos(&output.goto)?,
            version: self.update_version(),
            ..StoredOutput::of(&output.update)
        })?;
        self.obey(output)?;
        Ok(Some(TaskRecord {
            task: String::new(),
            kind: RecordKind::Command,
            key: kept.len().to_string(),
            body,
        }))
    }

    fn obey(&mut self, mut output: Output<S>) -> Result<(), RunError> {
        let parts = Arc::clone(&self.shared.parts);
        let gotos = output.take_goto();
        guarded(|| {
            Arc::make_mut(&mut self.shared.state).apply(output.update, &mut self.changes);
        })
        .map_err(|panic| self.panicked("merging what a resumed run was told to write", None, panic))?;
        let mut departure = Departure::of(parts.topology.start());
        lead(&parts.topology, gotos, &mut departure).map_err(|target| RunError::UnknownNode {
            graph: parts.topology.graph.clone().into_owned(),
            node: target.0,
        })?;
        let mut tasks = self.tasks.take_list();
        let split = tasks.iter().position(|task| task.send.is_some());
        let sends = tasks.split_off(split.unwrap_or(tasks.len()));
        tasks.extend(departure.chosen.into_iter().map(|node| Seed { node, send: None }));
        tasks.sort_by_key(|task| task.node);
        tasks.dedup_by_key(|task| task.node);
        let last = sends.last().and_then(|task| task.send.as_ref());
        let next = last.map_or(0, |(number, _)| number + 1);
        tasks.extend(sends);
        let added = departure.sends.into_iter().zip(next..);
        tasks.extend(added.map(|((node, payload), number)| Seed {
            node,
            send: Some((number, payload)),
        }));
        self.tasks = tasks.into();
        Ok(())
    }
}
