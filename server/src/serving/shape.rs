//! Threads, states and assistants as they stand on the wire.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};
use stepgraph::{
    HistoryEntry, Outline, Question, TaskState,
    checkpoint::{CheckpointSource, RunStatus},
};
use stepgraph_nodes::service::ThreadRecord;
use uuid::{Uuid, uuid};

use super::served::{Schemas, StateView};

/// The name space of the ids of default assistants.
const ASSISTANTS: Uuid = uuid!("6ba7b821-9dad-11d1-80b4-00c04fd430c8");

/// The id of a graph's default assistant.
pub(crate) fn assistant_id(graph: &str) -> Uuid {
    Uuid::new_v5(&ASSISTANTS, graph.as_bytes())
}

/// The metadata of a default assistant.
pub(crate) fn assistant_metadata() -> Map<String, Value> {
    Map::from_iter([("created_by".to_owned(), json!("system"))])
}

pub(crate) fn assistant(graph: &str, since: DateTime<Utc>) -> Value {
    json!({
        "assistant_id": assistant_id(graph),
        "graph_id": graph,
        "name": graph,
        "description": null,
        "config": {},
        "context": {},
        "metadata": assistant_metadata(),
        "version": 1,
        "created_at": time(since),
        "updated_at": time(since),
    })
}

pub(crate) fn drawing(outline: &Outline) -> Value {
    let node = |name: &str| json!({"id": name, "type": "runnable", "data": {"name": name}});
    let mut nodes = vec![node("__start__")];
    nodes.extend(outline.nodes.iter().map(|name| node(name)));
    nodes.push(node("__end__"));
    let ways = outline.ways.iter().map(|way| {
        let mut edge = Map::new();
        edge.insert("source".to_owned(), json!(place(&way.from)));
        edge.insert("target".to_owned(), json!(place(&way.to)));
        if way.is_conditional {
            edge.insert("conditional".to_owned(), json!(true));
        }
        if let Some(route) = &way.route {
            edge.insert("data".to_owned(), json!(route));
        }
        Value::Object(edge)
    });
    json!({"nodes": nodes, "edges": ways.collect::<Vec<_>>()})
}

pub(crate) fn schemas(graph: &str, schemas: &Schemas) -> Value {
    json!({
        "graph_id": graph,
        "input_schema": schemas.input,
        "output_schema": schemas.state,
        "state_schema": schemas.state,
        "config_schema": null,
        "context_schema": null,
    })
}

/// What this interface calls the ends of a graph.
pub(crate) fn place(name: &str) -> &str {
    match name {
        "START" => "__start__",
        "END" => "__end__",
        other => other,
    }
}

/// A time with microseconds and its offset.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, false)
}

pub(crate) fn checkpoint(thread: Uuid, id: Uuid) -> Value {
    json!({"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": id})
}

/// A task of the step that starts at a checkpoint.
pub(crate) fn task_id(checkpoint: Uuid, task: &str) -> Uuid {
    Uuid::new_v5(&checkpoint, task.as_bytes())
}

/// A question with all that a form for its answer needs.
pub(crate) fn interrupt(question: &Question) -> Value {
    let members = [
        ("value", Some(question.payload.clone())),
        ("id", Some(json!(question.id))),
        ("node", Some(json!(question.node))),
        ("name", Some(json!(question.name))),
        ("answer_schema", Some(question.answer_schema.clone())),
        ("problem", question.problem.as_ref().map(|problem| json!(problem))),
    ];
    let present = members
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(present.collect())
}

pub(crate) fn interrupts(questions: &[Question]) -> Value {
    questions.iter().map(interrupt).collect()
}

/// The values of a run that waits for answers.
pub(crate) fn with_interrupts(values: &Value, questions: &[Question]) -> Value {
    let mut values = values.clone();
    if let Some(values) = values.as_object_mut() {
        values.insert("__interrupt__".to_owned(), interrupts(questions));
    }
    values
}

/// How a thread stands.
pub(crate) fn status(head: Option<&StateView>) -> &'static str {
    match head.and_then(|head| head.run.as_ref()).map(|mark| mark.status) {
        None | Some(RunStatus::Done) => "idle",
        Some(RunStatus::Running) => "busy",
        Some(RunStatus::Asked | RunStatus::Stopped) => "interrupted",
        Some(RunStatus::Failed) => "error",
    }
}

pub(crate) fn thread(record: &ThreadRecord, head: Option<&StateView>) -> Value {
    let mut interrupts = Map::new();
    for (task, head) in head
        .into_iter()
        .flat_map(|head| head.tasks.iter().map(move |task| (task, head)))
    {
        if !task.questions.is_empty() {
            let id = task_id(head.entry.id, &task.task).to_string();
            interrupts.insert(id, self::interrupts(&task.questions));
        }
    }
    let failed = head
        .and_then(|head| head.run.as_ref())
        .and_then(|mark| mark.error.as_ref());
    let state_updated_at = head.map_or(record.created_at, |head| head.entry.created_at);
    json!({
        "thread_id": record.id,
        "created_at": time(record.created_at),
        "updated_at": time(record.updated_at.max(state_updated_at)),
        "state_updated_at": time(state_updated_at),
        "metadata": record.metadata,
        "status": status(head),
        "config": {},
        "values": head.map(|head| &head.values),
        "interrupts": interrupts,
        "error": failed,
    })
}

/// What is known of a checkpoint, as this interface tells it.
pub(crate) fn metadata(entry: &HistoryEntry, graph: &str) -> Map<String, Value> {
    let source = source(entry.source);
    let members = [
        ("source", json!(source)),
        ("step", json!(entry.step)),
        ("parents", json!({})),
        ("run_id", json!(entry.run)),
        ("graph_id", json!(graph)),
        ("assistant_id", json!(assistant_id(graph))),
    ];
    members
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

pub(crate) const fn source(source: CheckpointSource) -> &'static str {
    match source {
        CheckpointSource::Input => "input",
        CheckpointSource::Step => "loop",
        CheckpointSource::Update => "update",
        CheckpointSource::Fork => "fork",
    }
}

pub(crate) fn state(thread: Uuid, graph: &str, view: &StateView, parent: Option<Uuid>) -> Value {
    let entry = &view.entry;
    let next: Vec<&str> = entry.next.iter().map(|name| place(name)).collect();
    let own = checkpoint(thread, entry.id);
    let parent_checkpoint = parent.map(|parent| checkpoint(thread, parent));
    json!({
        "values": view.values,
        "next": next,
        "tasks": tasks(view),
        "metadata": metadata(entry, graph),
        "created_at": time(entry.created_at),
        "checkpoint": own,
        "parent_checkpoint": parent_checkpoint,
        "interrupts": interrupts(&view.questions),
        "checkpoint_id": entry.id,
        "parent_checkpoint_id": parent,
    })
}

/// The tasks that follow from a checkpoint. Only the newest one knows how far they have come.
fn tasks(view: &StateView) -> Vec<Value> {
    let entry = &view.entry;
    let task = |name: &str, task: &str, state: Option<&TaskState>| {
        json!({
            "id": task_id(entry.id, task),
            "name": place(name),
            "path": ["__pregel_pull", place(name)],
            "error": state.and_then(|state| state.error.as_ref()),
            "interrupts": state.map_or_else(|| json!([]), |state| interrupts(&state.questions)),
            "checkpoint": null,
            "state": null,
            "result": null,
        })
    };
    if view.tasks.is_empty() {
        return entry.next.iter().map(|name| task(name, name, None)).collect();
    }
    let states = view.tasks.iter().filter(|state| !state.finished);
    states
        .map(|state| task(&state.node, &state.task, Some(state)))
        .collect()
}

/// The state of a thread on which nothing has run.
pub(crate) fn empty_state(thread: Uuid) -> Value {
    json!({
        "values": {},
        "next": [],
        "tasks": [],
        "metadata": null,
        "created_at": null,
        "checkpoint": {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": null},
        "parent_checkpoint": null,
        "interrupts": [],
        "checkpoint_id": null,
        "parent_checkpoint_id": null,
    })
}
