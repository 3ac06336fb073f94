//! The model: a thread of a case, and what each op of its script does to it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    body::{To, Written, answer, destinations},
    case::{self, Case, Graph, How, Object, Op, Pending, Reply},
    merge::{apply, merge, start},
    mutation::Mutation,
    plan::{Departure, Waiting, plan},
    run::{End, Fault, Limits, Machine, Setting, Trace, route, unknown},
    thread::{Checkpoint, Command, Left, Source, Status, Thread},
    unfinished::{add, finished, finished_ids},
};

/// A case's thread as the model has it.
#[derive(Debug, Clone)]
pub(super) struct Model<'a> {
    pub(super) graph: &'a Graph,
    pub(super) setting: Setting,
    pub(super) thread: Thread,
}

/// What an op has come to.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    /// `None` for what is no run and has worked.
    pub(super) end: Option<End>,
    pub(super) trace: Trace,
}

impl From<Fault> for Outcome {
    fn from(fault: Fault) -> Self {
        Self {
            end: Some(End::Failed(fault)),
            trace: Trace::default(),
        }
    }
}

/// Answers as they are given to a run.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Given {
    None,
    One(Value),
    Many(Vec<(String, Value)>),
}

/// What `reply` means where these questions are open.
pub(super) fn given(reply: Reply, open: &[String]) -> Given {
    let all = || open.iter().map(|id| (id.clone(), answer(id))).collect::<Vec<_>>();
    match reply {
        Reply::None => Given::None,
        Reply::All if open.is_empty() => Given::None,
        Reply::All => Given::Many(all()),
        Reply::First => Given::Many(all().into_iter().take(1).collect()),
        Reply::One => Given::One(Value::from(open.len())),
        Reply::Unknown => Given::Many(vec![("nobody@1/asked".to_owned(), Value::Null)]),
    }
}

impl<'a> Model<'a> {
    pub(super) fn of(case: &'a Case, mutation: Option<Mutation>) -> Self {
        Self {
            graph: &case.graph,
            setting: Setting {
                broken: case.broken.iter().cloned().collect(),
                durability: case.ground.durability,
                mutation,
            },
            thread: Thread::default(),
        }
    }

    /// The position that an op names by a number.
    pub(super) fn position(&self, at: usize) -> usize {
        at % self.thread.checkpoints.len().max(1)
    }

    fn found(&self, at: usize) -> Result<Checkpoint, Fault> {
        let found = self.thread.checkpoints.get(self.position(at)).cloned();
        found.ok_or_else(|| Fault::new("run::no_checkpoint", ""))
    }

    pub(super) fn perform(&mut self, op: &Op) -> Outcome {
        let done = match op {
            Op::Input {
                writes,
                pending,
                at,
                how,
            } => self.input(writes, *pending, *at, how),
            Op::Resume { reply, command, how } => self.resume(*reply, command.as_ref(), how),
            Op::Rerun { at, command, how } => self.rerun(*at, command.as_ref(), how),
            Op::Update { at, node, writes } => self.update(*at, node.as_deref(), writes).map(|()| Outcome::default()),
            Op::Fork { at, name } => self.fork(*at, name).map(|()| Outcome::default()),
            Op::Switch { name } => self.switch(name).map(|()| Outcome::default()),
            Op::Mend => {
                self.setting.broken.clear();
                Ok(Outcome::default())
            }
        };
        done.unwrap_or_else(Into::into)
    }

    fn limits(&self, how: &How, may_pause: bool) -> Limits {
        Limits {
            limit: how.limit,
            before: how.before.clone().unwrap_or_else(|| self.graph.before.clone()),
            after: how.after.clone().unwrap_or_else(|| self.graph.after.clone()),
            may_pause,
        }
    }

    fn input(
        &mut self,
        writes: &[case::Write],
        pending: Pending,
        at: Option<usize>,
        how: &How,
    ) -> Result<Outcome, Fault> {
        let given = written(self.graph, writes, "input", &Object::new());
        let (mut state, step, parent) = match at.map(|at| self.found(at)).transpose()? {
            Some(found) => (found.state.clone(), found.step + 2, at.map(|at| self.position(at))),
            None => match self.thread.newest() {
                None => (start(&self.graph.channels), 0, None),
                Some(found) => {
                    if pending == Pending::Reject && !found.tasks.is_empty() {
                        let names: Vec<_> = found.tasks.iter().map(|task| task.node.clone()).collect();
                        return Err(Fault::new("run::pending", names.join(", ")));
                    }
                    let mut state = found.state.clone();
                    let commits = self.setting.mutation != Some(Mutation::CommitsNothing);
                    if pending == Pending::CommitFinished && commits {
                        self.commit_finished(found, &mut state)?;
                    }
                    (state, found.step + 2, self.thread.head)
                }
            },
        };
        apply(&mut state, &self.graph.channels, &given, self.setting.mutation);
        let (end, thread, trace) = admitted(
            self.graph,
            &self.setting,
            String::new(),
            std::mem::take(&mut self.thread),
            (state, step, parent),
            self.limits(how, true),
        );
        self.thread = thread;
        Ok(Outcome { end: Some(end?), trace })
    }

    /// Merges what had finished in a step that new input cuts short.
    fn commit_finished(&self, found: &Checkpoint, state: &mut Object) -> Result<(), Fault> {
        for command in &found.left.commands {
            apply(state, &self.graph.channels, &command.update, self.setting.mutation);
        }
        let updates = finished(found);
        merge(state, &self.graph.channels, &updates, self.setting.mutation).map_err(|conflict| {
            let ids = finished_ids(found);
            let by = format!("{} and {}", ids[conflict.first], ids[conflict.second]);
            Fault::new(
                "run::conflict",
                format!("{} by {by} step {}", conflict.channel, found.step + 1),
            )
        })
    }

    fn resume(&mut self, reply: Reply, command: Option<&case::Command>, how: &How) -> Result<Outcome, Fault> {
        let Some(found) = self.thread.newest() else {
            return Err(Fault::new("run::unknown_thread", ""));
        };
        let open = found.left.open();
        let ids: Vec<String> = open.iter().map(|(_, question)| question.id.clone()).collect();
        let answers = match given(reply, &ids) {
            Given::None => Vec::new(),
            Given::Many(answers) => answers,
            Given::One(value) => match ids.as_slice() {
                [id] => vec![(id.clone(), value)],
                [] => return Err(Fault::new("run::unknown_question", "")),
                _ => return Err(Fault::new("run::ambiguous_answer", "")),
            },
        };
        if let Some((id, _)) = answers.iter().find(|(id, _)| !ids.contains(id)) {
            return Err(Fault::new("run::unknown_question", id.clone()));
        }
        let thread = std::mem::take(&mut self.thread);
        let mut machine = Machine::at_head(self.graph, &self.setting, String::new(), thread.clone());
        for (id, value) in answers {
            let (task, question) = open
                .iter()
                .find(|(_, question)| question.id == id)
                .expect("an open question");
            let left = machine.now.left.tasks.entry(task.clone()).or_default();
            left.answers.insert(question.name.clone(), value);
        }
        let command = command.map(|command| ordered(self.graph, command));
        if let Err(fault) = obey_all(&mut machine, command.as_ref()) {
            self.thread = thread;
            return Err(fault);
        }
        if self.setting.mutation == Some(Mutation::ForgetsFinished) {
            machine.now.left.tasks.values_mut().for_each(|left| left.output = None);
        }
        let end = if machine.tasks.is_empty() {
            idle(&mut machine)
        } else {
            machine.keep(Status::Running);
            let stops = self.setting.mutation == Some(Mutation::StopsAgain);
            machine.drive(self.limits(how, stops))
        };
        self.thread = machine.thread;
        Ok(Outcome {
            end: Some(end),
            trace: machine.trace,
        })
    }

    fn rerun(&mut self, at: usize, command: Option<&case::Command>, how: &How) -> Result<Outcome, Fault> {
        if self.thread.head.is_none() {
            return Err(Fault::new("run::unknown_thread", ""));
        }
        let found = self.found(at)?;
        let command = command.map(|command| ordered(self.graph, command));
        let thread = std::mem::take(&mut self.thread);
        let kept = thread.clone();
        let mut machine = Machine {
            graph: self.graph,
            setting: &self.setting,
            path: String::new(),
            thread,
            live: found.state.clone(),
            tasks: found.tasks.clone(),
            step: found.step + 1,
            now: found,
            at: None,
            trace: Trace::default(),
            facts: false,
        };
        if self.setting.mutation != Some(Mutation::RerunsWithRecords) {
            machine.now.left = Left::default();
        }
        let told = command.iter().try_for_each(|command| obey(&mut machine, command));
        if let Err(fault) = told {
            self.thread = kept;
            return Err(fault);
        }
        machine.now = Checkpoint {
            parent: Some(at % kept.checkpoints.len()),
            step: machine.step,
            source: Source::Fork,
            state: machine.live.clone(),
            tasks: machine.tasks.clone(),
            ..machine.now
        };
        machine.keep(if machine.tasks.is_empty() {
            Status::Done
        } else {
            Status::Running
        });
        let end = machine.drive(self.limits(how, false));
        self.thread = machine.thread;
        Ok(Outcome {
            end: Some(end),
            trace: machine.trace,
        })
    }

    fn update(&mut self, at: Option<usize>, node: Option<&str>, writes: &[case::Write]) -> Result<(), Fault> {
        let (found, parent) = match at {
            Some(at) => (Some(self.found(at)?), Some(self.position(at))),
            None => (self.thread.newest().cloned(), self.thread.head),
        };
        let node = match node {
            Some(name) if name == "START" || self.graph.nodes.contains_key(name) => name.to_owned(),
            Some(name) => return Err(Fault::new("run::unknown_node", name)),
            None => self.last(found.as_ref(), parent)?,
        };
        let (mut state, mut waiting, step, dropped) = match found {
            Some(found) => (found.state, found.waiting, found.step + 1, found.tasks),
            None => (start(&self.graph.channels), Waiting::default(), 0, Vec::new()),
        };
        let over: Vec<_> = dropped.iter().map(|task| task.node.clone()).collect();
        waiting.rearm(self.graph, &over, self.setting.mutation);
        let update = written(self.graph, writes, "edit", &Object::new());
        apply(&mut state, &self.graph.channels, &update, self.setting.mutation);
        let to = route(self.graph, &node, &state);
        if let Some(target) = unknown(self.graph, &to) {
            return Err(Fault::new(
                "run::unknown_target",
                format!("{target} from {node} step {step}"),
            ));
        }
        let departure = Departure { node, to };
        let mut tasks = plan(self.graph, vec![departure], &mut waiting, self.setting.mutation);
        if self.setting.mutation == Some(Mutation::EditsBeside) {
            let beside = dropped.into_iter().filter(|task| !tasks.contains(task));
            let beside: Vec<_> = beside.collect();
            tasks.extend(beside);
        }
        self.thread.status = Some(if tasks.is_empty() {
            Status::Done
        } else {
            Status::Stopped
        });
        self.thread.push(Checkpoint {
            parent,
            step,
            source: Source::Update,
            state,
            tasks,
            waiting,
            left: Left::default(),
        });
        Ok(())
    }

    /// As which node an edit is made that does not say so: the only one of the newest step.
    fn last(&self, found: Option<&Checkpoint>, at: Option<usize>) -> Result<String, Fault> {
        let mut next = found.cloned().zip(at);
        while let Some((checkpoint, _)) = &next {
            match (checkpoint.source, checkpoint.parent) {
                (Source::Step, Some(parent)) => {
                    let before = &self.thread.checkpoints[parent];
                    if before.step + 1 != checkpoint.step {
                        break;
                    }
                    let mut ran: Vec<String> = before.tasks.iter().map(|task| task.node.clone()).collect();
                    let commands = before.left.commands.iter().flat_map(|command| &command.to);
                    ran.extend(commands.map(|to| match to {
                        To::Node(name) | To::Send(name, _) => name.clone(),
                    }));
                    ran.sort();
                    ran.dedup();
                    return match ran.as_slice() {
                        [only] => Ok(only.clone()),
                        _ => Err(Fault::new("run::ambiguous_update", ran.join(","))),
                    };
                }
                (Source::Input, _) => return Ok("START".to_owned()),
                (_, None) => break,
                (_, Some(parent)) => next = Some((self.thread.checkpoints[parent].clone(), parent)),
            }
        }
        Err(Fault::new("run::ambiguous_update", ""))
    }

    fn fork(&mut self, at: usize, name: &str) -> Result<(), Fault> {
        self.found(at)?;
        let at = self.position(at);
        if self.thread.branches().contains_key(name) {
            return Err(Fault::new("run::branch_exists", name));
        }
        self.thread.branch_at(name, at);
        Ok(())
    }

    fn switch(&mut self, name: &str) -> Result<(), Fault> {
        match self.thread.branches().get(name) {
            None => Err(Fault::new("run::unknown_branch", name)),
            Some(at) => {
                if self.thread.branch() != name {
                    self.thread.branch_at(name, *at);
                }
                Ok(())
            }
        }
    }
}

/// What is written from outside, to channels that the graph has.
pub(super) fn written(graph: &Graph, writes: &[case::Write], by: &str, scope: &Object) -> Vec<Written> {
    let known = writes.iter().filter_map(|write| {
        let reducer = graph.channels.get(&write.channel)?;
        Some(write.written(by, scope, *reducer))
    });
    known.collect()
}

pub(super) fn ordered(graph: &Graph, command: &case::Command) -> Command {
    Command {
        update: written(graph, &command.writes, "told", &Object::new()),
        to: destinations(&command.goto, &Object::new()),
    }
}

/// Carries out one command.
fn obey(machine: &mut Machine<'_>, command: &Command) -> Result<(), Fault> {
    let (graph, mutation) = (machine.graph, machine.setting.mutation);
    apply(&mut machine.live, &graph.channels, &command.update, mutation);
    if let Some(target) = unknown(graph, &command.to) {
        return Err(Fault::new("run::unknown_node", target));
    }
    add(&mut machine.tasks, &command.to);
    Ok(())
}

/// Carries out the commands of earlier runs of the step, then a new one, which stays with them.
fn obey_all(machine: &mut Machine<'_>, command: Option<&Command>) -> Result<(), Fault> {
    for kept in machine.now.left.commands.clone() {
        obey(machine, &kept)?;
    }
    if let Some(command) = command {
        obey(machine, command)?;
        machine.now.left.commands.push(command.clone());
    }
    Ok(())
}

/// A run that goes on with nothing left to run: what commands have written becomes a checkpoint.
fn idle(machine: &mut Machine<'_>) -> End {
    if machine
        .now
        .left
        .commands
        .iter()
        .all(|command| command.update.is_empty())
    {
        return machine.end();
    }
    let at = machine.at.take().expect("a stored checkpoint");
    machine.thread.checkpoints[at].left = machine.now.left.clone();
    machine.now = Checkpoint {
        parent: Some(at),
        source: Source::Update,
        state: machine.live.clone(),
        left: Left::default(),
        ..machine.now.clone()
    };
    machine.keep(Status::Done);
    machine.end()
}

/// A run on a thread of its own, from this input.
pub(super) fn begun(
    graph: &Graph,
    setting: &Setting,
    path: String,
    given: Object,
    limits: Limits,
) -> (End, Thread, Trace, bool) {
    let mut state = start(&graph.channels);
    let given = given.into_iter().map(|(channel, value)| Written {
        channel,
        value,
        outright: false,
    });
    apply(
        &mut state,
        &graph.channels,
        &given.collect::<Vec<_>>(),
        setting.mutation,
    );
    let limits = Limits {
        may_pause: true,
        ..limits
    };
    let first = (state, 0, None);
    let (end, thread, trace, facts) = admitted_inside(graph, setting, path, Thread::default(), first, limits);
    (end.unwrap_or_else(End::Failed), thread, trace, facts)
}

/// The same thread gone on with; `answers` are those of its host, by the ids of the questions inside.
pub(super) fn gone_on(
    graph: &Graph,
    setting: &Setting,
    path: String,
    thread: Thread,
    answers: &BTreeMap<String, Value>,
    limits: Limits,
) -> (End, Thread, Trace, bool) {
    let mut machine = Machine::at_head(graph, setting, path, thread);
    for (task, question) in machine.now.left.open() {
        if let Some(answer) = answers.get(&question.id) {
            let left = machine.now.left.tasks.entry(task).or_default();
            left.answers.insert(question.name, answer.clone());
        }
    }
    let end = if machine.tasks.is_empty() {
        machine.end()
    } else {
        machine.keep(Status::Running);
        machine.drive(limits)
    };
    (end, machine.thread, machine.trace, machine.facts)
}

type First = (Object, i64, Option<usize>);

fn admitted(
    graph: &Graph,
    setting: &Setting,
    path: String,
    thread: Thread,
    first: First,
    limits: Limits,
) -> (Result<End, Fault>, Thread, Trace) {
    let (end, thread, trace, _) = admitted_inside(graph, setting, path, thread, first, limits);
    (end, thread, trace)
}

/// New input that was merged: what follows from START runs.
fn admitted_inside(
    graph: &Graph,
    setting: &Setting,
    path: String,
    thread: Thread,
    (state, step, parent): First,
    limits: Limits,
) -> (Result<End, Fault>, Thread, Trace, bool) {
    let to = route(graph, "START", &state);
    if let Some(target) = unknown(graph, &to) {
        let fault = Fault::new("run::unknown_target", format!("{target} from START step {step}"));
        return (Err(fault), thread, Trace::default(), false);
    }
    let mut waiting = Waiting::default();
    let departure = Departure {
        node: "START".to_owned(),
        to,
    };
    let tasks = plan(graph, vec![departure], &mut waiting, setting.mutation);
    let mut machine = Machine {
        graph,
        setting,
        path,
        thread,
        live: state.clone(),
        tasks: tasks.clone(),
        step,
        now: Checkpoint {
            parent,
            step,
            source: Source::Input,
            state,
            tasks,
            waiting,
            left: Left::default(),
        },
        at: None,
        trace: Trace::default(),
        facts: false,
    };
    machine.keep(if machine.tasks.is_empty() {
        Status::Done
    } else {
        Status::Running
    });
    let end = machine.drive(limits);
    (Ok(end), machine.thread, machine.trace, machine.facts)
}
