//! Layers around the nodes, steps and runs of a graph.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    pub(crate) mod threads;
}

use std::{
    collections::BTreeMap,
    fmt,
    future::{IntoFuture, pending},
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Ask, Cancel, Context, END, FromState, Graph, Layer, Memory, Next, NodeError, NodePanic, Outcome, Policy,
    Ran, Retry, RunError, RunInfo, START, State, StepInfo, TaskInfo, Timing, Tracing, Whole, async_trait,
};
use support::threads::thread;
use tracing::{field::Visit, span};
use tracing_subscriber::{Registry, layer::SubscriberExt, registry::LookupSpan};

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Work {
    #[state(input)]
    items: u64,
    #[state(reducer = Append)]
    log: Vec<String>,
}

impl FromState<Work> for WorkInput {
    fn from_state(work: &Arc<Work>) -> Self {
        Self { items: work.items }
    }
}

impl From<Arc<Work>> for WorkUpdate {
    fn from(inner: Arc<Work>) -> Self {
        Work::update().log(inner.log.clone())
    }
}

#[derive(Serialize, Ask)]
#[ask(name = "sure", answer = bool)]
struct Sure;

fn items(items: u64) -> WorkInput {
    WorkInput { items }
}

/// `first`, then so many workers.
fn graph() -> Graph<Work> {
    let mut g = Graph::<Work>::builder("work");
    let first = g.node("first", |_: Arc<Work>| async {
        Ok(Work::update().log(["first".to_owned()]))
    });
    let each = g.worker("each", |item: u64| async move {
        tokio::task::yield_now().await;
        Ok(Work::update().log([format!("item {item}")]))
    });
    g.edge(START, first).fan_out(first, each, |work: &Work| 0..work.items);
    g.edge(each, END);
    g.build().unwrap()
}

/// A graph of one node.
fn alone<F: Future<Output = Result<WorkUpdate, NodeError>> + Send + 'static>(
    policy: Policy,
    body: impl Fn(Context<()>) -> F + Send + Sync + 'static,
) -> Graph<Work> {
    let mut g = Graph::<Work>::builder("alone");
    let node = g.node("node", move |_: Arc<Work>, ctx: Context<()>| body(ctx));
    g.policy(node, policy).edge(START, node).edge(node, END);
    g.build().unwrap()
}

type Lines = Arc<Mutex<Vec<String>>>;

/// Notes what passes, under a name.
struct Notes(&'static str, Lines);

impl Notes {
    fn note(&self, line: impl fmt::Display) {
        self.1.lock().unwrap().push(format!("{} {line}", self.0));
    }
}

#[async_trait]
impl Layer for Notes {
    async fn around(&self, task: &TaskInfo, next: Next<'_>) -> Result<Ran, NodeError> {
        self.note(format_args!("{} {}", task.task, task.attempt));
        let result = next.run().await;
        self.note(format_args!(
            "{} {}",
            task.task,
            result.as_ref().map_or_else(ToString::to_string, |_| "ran".to_owned())
        ));
        result
    }

    async fn around_step(&self, step: &StepInfo, whole: Whole<'_>) {
        self.note(format_args!("step {} of {}", step.step, step.tasks));
        whole.run().await;
        self.note("step ends");
    }

    async fn around_run(&self, run: &RunInfo, whole: Whole<'_>) {
        self.note(format_args!("{} on {}", run.graph, run.thread));
        whole.run().await;
        self.note("run ends");
    }
}

#[tokio::test]
async fn layers_are_passed_in_the_order_of_their_declaration_the_first_outermost() {
    let lines = Lines::default();
    let graph = graph()
        .layer(Notes("outer", Arc::clone(&lines)))
        .layer(Notes("inner", Arc::clone(&lines)));
    let outcome = graph.run(&thread("t"), items(1)).await.unwrap();
    assert_eq!(outcome.done().unwrap().log, ["first", "item 0"]);
    let expected = [
        "outer work on acme/t",
        "inner work on acme/t",
        "outer step 1 of 1",
        "inner step 1 of 1",
        "outer first 1",
        "inner first 1",
        "inner first ran",
        "outer first ran",
        "inner step ends",
        "outer step ends",
        "outer step 2 of 1",
        "inner step 2 of 1",
        "outer each#0 1",
        "inner each#0 1",
        "inner each#0 ran",
        "outer each#0 ran",
        "inner step ends",
        "outer step ends",
        "inner run ends",
        "outer run ends",
    ];
    assert_eq!(*lines.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_passed_with_its_number() {
    let lines = Lines::default();
    let policy = Policy::new().retry(Retry::attempts(NonZeroU32::new(3).unwrap()));
    let graph = alone(policy, |ctx| async move {
        if ctx.attempt() < 3 {
            return Err(NodeError::retryable("busy"));
        }
        Ok(Work::update())
    })
    .layer(Notes("-", Arc::clone(&lines)));
    graph.run(&thread("t"), items(0)).await.unwrap();
    let lines = lines.lock().unwrap();
    let attempts: Vec<_> = lines.iter().filter(|line| line.starts_with("- node")).collect();
    assert_eq!(
        attempts,
        [
            "- node 1",
            "- node busy",
            "- node 2",
            "- node busy",
            "- node 3",
            "- node ran"
        ]
    );
}

/// Refuses one node.
struct Refuse(&'static str);

#[async_trait]
impl Layer for Refuse {
    async fn around(&self, task: &TaskInfo, next: Next<'_>) -> Result<Ran, NodeError> {
        if task.node == self.0 {
            return Err(NodeError::terminal(format!("not for {}", task.tenant())));
        }
        next.run().await
    }
}

#[tokio::test]
async fn a_layer_may_refuse_and_then_the_node_is_not_entered() {
    let entered = Arc::new(Mutex::new(0));
    let count = Arc::clone(&entered);
    let graph = alone(Policy::new(), move |_| {
        *count.lock().unwrap() += 1;
        async { Ok(Work::update()) }
    });
    let error = graph
        .clone()
        .layer(Refuse("node"))
        .run(&thread("t"), items(0))
        .await
        .unwrap_err();
    assert!(error.to_string().ends_with("not for acme"), "{error}");
    assert_eq!(*entered.lock().unwrap(), 0);
    graph.layer(Refuse("other")).run(&thread("t"), items(0)).await.unwrap();
    assert_eq!(*entered.lock().unwrap(), 1);
}

/// Says something else than the node, whatever that was.
struct Rude;

#[async_trait]
impl Layer for Rude {
    async fn around(&self, _: &TaskInfo, next: Next<'_>) -> Result<Ran, NodeError> {
        next.run().await.map_err(|_| NodeError::terminal("rude"))
    }

    async fn around_step(&self, _: &StepInfo, _: Whole<'_>) {}

    async fn around_run(&self, _: &RunInfo, _: Whole<'_>) {}
}

#[tokio::test]
async fn a_layer_that_passes_nothing_on_stops_no_run() {
    let outcome = graph().layer(Rude).run(&thread("t"), items(2)).await.unwrap();
    assert_eq!(outcome.done().unwrap().log, ["first", "item 0", "item 1"]);
}

#[tokio::test]
async fn a_layer_cannot_turn_a_question_or_a_cancellation_into_an_error() {
    let graph = alone(Policy::new(), |ctx| async move {
        if ctx.ask(Sure)? {
            return Ok(Work::update());
        }
        pending().await
    })
    .checkpointer(Memory::new())
    .layer(Rude);
    let outcome = graph.run(&thread("t"), items(0)).await.unwrap();
    assert!(matches!(outcome, Outcome::Asked(_)), "{outcome:?}");
    let cancel = Cancel::new();
    let resumed = graph.resume(&thread("t")).answer::<Sure>(&false).cancel(&cancel);
    let cancelling = async {
        tokio::task::yield_now().await;
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(resumed.into_future(), cancelling);
    assert!(matches!(outcome, Ok(Outcome::Cancelled)), "{outcome:?}");
}

#[tokio::test]
async fn questions_of_a_graph_inside_pass_the_hosts_layers() {
    let inner = alone(Policy::new(), |ctx| async move {
        Ok(Work::update().log([format!("sure: {}", ctx.ask(Sure)?)]))
    });
    let mut g = Graph::<Work>::builder("outer");
    let host = g.node("host", inner.layer(Rude).as_node::<WorkInput, Arc<Work>>());
    g.edge(START, host).edge(host, END);
    let graph = g.build().unwrap().checkpointer(Memory::new()).layer(Rude);
    let outcome = graph.run(&thread("t"), items(0)).await.unwrap();
    assert!(matches!(outcome, Outcome::Asked(_)), "{outcome:?}");
    let outcome = graph.resume(&thread("t")).answer::<Sure>(&true).await.unwrap();
    assert_eq!(outcome.done().unwrap().log, ["sure: true"]);
}

/// Panics where it is told.
struct Panics(&'static str);

#[async_trait]
impl Layer for Panics {
    async fn around(&self, _: &TaskInfo, next: Next<'_>) -> Result<Ran, NodeError> {
        assert!(self.0 != "task", "in a task");
        next.run().await
    }

    async fn around_step(&self, _: &StepInfo, whole: Whole<'_>) {
        assert!(self.0 != "step", "in a step");
        whole.run().await;
    }

    async fn around_run(&self, _: &RunInfo, whole: Whole<'_>) {
        whole.run().await;
        assert!(self.0 != "run", "after a run");
    }
}

#[tokio::test]
async fn a_layer_that_panics_is_an_error_of_the_run_and_none_of_the_process() {
    let error = graph()
        .layer(Panics("task"))
        .run(&thread("t"), items(0))
        .await
        .unwrap_err();
    assert_eq!(error.node_error::<NodePanic>().unwrap().message, "in a task");
    let error = graph()
        .layer(Panics("step"))
        .run(&thread("t"), items(0))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, RunError::Panic { step: 1, message, .. } if message == "in a step"),
        "{error}"
    );
    // What has ended has ended.
    assert!(graph().layer(Panics("run")).run(&thread("t"), items(0)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn timing_counts_what_nodes_take_however_they_end() {
    let timing = Timing::new();
    let policy = Policy::new()
        .timeout(Duration::from_secs(5))
        .retry(Retry::attempts(NonZeroU32::new(3).unwrap()));
    let graph = alone(policy, |ctx| async move {
        tokio::time::sleep(Duration::from_secs(match ctx.attempt() {
            1 => 60,
            2 => 3,
            _ => 1,
        }))
        .await;
        if ctx.attempt() == 2 {
            return Err(NodeError::retryable("busy"));
        }
        Ok(Work::update())
    });
    graph.layer(timing.clone()).run(&thread("t"), items(0)).await.unwrap();
    let times = timing.of("alone", "node");
    assert_eq!((times.count, times.without_output), (3, 2));
    assert_eq!(
        (times.total, times.max),
        (Duration::from_secs(9), Duration::from_secs(5))
    );
    assert_eq!((timing.all().len(), timing.of("alone", "other").count), (1, 0));
}

/// Spans as they were made: name, the names around them, fields.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<BTreeMap<u64, Span>>>);

type Span = (String, BTreeMap<String, String>);

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        self.0.insert(
            field.name().to_owned(),
            format!("{value:?}").trim_matches('"').to_owned(),
        );
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for Spans {
    fn on_new_span(&self, attrs: &span::Attributes<'_>, id: &span::Id, ctx: tracing_subscriber::layer::Context<'_, S>) {
        let path: Vec<_> = ctx
            .span_scope(id)
            .unwrap()
            .from_root()
            .map(|span| span.name())
            .collect();
        let mut fields = BTreeMap::new();
        attrs.record(&mut Fields(&mut fields));
        self.0.lock().unwrap().insert(id.into_u64(), (path.join("/"), fields));
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if let Some((_, fields)) = self.0.lock().unwrap().get_mut(&id.into_u64()) {
            values.record(&mut Fields(fields));
        }
    }
}

#[tokio::test]
async fn tracing_opens_a_span_for_each_run_step_and_attempt_without_anything_of_the_state() {
    let spans = Spans::default();
    let _guard = tracing::subscriber::set_default(Registry::default().with(spans.clone()));
    let graph = graph().layer(Tracing);
    // The second step waits for permits, so that its tasks go on outside of the driver.
    let run = graph.run(&thread("secret-free"), items(2)).concurrency(NonZeroU32::MIN);
    run.await.unwrap();
    let mut seen: Vec<_> = spans.0.lock().unwrap().values().cloned().collect();
    seen.retain(|(path, _)| path.contains("stepgraph."));
    let of = |name: &str| -> Vec<_> {
        seen.iter()
            .filter(|(path, _)| path == name)
            .map(|(_, fields)| fields)
            .collect()
    };
    let names = |fields: &BTreeMap<String, String>| fields.keys().cloned().collect::<Vec<_>>().join(" ");
    let runs = of("stepgraph.run");
    assert_eq!((runs.len(), names(runs[0])), (1, "graph run tenant thread".to_owned()));
    assert_eq!(runs[0]["thread"], "acme/secret-free");
    let steps = of("stepgraph.run/stepgraph.step");
    assert_eq!((steps.len(), names(steps[0])), (2, "graph step tasks".to_owned()));
    let attempts = of("stepgraph.run/stepgraph.step/stepgraph.attempt");
    let mut tasks: Vec<_> = attempts
        .iter()
        .map(|fields| format!("{} {}", fields["task"], fields["outcome"]))
        .collect();
    tasks.sort();
    assert_eq!(tasks, ["each#0 done", "each#1 done", "first done"]);
    assert_eq!(names(attempts[0]), "attempt graph node outcome step task");
    assert_eq!(seen.len(), 1 + 2 + 3);
}
