//! A run's events as they stand on the wire.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::{Value, json};
use stepgraph::{Extra, InsideKind, Question, RunId, StartedTask, checkpoint::CheckpointSource};
use uuid::Uuid;

use super::{
    body::Several,
    registration::Heard,
    served::{StateView, Told},
    shape,
};
use crate::{error::ApiError, sse};

/// Which events a reader wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "one for each mode, asked one by one")]
pub(crate) struct Modes {
    values: bool,
    updates: bool,
    custom: bool,
    tasks: bool,
    checkpoints: bool,
    messages: bool,
    inside: bool,
}

impl Modes {
    /// None at all: of a caller who waits for the end.
    pub(crate) const fn none() -> Self {
        Self {
            values: false,
            updates: false,
            custom: false,
            tasks: false,
            checkpoints: false,
            messages: false,
            inside: false,
        }
    }

    /// The modes of a request, `values` unless it names any.
    pub(crate) fn of(named: Option<&Several>, inside: bool) -> Result<Self, ApiError> {
        let mut modes = Self { inside, ..Self::none() };
        let default = [String::from("values")];
        for name in named.map_or(default.as_slice(), Several::as_slice) {
            match name.as_str() {
                "values" => modes.values = true,
                "updates" => modes.updates = true,
                "custom" => modes.custom = true,
                "tasks" => modes.tasks = true,
                "checkpoints" => modes.checkpoints = true,
                "messages-tuple" => modes.messages = true,
                "messages" | "debug" | "events" => {
                    let message = format!("the stream mode `{name}` is not served yet");
                    return Err(ApiError::unfit("not_built", message));
                }
                _ => {
                    let message = format!(
                        "`{name}` is no stream mode: use values, updates, custom, tasks, checkpoints or messages-tuple"
                    );
                    return Err(ApiError::unfit("stream_mode", message));
                }
            }
        }
        Ok(modes)
    }

    /// What the run must tell for them.
    pub(crate) fn extras(self) -> Vec<Extra> {
        let wanted = [
            (self.values, Extra::Values),
            (self.values || self.tasks || self.checkpoints, Extra::Checkpoints),
            (self.tasks, Extra::Payloads),
            (self.inside, Extra::Inside),
        ];
        let wanted = wanted.into_iter().filter(|(wanted, _)| *wanted);
        wanted.map(|(_, extra)| extra).collect()
    }
}

/// Turns what a run tells into events.
#[derive(Debug)]
pub(crate) struct Teller {
    modes: Modes,
    run: RunId,
    thread: Uuid,
    graph: String,
    /// Each graph of the nest, by the hosts it lies in.
    seen: HashMap<Vec<String>, Seen>,
    /// Questions of one task are told one after the other, but are one event.
    asked: Option<Asked>,
    has_values: bool,
}

#[derive(Debug, Default)]
struct Seen {
    state: Value,
    checkpoint: Option<Uuid>,
    step: i64,
}

#[derive(Debug)]
struct Asked {
    path: Vec<String>,
    task: String,
    questions: Vec<Question>,
}

type Frames = Vec<Bytes>;

impl Teller {
    /// For a run on a thread whose newest state is `head`.
    pub(crate) fn new(modes: Modes, run: RunId, thread: Uuid, graph: &str, head: Option<&StateView>) -> Self {
        let seen = head.map(|head| Seen {
            state: head.values.clone(),
            checkpoint: Some(head.entry.id),
            step: head.entry.step,
        });
        Self {
            modes,
            run,
            thread,
            graph: graph.to_owned(),
            seen: HashMap::from([(Vec::new(), seen.unwrap_or_default())]),
            asked: None,
            has_values: false,
        }
    }

    pub(crate) const fn run(&self) -> RunId {
        self.run
    }

    /// The first event of every stream.
    pub(crate) fn begin(&self) -> Bytes {
        sse::json("metadata", None, &json!({"run_id": self.run, "attempt": 1}))
    }

    /// The events of what has just happened.
    pub(crate) fn tell(&mut self, told: Told) -> Frames {
        let mut frames = Frames::new();
        match told {
            Told::Said { path, node, heard } if self.hears(&path) => {
                self.flush(&mut frames);
                self.said(&names(&path), &node, heard, &mut frames);
            }
            Told::Happened { path, kind } if self.hears(&path) => {
                if !matches!(*kind, InsideKind::Asked { .. }) {
                    self.flush(&mut frames);
                }
                self.happened(&names(&path), *kind, &mut frames);
            }
            Told::Said { .. } | Told::Happened { .. } | Told::Ended(_) => {}
        }
        frames
    }

    /// The events of an end with these values, and with these questions if it waits.
    pub(crate) fn end(&mut self, values: &Value, questions: &[Question]) -> Frames {
        let mut frames = Frames::new();
        self.flush(&mut frames);
        if !questions.is_empty() {
            self.values(&[], &shape::with_interrupts(values, questions), &mut frames);
        } else if !self.has_values {
            self.values(&[], values, &mut frames);
        }
        frames
    }

    /// The events of a failure; nothing follows.
    pub(crate) fn fail(&mut self, code: &str, message: &str) -> Frames {
        let mut frames = Frames::new();
        self.flush(&mut frames);
        let failed = json!({"error": code, "message": message, "trace_id": self.run});
        frames.push(sse::json("error", None, &failed));
        frames
    }

    fn hears(&self, path: &[std::borrow::Cow<'static, str>]) -> bool {
        path.is_empty() || self.modes.inside
    }

    fn said(&self, path: &[String], node: &str, heard: Heard, frames: &mut Frames) {
        match heard {
            Heard::Custom(value) if self.modes.custom => frames.push(self.frame("custom", path, &value)),
            Heard::Token(text) if self.modes.messages => {
                let seen = self.seen.get(path);
                let step = seen.map_or(0, |seen| seen.step);
                let place = self.place(path, node);
                let chunk = json!({
                    "type": "AIMessageChunk",
                    "id": format!("run-{}-{place}", self.run),
                    "content": text,
                    "name": null,
                    "tool_calls": [],
                    "tool_call_chunks": [],
                    "invalid_tool_calls": [],
                    "additional_kwargs": {},
                    "response_metadata": {},
                });
                let about = json!({
                    "langgraph_node": node,
                    "langgraph_step": step,
                    "langgraph_checkpoint_ns": place,
                    "run_id": self.run,
                    "thread_id": self.thread,
                    "graph_id": self.graph,
                    "tags": [],
                });
                frames.push(self.frame("messages", path, &json!([chunk, about])));
            }
            Heard::Custom(_) | Heard::Token(_) | Heard::Nothing => {}
        }
    }

    fn happened(&mut self, path: &[String], kind: InsideKind, frames: &mut Frames) {
        match kind {
            InsideKind::Step { step, tasks, .. } => self.step(path, step, tasks, frames),
            InsideKind::Update { node, task, update, .. } => self.updated(path, &node, &task, &update, frames),
            InsideKind::Failed { node, task, error, .. } => {
                self.ended(path, &node, &task, &json!(error), &json!({}), frames);
            }
            InsideKind::Asked { question, .. } => self.asked(path, question, frames),
            InsideKind::Paused { .. } if self.modes.updates => {
                frames.push(self.frame("updates", path, &json!({"__interrupt__": []})));
            }
            InsideKind::Values { state, .. } => {
                self.values(path, &state, frames);
                self.seen(path).state = state;
            }
            InsideKind::Saved {
                step,
                source,
                next,
                checkpoint,
                state,
                ..
            } => {
                let next: Vec<String> = next.iter().map(|name| shape::place(name).to_owned()).collect();
                let id = checkpoint.map(|(_, id)| id);
                self.saved(path, (step, source), &next, id, state, frames);
            }
            _ => {}
        }
    }

    fn step(&mut self, path: &[String], step: i64, tasks: Vec<StartedTask>, frames: &mut Frames) {
        self.seen(path).step = step;
        if !self.modes.tasks {
            return;
        }
        for task in tasks {
            let input = task.payload.unwrap_or_else(|| self.seen(path).state.clone());
            let started = json!({"id": self.task(path, &task.task), "name": task.node, "input": input, "triggers": []});
            frames.push(self.frame("tasks", path, &started));
        }
    }

    fn updated(&self, path: &[String], node: &str, task: &str, update: &Value, frames: &mut Frames) {
        let wrote_nothing = update.as_object().is_none_or(serde_json::Map::is_empty);
        if self.modes.updates {
            let writes = if wrote_nothing { &Value::Null } else { update };
            frames.push(self.frame("updates", path, &json!({node: writes})));
        }
        self.ended(path, node, task, &Value::Null, update, frames);
    }

    fn ended(&self, path: &[String], node: &str, task: &str, error: &Value, result: &Value, frames: &mut Frames) {
        if self.modes.tasks {
            let id = self.task(path, task);
            let ended = json!({"id": id, "name": node, "error": error, "result": result, "interrupts": []});
            frames.push(self.frame("tasks", path, &ended));
        }
    }

    fn asked(&mut self, path: &[String], question: Question, frames: &mut Frames) {
        let task = question.id.split('@').next().unwrap_or_default().to_owned();
        match &mut self.asked {
            Some(asked) if asked.path == path && asked.task == task => asked.questions.push(question),
            _ => {
                self.flush(frames);
                self.asked = Some(Asked {
                    path: path.to_vec(),
                    task,
                    questions: vec![question],
                });
            }
        }
    }

    fn flush(&mut self, frames: &mut Frames) {
        let Some(Asked { path, task, questions }) = self.asked.take() else {
            return;
        };
        let interrupts = shape::interrupts(&questions);
        if self.modes.tasks {
            let node = task.split('#').next().unwrap_or_default();
            let id = self.task(&path, &task);
            let ended = json!({"id": id, "name": node, "error": null, "result": {}, "interrupts": interrupts});
            frames.push(self.frame("tasks", &path, &ended));
        }
        if self.modes.updates {
            frames.push(self.frame("updates", &path, &json!({"__interrupt__": interrupts})));
        }
    }

    fn values(&mut self, path: &[String], values: &Value, frames: &mut Frames) {
        if self.modes.values {
            self.has_values |= path.is_empty();
            frames.push(self.frame("values", path, values));
        }
    }

    fn saved(
        &mut self,
        path: &[String],
        (step, source): (i64, CheckpointSource),
        next: &[String],
        id: Option<Uuid>,
        state: Option<Value>,
        frames: &mut Frames,
    ) {
        let parent = self.seen(path).checkpoint;
        if id.is_some() {
            self.seen(path).checkpoint = id;
        }
        let Some(state) = state else { return };
        let is_merged = next != ["__start__"];
        if matches!(source, CheckpointSource::Input | CheckpointSource::Fork) && is_merged {
            self.values(path, &state, frames);
        }
        if self.modes.checkpoints
            && let Some(id) = id
        {
            let config = |id: Uuid| json!({"configurable": shape::checkpoint(self.thread, id)});
            let tasks: Vec<Value> = next
                .iter()
                .map(|name| json!({"id": shape::task_id(id, name), "name": name, "interrupts": [], "state": null}))
                .collect();
            let saved = json!({
                "config": config(id),
                "parent_config": parent.map(config),
                "values": state,
                "metadata": {"source": shape::source(source), "step": step, "parents": {}, "run_id": self.run, "graph_id": self.graph},
                "next": next,
                "tasks": tasks,
            });
            frames.push(self.frame("checkpoints", path, &saved));
        }
        self.seen(path).state = state;
    }

    fn seen(&mut self, path: &[String]) -> &mut Seen {
        self.seen.entry(path.to_vec()).or_default()
    }

    fn task(&self, path: &[String], task: &str) -> Uuid {
        let checkpoint = self.seen.get(path).and_then(|seen| seen.checkpoint);
        shape::task_id(checkpoint.unwrap_or(self.run.as_uuid()), task)
    }

    /// A task's name in a nest of graphs: `host:id|node:id`.
    fn place(&self, path: &[String], node: &str) -> String {
        let (hosts, task) = (self.hosts(path), self.task(path, node));
        if hosts.is_empty() {
            format!("{node}:{task}")
        } else {
            format!("{hosts}|{node}:{task}")
        }
    }

    fn hosts(&self, path: &[String]) -> String {
        let hosts = path.iter().enumerate().map(|(depth, host)| {
            let outside = path.get(..depth).unwrap_or_default();
            format!("{host}:{}", self.task(outside, host))
        });
        hosts.collect::<Vec<_>>().join("|")
    }

    fn frame(&self, mode: &str, path: &[String], data: &Value) -> Bytes {
        if path.is_empty() {
            sse::json(mode, None, data)
        } else {
            sse::json(&format!("{mode}|{}", self.hosts(path)), None, data)
        }
    }
}

fn names(path: &[std::borrow::Cow<'static, str>]) -> Vec<String> {
    path.iter().map(ToString::to_string).collect()
}
