//! How a graph of one state becomes one that knows JSON alone.

use std::{any::Any, fmt, future::Future, marker::PhantomData, pin::Pin, sync::Arc};

use async_trait::async_trait;
use futures_util::StreamExt;
use schemars::{JsonSchema, schema_for};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use stepgraph::{
    AsNode, Checkpointer, Graph, HistoryEntry, Inside, Outcome, Outline, Run, RunError, RunEvent, State, TenantId,
    ThreadKey,
    checkpoint::{At, Page, Seq},
    dynamic::{Channels, JsonUpdate},
};

use stepgraph_nodes::retrieve::GoneOn;

use super::{
    fault::Words,
    secret,
    served::{Begin, Ended, Events, Schemas, ServedGraph, StateView, Told, Unserved, What},
    tenants::Refusal,
};

/// What an event that a node emits is to those who stream a run.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Heard {
    /// An event of its own, for the mode `custom`.
    Custom(Value),
    /// The next piece of a model's answer, for the mode `messages-tuple`.
    Token(String),
    /// Nothing that leaves the server.
    Nothing,
}

/// Why a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Occasion {
    /// A caller asks for it.
    Asked,
    /// An earlier process has left it behind.
    Recovered,
}

/// For whom a run is about to begin, and why.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RunFor {
    /// Whose run it is.
    pub tenant: TenantId,
    /// Why it begins.
    pub occasion: Occasion,
}

type Preparing<S> = Pin<Box<dyn Future<Output = Result<Run<S>, Refusal>> + Send>>;
type Prepare<S> = Arc<dyn Fn(Run<S>, RunFor) -> Preparing<S> + Send + Sync>;
type Hear<S> = Arc<dyn Fn(<S as State>::Event) -> Heard + Send + Sync>;

/// A graph about to be served, and what the server cannot know of it.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use stepgraph::{Graph, START, END, State};
/// use schemars::JsonSchema;
/// use stepgraph_server::Serve;
///
/// #[derive(State, Clone, Serialize, Deserialize, JsonSchema)]
/// #[state(input_derive(JsonSchema))]
/// struct Count {
///     #[state(input)]
///     n: u64,
/// }
/// # let mut g = Graph::<Count>::builder("count");
/// # let add = g.node("add", |count: Count| async move { Ok(Count::update().n(count.n + 1)) });
/// # g.edge(START, add).edge(add, END);
/// let served = Serve::new(g.build()?).input_schema().state_schema();
/// # let _ = served;
/// # Ok::<(), stepgraph::BuildErrors>(())
/// ```
#[must_use = "give it to `ServerBuilder::graph`"]
pub struct Serve<S: State> {
    graph: Graph<S>,
    hear: Hear<S>,
    prepare: Option<Prepare<S>>,
    schemas: Schemas,
    words: Words,
}

impl<S: State> fmt::Debug for Serve<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("graph", &self.graph)
            .finish_non_exhaustive()
    }
}

impl<S: State> Serve<S> {
    /// A graph whose nodes emit events that become JSON: each is told as it is, in the mode `custom`.
    pub fn new(graph: Graph<S>) -> Self
    where
        S::Event: Serialize,
    {
        Self::with_events(graph, |event| match serde_json::to_value(event) {
            Ok(value) => Heard::Custom(value),
            Err(error) => {
                tracing::warn!(%error, "an event does not become JSON and is left out");
                Heard::Nothing
            }
        })
    }

    /// A graph whose events are told as `hear` says.
    pub fn with_events(graph: Graph<S>, hear: impl Fn(S::Event) -> Heard + Send + Sync + 'static) -> Self {
        Self {
            graph,
            hear: Arc::new(hear),
            prepare: None,
            schemas: Schemas::default(),
            words: Words::default(),
        }
    }

    /// Prepares every run before it begins: gives it what its nodes need by [`Run::provide`], sets limits, or refuses.
    pub fn prepare<F, Fut>(mut self, prepare: F) -> Self
    where
        F: Fn(Run<S>, RunFor) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Run<S>, Refusal>> + Send + 'static,
    {
        self.prepare = Some(Arc::new(move |run, whom| Box::pin(prepare(run, whom))));
        self
    }

    /// Tells callers what nodes say of their errors: where whoever runs the server is whoever calls it. Otherwise they are
    /// told the code, a general message and the run's id, under which the log has the rest.
    pub const fn show_errors(mut self) -> Self {
        self.words = Words::Own;
        self
    }

    /// Tells callers the schema of what a run begins with.
    pub fn input_schema(mut self) -> Self
    where
        S::Input: JsonSchema,
    {
        self.schemas.input = Some(secret::of_input(
            schema_for!(S::Input).to_value(),
            S::fields(self.graph.shape()),
        ));
        self
    }

    /// Tells callers the schema of the state, which is also what a run gives back.
    pub fn state_schema(mut self) -> Self
    where
        S: JsonSchema,
    {
        self.schemas.state = Some(secret::of_state(schema_for!(S).to_value(), S::SECRETS));
        self
    }
}

/// A graph of any state, to be given to [`ServerBuilder::graph`](crate::ServerBuilder::graph). Made from a [`Serve`], or
/// from a graph as it is.
pub struct Registration(Box<dyn Register>);

trait Register: Send {
    fn register(self: Box<Self>, store: Arc<dyn Checkpointer>) -> Arc<dyn ServedGraph>;
    fn name(&self) -> &str;
}

impl Registration {
    pub(crate) fn name(&self) -> &str {
        self.0.name()
    }

    pub(crate) fn over(self, store: Arc<dyn Checkpointer>) -> Arc<dyn ServedGraph> {
        self.0.register(store)
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registration").field(&self.name()).finish()
    }
}

impl<S: State> Register for Serve<S> {
    fn register(mut self: Box<Self>, store: Arc<dyn Checkpointer>) -> Arc<dyn ServedGraph> {
        self.graph = self.graph.shared_checkpointer(store);
        Arc::new(*self)
    }

    fn name(&self) -> &str {
        self.graph.name()
    }
}

impl<S: State> From<Serve<S>> for Registration {
    fn from(serve: Serve<S>) -> Self {
        Self(Box::new(serve))
    }
}

impl<S: State> From<Graph<S>> for Registration
where
    S::Event: Serialize,
{
    fn from(graph: Graph<S>) -> Self {
        Serve::new(graph).into()
    }
}

#[async_trait]
impl<S: State> ServedGraph for Serve<S> {
    fn name(&self) -> &str {
        self.graph.name()
    }

    fn outline(&self) -> Outline {
        self.graph.outline()
    }

    fn schemas(&self) -> &Schemas {
        &self.schemas
    }

    fn words(&self) -> Words {
        self.words
    }

    async fn state(&self, thread: &ThreadKey, at: At) -> Result<Option<StateView>, RunError> {
        let Some(mut snapshot) = self.graph.state(thread, at).await? else {
            return Ok(None);
        };
        snapshot.tasks.iter_mut().for_each(|task| self.words.of_task(task));
        snapshot.run.iter_mut().for_each(|run| self.words.of_run(run));
        Ok(Some(StateView {
            values: shown(&snapshot.state)?,
            entry: snapshot.entry,
            tasks: snapshot.tasks,
            questions: snapshot.questions,
            run: snapshot.run,
        }))
    }

    async fn history(&self, thread: &ThreadKey, page: Page) -> Result<Vec<HistoryEntry>, RunError> {
        self.graph.history(thread, page).await
    }

    async fn update(&self, thread: &ThreadKey, at: At, values: Value, as_node: AsNode) -> Result<Seq, Unserved> {
        let update = self.read_update(values)?;
        Ok(self.graph.update(thread, at, update, as_node).await?)
    }

    async fn unfinished(&self, limit: u32) -> Result<Vec<ThreadKey>, RunError> {
        self.graph.unfinished(limit).await
    }

    async fn begin(&self, thread: &ThreadKey, begin: Begin) -> Result<Events, Unserved> {
        let whom = RunFor {
            tenant: thread.tenant.clone(),
            occasion: begin.occasion,
        };
        let extras = begin.extras.clone();
        let mut run = self.run(thread, begin)?;
        if let Some(prepare) = &self.prepare {
            run = prepare(run, whom).await?;
        }
        let (hear, words) = (Arc::clone(&self.hear), self.words);
        let events = run.stream_with(extras);
        Ok(events
            .filter_map(move |event| std::future::ready(told(event, &hear, words)))
            .boxed())
    }
}

impl<S: State> Serve<S> {
    fn run(&self, thread: &ThreadKey, begin: Begin) -> Result<Run<S>, Unserved> {
        let mut run = match begin.what {
            What::Input(input) => self.graph.run(thread, self.read_input(input)?),
            What::GoOn(answers) => self.graph.resume(thread).answers(answers).provide(GoneOn),
        };
        run = run
            .id(begin.run)
            .cancel(&begin.cancel)
            .on_busy(begin.on_busy)
            .on_pending(begin.on_pending);
        if let Some(trace) = begin.trace {
            run = run.provide(trace);
        }
        if let Some(steps) = begin.step_limit {
            run = run.step_limit(steps);
        }
        if let Some(at) = begin.at {
            run = run.at(at);
        }
        if let Some(nodes) = begin.stop_before {
            run = run.stop_before(nodes);
        }
        if let Some(nodes) = begin.stop_after {
            run = run.stop_after(nodes);
        }
        if let Some(update) = begin.update {
            run = run.update(self.read_update(update)?);
        }
        for node in begin.goto {
            run = run.goto(node);
        }
        Ok(run)
    }

    fn read_input(&self, input: Value) -> Result<S::Input, Unserved> {
        secret::refuse_shown("input", &input, S::fields(self.graph.shape()))?;
        if let Some(channels) = self.channels() {
            let values = input.as_object().cloned().ok_or_else(|| not_an_object("input"))?;
            channels
                .input(values)
                .map_err(|error| Unserved::Unfit(format!("`input`: {error}")))?;
        }
        Reader::new("input").read(input)
    }

    fn read_update(&self, values: Value) -> Result<S::Update, Unserved> {
        let values = if values.is_null() { json!({}) } else { values };
        secret::refuse_shown("values", &values, S::fields(self.graph.shape()))?;
        if let Some(channels) = self.channels() {
            let update: JsonUpdate = Reader::new("values").read(values.clone())?;
            channels
                .check(&update)
                .map_err(|error| Unserved::Unfit(format!("`values`: {error}")))?;
        }
        Reader::new("values").read(values)
    }

    /// The channels of a dynamic graph, which check what is written: its state alone would pass over what it does not know.
    fn channels(&self) -> Option<&Channels> {
        (self.graph.shape() as &dyn Any).downcast_ref()
    }
}

fn not_an_object(name: &str) -> Unserved {
    Unserved::Unfit(format!("`{name}` must be an object"))
}

/// Reads JSON of one place in the body.
struct Reader<T> {
    name: &'static str,
    read: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Reader<T> {
    const fn new(name: &'static str) -> Self {
        Self {
            name,
            read: PhantomData,
        }
    }

    fn read(&self, value: Value) -> Result<T, Unserved> {
        if !value.is_object() {
            return Err(not_an_object(self.name));
        }
        serde_path_to_error::deserialize(value).map_err(|error| {
            let path = error.path().to_string();
            let place = if path == "." {
                self.name.to_owned()
            } else {
                format!("{}.{path}", self.name)
            };
            Unserved::Unfit(format!("`{place}` does not fit: {}", error.into_inner()))
        })
    }
}

fn shown<S: State>(state: &S) -> Result<Value, RunError> {
    Ok(state.shown()?)
}

/// An item of the run's stream without its types. `None` for what is not told.
fn told<S: State>(
    event: Result<RunEvent<S>, RunError>,
    hear: &Hear<S>,
    words: Words,
) -> Option<Result<Told, RunError>> {
    let event = match event {
        Err(error) => return Some(Err(error)),
        Ok(RunEvent::Ended(outcome)) => return Some(ended(outcome).map(Told::Ended)),
        Ok(RunEvent::Event(event)) => event,
        Ok(_) => return None,
    };
    let path = event.path;
    Some(Ok(match event.kind.into_json()? {
        Inside::Custom { node, event } => Told::Said {
            path,
            node: node.into_owned(),
            heard: hear(event),
        },
        Inside::Kind(mut kind) => {
            words.of_event(&mut kind);
            Told::Happened {
                path,
                kind: Box::new(kind),
            }
        }
    }))
}

fn ended<S: State>(outcome: Outcome<S>) -> Result<Ended, RunError> {
    Ok(match outcome {
        Outcome::Done(state) => Ended::Done(shown(&state)?),
        Outcome::Asked(questions) => Ended::Asked(questions),
        Outcome::Breakpoint(_) => Ended::Paused,
        Outcome::Stalled { state, .. } => Ended::Stalled(shown(&state)?),
        // Ways to end that are not known here have left the thread to be gone on with, as a cancellation does.
        _ => Ended::Cancelled,
    })
}
