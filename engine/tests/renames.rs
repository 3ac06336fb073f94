//! Nodes and routes that are renamed or moved while threads wait at them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod support {
    pub(crate) mod threads;
}

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use stepgraph::{
    Append, Ask, Checkpointer, Command, Context, END, Effect, Failed, Graph, Memory, NodeError, Outcome, Route,
    RunError, START, State,
    checkpoint::{At, RecordKind},
    dynamic::{Channels, DynamicBuilder, JsonState, JsonUpdate, Merge, TaskInput},
    from, to,
};
use support::threads::thread;

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Log {
    #[state(reducer = Append)]
    lines: Vec<String>,
}

#[derive(Serialize, Ask)]
#[ask(name = "approve", answer = bool)]
struct Approve;

type Store = Arc<Memory>;

fn kept<S: State>(graph: Graph<S>, store: &Store) -> Graph<S> {
    graph.shared_checkpointer(Arc::clone(store) as Arc<dyn Checkpointer>)
}

fn line(text: impl Into<String>) -> LogUpdate {
    Log::update().lines([text.into()])
}

/// A step of three tasks: one asks after an outside effect, one runs a graph that asks, one finishes; and a join of all.
struct Names {
    effect: &'static str,
    host: &'static str,
    quick: &'static str,
    end: &'static str,
}

const OLD: Names = Names {
    effect: "effect",
    host: "host",
    quick: "quick",
    end: "end",
};

/// The order of the names is turned about, so that every number changes.
const NEW: Names = Names {
    effect: "z_effect",
    host: "y_host",
    quick: "x_quick",
    end: "a_end",
};

#[derive(Default, Clone)]
struct Counts {
    effects: Arc<Mutex<Vec<String>>>,
    inner: Arc<AtomicUsize>,
    quick: Arc<AtomicUsize>,
}

fn inner(counts: &Counts) -> Graph<Log> {
    let mut g = Graph::<Log>::builder("inner");
    let began = Arc::clone(&counts.inner);
    let first = g.node("first", move |_: Arc<Log>| {
        began.fetch_add(1, Ordering::SeqCst);
        async { Ok(line("inner")) }
    });
    let ask = g.node("ask", |_: Arc<Log>, ctx: Context<()>| async move {
        ctx.ask(Approve)?;
        Ok(())
    });
    g.edge(START, first).edge(first, ask).edge(ask, END);
    g.build().unwrap()
}

fn wired(names: &Names, renamed: &[&str], counts: &Counts, store: &Store) -> Graph<Log> {
    let mut g = Graph::<Log>::builder("log");
    let effects = Arc::clone(&counts.effects);
    let effect = g.node(names.effect, move |_: Arc<Log>, ctx: Context<()>| {
        let effects = Arc::clone(&effects);
        async move {
            let sent = Effect::idempotent(|key| {
                let effects = Arc::clone(&effects);
                async move {
                    effects.lock().unwrap().push(key.as_str().to_owned());
                    Ok::<_, NodeError>("sent".to_owned())
                }
            });
            ctx.once("mail", sent).await?;
            ctx.ask(Approve)?;
            Ok(line("effect"))
        }
    });
    let graph = inner(counts);
    let host = g.node(names.host, move |_: Arc<Log>, ctx: Context<()>| {
        let graph = graph.clone();
        async move {
            let inner = ctx.call(&graph, "", LogInput::new()).await?;
            Ok(Log::update().lines(inner.lines))
        }
    });
    let ran = Arc::clone(&counts.quick);
    let quick = g.node(names.quick, move |_: Arc<Log>| {
        ran.fetch_add(1, Ordering::SeqCst);
        async { Ok(line("quick")) }
    });
    let end = g.node(names.end, |_: Arc<Log>| async { Ok(line("end")) });
    for (old, node) in [("effect", effect), ("host", host), ("quick", quick), ("end", end)] {
        if renamed.contains(&old) {
            g.renamed(old, node);
        }
    }
    g.edge(START, to(effect).and(host).and(quick))
        .join([effect, host, quick], end)
        .edge(end, END);
    kept(g.build().unwrap(), store)
}

const ALL: &[&str] = &["effect", "host", "quick", "end"];

async fn answers(graph: &Graph<Log>) -> stepgraph::Answers {
    let open = graph.state(&thread("t"), At::Head).await.unwrap().unwrap().questions;
    assert_eq!(open.len(), 2);
    stepgraph::Answers::Many(open.into_iter().map(|question| (question.id, json!(true))).collect())
}

#[tokio::test]
async fn a_waiting_step_follows_its_nodes_to_their_new_names() {
    let (store, counts) = (Store::default(), Counts::default());
    let old = wired(&OLD, &[], &counts, &store);
    let outcome = old.run(&thread("t"), LogInput::new()).await.unwrap();
    assert!(matches!(outcome, Outcome::Asked(_)), "{outcome:?}");
    let given = answers(&old).await;
    let new = wired(&NEW, ALL, &counts, &store);
    let live = new.state(&thread("t"), At::Head).await.unwrap().unwrap();
    assert_eq!(
        live.entry.next,
        ["y_host", "z_effect"],
        "what is left is named as it is now, and in that order"
    );
    assert_eq!(live.state.lines, ["quick"]);
    let done = new.resume(&thread("t")).answers(given).await.unwrap().done().unwrap();
    // Updates merge by the names of today.
    assert_eq!(done.lines, ["quick", "inner", "effect", "end"]);
    assert_eq!(counts.effects.lock().unwrap().len(), 1, "an effect is not done again");
    assert_eq!(
        counts.inner.load(Ordering::SeqCst),
        1,
        "the graph inside goes on where it was"
    );
    assert_eq!(
        counts.quick.load(Ordering::SeqCst),
        1,
        "what had finished does not run again"
    );
}

#[tokio::test]
async fn without_the_map_it_is_refused_by_the_first_name_that_is_gone() {
    let (store, counts) = (Store::default(), Counts::default());
    let old = wired(&OLD, &[], &counts, &store);
    old.run(&thread("t"), LogInput::new()).await.unwrap();
    let given = answers(&old).await;
    for renamed in [&[] as &[&str], &["effect", "quick", "end"]] {
        let new = wired(&NEW, renamed, &counts, &store);
        let error = new.resume(&thread("t")).answers(given.clone()).await.unwrap_err();
        assert!(matches!(error, RunError::Incompatible { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_step_that_was_cut_off_under_the_new_names_goes_on_once_more() {
    let (store, counts) = (Store::default(), Counts::default());
    let old = wired(&OLD, &[], &counts, &store);
    old.run(&thread("t"), LogInput::new()).await.unwrap();
    let stepgraph::Answers::Many(given) = answers(&old).await else {
        panic!()
    };
    let new = wired(&NEW, ALL, &counts, &store);
    for answer in given {
        new.resume(&thread("t"))
            .answers(stepgraph::Answers::Many(vec![answer]))
            .await
            .unwrap();
    }
    let done = new.state(&thread("t"), At::Head).await.unwrap().unwrap();
    assert_eq!(done.state.lines, ["quick", "inner", "effect", "end"]);
    assert_eq!(counts.effects.lock().unwrap().len(), 1);
    let keys = |record: &stepgraph::checkpoint::TaskRecord| (record.kind, record.task.clone());
    let head = store.get(&thread("t"), At::Head).await.unwrap().unwrap();
    assert_eq!(head.records.iter().map(keys).collect::<Vec<_>>(), []);
}

/// A node that fails, and a handler that asks what to do.
fn handled(handler: &'static str, before: Option<&'static str>, fails: &Arc<AtomicUsize>, store: &Store) -> Graph<Log> {
    let mut g = Graph::<Log>::builder("handled");
    let fails = Arc::clone(fails);
    let node = g.node("node", move |_: Arc<Log>| {
        fails.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Err::<LogUpdate, _>(NodeError::terminal("it cannot")))
    });
    let recover = g.handler(handler, |_: Failed<Arc<Log>>, ctx: Context<()>| async move {
        let approved = ctx.ask(Approve)?;
        Ok(line(format!("approved: {approved}")))
    });
    if let Some(before) = before {
        g.renamed(before, recover);
    }
    g.on_error(node, recover);
    g.edge(START, node).edge(node, END).edge(recover, END);
    kept(g.build().unwrap(), store)
}

#[tokio::test]
async fn a_handler_that_waits_for_an_answer_is_found_under_its_new_name() {
    let (store, fails) = (Store::default(), Arc::new(AtomicUsize::new(0)));
    let asked = handled("recover", None, &fails, &store)
        .run(&thread("t"), LogInput {})
        .await
        .unwrap();
    assert!(matches!(asked, Outcome::Asked(_)), "{asked:?}");
    let renamed = handled("rescue", Some("recover"), &fails, &store);
    let done = renamed.resume(&thread("t")).answer::<Approve>(&true).await.unwrap();
    assert_eq!(done.done().unwrap().lines, ["approved: true"]);
    assert_eq!(
        fails.load(Ordering::SeqCst),
        1,
        "what was handed over stays handed over"
    );
}

#[tokio::test]
async fn workers_keep_what_they_were_sent_and_a_begun_join_what_has_arrived() {
    fn graph(worker: &'static str, first: &'static str, map: bool, store: &Store) -> Graph<Log> {
        let mut g = Graph::<Log>::builder("log");
        let one = g.node(first, |_: Arc<Log>| async { Ok(line("first")) });
        let work = g.worker(worker, |item: u32, ctx: Context<()>| async move {
            if item == 2 {
                ctx.ask(Approve)?;
            }
            Ok(line(format!("item {item}")))
        });
        let end = g.node("end", |_: Arc<Log>| async { Ok(line("end")) });
        if map {
            g.renamed("work", work).renamed("one", one);
        }
        g.edge(START, one)
            .fan_out(START, work, |_| [1_u32, 2, 3])
            .join([from(one), from(work)], end)
            .edge(end, END);
        kept(g.build().unwrap(), store)
    }
    let store = Store::default();
    graph("work", "one", false, &store)
        .run(&thread("t"), LogInput::new())
        .await
        .unwrap();
    let moved = graph("a_work", "z_one", true, &store);
    let done = moved
        .resume(&thread("t"))
        .answer::<Approve>(&true)
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(done.lines, ["first", "item 1", "item 2", "item 3", "end"]);
}

#[tokio::test]
async fn a_join_that_has_begun_is_found_by_the_new_names_of_its_nodes() {
    fn graph(names: [&'static str; 3], map: bool, store: &Store) -> Graph<Log> {
        let mut g = Graph::<Log>::builder("log");
        let a = g.node(names[0], |_: Arc<Log>| async { Ok(line("a")) });
        let first = g.node("first", |_: Arc<Log>| async { Ok(()) });
        let late = g.node(names[1], |_: Arc<Log>, ctx: Context<()>| async move {
            ctx.ask(Approve)?;
            Ok(line("late"))
        });
        let end = g.node(names[2], |_: Arc<Log>| async { Ok(line("end")) });
        if map {
            g.renamed("a", a).renamed("late", late).renamed("end", end);
        }
        g.edge(START, to(a).and(first))
            .edge(first, late)
            .join([a, late], end)
            .edge(end, END);
        kept(g.build().unwrap(), store)
    }
    let store = Store::default();
    graph(["a", "late", "end"], false, &store)
        .run(&thread("t"), LogInput::new())
        .await
        .unwrap();
    let moved = graph(["z", "y", "b"], true, &store);
    let done = moved
        .resume(&thread("t"))
        .answer::<Approve>(&true)
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(done.lines, ["a", "late", "end"]);
}

#[derive(Clone, Copy, Debug, Route)]
enum Ways {
    Left,
    Right,
}

/// The same, in another order and with one more before them.
#[derive(Clone, Copy, Debug, Route)]
enum MoreWays {
    Up,
    Right,
    Left,
}

#[derive(Clone, Copy, Debug, Route)]
enum FewerWays {
    Left,
}

/// A router that goes right, beside a node that asks.
fn routed<R: Route>(goto: R, store: &Store) -> Graph<Log> {
    let mut g = Graph::<Log>::builder("log");
    let router = g.router(
        "router",
        move |_: Arc<Log>| async move { Ok(Command { update: (), goto }) },
    );
    let ask = g.node("ask", |_: Arc<Log>, ctx: Context<()>| async move {
        ctx.ask(Approve)?;
        Ok(())
    });
    let left = g.node("left", |_: Arc<Log>| async { Ok(line("left")) });
    let right = g.node("right", |_: Arc<Log>| async { Ok(line("right")) });
    g.edge(START, to(router).and(ask))
        .edge(ask, END)
        .edge(left, END)
        .edge(right, END);
    g.routes(
        router,
        |route: R| if route.label() == "right" { to(right) } else { to(left) },
    );
    if R::ALL.iter().all(|route| route.label() != "right") {
        g.edge(START, right);
    }
    kept(g.build().unwrap(), store)
}

#[tokio::test]
async fn a_kept_choice_of_a_router_survives_another_order_of_its_routes() {
    let store = Store::default();
    routed(Ways::Right, &store)
        .run(&thread("t"), LogInput::new())
        .await
        .unwrap();
    let done = routed(MoreWays::Up, &store)
        .resume(&thread("t"))
        .answer::<Approve>(&true)
        .await
        .unwrap();
    assert_eq!(done.done().unwrap().lines, ["right"]);
    assert_eq!(
        (Ways::Left.index(), MoreWays::Left.index(), MoreWays::Right.index()),
        (0, 2, 1)
    );
}

#[tokio::test]
async fn a_kept_choice_of_a_route_that_is_gone_is_refused_by_its_label() {
    let store = Store::default();
    routed(Ways::Right, &store)
        .run(&thread("t"), LogInput::new())
        .await
        .unwrap();
    let error = routed(FewerWays::Left, &store)
        .resume(&thread("t"))
        .answer::<Approve>(&true)
        .await
        .unwrap_err();
    let RunError::Incompatible { place, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(place, "route right of router");
}

#[tokio::test]
async fn choices_that_were_kept_by_position_still_load() {
    #[derive(Serialize)]
    struct Before {
        update: LogUpdate,
        route: usize,
    }
    for (position, wanted) in [(0, Some("left")), (1, Some("right")), (2, None)] {
        let store = Store::default();
        routed(Ways::Right, &store)
            .run(&thread("t"), LogInput::new())
            .await
            .unwrap();
        let head = store.get(&thread("t"), At::Head).await.unwrap().unwrap();
        let mut record = head
            .records
            .iter()
            .find(|record| record.kind == RecordKind::Output)
            .unwrap()
            .clone();
        let update = LogUpdate::default();
        record.body = rmp_serde::to_vec_named(&Before {
            update,
            route: position,
        })
        .unwrap()
        .into();
        let epoch = store.claim(&thread("t")).await.unwrap();
        let commit = stepgraph::checkpoint::Commit {
            records: vec![record],
            ..Default::default()
        };
        store
            .commit(&thread("t"), epoch, Some(head.info.seq), commit)
            .await
            .unwrap();
        let ended = routed(Ways::Right, &store)
            .resume(&thread("t"))
            .answer::<Approve>(&true)
            .await;
        match wanted {
            Some(wanted) => assert_eq!(ended.unwrap().done().unwrap().lines, [wanted]),
            None => assert_eq!(ended.unwrap_err().code(), "run::incompatible"),
        }
    }
}

#[test]
fn a_name_in_use_or_said_twice_cannot_be_a_former_name() {
    let mut g = Graph::<Log>::builder("log");
    let a = g.node("a", |_: Arc<Log>| async { Ok(()) });
    let b = g.node("b", |_: Arc<Log>| async { Ok(()) });
    g.edge(START, a).edge(a, b).edge(b, END);
    g.renamed("a", b).renamed("old", a).renamed("old", b);
    let errors = g.build().unwrap_err();
    let codes: Vec<_> = errors.errors().iter().map(stepgraph::BuildError::code).collect();
    assert_eq!(codes, ["graph::rename_in_use", "graph::renamed_twice"]);
    let mut g = Graph::<Log>::builder("other");
    let c = g.node("c", |_: Arc<Log>| async { Ok(()) });
    g.edge(START, c).edge(c, END).renamed("old", a);
    assert_eq!(g.build().unwrap_err().errors()[0].code(), "graph::foreign_id");
}

#[test]
fn former_names_are_no_part_of_the_fingerprint() {
    let build = |old: Option<&'static str>| {
        let mut g = Graph::<Log>::builder("log");
        let a = g.node("a", |_: Arc<Log>| async { Ok(()) });
        g.edge(START, a).edge(a, END);
        if let Some(old) = old {
            g.renamed(old, a);
        }
        g.build().unwrap().fingerprint()
    };
    assert_eq!(build(None), build(Some("old")));
}

fn json_graph(name: &'static str, channels: &Channels, map: bool, store: &Store) -> Graph<JsonState> {
    let mut g = DynamicBuilder::new("json", channels.clone());
    let says = if channels
        .input(Map::from_iter([("query".to_owned(), json!("x"))]))
        .is_ok()
    {
        "query"
    } else {
        "question"
    };
    g.node(name, |_: TaskInput, ctx: Context<Value>| async move {
        ctx.ask(Approve)?;
        Ok(JsonUpdate::new().set("log", json!(["asked"])).into())
    });
    g.node("note", move |_: TaskInput, _| async move {
        Ok(JsonUpdate::new()
            .set("log", json!(["noted"]))
            .overwrite(says, json!("because"))
            .into())
    });
    g.edge("START", name)
        .edge("START", "note")
        .edge(name, "END")
        .edge("note", "END");
    if map {
        g.renamed("ask", name);
    }
    kept(g.build().unwrap(), store)
}

type Migrate = fn(u32, Map<String, Value>) -> Result<Map<String, Value>, String>;

fn old_channels() -> Channels {
    Channels::new([("query", Merge::Last), ("log", Merge::Append)]).unwrap()
}

fn new_channels() -> Channels {
    let channels = Channels::new([("question", Merge::Last), ("log", Merge::Append)]).unwrap();
    channels.version(2, |from, mut values| {
        assert_eq!(from, 1);
        if let Some(query) = values.remove("query") {
            values.insert("question".to_owned(), query);
        }
        Ok(values)
    })
}

#[tokio::test]
async fn a_dynamic_graph_migrates_its_channels_and_renames_its_nodes() {
    let store = Store::default();
    let old = json_graph("ask", &old_channels(), false, &store);
    let input = old_channels()
        .input(Map::from_iter([("query".to_owned(), json!("why?"))]))
        .unwrap();
    old.run(&thread("t"), input).await.unwrap();
    let new = json_graph("inquire", &new_channels(), true, &store);
    let live = new.state(&thread("t"), At::Head).await.unwrap().unwrap();
    assert_eq!(live.state.get("question"), Some(&json!("because")));
    let done = new
        .resume(&thread("t"))
        .answer::<Approve>(&true)
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(
        Value::Object(done.to_object()),
        json!({"question": "because", "log": ["asked", "noted"]})
    );
    let head = store.get(&thread("t"), At::Head).await.unwrap().unwrap();
    assert_eq!((head.info.state_version, head.parts.len()), (2, 1));
    let error = json_graph("ask", &old_channels(), false, &store)
        .state(&thread("t"), At::Head)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "state::version");
}

#[tokio::test]
async fn a_migration_that_leaves_an_unknown_channel_or_says_no_is_refused() {
    let refused = |migrate: Migrate| async move {
        let store = Store::default();
        let old = json_graph("ask", &old_channels(), false, &store);
        let input = old_channels()
            .input(Map::from_iter([("query".to_owned(), json!("why?"))]))
            .unwrap();
        old.run(&thread("t"), input).await.unwrap();
        let channels = Channels::new([("question", Merge::Last), ("log", Merge::Append)]).unwrap();
        let new = json_graph("ask", &channels.version(2, migrate), false, &store);
        new.resume(&thread("t")).answer::<Approve>(&true).await.unwrap_err()
    };
    let error = refused(|_, values| Ok(values)).await;
    assert!(error.to_string().contains("`query`"), "{error}");
    let error = refused(|_, _| Err("there is no way".to_owned())).await;
    assert!(error.to_string().contains("there is no way"), "{error}");
    assert_eq!(error.code(), "state::decode");
}
