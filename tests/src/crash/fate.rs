//! Where a process dies.

use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::future::{Either, select};
use rustix::process::{Signal, getpid, kill_process};
use stepgraph::{
    CheckpointError,
    checkpoint::{CheckpointSource, Commit, RecordKind, RunStatus},
};

/// What a call of the store is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Claim,
    Admission,
    Barrier,
    Output,
    Question,
    Answer,
    Intent,
    Effect,
    End,
    Other,
}

impl Call {
    const fn name(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Admission => "admission",
            Self::Barrier => "barrier",
            Self::Output => "output",
            Self::Question => "question",
            Self::Answer => "answer",
            Self::Intent => "intent",
            Self::Effect => "effect",
            Self::End => "end",
            Self::Other => "other",
        }
    }

    /// What a commit is for, by what stands in it.
    pub(super) fn of(commit: &Commit) -> Self {
        let status = commit.run.as_ref().map(|run| run.status);
        let has = |kind| commit.records.iter().any(|record| record.kind == kind);
        match &commit.checkpoint {
            _ if status == Some(RunStatus::Done) => Self::End,
            Some(new) if new.source == CheckpointSource::Input => Self::Admission,
            _ if status == Some(RunStatus::Asked) || has(RecordKind::Question) => Self::Question,
            _ if has(RecordKind::Answer) => Self::Answer,
            _ if has(RecordKind::Intent) => Self::Intent,
            _ if has(RecordKind::Effect) => Self::Effect,
            Some(_) => Self::Barrier,
            None if has(RecordKind::Output) => Self::Output,
            None => Self::Other,
        }
    }
}

/// Every named point. Those of the store come before a call is made, while it is under way, and after it was answered.
pub const POINTS: [&str; 35] = [
    "before-claim",
    "during-claim",
    "after-claim",
    "before-admission",
    "during-admission",
    "after-admission",
    "before-barrier",
    "during-barrier",
    "after-barrier",
    "before-output",
    "during-output",
    "after-output",
    "before-question",
    "during-question",
    "after-question",
    "before-answer",
    "during-answer",
    "after-answer",
    "before-intent",
    "during-intent",
    "after-intent",
    "before-effect",
    "during-effect",
    "after-effect",
    "before-end",
    "during-end",
    "after-end",
    "in-node",
    "in-sibling",
    "in-charge-before-it-is-made",
    "in-charge-after-it-was-made",
    "in-parcel-before-it-is-sent",
    "in-parcel-after-it-was-sent",
    "in-node-after-the-charge",
    "in-node-after-the-parcel",
];

/// Where this process dies: the how many-eth time at which point, and how far a call has come that it dies in.
#[derive(Debug, Clone, Default)]
pub struct Fate {
    /// The point; none for a process that lives.
    pub point: Option<String>,
    /// From 1.
    pub nth: u32,
    /// How often everything else may go on while the call is under way.
    pub pauses: u32,
}

/// A fate, and how often its point was reached.
#[derive(Debug, Default)]
pub(super) struct Reaper {
    fate: Fate,
    reached: AtomicU32,
}

impl Reaper {
    pub(super) fn new(fate: Fate) -> Self {
        Self {
            fate,
            reached: AtomicU32::new(0),
        }
    }

    fn is_due(&self, point: &str) -> bool {
        self.fate.point.as_deref() == Some(point) && self.reached.fetch_add(1, Ordering::SeqCst) + 1 == self.fate.nth
    }

    /// Ends the process here if it is to end here.
    pub(super) fn at(&self, point: &str) {
        if self.is_due(point) {
            die();
        }
    }

    /// Makes a call of the store, with its three points.
    pub(super) async fn call<T>(
        &self,
        call: Call,
        work: impl Future<Output = Result<T, CheckpointError>>,
    ) -> Result<T, CheckpointError> {
        let name = call.name();
        self.at(&format!("before-{name}"));
        let outcome = if self.is_due(&format!("during-{name}")) {
            let work = Box::pin(work);
            let pauses = Box::pin(pauses(self.fate.pauses));
            match select(work, pauses).await {
                Either::Left(_) | Either::Right(_) => die(),
            }
        } else {
            work.await
        };
        if outcome.is_ok() {
            self.at(&format!("after-{name}"));
        }
        outcome
    }
}

async fn pauses(count: u32) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

/// As `kill -9` does: nothing is tidied up, and nobody is told.
fn die() -> ! {
    // The signal cannot be refused to oneself; if it were, the process must not go on all the same.
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}
