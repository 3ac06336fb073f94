//! The model of a run: steps from a checkpoint until there is nothing left, or something in the way.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use stepgraph::Durability;

use super::{
    body::{Act, To, Written, chosen, collected, destinations, enact},
    case::{Does, FailKind, Graph, Node, Object, OnItem, Way},
    merge::{apply, merge},
    mutation::Mutation,
    plan::{Departure, Task, Waiting, plan},
    thread::{Checkpoint, Left, Output, Question, Source, Status, TaskLeft, Thread},
};

/// So many tasks of one step are more than a case may have.
pub(super) const TASKS_MAX: usize = 200;

/// What is said of a case whose step has more: another is taken in its place.
pub(super) const OUTGROWN: &str = "a step of the case has too many tasks";

/// What a run depends on beside its thread.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) broken: BTreeSet<String>,
    pub(super) durability: Durability,
    pub(super) mutation: Option<Mutation>,
}

/// What is seen of a run while it runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Trace {
    /// Each step with its tasks.
    pub(super) steps: Vec<String>,
    /// The tasks that gave an output, and did not have one before.
    pub(super) gave: Vec<String>,
    /// How often each node was entered, by step, attempt and what it was sent.
    pub(super) entries: BTreeMap<String, u32>,
}

pub(super) fn entry(path: &str, node: &str, step: i64, attempt: u32, sent: Option<&Value>) -> String {
    let sent = sent.map_or_else(String::new, ToString::to_string);
    format!("{path}{node} step {step} attempt {attempt} {sent}")
}

/// How a run ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum End {
    Done(Object),
    Stalled(Object, Vec<(Vec<String>, Vec<String>)>),
    Asked(Vec<Question>),
    Paused(String),
    Failed(Fault),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fault {
    pub(super) code: &'static str,
    pub(super) detail: String,
    pub(super) retryable: bool,
}

impl Fault {
    pub(super) fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            retryable: false,
        }
    }
}

/// How far a run may go.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) limit: u32,
    pub(super) before: Vec<String>,
    pub(super) after: Vec<String>,
    pub(super) may_pause: bool,
}

/// A run under way.
pub(super) struct Machine<'a> {
    pub(super) graph: &'a Graph,
    pub(super) setting: &'a Setting,
    /// The nodes around this graph, each with a slash behind it.
    pub(super) path: String,
    pub(super) thread: Thread,
    /// The checkpoint that the step begins at, and where it stands if it is written.
    pub(super) now: Checkpoint,
    pub(super) at: Option<usize>,
    /// The state with what commands have written.
    pub(super) live: Object,
    pub(super) tasks: Vec<Task>,
    pub(super) step: i64,
    pub(super) trace: Trace,
    /// Whether something was written down that needs the checkpoints around it.
    pub(super) facts: bool,
}

enum TaskEnd {
    Output(Output),
    Asked(Vec<Question>),
    Failed { attempts: u32, retryable: bool },
    Paused,
}

impl<'a> Machine<'a> {
    /// A run that goes on from the thread's newest checkpoint.
    pub(super) fn at_head(graph: &'a Graph, setting: &'a Setting, path: String, thread: Thread) -> Self {
        let at = thread.head.expect("a thread with a checkpoint");
        let now = thread.checkpoints[at].clone();
        Self {
            graph,
            setting,
            path,
            thread,
            live: now.state.clone(),
            tasks: now.tasks.clone(),
            step: now.step,
            now,
            at: Some(at),
            trace: Trace::default(),
            facts: false,
        }
    }

    fn mutated(&self, mutation: Mutation) -> bool {
        self.setting.mutation == Some(mutation)
    }

    pub(super) fn drive(&mut self, mut limits: Limits) -> End {
        let mut left = limits.limit;
        if self.mutated(Mutation::CountsOneStepMore) {
            left += 1;
        }
        loop {
            if self.tasks.is_empty() {
                return self.end();
            }
            if left == 0 {
                self.keep(Status::Stopped);
                return End::Failed(Fault::new("run::step_limit", limits.limit.to_string()));
            }
            let names = |tasks: &[Task]| tasks.iter().map(|task| task.node.clone()).collect::<Vec<_>>().join(",");
            let meets = |nodes: &[String], tasks: &[Task]| tasks.iter().any(|task| nodes.contains(&task.node));
            if limits.may_pause && meets(&limits.before, &self.tasks) {
                self.keep(Status::Stopped);
                return End::Paused(format!("before {}", names(&self.tasks)));
            }
            limits.may_pause = true;
            left -= 1;
            let stop = meets(&limits.after, &self.tasks).then(|| names(&self.tasks));
            if let Some(end) = self.superstep(&limits) {
                return end;
            }
            if let Some(nodes) = stop {
                if !self.tasks.is_empty() {
                    self.keep(Status::Stopped);
                }
                return End::Paused(format!("after {nodes}"));
            }
        }
    }

    /// What a run has come to that has no tasks left.
    pub(super) fn end(&self) -> End {
        let stalled = self.now.waiting.stalled(self.graph);
        if stalled.is_empty() {
            End::Done(self.live.clone())
        } else {
            End::Stalled(self.live.clone(), stalled)
        }
    }

    /// Writes the checkpoint that the step begins at, if it is held back.
    fn flush(&mut self) -> usize {
        if let Some(at) = self.at {
            at
        } else {
            let at = self.thread.push(self.now.clone());
            self.at = Some(at);
            at
        }
    }

    /// Writes down what the tasks have left, and how far the run is.
    pub(super) fn keep(&mut self, status: Status) {
        let at = self.flush();
        self.thread.checkpoints[at].left = self.now.left.clone();
        self.thread.status = Some(status);
    }

    /// Runs a step; gives how the run ends if it ends there.
    fn superstep(&mut self, limits: &Limits) -> Option<End> {
        self.step += 1;
        assert!(self.tasks.len() <= TASKS_MAX, "{OUTGROWN}");
        let ids: Vec<String> = self.tasks.iter().map(Task::id).collect();
        self.trace.steps.push(format!("{}: {}", self.step, ids.join(" ")));
        let mut ends = Vec::new();
        for task in self.tasks.clone() {
            let id = task.id();
            let mut left = self.now.left.tasks.remove(&id).unwrap_or_default();
            let had = left.output.is_some();
            let end = self.task(&task, &mut left, limits);
            if let TaskEnd::Output(output) = &end {
                left.output = Some(output.clone());
                if !had {
                    self.trace.gave.push(format!("{} {id}", self.step));
                }
            }
            if left != TaskLeft::default() || left.inner.is_some() {
                self.now.left.tasks.insert(id, left);
            }
            ends.push((task, end));
        }
        let outputs: Vec<&Output> = ends
            .iter()
            .filter_map(|(_, end)| {
                if let TaskEnd::Output(output) = end {
                    Some(output)
                } else {
                    None
                }
            })
            .collect();
        if outputs.len() < ends.len() {
            return Some(self.suspended(&ends));
        }
        let outputs: Vec<Output> = outputs.into_iter().cloned().collect();
        match self.merged(&outputs) {
            Ok((state, tasks, waiting)) => {
                self.next(state, tasks, waiting);
                None
            }
            Err(fault) => {
                self.now.left.unsure = true;
                // What was held back is lost with a state that is half merged.
                if self.at.is_some() || fault.code == "run::conflict" {
                    self.keep(Status::Failed);
                }
                self.thread.status = Some(Status::Failed);
                Some(End::Failed(fault))
            }
        }
    }

    /// The step's end: its tasks become the checkpoint that the next begins at.
    fn next(&mut self, state: Object, tasks: Vec<Task>, waiting: Waiting) {
        let before = std::mem::replace(
            &mut self.now,
            Checkpoint {
                parent: self.at.or(self.thread.head),
                step: self.step,
                source: Source::Step,
                state: state.clone(),
                tasks: tasks.clone(),
                waiting,
                left: Left::default(),
            },
        );
        if let Some(at) = self.at.take() {
            self.thread.checkpoints[at].left = Left {
                unsure: true,
                ..before.left
            };
        }
        (self.live, self.tasks) = (state, tasks);
        if self.tasks.is_empty() {
            self.keep(Status::Done);
        } else if self.setting.durability != Durability::Exit {
            self.flush();
        }
    }

    fn suspended(&mut self, ends: &[(Task, TaskEnd)]) -> End {
        let failed = ends.iter().find_map(|(task, end)| match end {
            TaskEnd::Failed { attempts, retryable } => Some((task, *attempts, *retryable)),
            TaskEnd::Output(_) | TaskEnd::Asked(_) | TaskEnd::Paused => None,
        });
        if let Some((task, attempts, retryable)) = failed {
            self.keep(Status::Failed);
            let detail = format!(
                "node {} task {} step {} attempts {attempts}",
                task.node,
                task.id(),
                self.step
            );
            return End::Failed(Fault {
                retryable,
                ..Fault::new("run::node", detail)
            });
        }
        let asked: Vec<Question> = ends
            .iter()
            .filter_map(|(_, end)| {
                if let TaskEnd::Asked(asked) = end {
                    Some(asked.clone())
                } else {
                    None
                }
            })
            .flatten()
            .collect();
        if asked.is_empty() {
            self.keep(Status::Stopped);
            End::Paused("inside".to_owned())
        } else {
            self.keep(Status::Asked);
            End::Asked(asked)
        }
    }

    /// The state after the step, and what is to run next.
    fn merged(&self, outputs: &[Output]) -> Result<(Object, Vec<Task>, Waiting), Fault> {
        let mut departures = Vec::new();
        let mut everything = self.live.clone();
        for output in outputs {
            apply(
                &mut everything,
                &self.graph.channels,
                &output.update,
                self.setting.mutation,
            );
        }
        for (task, output) in self.tasks.iter().zip(outputs) {
            let mut to = output.to.clone();
            self.known(&task.id(), &to)?;
            let mut own = self.live.clone();
            apply(&mut own, &self.graph.channels, &output.update, self.setting.mutation);
            let seen = if self.mutated(Mutation::RoutesByAll) {
                &everything
            } else {
                &own
            };
            let routed = route(self.graph, &task.node, seen);
            self.known(&self.first(&task.node), &routed)?;
            to.extend(routed);
            departures.push(Departure {
                node: task.node.clone(),
                to,
            });
        }
        let mut state = self.live.clone();
        let updates: Vec<Vec<Written>> = outputs.iter().map(|output| output.update.clone()).collect();
        merge(&mut state, &self.graph.channels, &updates, self.setting.mutation).map_err(|conflict| {
            let id = |at: usize| self.tasks.get(at).map(Task::id).unwrap_or_default();
            let (first, second) = (id(conflict.first), id(conflict.second));
            let detail = format!("{} by {first} and {second} step {}", conflict.channel, self.step);
            Fault::new("run::conflict", detail)
        })?;
        let mut waiting = self.now.waiting.clone();
        let tasks = plan(self.graph, departures, &mut waiting, self.setting.mutation);
        Ok((state, tasks, waiting))
    }

    /// A way that leads nowhere is told of the first task of its node.
    fn first(&self, node: &str) -> String {
        let first = self.tasks.iter().find(|task| task.node == node);
        first.map(Task::id).unwrap_or_default()
    }

    fn known(&self, from: &str, to: &[To]) -> Result<(), Fault> {
        unknown(self.graph, to).map_or(Ok(()), |target| {
            Err(Fault::new(
                "run::unknown_target",
                format!("{target} from {from} step {}", self.step),
            ))
        })
    }

    fn task(&mut self, task: &Task, left: &mut TaskLeft, limits: &Limits) -> TaskEnd {
        if let Some(output) = &left.output {
            return TaskEnd::Output(output.clone());
        }
        let open = left.open();
        if !open.is_empty() && !self.mutated(Mutation::AsksAgain) {
            return TaskEnd::Asked(open);
        }
        let graph = self.graph;
        let node = &graph.nodes[&task.node];
        let tries = node.attempts - u32::from(self.mutated(Mutation::TriesLess) && node.attempts > 1);
        let mut attempt = if tries > 1 { left.attempts + 1 } else { 1 };
        loop {
            let end = match &node.does {
                Does::Body(_) => self.enter(task, node, left, attempt),
                Does::Host(inner) => self.host(task, inner, left, limits),
            };
            match end {
                TaskEnd::Failed { retryable: true, .. } if attempt < tries => {
                    left.attempts = attempt;
                    self.facts = true;
                    self.flush();
                    attempt += 1;
                }
                TaskEnd::Failed { retryable, .. } => return self.failed(task, node, left, attempt, retryable),
                end => return end,
            }
        }
    }

    fn failed(&self, task: &Task, node: &Node, left: &mut TaskLeft, attempts: u32, retryable: bool) -> TaskEnd {
        if let Some((number, _)) = &task.sent
            && !self.mutated(Mutation::FailsForItems)
        {
            let update = match &node.on_item {
                OnItem::Fail => None,
                OnItem::Skip => Some(Vec::new()),
                OnItem::Collect(channel) => Some(vec![collected(channel, *number)]),
            };
            if let Some(update) = update {
                return TaskEnd::Output(Output { update, to: Vec::new() });
            }
        }
        if attempts > 1 {
            left.attempts = 0;
        }
        left.failed = Some(attempts);
        TaskEnd::Failed { attempts, retryable }
    }

    /// One entry of a node's own body.
    fn enter(&mut self, task: &Task, node: &Node, left: &mut TaskLeft, attempt: u32) -> TaskEnd {
        let Does::Body(body) = &node.does else {
            unreachable!("a host is no body")
        };
        let sent = task.sent.as_ref().map(|(_, value)| value);
        let name = entry(&self.path, &task.node, self.step, attempt, sent);
        *self.trace.entries.entry(name).or_default() += 1;
        let input = self.input(task);
        let broken = self.setting.broken.contains(&task.node);
        let (id, step) = (task.id(), self.step);
        let mut asked = Vec::new();
        let act = enact(
            (&task.node, body),
            &input,
            attempt,
            broken,
            &self.graph.channels,
            |name, payload| {
                let answer = left.answers.get(name).cloned();
                if answer.is_none() {
                    asked.push(Question {
                        id: format!("{id}@{step}/{name}"),
                        node: task.node.clone(),
                        name: name.to_owned(),
                        payload,
                    });
                }
                answer
            },
        );
        match act {
            Act::Asks => {
                for question in &asked {
                    left.questions.insert(question.name.clone(), question.clone());
                }
                TaskEnd::Asked(asked)
            }
            Act::Fails(kind) => TaskEnd::Failed {
                attempts: attempt,
                retryable: kind == FailKind::Retryable,
            },
            Act::Gives(mut update, gotos) => {
                if self.mutated(Mutation::OverwritesNothing) {
                    for written in &mut update {
                        written.outright = false;
                    }
                }
                TaskEnd::Output(Output {
                    update,
                    to: destinations(&gotos, &input),
                })
            }
        }
    }

    /// The state as the step began, or what the task was sent.
    fn input(&self, task: &Task) -> Object {
        match &task.sent {
            None => self.live.clone(),
            Some((_, value)) => {
                let sent = value.as_object().into_iter().flatten();
                sent.map(|(name, value)| (name.clone(), value.clone())).collect()
            }
        }
    }

    /// A graph inside a node: begun with what both have, and what it ends with is written as far as both have it.
    fn host(&mut self, task: &Task, inner: &Graph, left: &mut TaskLeft, limits: &Limits) -> TaskEnd {
        let mut given = self.input(task);
        given.retain(|name, _| inner.channels.contains_key(name));
        if self.mutated(Mutation::HostsWithoutInput) {
            given.clear();
        }
        let path = format!("{}{}/", self.path, task.node);
        let limits = Limits {
            limit: limits.limit,
            before: inner.before.clone(),
            after: inner.after.clone(),
            may_pause: false,
        };
        let begun = left.inner.take().map(|thread| *thread);
        let setting = self.setting;
        let (end, thread, trace, facts) = match begun.filter(|thread| thread.head.is_some()) {
            None => super::reference::begun(inner, setting, path, given, limits),
            Some(thread) => super::reference::gone_on(inner, setting, path, thread, &left.answers, limits),
        };
        left.inner = Some(Box::new(thread));
        for (entry, times) in trace.entries {
            *self.trace.entries.entry(entry).or_default() += times;
        }
        if facts {
            self.facts = true;
            self.flush();
        }
        match end {
            End::Done(mut state) | End::Stalled(mut state, _) => {
                state.retain(|name, _| self.graph.channels.contains_key(name));
                let written = state.into_iter().map(|(channel, value)| Written {
                    channel,
                    value,
                    outright: false,
                });
                TaskEnd::Output(Output {
                    update: written.collect(),
                    to: Vec::new(),
                })
            }
            End::Asked(questions) => {
                let outer = |inner: Question| Question {
                    id: format!("{}@{}/{}", task.id(), self.step, inner.id),
                    node: format!("{}/{}", task.node, inner.node),
                    name: inner.id,
                    payload: inner.payload,
                };
                let asked: Vec<Question> = questions.into_iter().map(outer).collect();
                for question in &asked {
                    left.questions.insert(question.name.clone(), question.clone());
                }
                TaskEnd::Asked(asked)
            }
            End::Paused(_) => TaskEnd::Paused,
            End::Failed(fault) => TaskEnd::Failed {
                attempts: 1,
                retryable: fault.retryable,
            },
        }
    }
}

/// Where branches lead from a state.
pub(super) fn route(graph: &Graph, node: &str, state: &Object) -> Vec<To> {
    let mut to = Vec::new();
    for way in &graph.ways {
        if let Way::Branch {
            from, cases, otherwise, ..
        } = way
            && from == node
        {
            to.extend(destinations(chosen(cases, otherwise, state), state));
        }
    }
    to
}

/// The first destination that the graph does not have.
pub(super) fn unknown(graph: &Graph, to: &[To]) -> Option<String> {
    let names = to.iter().map(|to| match to {
        To::Node(name) | To::Send(name, _) => name,
    });
    let mut lost = names.filter(|name| name.as_str() != "END" && !graph.nodes.contains_key(*name));
    lost.next().cloned()
}
