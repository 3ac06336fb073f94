//! What can be seen of a thread, in one form for the engine and for the model.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    case::{Does, Graph, Object},
    mutation::Mutation,
    plan::Task,
    run::{End, Trace},
    thread::{Checkpoint, Source, Status, Thread},
    unfinished::{shown, with_commanded},
};

/// A thread as it is seen from outside.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct View {
    pub(super) head: Option<Head>,
    pub(super) history: Vec<Entry>,
    pub(super) branches: BTreeMap<String, usize>,
    pub(super) status: Option<Status>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Head {
    pub(super) at: usize,
    pub(super) state: Object,
    pub(super) next: Vec<String>,
    pub(super) tasks: Vec<TaskView>,
    pub(super) questions: Vec<String>,
    /// Which questions of which tasks have answers, and how many commands were kept. Not shown: it is read from the store.
    pub(super) answered: Vec<(String, String)>,
    pub(super) commands: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct TaskView {
    pub(super) id: String,
    pub(super) finished: bool,
    pub(super) failed: Option<u32>,
    pub(super) retrying: Option<u32>,
    pub(super) questions: Vec<String>,
    pub(super) inner: Option<View>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) parent: Option<usize>,
    pub(super) step: i64,
    pub(super) source: Source,
    pub(super) next: Vec<String>,
    pub(super) state: Object,
}

fn text(object: &Object) -> String {
    let object: serde_json::Map<String, Value> = object.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    Value::from(object).to_string()
}

impl View {
    /// One line for each thing that can differ.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        self.write("", &mut lines);
        lines
    }

    fn write(&self, indent: &str, lines: &mut Vec<String>) {
        lines.push(format!("{indent}status {:?}", self.status));
        let branches: Vec<_> = self
            .branches
            .iter()
            .map(|(name, at)| format!("{name}={}", at + 1))
            .collect();
        lines.push(format!("{indent}branches {}", branches.join(" ")));
        if let Some(head) = &self.head {
            lines.push(format!("{indent}head {} next {:?}", head.at + 1, head.next));
            lines.push(format!("{indent}state {}", text(&head.state)));
            lines.push(format!("{indent}questions {:?}", head.questions));
            for task in &head.tasks {
                lines.push(format!(
                    "{indent}task {} finished {} failed {:?} retrying {:?} asks {:?}",
                    task.id, task.finished, task.failed, task.retrying, task.questions
                ));
                if let Some(inner) = &task.inner {
                    inner.write(&format!("{indent}  in {}: ", task.id), lines);
                }
            }
        }
        for (at, entry) in self.history.iter().enumerate() {
            let parent = entry.parent.map_or(0, |parent| parent + 1);
            lines.push(format!(
                "{indent}checkpoint {} of {parent}: step {} {:?} next {:?} {}",
                at + 1,
                entry.step,
                entry.source,
                entry.next,
                text(&entry.state)
            ));
        }
    }

    /// The view of a thread of the model.
    pub(super) fn of(graph: &Graph, thread: &Thread, mutation: Option<Mutation>) -> Self {
        let entry = |checkpoint: &Checkpoint| Entry {
            parent: checkpoint.parent,
            step: checkpoint.step,
            source: checkpoint.source,
            next: checkpoint.tasks.iter().map(|task| task.node.clone()).collect(),
            state: checkpoint.state.clone(),
        };
        Self {
            head: thread.head.map(|at| head(graph, at, &thread.checkpoints[at], mutation)),
            history: thread.checkpoints.iter().map(entry).collect(),
            branches: thread.branches(),
            status: thread.status,
        }
    }
}

fn head(graph: &Graph, at: usize, checkpoint: &Checkpoint, mutation: Option<Mutation>) -> Head {
    let tasks = with_commanded(checkpoint);
    let left = tasks.iter().filter(|task| !checkpoint.is_finished(task));
    let mut questions: Vec<_> = checkpoint
        .left
        .open()
        .into_iter()
        .map(|(_, question)| format!("{} of {}: {}", question.id, question.node, question.payload))
        .collect();
    questions.sort();
    let answers = checkpoint.left.tasks.iter();
    let answered = answers.flat_map(|(id, left)| left.answers.keys().map(move |name| (id.clone(), name.clone())));
    Head {
        at,
        state: shown(checkpoint, &graph.channels, mutation),
        next: left.map(|task| task.node.clone()).collect(),
        tasks: tasks
            .iter()
            .map(|task| task_view(graph, checkpoint, task, mutation))
            .collect(),
        questions,
        answered: answered.collect(),
        commands: checkpoint.left.commands.len(),
    }
}

fn task_view(graph: &Graph, checkpoint: &Checkpoint, task: &Task, mutation: Option<Mutation>) -> TaskView {
    let left = checkpoint.left.tasks.get(&task.id()).cloned().unwrap_or_default();
    let finished = left.output.is_some();
    let inner = match (&graph.nodes[&task.node].does, &left.inner) {
        (Does::Host(inner), Some(thread)) if !finished && thread.head.is_some() => {
            Some(View::of(inner, thread, mutation))
        }
        (Does::Host(_) | Does::Body(_), _) => None,
    };
    TaskView {
        id: task.id(),
        finished,
        failed: left.failed.filter(|_| !finished),
        retrying: (left.attempts > 0 && !finished).then_some(left.attempts),
        questions: left
            .open()
            .into_iter()
            .filter(|_| !finished)
            .map(|question| question.id)
            .collect(),
        inner,
    }
}

/// How a run has ended, in lines.
pub(super) fn ended(end: Option<&End>) -> Vec<String> {
    match end {
        None => vec!["ok".to_owned()],
        Some(End::Done(state)) => vec![format!("done {}", text(state))],
        Some(End::Stalled(state, waiting)) => vec![format!("stalled {waiting:?} {}", text(state))],
        Some(End::Paused(at)) => vec![format!("paused {at}")],
        Some(End::Failed(fault)) => vec![format!("failed {} {}", fault.code, fault.detail)],
        Some(End::Asked(questions)) => {
            let mut asked: Vec<_> = questions
                .iter()
                .map(|question| format!("asked {} of {}: {}", question.id, question.node, question.payload))
                .collect();
            asked.sort();
            asked
        }
    }
}

/// What was seen of a run, in lines; steps and outputs only where somebody has listened.
pub(super) fn traced(trace: &Trace, heard: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if heard {
        lines.extend(trace.steps.iter().map(|step| format!("step {step}")));
        let mut gave = trace.gave.clone();
        gave.sort();
        lines.extend(gave.iter().map(|task| format!("gave {task}")));
    }
    lines.extend(
        trace
            .entries
            .iter()
            .map(|(entry, times)| format!("entered {times}x {entry}")),
    );
    lines
}
