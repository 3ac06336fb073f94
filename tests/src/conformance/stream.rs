//! The events of a run in the form in which a case expects them.

use std::{collections::BTreeMap, sync::Mutex};

use serde_json::{Map, Value, json};
use stepgraph::{Event, EventKind, InsideKind, StartedTask, checkpoint::CheckpointSource, dynamic::JsonState};

use super::{
    body::Counters,
    graph::{called, list, names},
};

/// The kinds of events, in the order in which they stand in a group.
const KINDS: [&str; 7] = [
    "task",
    "custom",
    "updates",
    "task_result",
    "interrupt",
    "values",
    "checkpoint",
];

/// The events of one superstep.
#[derive(Default)]
struct Group {
    /// Of graphs inside nodes: path, kind, payload.
    inside: Vec<(Vec<String>, &'static str, Value)>,
    root: Vec<(&'static str, Value)>,
}

/// A stream in the making.
pub(super) struct Groups<'a> {
    case: &'a Value,
    modes: &'a [String],
    subgraphs: bool,
    counters: &'a Mutex<Counters>,
    all: Vec<Group>,
    /// What each graph's state was when its step began, by path.
    seen: BTreeMap<Vec<String>, Seen>,
}

#[derive(Default)]
struct Seen {
    state: Map<String, Value>,
    asked: Option<(String, Vec<Value>)>,
    /// The values of a graph inside that are told once its step is saved, or the next one begins.
    merged: Option<Value>,
    /// Whether the step under way has been asked in, so that it does not end.
    stopped: bool,
}

/// What happened, whether at the root or inside.
enum What {
    Step(Vec<StartedTask>),
    Update(String, Value),
    Custom(Value),
    Failed(String),
    Asked(String, String, Value),
    Paused,
    Values(Map<String, Value>, Vec<String>),
    Saved(CheckpointSource, i64, Vec<String>, Option<Map<String, Value>>),
    Nothing,
}

impl<'a> Groups<'a> {
    pub(super) fn new(case: &'a Value, modes: &'a [String], subgraphs: bool, counters: &'a Mutex<Counters>) -> Self {
        Self {
            counters,
            case,
            modes,
            subgraphs,
            all: vec![Group::default()],
            seen: BTreeMap::new(),
        }
    }

    pub(super) fn take(&mut self, event: Event<JsonState>) {
        let path: Vec<String> = event.path.iter().map(ToString::to_string).collect();
        let what = match event.kind {
            EventKind::Inside(kind) => inside(kind),
            kind => root(kind),
        };
        self.happened(&path, what);
    }

    fn happened(&mut self, path: &[String], what: What) {
        if !matches!(what, What::Asked(..)) {
            self.flush(path);
        }
        match what {
            What::Step(tasks) => self.step(path, tasks),
            What::Custom(event) => self.add(path, "custom", event),
            What::Update(node, update) => {
                let shown = self.output(path);
                let writes = update.as_object().cloned().unwrap_or_default();
                let result = json!({"name": node, "error": false, "result": writes, "interrupts": []});
                let visible: Map<_, _> = writes
                    .into_iter()
                    .filter(|(name, _)| is_shown(shown.as_deref(), name))
                    .collect();
                let updates = if visible.is_empty() {
                    Value::Null
                } else {
                    visible.into()
                };
                self.add(path, "updates", json!({&node: updates}));
                self.add(path, "task_result", result);
            }
            What::Failed(node) => {
                // Recorded so: a task that fails after an answer tells an empty update.
                let graph = self.graph(path).unwrap_or_default();
                let known = if graph == "main" {
                    node.clone()
                } else {
                    format!("{graph}.{node}")
                };
                if self.counters.lock().unwrap().answered.contains(&known) {
                    self.add(path, "updates", json!({&node: null}));
                }
                let result = json!({"name": node, "error": true, "result": {}, "interrupts": []});
                self.add(path, "task_result", result);
            }
            What::Asked(task, node, payload) => {
                self.seen.entry(path.to_vec()).or_default().stopped = true;
                self.asked(path, &task, &node, payload);
            }
            // That a graph inside has stopped is told by the outermost one.
            What::Paused if path.is_empty() => self.add(path, "interrupt", json!([])),
            What::Values(state, changed) => {
                self.seen.entry(path.to_vec()).or_default().state.clone_from(&state);
                let shown = self.output(path);
                if changed.iter().any(|name| is_shown(shown.as_deref(), name)) {
                    let state: Map<_, _> = state
                        .into_iter()
                        .filter(|(name, _)| is_shown(shown.as_deref(), name))
                        .collect();
                    if path.is_empty() {
                        self.add(path, "values", state.into());
                    } else if let Some(seen) = self.seen.get_mut(path).filter(|seen| !seen.stopped) {
                        seen.merged = Some(state.into());
                    }
                }
            }
            What::Saved(source, step, next, state) => {
                // A graph inside tells its values only when a step has ended, not when it stops in the middle of one.
                if let Some(values) = self.seen.entry(path.to_vec()).or_default().merged.take() {
                    self.add(path, "values", values);
                }
                self.saved(path, source, step, next, state);
            }
            What::Paused => self.seen.entry(path.to_vec()).or_default().merged = None,
            What::Nothing => {}
        }
    }

    fn step(&mut self, path: &[String], tasks: Vec<StartedTask>) {
        let seen = self.seen.entry(path.to_vec()).or_default();
        seen.stopped = false;
        if let Some(values) = seen.merged.take() {
            self.add(path, "values", values);
        }
        if path.is_empty() {
            self.all.push(Group::default());
        }
        let seen = self.seen.entry(path.to_vec()).or_default();
        let state = Value::from(seen.state.clone());
        for task in tasks {
            let input = task.payload.unwrap_or_else(|| state.clone());
            self.add(path, "task", json!({"name": task.node, "input": input}));
        }
    }

    fn saved(
        &mut self,
        path: &[String],
        source: CheckpointSource,
        step: i64,
        mut next: Vec<String>,
        state: Option<Map<String, Value>>,
    ) {
        let Some(state) = state else { return };
        self.seen.entry(path.to_vec()).or_default().state.clone_from(&state);
        if self.case["checkpointer"] == false {
            return;
        }
        for node in &mut next {
            if node == "START" {
                "__start__".clone_into(node);
            }
        }
        next.sort();
        let source = match source {
            CheckpointSource::Input => "input",
            CheckpointSource::Step => "loop",
            CheckpointSource::Update => "update",
            CheckpointSource::Fork => "fork",
        };
        let checkpoint = json!({"source": source, "step": step, "values": state, "next": next});
        self.add(path, "checkpoint", checkpoint);
    }

    /// Questions of one task are told one after the other, but are one event.
    fn asked(&mut self, path: &[String], task: &str, node: &str, payload: Value) {
        let key = format!("{task}\n{node}");
        let seen = self.seen.entry(path.to_vec()).or_default();
        match &mut seen.asked {
            Some((known, questions)) if *known == key => questions.push(payload),
            _ => {
                self.flush(path);
                let seen = self.seen.entry(path.to_vec()).or_default();
                seen.asked = Some((key, vec![payload]));
            }
        }
    }

    fn flush(&mut self, path: &[String]) {
        let seen = self.seen.entry(path.to_vec()).or_default();
        let Some((key, questions)) = seen.asked.take() else {
            return;
        };
        let node = key.split('\n').nth(1).unwrap_or_default().to_owned();
        let result = json!({"name": node, "error": false, "result": {}, "interrupts": questions});
        self.add(path, "interrupt", json!(questions));
        self.add(path, "task_result", result);
    }

    fn add(&mut self, path: &[String], kind: &'static str, payload: Value) {
        let mode = match kind {
            "task" | "task_result" => "tasks",
            "updates" | "interrupt" => "updates",
            "checkpoint" => "checkpoints",
            other => other,
        };
        if !self.modes.iter().any(|wanted| wanted == mode) {
            return;
        }
        let Some(group) = self.all.last_mut() else { return };
        if path.is_empty() {
            group.root.push((kind, payload));
        } else if self.subgraphs {
            group.inside.push((path.to_vec(), kind, payload));
        }
    }

    /// The name of the graph at a path.
    fn graph(&self, path: &[String]) -> Option<String> {
        let mut name = "main".to_owned();
        for host in path {
            let nodes = list(&self.case["graphs"][&name]["nodes"]);
            let node = nodes.iter().find(|node| node["name"] == *host)?;
            name = match node["subgraph"].as_str() {
                Some(inner) => inner.to_owned(),
                None => called(&node["ops"]).into_iter().next()?,
            };
        }
        Some(name)
    }

    /// The channels that the graph at a path shows.
    fn output(&self, path: &[String]) -> Option<Vec<String>> {
        let output = &self.case["graphs"][&self.graph(path)?]["output"];
        output.is_array().then(|| names(output))
    }

    /// A task that led nowhere has failed, after it had told what it gave.
    pub(super) fn led_nowhere(&mut self, task: &str) {
        let node = task.split('#').next().unwrap_or_default();
        let results = self.all.last_mut().into_iter().flat_map(|group| &mut group.root);
        for (_, result) in results.filter(|(kind, result)| *kind == "task_result" && result["name"] == node) {
            result["error"] = true.into();
        }
    }

    pub(super) fn into_value(mut self) -> Value {
        for path in self.seen.keys().cloned().collect::<Vec<_>>() {
            self.flush(&path);
        }
        let groups = self.all.into_iter().map(Group::ordered);
        groups.filter(|group| !group.is_empty()).collect()
    }
}

fn is_shown(output: Option<&[String]>, name: &str) -> bool {
    output.is_none_or(|output| output.iter().any(|shown| shown == name))
}

impl Group {
    fn ordered(mut self) -> Vec<Value> {
        self.inside.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        let inside = self
            .inside
            .into_iter()
            .map(|(path, kind, payload)| json!([path, kind, payload]));
        let mut events: Vec<Value> = inside.collect();
        for kind in KINDS {
            let mut own: Vec<_> = self
                .root
                .iter()
                .filter(|(known, _)| *known == kind)
                .map(|(_, p)| p.clone())
                .collect();
            match kind {
                "custom" => own.sort_by_key(|event| event["node"].as_str().unwrap_or_default().to_owned()),
                "values" | "checkpoint" => {}
                _ => own.sort_by_key(Value::to_string),
            }
            events.extend(own.into_iter().map(|payload| json!([kind, payload])));
        }
        events
    }
}

fn root(kind: EventKind<JsonState>) -> What {
    match kind {
        EventKind::Step { tasks, .. } => What::Step(tasks),
        EventKind::Update { node, update, .. } => {
            What::Update(node.into_owned(), serde_json::to_value(update).unwrap_or_default())
        }
        EventKind::Custom { event, .. } => What::Custom(event),
        EventKind::Failed { node, .. } => What::Failed(node.into_owned()),
        EventKind::Asked { question } => asked(question),
        EventKind::Paused { .. } => What::Paused,
        EventKind::Values { state, changed } => {
            What::Values(state.to_object(), changed.iter().map(ToString::to_string).collect())
        }
        EventKind::Saved {
            step,
            source,
            next,
            state,
            ..
        } => {
            let next = next.into_iter().map(std::borrow::Cow::into_owned).collect();
            What::Saved(source, step, next, state.map(|state| state.to_object()))
        }
        _ => What::Nothing,
    }
}

fn inside(kind: InsideKind) -> What {
    match kind {
        InsideKind::Step { tasks, .. } => What::Step(tasks),
        InsideKind::Update { node, update, .. } => What::Update(node.into_owned(), update),
        InsideKind::Failed { node, .. } => What::Failed(node.into_owned()),
        InsideKind::Asked { question } => asked(question),
        InsideKind::Paused { .. } => What::Paused,
        InsideKind::Values { state, changed } => {
            let state = state.as_object().cloned().unwrap_or_default();
            What::Values(state, changed.iter().map(ToString::to_string).collect())
        }
        InsideKind::Saved {
            step,
            source,
            next,
            state,
            ..
        } => {
            let next = next.into_iter().map(std::borrow::Cow::into_owned).collect();
            let state = state.map(|state| state.as_object().cloned().unwrap_or_default());
            What::Saved(source, step, next, state)
        }
        _ => What::Nothing,
    }
}

fn asked(question: stepgraph::Question) -> What {
    let task = question.id.split('@').next().unwrap_or_default().to_owned();
    let node = question.node.split('/').next().unwrap_or_default().to_owned();
    What::Asked(task, node, question.payload)
}
