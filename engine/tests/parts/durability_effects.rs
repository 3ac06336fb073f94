//! Effects, inner graphs, names and stores in each mode.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    future::IntoFuture,
    num::NonZeroU32,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Context, Durability, END, Effect, EventKind, Extra, Graph, MergeMap, NodeError, Outcome, Policy,
    ReaderGone, Retry, RunId, START, State, Union,
    checkpoint::{At, Page, RecordKind, RunStatus, StoreDurability},
    events,
};

use crate::{
    Log, LogInput, LogUpdate, Ran, chain, line, lines, quiet,
    support::{gated::Gated, threads::thread},
};

/// `a` writes, `pays` pays once, `b` writes, `fails` fails as often as told.
fn payer(ran: &Ran, paid: &Arc<AtomicUsize>, failures: usize) -> Graph<Log> {
    let mut g = Graph::<Log>::builder("payer");
    let noted = ran.clone();
    let a = g.node("a", move |_: Arc<Log>| {
        noted.note("a");
        async { Ok(line("a")) }
    });
    let paid = Arc::clone(paid);
    let pays = g.node("pays", move |_: Arc<Log>, ctx: Context<()>| {
        let paid = Arc::clone(&paid);
        async move {
            let nth: usize = ctx
                .once(
                    "pay",
                    Effect::other(|| async { Ok(paid.fetch_add(1, Ordering::SeqCst) + 1) }),
                )
                .await?;
            Ok(line(format!("paid {nth}")))
        }
    });
    let left = Arc::new(AtomicUsize::new(failures));
    let b = g.node("b", move |_: Arc<Log>| {
        let fails = left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_ok();
        async move {
            if fails {
                std::future::pending::<()>().await;
            }
            Ok(line("b"))
        }
    });
    g.edge(START, a).edge(a, pays).edge(pays, b).edge(b, END);
    g.build().unwrap()
}

#[tokio::test]
async fn an_effect_is_run_once_in_every_mode() {
    for durability in [Durability::Sync, Durability::Async, Durability::Exit] {
        let (store, ran, paid) = (Gated::new(), Ran::default(), Arc::new(AtomicUsize::new(0)));
        let graph = payer(&ran, &paid, 1).checkpointer(store.clone());
        let mut run = Box::pin(
            graph
                .run(&thread("t"), LogInput {})
                .durability(durability)
                .into_future(),
        );
        // The run is cut off while `b` waits for ever.
        tokio::select! {
            ended = &mut run => panic!("{ended:?}"),
            () = quiet() => {}
        }
        drop(run);
        let outcome = graph.resume(&thread("t")).durability(durability).await.unwrap();
        assert_eq!(lines(outcome), ["a", "paid 1", "b"], "{durability:?}");
        assert_eq!(paid.load(Ordering::SeqCst), 1, "{durability:?}");
        assert_eq!(
            ran.names(),
            ["a"],
            "{durability:?}: what came before the effect is durable with it"
        );
        let kept = graph.state(&thread("t"), At::Head).await.unwrap().unwrap();
        assert_eq!(kept.state.lines, ["a", "paid 1", "b"], "{durability:?}");
    }
}

#[tokio::test]
async fn an_effect_waits_for_the_save_of_the_step_before() {
    let (store, ran, paid) = (Gated::new(), Ran::default(), Arc::new(AtomicUsize::new(0)));
    let graph = payer(&ran, &paid, 0).checkpointer(store.clone());
    store.allow(1);
    let run = tokio::spawn(
        graph
            .run(&thread("t"), LogInput {})
            .durability(Durability::Async)
            .into_future(),
    );
    ran.began("a").await;
    store.tried(2).await;
    quiet().await;
    assert_eq!(
        paid.load(Ordering::SeqCst),
        0,
        "its key is made of a checkpoint that may be lost"
    );
    store.open();
    assert_eq!(lines(run.await.unwrap().unwrap()), ["a", "paid 1", "b"]);
}

#[tokio::test]
async fn an_effect_behind_a_failed_save_is_not_run_and_not_tried_again() {
    let (store, ran, paid) = (Gated::new(), Ran::default(), Arc::new(AtomicUsize::new(0)));
    let graph = payer(&ran, &paid, 0).checkpointer(store.clone());
    store.fail_at(2);
    let run = graph.run(&thread("t"), LogInput {}).durability(Durability::Async);
    assert_eq!(run.await.unwrap_err().code(), "checkpoint::unavailable");
    assert_eq!(paid.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_conflict_leaves_an_exit_run_at_its_newest_step() {
    #[derive(State, Clone, Debug, Serialize, Deserialize)]
    struct Pair {
        n: u32,
        #[state(reducer = Append)]
        lines: Vec<String>,
    }
    let mut g = Graph::<Pair>::builder("pair");
    let first = g.node("first", |_: Arc<Pair>| async {
        Ok(Pair::update().lines(["first".to_owned()]))
    });
    let left = g.node("left", |_: Arc<Pair>| async { Ok(Pair::update().n(1_u32)) });
    let right = g.node("right", |_: Arc<Pair>| async { Ok(Pair::update().n(2_u32)) });
    g.edge(START, first)
        .edge(first, left)
        .edge(first, right)
        .edge(left, END)
        .edge(right, END);
    let store = Gated::new();
    let graph = g.build().unwrap().checkpointer(store.clone());
    let error = graph
        .run(&thread("t"), PairInput {})
        .durability(Durability::Exit)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "run::conflict");
    assert_eq!(store.steps(), [0, 1]);
    let kept = graph.state(&thread("t"), At::Head).await.unwrap().unwrap();
    assert_eq!(kept.state.lines, ["first"]);
    assert_eq!(kept.run.unwrap().status, RunStatus::Failed);
}

#[tokio::test]
async fn graphs_inside_are_as_durable_as_the_run_around_them() {
    let (ran, paid) = (Ran::default(), Arc::new(AtomicUsize::new(0)));
    for (durability, inside) in [(Durability::Sync, 5), (Durability::Exit, 2)] {
        let store = Gated::new();
        let inner = chain(&["x", "y", "z", "zz"], &ran);
        let mut g = Graph::<Log>::builder("outer");
        let a = g.node("a", |_: Arc<Log>| async { Ok(line("a")) });
        let host = g.node("host", inner.as_node::<LogInput, Arc<Log>>());
        g.edge(START, a).edge(a, host).edge(host, END);
        let graph = g.build().unwrap().checkpointer(store.clone());
        let outcome = graph
            .run(&thread("t"), LogInput {})
            .durability(durability)
            .await
            .unwrap();
        assert_eq!(lines(outcome), ["a", "x", "y", "z", "zz"]);
        let log = store.log();
        let inner: Vec<_> = log.iter().filter(|written| !written.namespace.is_empty()).collect();
        assert_eq!(inner.len(), inside, "{durability:?}: {log:?}");
    }
    // An effect inside makes the steps around it durable first.
    let store = Gated::new();
    let mut g = Graph::<Log>::builder("outer");
    let a = g.node("a", |_: Arc<Log>| async { Ok(line("a")) });
    let host = g.node("host", payer(&ran, &paid, 0).as_node::<LogInput, Arc<Log>>());
    g.edge(START, a).edge(a, host).edge(host, END);
    let graph = g.build().unwrap().checkpointer(store.clone());
    graph
        .run(&thread("t"), LogInput {})
        .durability(Durability::Exit)
        .await
        .unwrap();
    let log = store.log();
    let outer = log
        .iter()
        .position(|written| written.namespace.is_empty() && written.step == Some(1));
    let intent = log
        .iter()
        .position(|written| written.records.iter().any(|(_, kind)| *kind == RecordKind::Intent));
    assert!(outer.is_some() && outer < intent, "{log:?}");
}

#[tokio::test]
async fn what_a_task_draws_does_not_depend_on_whether_the_save_has_finished() {
    for durability in [Durability::Async, Durability::Exit] {
        let (store, drawn) = (Gated::new(), Arc::new(Mutex::new(Vec::new())));
        let mut g = Graph::<Log>::builder("draws");
        let a = g.node("a", |_: Arc<Log>| async { Ok(line("a")) });
        let kept = Arc::clone(&drawn);
        let b = g.node("b", move |_: Arc<Log>, ctx: Context<()>| {
            let kept = Arc::clone(&kept);
            async move {
                let entry = kept.lock().unwrap().len();
                kept.lock().unwrap().push((ctx.uuid("x"), ctx.now()));
                if entry == 1 {
                    // The checkpoint is written by now.
                    let _nothing: u32 = ctx.once("look", Effect::read(|| async { Ok(1) })).await?;
                    kept.lock().unwrap().push((ctx.uuid("x"), ctx.now()));
                }
                if entry < 2 {
                    Err(NodeError::retryable("again"))
                } else {
                    Ok(line("b"))
                }
            }
        });
        g.policy(b, Policy::default().retry(Retry::attempts(NonZeroU32::new(2).unwrap())));
        g.edge(START, a).edge(a, b).edge(b, END);
        let graph = g.build().unwrap().checkpointer(store.clone());
        let failed = graph.run(&thread("t"), LogInput {}).durability(durability).await;
        assert_eq!(failed.unwrap_err().code(), "run::node");
        // Entered again from the store.
        graph.resume(&thread("t")).durability(durability).await.unwrap();
        let drawn = drawn.lock().unwrap();
        assert_eq!(drawn.len(), 4);
        assert_eq!(
            drawn.iter().collect::<HashSet<_>>().len(),
            1,
            "{durability:?}: {drawn:?}"
        );
    }
}

#[tokio::test]
async fn no_two_checkpoints_of_a_thread_have_one_name() {
    let (store, ran) = (Gated::new(), Ran::default());
    let graph = chain(&["a", "b", "c"], &ran).checkpointer(store.clone());
    // One run id for everything: the worst case.
    let id = RunId::from(uuid::Uuid::from_u128(7));
    let t = thread("t");
    for durability in [Durability::Sync, Durability::Async] {
        graph.run(&t, LogInput {}).id(id).durability(durability).await.unwrap();
    }
    let history = graph.history(&t, Page::default()).await.unwrap();
    for entry in &history {
        graph.rerun_from(&t, At::Seq(entry.seq)).id(id).await.unwrap();
        graph.update(&t, At::Seq(entry.seq), line("edited"), "b").await.unwrap();
        graph.resume(&t).await.unwrap();
    }
    let page = Page {
        before: None,
        limit: u32::MAX,
    };
    let all = graph.history(&t, page).await.unwrap();
    let names: HashSet<_> = all.iter().map(|entry| entry.id).collect();
    assert!(all.len() > 40, "{}", all.len());
    assert_eq!(names.len(), all.len());
}

#[tokio::test]
async fn a_store_that_may_lose_commits_is_refused_by_a_run_that_relies_on_them() {
    let ran = Ran::default();
    let graph = chain(&["a"], &ran).checkpointer(Gated::new().promise(StoreDurability::Process));
    let refused = graph.run(&thread("t"), LogInput {}).await.unwrap_err();
    assert_eq!(refused.code(), "run::not_durable");
    // A store with accidents promises no more than the one below it.
    let faulty = stepgraph::testing::FaultyStore::over(Gated::new().promise(StoreDurability::Process));
    let refused = chain(&["a"], &ran)
        .checkpointer(faulty)
        .run(&thread("t"), LogInput {})
        .await;
    assert_eq!(refused.unwrap_err().code(), "run::not_durable");
    assert_eq!(ran.names(), [""; 0]);
    for durability in [Durability::Async, Durability::Exit] {
        graph
            .run(&thread("t"), LogInput {})
            .durability(durability)
            .await
            .unwrap();
    }
    let memory = chain(&["a"], &ran).checkpointer(Gated::new().promise(StoreDurability::Memory));
    memory.run(&thread("t"), LogInput {}).await.unwrap();
}

#[tokio::test]
async fn results_of_a_step_of_several_are_kept_as_they_come_but_at_exit() {
    for (durability, kept) in [(Durability::Sync, 1), (Durability::Async, 1), (Durability::Exit, 0)] {
        let (store, ran) = (Gated::new(), Ran::default());
        let mut g = Graph::<Log>::builder("wide");
        let quick = g.node("quick", |_: Arc<Log>| async { Ok(line("quick")) });
        let noted = ran.clone();
        let slow = g.node("slow", move |_: Arc<Log>| {
            let noted = noted.clone();
            async move {
                noted.note("slow");
                std::future::pending::<Result<LogUpdate, NodeError>>().await
            }
        });
        g.edge(START, quick).edge(START, slow).edge(quick, END).edge(slow, END);
        let graph = g.build().unwrap().checkpointer(store.clone());
        let run = tokio::spawn(
            graph
                .run(&thread("t"), LogInput {})
                .durability(durability)
                .into_future(),
        );
        ran.began("slow").await;
        quiet().await;
        run.abort();
        assert!(run.await.unwrap_err().is_cancelled());
        let log = store.log();
        let outputs = log.iter().flat_map(|written| &written.records);
        let outputs = outputs.filter(|(_, kind)| *kind == RecordKind::Output).count();
        assert_eq!(outputs, kept, "{durability:?}: {log:?}");
    }
}

#[tokio::test]
async fn a_step_that_cannot_be_encoded_is_an_error_in_every_mode() {
    #[derive(State, Clone, Debug, Serialize, Deserialize)]
    struct Odd {
        part: Part,
    }
    #[derive(Clone, Debug, Default, Deserialize)]
    struct Part(bool);
    impl Serialize for Part {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            if self.0 {
                return Err(serde::ser::Error::custom("it does not serialise"));
            }
            serializer.serialize_bool(self.0)
        }
    }
    for durability in [Durability::Sync, Durability::Async, Durability::Exit] {
        let mut g = Graph::<Odd>::builder("odd");
        let a = g.node("a", |_: Arc<Odd>| async { Ok(Odd::update().part(Part(true))) });
        let b = g.node("b", |_: Arc<Odd>, ctx: Context<()>| async move {
            let _one: u32 = ctx.once("x", Effect::read(|| async { Ok(1) })).await?;
            Ok(())
        });
        g.edge(START, a).edge(a, b).edge(b, END);
        let graph = g.build().unwrap().checkpointer(Gated::new());
        let error = graph
            .run(&thread("t"), OddInput {})
            .durability(durability)
            .await
            .unwrap_err();
        assert_eq!(error.code(), "state::encode", "{durability:?}: {error}");
    }
}

#[tokio::test]
async fn what_several_steps_have_written_is_one_change_at_exit() {
    #[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Shelf {
        #[state(reducer = Union)]
        tags: BTreeSet<String>,
        #[state(reducer = MergeMap)]
        prices: BTreeMap<String, u32>,
        #[state(reducer = Append)]
        lines: Vec<String>,
        count: u32,
    }
    let mut g = Graph::<Shelf>::builder("shelf");
    let mut before = None;
    for (name, n) in [("a", 1_u32), ("b", 2), ("c", 3)] {
        let node = g.node(name, move |shelf: Arc<Shelf>| {
            let update = Shelf::update().tags([format!("{name}{}", shelf.count)]);
            let update = update.prices([("total".to_owned(), n), (format!("{name}{}", shelf.count), n)]);
            let update = update.lines([name.to_owned()]);
            std::future::ready(Ok(if name == "b" {
                update
            } else {
                update.count(shelf.count + 1)
            }))
        });
        match before.replace(node) {
            None => g.edge(START, node),
            Some(before) => g.edge(before, node),
        };
    }
    g.edge(before.unwrap(), END);
    let graph = g.build().unwrap();
    let mut ended = Vec::new();
    for durability in [Durability::Sync, Durability::Async, Durability::Exit] {
        let graph = graph.clone().checkpointer(Gated::new());
        let mut changed = Vec::new();
        for _ in 0..3 {
            let (sender, mut reader) = events(64, ReaderGone::Finish);
            let run = graph.run(&thread("t"), ShelfInput {}).durability(durability);
            let run = tokio::spawn(run.events(sender.with(Extra::Values)).into_future());
            while let Some(event) = reader.next().await {
                if let EventKind::Values { changed: fields, .. } = event.kind {
                    changed.push(fields.len());
                }
            }
            let outcome = run.await.unwrap().unwrap();
            let stored = graph.state(&thread("t"), At::Head).await.unwrap().unwrap().state;
            assert_eq!(outcome, Outcome::Done(stored.clone()), "{durability:?}");
            ended.push(stored);
        }
        assert_eq!(
            changed,
            [4, 3, 4, 4, 3, 4, 4, 3, 4],
            "{durability:?}: each step tells its own changes"
        );
    }
    assert_eq!(ended[..3], ended[3..6]);
    assert_eq!(ended[..3], ended[6..]);
}
