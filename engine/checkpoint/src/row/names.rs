//! The words that stand in tables for the engine's enums.

use stepgraph::checkpoint::{CheckpointSource, RunStatus};

#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) const fn source(source: CheckpointSource) -> &'static str {
    match source {
        CheckpointSource::Input => "input",
        CheckpointSource::Step => "step",
        CheckpointSource::Update => "update",
        CheckpointSource::Fork => "fork",
    }
}

pub(crate) fn source_named(name: &str) -> Option<CheckpointSource> {
    match name {
        "input" => Some(CheckpointSource::Input),
        "step" => Some(CheckpointSource::Step),
        "update" => Some(CheckpointSource::Update),
        "fork" => Some(CheckpointSource::Fork),
        _ => None,
    }
}

pub(crate) const fn status(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Running => "running",
        RunStatus::Asked => "asked",
        RunStatus::Stopped => "stopped",
        RunStatus::Done => "done",
        RunStatus::Failed => "failed",
    }
}

pub(crate) fn status_named(name: &str) -> Option<RunStatus> {
    match name {
        "running" => Some(RunStatus::Running),
        "asked" => Some(RunStatus::Asked),
        "stopped" => Some(RunStatus::Stopped),
        "done" => Some(RunStatus::Done),
        "failed" => Some(RunStatus::Failed),
        _ => None,
    }
}
