//! The script of a case, step by step.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use futures_util::StreamExt;
use serde_json::{Map, Value, json};
use stepgraph::{
    Answers, AsNode, BuildErrors, Checkpointer, Durability, EventKind, Extra, Graph, Outcome, Run, RunError, RunEvent,
    Snapshot, TenantId, ThreadId, ThreadKey,
    checkpoint::{At, CheckpointSource, Page, Seq},
    dynamic::{Goto, JsonInput, JsonState, JsonUpdate},
};
use stepgraph_checkpoint::{Postgres, PostgresOptions, Redis, RedisOptions, Sqlite};
use stepgraph_live::Fsync;

use super::{
    body::{Counters, Failure, destinations},
    graph::{build, list, names},
    late::{Ground, put_back, stream_without_checkpoints},
    stream::Groups,
};

/// Where a case keeps its threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// In memory.
    Memory,
    /// In an SQLite file of its own.
    Sqlite,
    /// In a schema of its own on a private PostgreSQL.
    Postgres,
    /// Under a prefix of its own on a private Redis.
    Redis,
}

/// Tells the cases apart that share a server.
static CASES: AtomicU32 = AtomicU32::new(0);

impl Store {
    /// Opens it, empty.
    async fn open(self, folder: &Path) -> Arc<dyn Checkpointer> {
        static REDIS: OnceLock<stepgraph_live::Redis> = OnceLock::new();
        let name = format!("case{}", CASES.fetch_add(1, Ordering::Relaxed));
        match self {
            Self::Memory => Arc::new(stepgraph::Memory::new()),
            Self::Sqlite => Arc::new(Sqlite::open(folder.join("threads.db")).await.unwrap()),
            Self::Postgres => {
                static DATABASE: tokio::sync::OnceCell<String> = tokio::sync::OnceCell::const_new();
                let server = stepgraph_live::Postgres::shared().unwrap();
                let database = DATABASE.get_or_init(async || server.database().await.unwrap()).await;
                let options = PostgresOptions::default().connections_max(4).schema(name);
                Arc::new(Postgres::open_with(database, options).await.unwrap())
            }
            Self::Redis => {
                let server = REDIS.get_or_init(|| stepgraph_live::Redis::start(Fsync::Always).unwrap());
                let options = RedisOptions::default().prefix(format!("{name}:"));
                Arc::new(Redis::open_with(&server.url(), &options).await.unwrap())
            }
        }
    }
}

/// A case being run.
struct Session {
    case: Value,
    graph: Graph<JsonState>,
    kept: bool,
    durability: Durability,
    counters: Arc<Mutex<Counters>>,
}

/// How many steps a run may take when its case gives no limit.
const STEPS_MAX: u32 = 10_000;

/// Runs a case and gives what came of its build and of each step, in the form in which a case expects it.
///
/// # Panics
/// If the case is not in the recorded form, or a store cannot be opened.
pub async fn run_case(case: &Value, ground: impl Into<Ground>) -> (Value, Vec<Value>) {
    let Ground { store, durability } = ground.into();
    let counters = Arc::default();
    let graph = match build("main", case, &counters) {
        Ok(graph) => graph,
        Err(errors) => return (json!({"error": build_kind(&errors)}), Vec::new()),
    };
    let kept = case["checkpointer"] != false;
    let folder = tempfile::tempdir().unwrap();
    let graph = if kept {
        graph.shared_checkpointer(store.open(folder.path()).await)
    } else {
        graph
    };
    let session = Session {
        case: case.clone(),
        graph,
        kept,
        durability,
        counters,
    };
    let mut outcomes = Vec::new();
    for step in list(&case["script"]) {
        outcomes.push(session.step(step).await);
    }
    (json!("ok"), outcomes)
}

fn build_kind(errors: &BuildErrors) -> &'static str {
    let code = errors.errors().first().map_or("", stepgraph::BuildError::code);
    match code {
        "graph::unknown_target" => "unknown_target",
        "graph::unknown_source" => "unknown_source",
        "graph::no_start" => "no_entry",
        "graph::duplicate_node" => "duplicate_node",
        "graph::unknown_breakpoint" => "unknown_interrupt_node",
        _ => "other",
    }
}

/// The kind of a run's error, and the path of the node that failed.
fn error_of(error: &RunError) -> Value {
    let kind = |error: &RunError| match error.code() {
        "run::step_limit" => Some("recursion_limit"),
        "run::conflict" => Some("invalid_concurrent_update"),
        "run::unknown_target" => Some("unknown_target"),
        "run::unknown_thread" => Some("empty_input"),
        "run::ambiguous_answer" => Some("ambiguous_resume"),
        "run::ambiguous_update" => Some("ambiguous_update"),
        "run::unknown_node" => Some("unknown_node"),
        _ => None,
    };
    if let Some(failure) = error.node_error::<Failure>() {
        return json!({"kind": "node_error", "node": failure.path});
    }
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(kind) = error.downcast_ref::<RunError>().and_then(kind) {
            return json!({"kind": kind});
        }
        next = error.source();
    }
    json!({"kind": error.code(), "message": error.to_string()})
}

impl Session {
    async fn step(&self, step: &Value) -> Value {
        let thread = key(step);
        match step["do"].as_str().unwrap_or_default() {
            "run" => self.run(step, &thread).await,
            "update" => self.update(step, &thread).await,
            "state" => match step["at"].as_u64() {
                None => self.snapshot(&thread).await,
                Some(n) => self.historic(&thread, at(n)).await,
            },
            "history" => self.history(&thread).await,
            other => panic!("unknown step `{other}`"),
        }
    }

    async fn run(&self, step: &Value, thread: &ThreadKey) -> Value {
        self.counters.lock().unwrap().begin();
        let modes = names(&step["modes"]);
        let mut groups = Groups::new(&self.case, &modes, step["subgraphs"] == true, &self.counters);
        let mut last = None;
        let ended = match self.begun(step, thread).await {
            Ok(run) => {
                let mut stream = heard(run, &modes, step["subgraphs"] == true, self.kept);
                let mut events = Vec::new();
                let ended = loop {
                    match stream.next().await {
                        Some(Ok(RunEvent::Event(event))) => {
                            if let (EventKind::Values { state, .. }, true) = (&event.kind, event.path.is_empty()) {
                                last = Some(state.output());
                            }
                            events.push(event);
                        }
                        Some(Ok(RunEvent::Ended(outcome))) => break Ok(outcome),
                        Some(Ok(_)) => {}
                        Some(Err(error)) => break Err(error),
                        None => panic!("a stream ended without an outcome"),
                    }
                };
                for event in put_back(events) {
                    groups.take(event);
                }
                ended
            }
            Err(error) => Err(error),
        };
        if let Err(RunError::UnknownTarget { from, .. }) = &ended {
            groups.led_nowhere(from);
        }
        let mut found = self.ended(ended, thread, last).await;
        found["runs"] = json!(self.counters.lock().unwrap().runs);
        if !modes.is_empty() {
            found["stream"] = groups.into_value();
            if self.durability == Durability::Exit {
                found["stream"] = stream_without_checkpoints(&found["stream"]);
            }
        }
        if self.kept {
            found["after"] = self.snapshot(thread).await;
            found["checkpoints"] = self.all(thread).await.len().into();
        }
        found
    }

    /// What a run has come to; `last` is the newest state that it told of.
    async fn ended(
        &self,
        ended: Result<Outcome<JsonState>, RunError>,
        thread: &ThreadKey,
        last: Option<Map<String, Value>>,
    ) -> Value {
        match ended {
            Ok(Outcome::Done(state) | Outcome::Stalled { state, .. }) => {
                json!({"status": "done", "output": state.output()})
            }
            Ok(Outcome::Asked(questions)) => {
                let mut asked: Vec<_> = questions.into_iter().map(|question| question.payload).collect();
                asked.sort_by_key(Value::to_string);
                json!({"status": "interrupted", "interrupts": asked, "output": self.live_output(thread, last).await})
            }
            Ok(Outcome::Breakpoint(_)) => {
                json!({"status": "interrupted", "interrupts": [], "output": self.live_output(thread, last).await})
            }
            Ok(other) => json!({"status": format!("{other:?}")}),
            Err(error) => json!({"status": "error", "error": error_of(&error)}),
        }
    }

    async fn live_output(&self, thread: &ThreadKey, last: Option<Map<String, Value>>) -> Value {
        if !self.kept {
            return last.map_or(Value::Null, Value::from);
        }
        match self.graph.state(thread, At::Head).await.unwrap() {
            Some(snapshot) => snapshot.state.output().into(),
            None => Value::Null,
        }
    }

    async fn begun(&self, step: &Value, thread: &ThreadKey) -> Result<Run<JsonState>, RunError> {
        let mut run = match step.get("input") {
            Some(Value::Object(input)) => {
                let channels = self.channels();
                self.graph
                    .run(thread, channels.known_input(JsonInput::from(input.clone())))
            }
            _ => self.resumed(step, thread).await?,
        };
        run = run.durability(self.durability);
        if let Some(limit) = step["limit"].as_u64() {
            run = run.step_limit(u32::try_from(limit).unwrap());
        } else {
            run = run.step_limit(STEPS_MAX);
        }
        if let Some(n) = step["at"].as_u64() {
            run = run.at(at(n));
        }
        // An empty list is as good as none: the graph's own places hold.
        if !list(&step["interrupt_before"]).is_empty() {
            run = run.stop_before(names(&step["interrupt_before"]));
        }
        if !list(&step["interrupt_after"]).is_empty() {
            run = run.stop_after(names(&step["interrupt_after"]));
        }
        let command = &step["command"];
        if command["update"].is_object() {
            run = run.update(update(&command["update"]));
        }
        for goto in destinations(&command["goto"], &Map::new(), &BTreeMap::new()) {
            run = match goto {
                Goto::Node(node) => run.goto(node),
                Goto::Send(node, payload) => run.send(node, payload),
                Goto::End => run,
            };
        }
        Ok(run)
    }

    fn channels(&self) -> stepgraph::dynamic::Channels {
        super::graph::channels(&self.case["graphs"]["main"])
    }

    async fn resumed(&self, step: &Value, thread: &ThreadKey) -> Result<Run<JsonState>, RunError> {
        let mut run = self.graph.resume(thread);
        if let Some(answer) = step.get("resume") {
            run = run.answers(Answers::One(answer.clone()));
        }
        if step["resume_map"].is_array() {
            let open = self.graph.state(thread, At::Head).await?;
            let open = open.map(|snapshot| snapshot.questions).unwrap_or_default();
            let mut answers = Vec::new();
            for pair in list(&step["resume_map"]) {
                let asked = open.iter().filter(|question| question.payload == pair[0]);
                answers.extend(asked.map(|question| (question.id.clone(), pair[1].clone())));
            }
            run = run.answers(Answers::Many(answers));
        }
        Ok(run)
    }

    async fn update(&self, step: &Value, thread: &ThreadKey) -> Value {
        let at = step["at"].as_u64().map_or(At::Head, at);
        let as_node = match step["as_node"].as_str() {
            None => AsNode::Last,
            Some("START") => AsNode::Start,
            Some(name) => AsNode::Named(name.to_owned()),
        };
        let updated = self.graph.update(thread, at, update(&step["values"]), as_node).await;
        let mut found = match updated {
            Ok(_) => json!({"status": "done"}),
            Err(error) => json!({"status": "error", "error": error_of(&error)}),
        };
        found["after"] = self.snapshot(thread).await;
        found["checkpoints"] = self.all(thread).await.len().into();
        found
    }

    async fn snapshot(&self, thread: &ThreadKey) -> Value {
        let Some(Snapshot {
            state, entry, tasks, ..
        }) = self.graph.state(thread, At::Head).await.unwrap()
        else {
            return json!({"values": {}, "next": [], "tasks": []});
        };
        let mut tasks: Vec<_> = tasks
            .into_iter()
            .map(|task| {
                let asked: Vec<_> = task.questions.into_iter().map(|question| question.payload).collect();
                json!({"name": shown(&task.node), "error": task.error.is_some(), "interrupts": asked})
            })
            .collect();
        tasks.sort_by_key(Value::to_string);
        json!({"values": state.to_object(), "next": next(&entry.next), "tasks": tasks})
    }

    async fn historic(&self, thread: &ThreadKey, at: At) -> Value {
        let snapshot = self
            .graph
            .state(thread, at)
            .await
            .unwrap()
            .expect("the checkpoint is there");
        json!({"values": snapshot.state.to_object(), "next": next(&snapshot.entry.next)})
    }

    async fn history(&self, thread: &ThreadKey) -> Value {
        let mut entries = Vec::new();
        for entry in self.all(thread).await {
            let state = self.graph.state(thread, At::Seq(entry.seq)).await.unwrap();
            let source = match entry.source {
                CheckpointSource::Input => "input",
                CheckpointSource::Step => "loop",
                CheckpointSource::Update => "update",
                CheckpointSource::Fork => "fork",
            };
            entries.push(json!({
                "n": entry.seq.0 - 1,
                "parent": entry.parent.map(|parent| parent.0 - 1),
                "source": source,
                "step": entry.step,
                "values": state.map(|snapshot| snapshot.state.to_object()),
                "next": next(&entry.next),
            }));
        }
        json!({"entries": entries})
    }

    /// Every checkpoint of a thread, oldest first.
    async fn all(&self, thread: &ThreadKey) -> Vec<stepgraph::HistoryEntry> {
        let page = Page {
            before: None,
            limit: u32::MAX,
        };
        let mut all = self.graph.history(thread, page).await.unwrap();
        all.reverse();
        all
    }
}

fn heard(run: Run<JsonState>, modes: &[String], subgraphs: bool, kept: bool) -> stepgraph::RunStream<JsonState> {
    let wants = |mode: &str| modes.iter().any(|known| known == mode);
    let mut extras = Vec::new();
    if wants("values") || !kept {
        extras.push(Extra::Values);
    }
    if wants("checkpoints") || wants("tasks") {
        // Where checkpoints are not told, the values say what the next tasks see.
        extras.extend([Extra::Checkpoints, Extra::Payloads, Extra::Values]);
    }
    if subgraphs {
        extras.push(Extra::Inside);
    }
    run.stream_with(extras)
}

fn key(step: &Value) -> ThreadKey {
    let thread = step["thread"].as_str().unwrap_or("t");
    ThreadKey::new(
        TenantId::authenticated("conformance").unwrap(),
        ThreadId::new(thread).unwrap(),
    )
}

/// Checkpoints of a case are numbered from 0.
fn at(n: u64) -> At {
    At::Seq(Seq(n + 1))
}

fn update(values: &Value) -> JsonUpdate {
    JsonUpdate::from(values.as_object().cloned().unwrap_or_default())
}

fn shown(node: &str) -> &str {
    if node == "START" { "__start__" } else { node }
}

/// Names of tasks, sorted.
fn next(nodes: &[String]) -> Vec<String> {
    let mut nodes: Vec<_> = nodes.iter().map(|node| shown(node).to_owned()).collect();
    nodes.sort();
    nodes
}
