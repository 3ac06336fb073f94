//! What users have written and the engine calls outside of nodes: reducers, branches, fan-outs, migrations, layers. A panic
//! there is an error of the run, which says what was being done and for which task.

use std::{cell::Cell, panic::AssertUnwindSafe};

use super::{
    barrier::{Gave, Unmerged},
    behind::StoreHandle,
    driver::Driver,
    error::{NodePanic, RunError},
    open::Opening,
    step::panic_message,
};
use crate::{
    checkpoint::{Checkpoint, Seq},
    state::State,
};

/// Calls what users have written. Nothing of a panic's step is kept.
pub(super) fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, NodePanic> {
    std::panic::catch_unwind(AssertUnwindSafe(call)).map_err(|panic| NodePanic {
        message: panic_message(panic.as_ref()),
    })
}

/// What a step's end is at, by the positions of tasks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Doing {
    Merging(usize),
    LeadingOn(usize),
}

impl<S: State> Driver<S> {
    /// Merges what the tasks gave and follows their ways on. A panic leaves the state half merged: the run ends then.
    pub(super) fn merged(&mut self, gave: Gave<'_, S>) -> Result<Result<(), Unmerged>, RunError> {
        let doing = Cell::new(Doing::Merging(0));
        let merged = guarded(|| match gave {
            Gave::Lone(output) => self.merge_lone(output, &doing),
            Gave::Crowd(outputs) => self.merge_and_plan(outputs, &doing),
        });
        merged.map_err(|panic| self.panicked_at(doing.get(), panic))
    }

    /// A panic at the end of a step.
    pub(super) fn panicked_at(&self, doing: Doing, panic: NodePanic) -> RunError {
        let (at, doing) = match doing {
            Doing::Merging(at) => (at, "merging the update of"),
            Doing::LeadingOn(at) => (at, "leading on from"),
        };
        let task = self.tasks.get(at).map(|task| self.task_id(task));
        let doing = format!("{doing} `{}`", task.as_deref().unwrap_or("START"));
        self.panicked(doing, task, panic)
    }

    pub(super) fn panicked(&self, doing: impl Into<String>, task: Option<String>, panic: NodePanic) -> RunError {
        RunError::Panic {
            doing: doing.into(),
            task,
            step: self.shared.step,
            thread: Box::new(self.shared.run.key.clone()),
            checkpoint: self.checkpoint(),
            message: panic.message,
        }
    }

    /// The checkpoint that the step began at, as far as it is written.
    pub(super) fn checkpoint(&self) -> Option<Seq> {
        self.shared.run.store.as_ref().and_then(StoreHandle::head)
    }
}

impl<S: State> Opening<S> {
    /// The input could not be merged into what was found.
    pub(super) fn panicked(&self, step: i64, found: Option<&Checkpoint>, panic: NodePanic) -> RunError {
        RunError::Panic {
            doing: "merging the input".to_owned(),
            task: None,
            step,
            thread: Box::new(self.key.clone()),
            checkpoint: found.map(|found| found.info.seq),
            message: panic.message,
        }
    }
}
