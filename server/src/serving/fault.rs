//! What callers are told of a failed run. What nodes say of their errors is for whoever runs the server: it may name hosts,
//! queries or prompts. It is logged under the run's id, and leaves only where the graph's registration allows it.

use stepgraph::{Failure, InsideKind, RunError, TaskState, checkpoint::RunMark};

/// What stands in the place of a node's own words.
const FAILED: &str = "a node of the run failed";
/// The same of what is wrong with the graph, its store or its threads.
const OURS: &str = "something went wrong on our side";

/// Whether callers are told what nodes say of their errors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Words {
    /// A general message.
    #[default]
    General,
    /// The node's own.
    Own,
}

impl Words {
    /// The message of a run that failed.
    pub(crate) fn of(self, error: &RunError) -> String {
        match (self, error) {
            (Self::Own, RunError::Node { source, .. }) => source.to_string(),
            (Self::Own, other) => other.to_string(),
            (Self::General, error) => general(error),
        }
    }

    /// Takes out of an event what it says of an error.
    pub(super) fn of_event(self, kind: &mut InsideKind) {
        if let (
            Self::General,
            InsideKind::Failed { error, .. } | InsideKind::Handed { error, .. } | InsideKind::Retry { error, .. },
        ) = (self, kind)
        {
            FAILED.clone_into(error);
        }
    }

    /// The same of a task's state. Kind and code stay: they are for programs.
    pub(super) fn of_task(self, task: &mut TaskState) {
        let failures = [
            task.error.as_mut(),
            task.handler_error.as_mut(),
            task.retrying.as_mut().and_then(|retrying| retrying.failure.as_mut()),
        ];
        for Failure { message, sources, .. } in failures.into_iter().flatten() {
            if self == Self::General {
                FAILED.clone_into(message);
                sources.clear();
            }
        }
    }

    /// The same of what is kept of a run.
    pub(super) fn of_run(self, run: &mut RunMark) {
        if let (Self::General, Some(error)) = (self, &mut run.error) {
            *error = format!("the run failed: its trace id is {}", run.run);
        }
    }
}

/// What is said of an error whose words may be a node's. The engine's own words about limits stay.
pub(crate) fn general(error: &RunError) -> String {
    match error {
        RunError::Node { .. } | RunError::Handler { .. } | RunError::Panic { .. } => FAILED.to_owned(),
        RunError::State(_) | RunError::Checkpoint(_) | RunError::Missing { .. } => OURS.to_owned(),
        other => other.to_string(),
    }
}
