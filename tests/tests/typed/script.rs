//! The script of a case, played on a typed graph.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stepgraph::{
    Answers, Append, AsNode, Ask, EventKind, Graph, GraphBuilder, Memory, NodeId, Outcome, Run, RunError, RunEvent,
    State, TenantId, ThreadId, ThreadKey,
    checkpoint::{At, Page, Seq},
};
use stepgraph_tests::conformance::differences;

/// A state whose input is read from a case.
pub(crate) trait Scripted: State<Event = Value, Shape = ()> + Debug {
    fn input(given: &Value) -> Self::Input;

    /// What a run gives its caller.
    fn output(self: &Arc<Self>) -> Value {
        values(&**self)
    }
}

/// The state that most cases have.
#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[state(event = Value)]
pub(crate) struct Line {
    #[state(reducer = Append)]
    pub(crate) log: Vec<String>,
    #[state(input)]
    pub(crate) n: i64,
}

impl Scripted for Line {
    fn input(given: &Value) -> LineInput {
        LineInput::new(given["n"].as_i64().unwrap())
    }
}

/// Whatever a case asks.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Question(pub(crate) String);

impl Ask for Question {
    type Answer = String;
    const NAME: &'static str = "question";
}

/// How often the nodes of a case were entered.
#[derive(Clone, Default)]
pub(crate) struct Probe {
    runs: Arc<Mutex<BTreeMap<String, u64>>>,
    pub(crate) failures: Arc<AtomicUsize>,
}

impl Probe {
    /// Counts an entry of the node at this path.
    pub(crate) fn enter(&self, path: &str) {
        *self.runs.lock().unwrap().entry(path.to_owned()).or_default() += 1;
    }

    /// Whether it is among the first so many times that this is asked.
    pub(crate) fn fails(&self, first: usize) -> bool {
        self.failures.fetch_add(1, Ordering::SeqCst) < first
    }

    /// A node that says its name.
    pub(crate) fn says(&self, g: &mut GraphBuilder<Line>, name: &'static str) -> NodeId<Line> {
        let probe = self.clone();
        g.node(name, move |_: Arc<Line>| {
            probe.enter(name);
            async move { Ok(said(name)) }
        })
    }

    /// Several such.
    pub(crate) fn all_say<const N: usize>(
        &self,
        g: &mut GraphBuilder<Line>,
        names: [&'static str; N],
    ) -> [NodeId<Line>; N] {
        names.map(|name| self.says(g, name))
    }
}

pub(crate) fn said(line: &str) -> LineUpdate {
    Line::update().log([line.to_owned()])
}

/// Names the cases of a module, and makes a test of each.
macro_rules! cases {
    ($($test:ident: $file:literal => $graph:path;)*) => {
        /// The cases that stand here again.
        pub(crate) const CASES: &[&str] = &[$($file),*];
        $(
            #[tokio::test]
            async fn $test() {
                let probe = $crate::typed::script::Probe::default();
                $crate::typed::script::play($file, &$graph(&probe), &probe).await;
            }
        )*
    };
}
pub(crate) use cases;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/cases")
}

pub(crate) fn case(name: &str) -> Value {
    let file = folder().join(name).with_extension("json");
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

pub(crate) fn family(name: &str) -> String {
    case(name)["family"].as_str().unwrap().to_owned()
}

/// The families of all recorded cases.
pub(crate) fn families() -> BTreeSet<String> {
    let files = fs::read_dir(folder()).unwrap();
    let names = files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned());
    names.map(|name| family(&name)).collect()
}

/// A state or update as a case shows it: what has no value is left out.
fn values(of: &impl Serialize) -> Value {
    let Value::Object(all) = serde_json::to_value(of).unwrap() else {
        panic!("no object")
    };
    all.into_iter().filter(|(_, value)| !value.is_null()).collect()
}

/// Plays a case's script on a graph, and compares each call with what its file expects.
pub(crate) async fn play<S: Scripted>(name: &str, graph: &Graph<S>, probe: &Probe) {
    let case = case(name);
    assert_eq!(
        (&case["build"], &case["checkpointer"]),
        (&json!("ok"), &Value::Null),
        "{name}"
    );
    let player = Player {
        graph: graph.clone().checkpointer(Memory::new()),
        key: ThreadKey::new(TenantId::authenticated("typed").unwrap(), ThreadId::new("t").unwrap()),
        sources: sources(&case),
        probe,
    };
    let mut inputs = 0;
    for (at, step) in case["script"].as_array().unwrap().iter().enumerate() {
        inputs += u64::from(step["input"].is_object());
        let found = player.step(step).await;
        let expected = expected(&step["expect"], inputs);
        assert!(
            expected.as_object().is_some_and(|expected| !expected.is_empty()),
            "{name}, step {at}"
        );
        let differs = differences(&expected, &found);
        assert!(differs.is_empty(), "{name}, step {at}:\n{}", differs.join("\n"));
    }
}

/// Where the checkpoints of a case come from, as the longest history in its script says.
fn sources(case: &Value) -> Vec<String> {
    let histories = case["script"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|step| step["expect"]["entries"].as_array());
    let longest = histories.max_by_key(|entries| entries.len());
    let source = |entry: &Value| entry["source"].as_str().unwrap().to_owned();
    longest.into_iter().flatten().map(source).collect()
}

/// What a typed graph must come to: its input and the step that follows from START are one checkpoint, and of the stream
/// only what nodes give and emit is compared.
fn expected(recorded: &Value, inputs: u64) -> Value {
    let mut expected = recorded.clone();
    let all = expected.as_object_mut().unwrap();
    if let Some(checkpoints) = all.get_mut("checkpoints") {
        *checkpoints = (checkpoints.as_u64().unwrap() - inputs.min(checkpoints.as_u64().unwrap())).into();
    }
    if let Some(Value::Array(entries)) = all.get_mut("entries") {
        entries.retain(|entry| entry["source"] != "input");
        *entries = entries
            .iter()
            .map(|entry| json!({"step": entry["step"], "values": entry["values"], "next": entry["next"]}))
            .collect();
    }
    if let Some(Value::Array(groups)) = all.get_mut("stream") {
        for group in groups.iter_mut() {
            group
                .as_array_mut()
                .unwrap()
                .retain(|event| event[0] == "updates" || event[0] == "custom");
        }
        groups.retain(|group| group != &json!([]));
    }
    expected
}

/// A script under way.
struct Player<'a, S: State> {
    graph: Graph<S>,
    key: ThreadKey,
    sources: Vec<String>,
    probe: &'a Probe,
}

impl<S: Scripted> Player<'_, S> {
    async fn step(&self, step: &Value) -> Value {
        match step["do"].as_str().unwrap() {
            "run" => self.run(step).await,
            "update" => self.update(step).await,
            "state" => self.state().await,
            "history" => self.history().await,
            other => panic!("unknown step `{other}`"),
        }
    }

    /// The checkpoint that a case numbers so.
    fn at(&self, n: &Value) -> At {
        let until = usize::try_from(n.as_u64().unwrap()).unwrap();
        let before = self.sources[..=until].iter().filter(|source| *source != "input");
        At::Seq(Seq(before.count().try_into().unwrap()))
    }

    fn begun(&self, step: &Value) -> Run<S> {
        let mut run = if step["input"].is_object() {
            self.graph.run(&self.key, S::input(&step["input"]))
        } else {
            self.graph.resume(&self.key)
        };
        if let Some(answer) = step.get("resume") {
            run = run.answers(Answers::One(answer.clone()));
        }
        if let Some(limit) = step["limit"].as_u64() {
            run = run.step_limit(limit.try_into().unwrap());
        }
        if let Some(nodes) = step["interrupt_before"].as_array() {
            run = run.stop_before(nodes.iter().map(|node| node.as_str().unwrap().to_owned()));
        }
        if step["at"].is_u64() {
            run = run.at(self.at(&step["at"]));
        }
        let known = [
            "do",
            "input",
            "resume",
            "limit",
            "interrupt_before",
            "at",
            "modes",
            "expect",
        ];
        let unknown = step
            .as_object()
            .unwrap()
            .keys()
            .find(|key| !known.contains(&key.as_str()));
        assert_eq!(unknown, None);
        run
    }

    async fn run(&self, step: &Value) -> Value {
        self.probe.runs.lock().unwrap().clear();
        let mut stream = self.begun(step).stream();
        let mut told = vec![Vec::new()];
        let ended = loop {
            match stream.next().await.unwrap() {
                Ok(RunEvent::Event(event)) => tell(event.kind, &mut told),
                Ok(RunEvent::Ended(outcome)) => break Ok(outcome),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        };
        let mut found = match ended {
            Ok(Outcome::Done(state)) => json!({"status": "done", "output": Arc::new(state).output()}),
            Ok(Outcome::Asked(questions)) => {
                let mut asked: Vec<_> = questions.into_iter().map(|question| question.payload).collect();
                asked.sort_by_key(Value::to_string);
                json!({"status": "interrupted", "interrupts": asked, "output": self.state().await["values"]})
            }
            Ok(Outcome::Breakpoint(_)) => {
                json!({"status": "interrupted", "interrupts": [], "output": self.state().await["values"]})
            }
            Ok(other) => json!({"status": format!("{other:?}")}),
            Err(error) => json!({"status": "error", "error": kind(&error)}),
        };
        found["runs"] = json!(*self.probe.runs.lock().unwrap());
        let wants = |event: &Value| step["modes"].as_array().is_some_and(|modes| modes.contains(&event[0]));
        for group in &mut told {
            group.retain(wants);
        }
        found["stream"] = told
            .into_iter()
            .filter(|group| !group.is_empty())
            .map(ordered)
            .collect();
        self.after(found).await
    }

    async fn update(&self, step: &Value) -> Value {
        let at = if step["at"].is_u64() {
            self.at(&step["at"])
        } else {
            At::Head
        };
        let as_node = step["as_node"]
            .as_str()
            .map_or(AsNode::Last, |name| AsNode::Named(name.to_owned()));
        let update: S::Update = serde_json::from_value(step["values"].clone()).unwrap();
        let found = match self.graph.update(&self.key, at, update, as_node).await {
            Ok(_) => json!({"status": "done"}),
            Err(error) => json!({"status": "error", "error": kind(&error)}),
        };
        self.after(found).await
    }

    async fn after(&self, mut found: Value) -> Value {
        found["after"] = self.state().await;
        found["checkpoints"] = self.history().await["entries"].as_array().unwrap().len().into();
        found
    }

    async fn state(&self) -> Value {
        let Some(snapshot) = self.graph.state(&self.key, At::Head).await.unwrap() else {
            return json!({"values": {}, "next": [], "tasks": []});
        };
        let task = |task: &stepgraph::TaskState| {
            let asked: Vec<_> = task.questions.iter().map(|question| &question.payload).collect();
            json!({"name": task.node, "error": task.error.is_some(), "interrupts": asked})
        };
        let mut tasks: Vec<_> = snapshot.tasks.iter().map(task).collect();
        tasks.sort_by_key(Value::to_string);
        json!({"values": values(&snapshot.state), "next": sorted(snapshot.entry.next), "tasks": tasks})
    }

    async fn history(&self) -> Value {
        let page = Page {
            before: None,
            limit: u32::MAX,
        };
        let mut entries = Vec::new();
        for entry in self.graph.history(&self.key, page).await.unwrap().into_iter().rev() {
            let state = self
                .graph
                .state(&self.key, At::Seq(entry.seq))
                .await
                .unwrap()
                .unwrap()
                .state;
            entries.push(json!({"step": entry.step, "values": values(&state), "next": sorted(entry.next)}));
        }
        json!({"entries": entries})
    }
}

fn sorted(mut nodes: Vec<String>) -> Vec<String> {
    nodes.sort();
    nodes
}

/// Puts what a case shows of an event into the group of its step.
fn tell<S: Scripted>(kind: EventKind<S>, told: &mut Vec<Vec<Value>>) {
    let event = match kind {
        EventKind::Step { .. } => return told.push(Vec::new()),
        EventKind::Update { node, update, .. } => {
            let wrote = Some(values(&update)).filter(|wrote| *wrote != json!({}));
            json!(["updates", {node.as_ref(): wrote}])
        }
        EventKind::Custom { node, event } => json!(["custom", {"node": node, "data": event}]),
        _ => return,
    };
    told.last_mut().unwrap().push(event);
}

/// As a case orders the events of a step.
fn ordered(mut group: Vec<Value>) -> Value {
    group.sort_by_key(|event| match event[0].as_str() {
        Some("custom") => (0, event[1]["node"].to_string()),
        _ => (1, event[1].to_string()),
    });
    group.into()
}

fn kind(error: &RunError) -> Value {
    match error.code() {
        "run::step_limit" => json!({"kind": "recursion_limit"}),
        "run::conflict" => json!({"kind": "invalid_concurrent_update"}),
        "run::unknown_thread" => json!({"kind": "empty_input"}),
        "run::node" => json!({"kind": "node_error", "node": error.node()}),
        other => json!({"kind": other, "message": error.to_string()}),
    }
}
