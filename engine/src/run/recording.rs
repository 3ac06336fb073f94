//! What a run writes down beyond what it needs to go on: enough to replay it.

use serde::{Deserialize, Serialize};

use super::{barrier::Outputs, driver::Driver, error::RunError, frontier::Bytes, step::StoredOutput};
use crate::{graph::Graph, state::State};

/// How much a run writes down so that it can be replayed. What is recorded stands in the same store, under the same
/// tenant, as the thread itself, and is removed with it; it holds inputs, updates and what services were asked and
/// replied, so treat it as you treat the thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recording {
    /// Nothing but what is needed to go on.
    #[default]
    Off,
    /// Inputs, edits and what each task gave back: routing, reducers and guards can be replayed.
    Outputs,
    /// Also what nodes ask of services by [`Context::recorded`](crate::Context::recorded), and the ids and random numbers
    /// that they draw: their bodies can be replayed.
    Calls,
}

/// What a checkpoint that no task has led to was made of. It stands in the checkpoint itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Origin {
    /// New input.
    Input(Bytes),
    /// An edit, as this node, with this update.
    Edit { node: String, update: Bytes },
}

impl Origin {
    pub(crate) fn input<I: Serialize>(input: &I) -> Result<Self, RunError> {
        Ok(Self::Input(Bytes(super::encode_record(input)?)))
    }

    pub(crate) fn edit<U: Serialize>(node: &str, update: &U) -> Result<Self, RunError> {
        Ok(Self::Edit {
            node: node.to_owned(),
            update: Bytes(super::encode_record(&StoredOutput::of(update))?),
        })
    }
}

impl<S: State> Graph<S> {
    /// Writes down so much of every run that it can be [replayed](Self::replay); nothing unless told. A run may say
    /// otherwise by [`Run::recording`](crate::Run::recording). It takes no further transaction: what a step's tasks gave
    /// back is written with the checkpoint at its end.
    #[must_use]
    pub fn recording(mut self, recording: Recording) -> Self {
        self.recording = recording;
        self
    }
}

impl<S: State> Driver<S> {
    /// Lets the next checkpoint carry what the step's tasks gave back.
    pub(super) fn record_outputs(&mut self, outputs: &Outputs<S>) -> Result<(), RunError> {
        if self.shared.run.recording >= Recording::Outputs && self.shared.run.store.is_some() {
            let outputs = match outputs {
                Outputs::Lone(output) => std::slice::from_ref(output),
                Outputs::Crowd(outputs) => outputs,
            };
            self.kept = self.output_records(outputs.iter().enumerate())?;
        }
        Ok(())
    }
}
