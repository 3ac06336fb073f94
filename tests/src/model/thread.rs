//! A thread as the model keeps it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    body::{To, Written},
    case::Object,
    plan::{Task, Waiting},
};

#[derive(Debug, Clone, Default)]
pub(super) struct Thread {
    pub(super) checkpoints: Vec<Checkpoint>,
    /// Position of the newest checkpoint of the current branch.
    pub(super) head: Option<usize>,
    /// The current branch, if another than `main`.
    pub(super) branch: Option<String>,
    /// Where the other branches stand.
    pub(super) others: BTreeMap<String, usize>,
    pub(super) status: Option<Status>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Running,
    Asked,
    Stopped,
    Done,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Input,
    Step,
    Update,
    Fork,
}

#[derive(Debug, Clone)]
pub(super) struct Checkpoint {
    pub(super) parent: Option<usize>,
    pub(super) step: i64,
    pub(super) source: Source,
    pub(super) state: Object,
    pub(super) tasks: Vec<Task>,
    pub(super) waiting: Waiting,
    pub(super) left: Left,
}

/// What the tasks of the step that begins at a checkpoint have left behind.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Left {
    pub(super) commands: Vec<Command>,
    pub(super) tasks: BTreeMap<String, TaskLeft>,
    /// Whether only the store knows how much of it was kept: a step that went on, or was cut off, may have kept any part.
    pub(super) unsure: bool,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Command {
    pub(super) update: Vec<Written>,
    pub(super) to: Vec<To>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct TaskLeft {
    pub(super) output: Option<Output>,
    /// How many attempts it has failed after.
    pub(super) failed: Option<u32>,
    /// How many attempts have failed so far, if another follows.
    pub(super) attempts: u32,
    pub(super) questions: BTreeMap<String, Question>,
    pub(super) answers: BTreeMap<String, Value>,
    /// The thread of the graph inside.
    pub(super) inner: Option<Box<Thread>>,
}

/// The thread inside is compared by itself.
impl PartialEq for TaskLeft {
    fn eq(&self, other: &Self) -> bool {
        self.output == other.output
            && self.failed == other.failed
            && self.attempts == other.attempts
            && self.questions == other.questions
            && self.answers == other.answers
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Output {
    pub(super) update: Vec<Written>,
    pub(super) to: Vec<To>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Question {
    pub(super) id: String,
    pub(super) node: String,
    pub(super) name: String,
    pub(super) payload: Value,
}

impl TaskLeft {
    /// The questions without an answer, by id.
    pub(super) fn open(&self) -> Vec<Question> {
        let open = self.questions.values();
        let mut open: Vec<_> = open
            .filter(|question| !self.answers.contains_key(&question.name))
            .cloned()
            .collect();
        open.sort_by(|a, b| a.id.cmp(&b.id));
        open
    }
}

impl Left {
    /// All open questions, each with its task.
    pub(super) fn open(&self) -> Vec<(String, Question)> {
        let tasks = self.tasks.iter();
        tasks
            .flat_map(|(id, left)| left.open().into_iter().map(|question| (id.clone(), question)))
            .collect()
    }
}

impl Checkpoint {
    pub(super) fn is_finished(&self, task: &Task) -> bool {
        self.left
            .tasks
            .get(&task.id())
            .is_some_and(|left| left.output.is_some())
    }
}

impl Thread {
    pub(super) fn newest(&self) -> Option<&Checkpoint> {
        self.checkpoints.get(self.head?)
    }

    pub(super) fn push(&mut self, checkpoint: Checkpoint) -> usize {
        self.checkpoints.push(checkpoint);
        let at = self.checkpoints.len() - 1;
        self.head = Some(at);
        at
    }

    pub(super) fn branch(&self) -> &str {
        self.branch.as_deref().unwrap_or("main")
    }

    /// Every branch with where it stands.
    pub(super) fn branches(&self) -> BTreeMap<String, usize> {
        let mut all = self.others.clone();
        if let Some(head) = self.head {
            all.insert(self.branch().to_owned(), head);
        }
        all
    }

    /// Puts the thread on a branch, at a checkpoint.
    pub(super) fn branch_at(&mut self, name: &str, at: usize) {
        if let Some(head) = self.head {
            let left = self.branch().to_owned();
            self.others.insert(left, head);
        }
        self.others.remove(name);
        self.branch = Some(name.to_owned());
        self.head = Some(at);
    }
}
