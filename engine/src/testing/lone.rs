//! One node alone.

use std::{
    fmt,
    marker::PhantomData,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::{FaultyStore, ManualClock, TestRun};
use crate::{
    ask::{Answers, Ask, Question},
    checkpoint::Memory,
    graph::{BuildErrors, END, Graph, START},
    id::{InvalidId, TenantId, ThreadId, ThreadKey},
    node::{Context, Node, NodeError},
    run::{EventKind, Outcome, Run, RunError},
    state::{Changes, Field, FieldSet, State, StateError, Update},
};

/// A node about to be run alone, made by [`run_node`].
#[must_use = "it is run by `run`"]
pub struct LoneNode<N: Node> {
    node: N,
    input: N::Input,
    tenant: String,
    clock: ManualClock,
    answers: Vec<(String, Value)>,
    provide: Vec<Provide<N::Event>>,
}

type Provide<E> = Box<dyn Fn(Run<Lone<E>>) -> Run<Lone<E>> + Send + Sync>;

/// What a node did.
#[non_exhaustive]
pub struct NodeReport<N: Node> {
    /// What it gave back, if it did.
    pub output: Option<N::Output>,
    /// What it failed with, if it did.
    pub error: Option<RunError>,
    /// What it emitted.
    pub events: Vec<N::Event>,
    /// What it asked and was not answered.
    pub questions: Vec<Question>,
    /// The effects whose ends were recorded, in the order of their keys.
    pub effects: Vec<String>,
    /// How often it was entered.
    pub entered: u32,
}

/// Prepares to run a node outside of any graph, with a context of its own: a store in memory, a clock that stands still, the
/// tenant `test`.
///
/// ```
/// use stepgraph::{Context, Node, NodeError, testing::run_node};
///
/// struct Shout;
///
/// #[stepgraph::async_trait]
/// impl Node for Shout {
///     type Input = String;
///     type Output = String;
///     type Event = usize;
///
///     async fn run(&self, input: String, ctx: Context<usize>) -> Result<String, NodeError> {
///         ctx.emit(input.len()).await;
///         Ok(format!("{}: {}", ctx.tenant(), input.to_uppercase()))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let ran = run_node(Shout, "hello".to_string()).tenant("acme").run().await;
/// assert_eq!(ran.output.as_deref(), Some("acme: HELLO"));
/// assert_eq!(ran.events, [5]);
/// # }
/// ```
pub fn run_node<N: Node>(node: N, input: N::Input) -> LoneNode<N>
where
    N::Input: Clone,
{
    LoneNode {
        node,
        input,
        tenant: "test".to_owned(),
        clock: ManualClock::new(),
        answers: Vec::new(),
        provide: Vec::new(),
    }
}

impl<N: Node> LoneNode<N>
where
    N::Input: Clone,
{
    /// Whom it runs for.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = tenant.into();
        self
    }

    /// Takes time and ids from this clock.
    pub fn clock(mut self, clock: &ManualClock) -> Self {
        self.clock = clock.clone();
        self
    }

    /// Answers its question of this type, whenever it asks it.
    pub fn answer<Q: Ask>(self, answer: &Q::Answer) -> Self {
        let answer = serde_json::to_value(answer).unwrap_or(Value::Null);
        self.answer_as(Q::NAME, answer)
    }

    /// Answers its question of this name.
    pub fn answer_as(mut self, name: impl Into<String>, answer: Value) -> Self {
        self.answers.push((name.into(), answer));
        self
    }

    /// Gives it a value by its type, for [`Context::provided`].
    pub fn provide<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.provide.push(Box::new(move |run| run.provide(value.clone())));
        self
    }

    /// Runs it, and enters it again after each answer.
    pub async fn run(self) -> NodeReport<N> {
        let (given, entered) = (Arc::new(Mutex::new(None)), Arc::new(AtomicU32::new(0)));
        let store = FaultyStore::over(Memory::new());
        let entry = Entry {
            node: Arc::new(self.node),
            input: Mutex::new(self.input),
            given: Arc::clone(&given),
            entered: Arc::clone(&entered),
        };
        let mut report = NodeReport {
            output: None,
            error: None,
            events: Vec::new(),
            questions: Vec::new(),
            effects: Vec::new(),
            entered: 0,
        };
        let ready = graph(entry).map_err(|errors| errors.to_string());
        let ready = ready.and_then(|graph| Ok((graph, thread(&self.tenant).map_err(|error| error.to_string())?)));
        let (graph, thread) = match ready {
            Ok((graph, thread)) => (graph.checkpointer(store.clone()).clock(self.clock), thread),
            Err(error) => {
                report.error = Some(StateError::Encode(error).into());
                return report;
            }
        };
        let mut run = graph.run(&thread, ());
        // Each question is answered once.
        for _ in 0..=self.answers.len() {
            let provided = self.provide.iter().fold(run, |run, provide| provide(run));
            let ran = TestRun::of(provided).await;
            report.hear(ran);
            let known = |question: &Question| self.answers.iter().find(|(name, _)| *name == question.name);
            let answers = report.questions.iter();
            let answers = answers.filter_map(|question| Some((question.id.clone(), known(question)?.1.clone())));
            let answers: Vec<_> = answers.collect();
            if answers.is_empty() {
                break;
            }
            run = graph.resume(&thread).answers(Answers::Many(answers));
        }
        report.output = given.lock().unwrap_or_else(PoisonError::into_inner).take();
        report.entered = entered.load(Ordering::SeqCst);
        report.effects = store.effects().into_iter().map(|(_, _, key, _)| key).collect();
        report
    }
}

impl<N: Node> NodeReport<N> {
    fn hear(&mut self, ran: TestRun<Lone<N::Event>>) {
        for event in ran.events {
            if let EventKind::Custom { event, .. } = event.kind {
                self.events.push(event);
            }
        }
        self.questions = Vec::new();
        match ran.outcome {
            Ok(Outcome::Asked(questions)) => self.questions = questions,
            Ok(_) => {}
            Err(error) => self.error = Some(error),
        }
    }
}

fn thread(tenant: &str) -> Result<ThreadKey, InvalidId> {
    Ok(ThreadKey::new(
        TenantId::authenticated(tenant)?,
        ThreadId::new("alone")?,
    ))
}

fn graph<N: Node>(entry: Entry<N>) -> Result<Graph<Lone<N::Event>>, BuildErrors>
where
    N::Input: Clone,
{
    let entry = Arc::new(entry);
    let mut g = Graph::<Lone<N::Event>>::builder("alone");
    let node = g.node("node", move |_: Lone<N::Event>, ctx: Context<N::Event>| {
        let entry = Arc::clone(&entry);
        async move { entry.enter(ctx).await }
    });
    g.edge(START, node).edge(node, END);
    g.build()
}

/// The node, and where its output is put: it need not become bytes.
struct Entry<N: Node> {
    node: Arc<N>,
    input: Mutex<N::Input>,
    given: Arc<Mutex<Option<N::Output>>>,
    entered: Arc<AtomicU32>,
}

impl<N: Node> Entry<N>
where
    N::Input: Clone,
{
    async fn enter(&self, ctx: Context<N::Event>) -> Result<Nothing, NodeError> {
        self.entered.fetch_add(1, Ordering::SeqCst);
        let input = self.input.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let output = self.node.run(input, ctx).await?;
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) = Some(output);
        Ok(Nothing)
    }
}

/// The state of a graph around one node: it has no fields.
struct Lone<E>(PhantomData<fn() -> E>);

impl<E> Clone for Lone<E> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<E> Serialize for Lone<E> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Nothing;

impl Update for Nothing {
    fn touched(&self, _: &[Field]) -> FieldSet {
        FieldSet::new()
    }

    fn is_empty(&self) -> bool {
        true
    }
}

impl<E: Send + 'static> State for Lone<E> {
    type Input = ();
    type Update = Nothing;
    type Event = E;
    type Shape = ();

    fn fields((): &()) -> &[Field] {
        &[]
    }

    fn start((): &(), (): ()) -> Self {
        Self(PhantomData)
    }

    fn restart(&mut self, (): (), _: &mut Changes) {}

    fn apply(&mut self, _: Nothing, _: &mut Changes) {}

    fn encode(&self) -> Result<Vec<u8>, StateError> {
        Ok(Vec::new())
    }

    fn encode_changes(&self, _: &Changes) -> Result<Vec<u8>, StateError> {
        Ok(Vec::new())
    }

    fn decode((): &(), _: &[&[u8]]) -> Result<Self, StateError> {
        Ok(Self(PhantomData))
    }
}

impl<N: Node> fmt::Debug for LoneNode<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoneNode")
            .field("tenant", &self.tenant)
            .finish_non_exhaustive()
    }
}

impl<N: Node> fmt::Debug for NodeReport<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeReport")
            .field("gave", &self.output.is_some())
            .field("error", &self.error)
            .field("events", &self.events.len())
            .field("questions", &self.questions)
            .field("effects", &self.effects)
            .field("entered", &self.entered)
            .finish()
    }
}
