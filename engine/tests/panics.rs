//! A panic in what users have written is an error that says where, with its message; never the end of the process.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect"
)]

mod support {
    pub(crate) mod fragile;
    pub(crate) mod threads;
}

use std::{
    future::ready,
    num::NonZeroU32,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Ask, CacheError, CacheKey, Command, Context, END, Extra, Failed, FromState, Graph, GraphBuilder, Memory,
    NodeCache, NodeError, NodePanic, Outcome, Policy, Retry, Route, RunError, START, State, async_trait,
    checkpoint::At, to,
};
use support::{fragile::Fragile, threads::thread};

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Work {
    #[state(input, default = Vec::new())]
    items: Vec<u64>,
    #[state(reducer = Append)]
    log: Vec<String>,
    #[state(reducer = Fragile)]
    fragile: u64,
}

#[derive(Route, Clone, Copy)]
enum Way {
    On,
}

fn logged(line: &str) -> WorkUpdate {
    Work::update().log([line.to_owned()])
}

fn always(message: &str) {
    assert!(std::hint::black_box(false), "{message}");
}

/// The error of a run of a graph that is kept, which may be run again afterwards.
async fn error_of(declare: impl FnOnce(&mut GraphBuilder<Work>)) -> RunError {
    let mut g = Graph::<Work>::builder("panics");
    declare(&mut g);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let input = WorkInput { items: vec![0, 1, 2] };
    graph.run(&thread("t"), input).await.unwrap_err()
}

/// That it is the failure of this task by a panic with this message.
fn is_of(error: &RunError, task: &str, message: &str) {
    assert_eq!(error.node_error::<NodePanic>().unwrap().message, message, "{error}");
    assert_eq!(error.task(), Some(task), "{error}");
    assert!(error.to_string().contains(&format!("panicked: {message}")), "{error}");
}

#[tokio::test]
async fn a_panic_in_a_router_or_an_item_of_a_fan_out_is_the_error_of_its_task() {
    let error = error_of(|g| {
        let choose = g.router("choose", |_: Arc<Work>| {
            always("no way");
            ready(Ok(Command {
                update: Work::update(),
                goto: Way::On,
            }))
        });
        g.edge(START, choose).routes(choose, |Way::On| to(END));
    })
    .await;
    is_of(&error, "choose", "no way");
    let error = error_of(|g| {
        let work = g.worker("work", |item: u64| async move {
            tokio::task::yield_now().await;
            assert!(item != 1, "no item {item}");
            Ok(logged("worked"))
        });
        g.fan_out(START, work, |work: &Work| work.items.clone()).edge(work, END);
    })
    .await;
    is_of(&error, "work#1", "no item 1");
    assert_eq!(error.node(), Some("work"));
}

#[tokio::test]
async fn a_panic_in_a_handler_is_the_handlers_error_beside_what_it_was_to_handle() {
    let error = error_of(|g| {
        let breaks = g.node("breaks", |_: Arc<Work>| async {
            Err::<WorkUpdate, _>(NodeError::terminal("broken"))
        });
        let recover = g.handler("recover", |_: Failed<Arc<Work>>| {
            always("no recovery");
            ready(Ok(logged("recovered")))
        });
        g.edge(START, breaks)
            .edge(breaks, END)
            .on_error(breaks, recover)
            .edge(recover, END);
    })
    .await;
    is_of(&error, "recover#breaks", "no recovery");
    assert_eq!((error.code(), error.node()), ("run::handler", Some("breaks")));
    assert!(error.to_string().contains("broken"), "{error}");
}

#[tokio::test]
async fn a_panic_in_what_says_which_errors_are_worth_another_attempt_is_the_error_of_its_task() {
    for crowd in [false, true] {
        let error = error_of(|g| {
            let breaks = g.node("breaks", |_: Arc<Work>| async {
                Err::<WorkUpdate, _>(NodeError::retryable("broken"))
            });
            let twice = Retry::attempts(const { NonZeroU32::new(2).unwrap() }).only_if(|error| {
                assert!(error.to_string() != "broken", "no judgement");
                true
            });
            g.policy(breaks, Policy::new().retry(twice))
                .edge(START, breaks)
                .edge(breaks, END);
            if crowd {
                let other = g.node("other", |_: Arc<Work>| ready(Ok(logged("other"))));
                g.edge(START, other).edge(other, END);
            }
        })
        .await;
        is_of(&error, "breaks", "no judgement");
    }
}

/// A view of the state around for the graph inside, that cannot be made.
#[derive(Clone)]
struct NoInput;

impl FromState<Work> for NoInput {
    fn from_state(_: &Arc<Work>) -> Self {
        panic!("no view")
    }
}

impl From<NoInput> for WorkInput {
    fn from(_: NoInput) -> Self {
        Self { items: Vec::new() }
    }
}

#[derive(Clone)]
struct Converted;

impl FromState<Work> for Converted {
    fn from_state(_: &Arc<Work>) -> Self {
        Self
    }
}

impl From<Converted> for WorkInput {
    fn from(_: Converted) -> Self {
        panic!("no input")
    }
}

impl FromState<Work> for WorkInput {
    fn from_state(work: &Arc<Work>) -> Self {
        Self {
            items: work.items.clone(),
        }
    }
}

/// What the graph around takes out of the one inside, and cannot.
struct NoOutput;

impl FromState<Work> for NoOutput {
    fn from_state(_: &Arc<Work>) -> Self {
        panic!("no output")
    }
}

impl From<NoOutput> for WorkUpdate {
    fn from(_: NoOutput) -> Self {
        Work::update()
    }
}

struct Nothing;

impl FromState<Work> for Nothing {
    fn from_state(_: &Arc<Work>) -> Self {
        Self
    }
}

impl From<Nothing> for WorkUpdate {
    fn from(_: Nothing) -> Self {
        panic!("no update")
    }
}

/// A graph to be hosted, whose node says something, or panics.
fn inner(fails: bool) -> Graph<Work> {
    let mut g = Graph::<Work>::builder("inner");
    let node = g.node("node", move |_: Arc<Work>| {
        assert!(!fails, "inside");
        ready(Ok(logged("inside")))
    });
    g.edge(START, node).edge(node, END);
    g.build().unwrap()
}

#[tokio::test]
async fn a_panic_in_a_graph_inside_or_in_a_view_of_either_side_is_the_error_of_its_host() {
    for message in ["no view", "no input", "no output", "no update", "inside"] {
        let error = error_of(|g| {
            let host = match message {
                "no view" => g.node("host", inner(false).as_node::<NoInput, Nothing>()),
                "no input" => g.node("host", inner(false).as_node::<Converted, Nothing>()),
                "no output" => g.node("host", inner(false).as_node::<WorkInput, NoOutput>()),
                "no update" => g.node("host", inner(false).as_node::<WorkInput, Nothing>()),
                _ => g.node("host", inner(true).as_node::<WorkInput, Nothing>()),
            };
            g.edge(START, host).edge(host, END);
        })
        .await;
        assert_eq!(error.node_error::<NodePanic>().unwrap().message, message);
        assert_eq!(error.task(), Some("host"), "{error}");
    }
}

/// `a` beside `b` and `c`, of which one writes what panics as it is merged.
fn beside(g: &mut GraphBuilder<Work>, fragile: &'static str, value: u64) {
    for name in ["a", "b", "c"] {
        let node = g.node(name, move |_: Arc<Work>| {
            ready(Ok(Work::update().fragile(if name == fragile { value } else { 1 })))
        });
        g.edge(START, node).edge(node, END);
    }
}

#[tokio::test]
async fn a_panic_in_a_reducer_a_branch_or_a_fan_out_names_the_task_whose_update_or_way_it_was() {
    for name in ["a", "b", "c"] {
        let error = error_of(|g| beside(g, name, 13)).await;
        assert_eq!(
            (error.code(), error.task(), error.node()),
            ("run::panic", Some(name), Some(name))
        );
        assert_eq!(
            error.to_string(),
            format!(
                "merging the update of `{name}` panicked in step 1 of thread acme/t (from checkpoint 1): thirteen; nothing of the step is kept, mend the closure or reducer and resume"
            )
        );
    }
    for crowd in [false, true] {
        for fan_out in [false, true] {
            let error = error_of(|g| {
                let leads = g.node("leads", |_: Arc<Work>| ready(Ok(logged("leads"))));
                let work = g.worker("work", |_: u64| ready(Ok(logged("work"))));
                g.edge(START, leads).edge(work, END);
                if crowd {
                    let other = g.node("other", |_: Arc<Work>| ready(Ok(logged("other"))));
                    g.edge(START, other).edge(other, END);
                }
                g.fan_out(leads, work, move |_: &Work| {
                    assert!(!fan_out, "no items");
                    [1]
                });
                g.branch(
                    leads,
                    move |_| {
                        assert!(fan_out, "no choice");
                        Way::On
                    },
                    |Way::On| to(END),
                );
            })
            .await;
            let message = if fan_out { "no items" } else { "no choice" };
            let RunError::Panic {
                doing, message: said, ..
            } = &error
            else {
                panic!("{error}");
            };
            assert_eq!((doing.as_str(), said.as_str()), ("leading on from `leads`", message));
            assert_eq!(error.task(), Some("leads"));
        }
    }
}

#[tokio::test]
async fn a_reducer_that_panics_as_its_effect_is_written_down_stops_the_run_and_the_thread_goes_on_once_it_is_mended() {
    let broken = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&broken);
    let mut g = Graph::<Work>::builder("panics");
    let node = g.node("node", move |_: Arc<Work>| {
        let value = if told.load(Ordering::SeqCst) { 17_u64 } else { 1 };
        ready(Ok(Work::update().fragile(value)))
    });
    g.edge(START, node).edge(node, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let error = graph
        .run(&thread("t"), WorkInput { items: Vec::new() })
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.to_string().contains("seventeen")),
        ("state::encode", true),
        "{error}"
    );
    broken.store(false, Ordering::SeqCst);
    assert_eq!(graph.resume(&thread("t")).await.unwrap().done().unwrap().fragile, 1);
}

#[derive(Serialize, Ask)]
#[ask(name = "sure", answer = bool)]
struct Sure;

#[tokio::test]
async fn a_reducer_that_panics_at_what_an_unfinished_step_has_kept_is_told_to_whoever_looks_and_at_the_steps_end() {
    let mut g = Graph::<Work>::builder("panics");
    let asks = g.node("asks", |_: Arc<Work>, ctx: Context<()>| async move {
        ctx.ask(Sure)?;
        Ok(logged("sure"))
    });
    let breaks = g.node("breaks", |_: Arc<Work>| ready(Ok(Work::update().fragile(13_u64))));
    g.edge(START, asks)
        .edge(START, breaks)
        .edge(asks, END)
        .edge(breaks, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let stream = graph
        .run(&thread("t"), WorkInput { items: Vec::new() })
        .stream_with([Extra::Values]);
    let ended = futures_util::StreamExt::collect::<Vec<_>>(stream)
        .await
        .pop()
        .unwrap()
        .unwrap();
    assert!(
        matches!(ended, stepgraph::RunEvent::Ended(Outcome::Asked(_))),
        "{ended:?}"
    );
    let looked = graph.state(&thread("t"), At::Head).await.unwrap_err();
    assert_eq!(
        (looked.code(), looked.to_string().contains("thirteen")),
        ("run::panic", true),
        "{looked}"
    );
    let error = graph.resume(&thread("t")).answer::<Sure>(&true).await.unwrap_err();
    assert_eq!((error.code(), error.task()), ("run::panic", Some("breaks")));
}

#[derive(State, Clone, Debug, Serialize, Deserialize)]
#[state(version = 2, from = Work1)]
struct Work2 {
    #[state(input)]
    text: String,
}

#[derive(State, Clone, Debug, Serialize, Deserialize)]
#[state(version = 1)]
struct Work1 {
    #[state(input)]
    text: String,
}

impl From<Work1> for Work2 {
    fn from(_: Work1) -> Self {
        panic!("no migration")
    }
}

impl From<Work1Update> for Work2Update {
    fn from(_: Work1Update) -> Self {
        panic!("no migration of an update")
    }
}

fn one<S: State<Shape = ()>>() -> GraphBuilder<S> {
    let mut g = Graph::<S>::builder("migrated");
    let node = g.node("node", |_: Arc<S>| ready(Ok(S::update())));
    g.edge(START, node).edge(node, END);
    g
}

#[tokio::test]
async fn a_migration_that_panics_leaves_the_thread_as_it_was() {
    let store: Arc<dyn stepgraph::Checkpointer> = Arc::new(Memory::new());
    let older = one::<Work1>().build().unwrap().shared_checkpointer(Arc::clone(&store));
    older.run(&thread("t"), Work1Input::new("old")).await.unwrap();
    let newer = one::<Work2>().build().unwrap().shared_checkpointer(store);
    let looked = newer.state(&thread("t"), At::Head).await.unwrap_err();
    assert_eq!(
        (looked.code(), looked.to_string().contains("no migration")),
        ("state::decode", true),
        "{looked}"
    );
    let error = newer.run(&thread("t"), Work2Input::new("new")).await.unwrap_err();
    assert_eq!(error.code(), "state::decode");
    assert_eq!(
        older.state(&thread("t"), At::Head).await.unwrap().unwrap().state.text,
        "old"
    );
}

/// A cache of a user's own that panics.
#[derive(Debug)]
struct Panicking;

#[async_trait]
impl NodeCache for Panicking {
    async fn get(&self, _: &CacheKey) -> Result<Option<Arc<[u8]>>, CacheError> {
        panic!("no entry")
    }

    async fn put(&self, _: &CacheKey, _: Arc<[u8]>, _: Duration) -> Result<(), CacheError> {
        panic!("no room")
    }

    async fn clear(&self, _: &str, _: &str) -> Result<(), CacheError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_node_cache_that_panics_is_a_miss() {
    let mut g = Graph::<Work>::builder("panics");
    let node = g.node("node", |_: Arc<Work>| ready(Ok(logged("ran"))));
    g.cache(node, Duration::from_mins(1), |_| ())
        .edge(START, node)
        .edge(node, END);
    let graph = g.build().unwrap().node_cache(Panicking);
    let state = graph
        .run(&thread("t"), WorkInput { items: Vec::new() })
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(state.log, ["ran"]);
}
