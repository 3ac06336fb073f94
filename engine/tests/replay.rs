//! Replaying recorded threads: with the recorded outputs of their nodes, and with the nodes themselves.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    pub(crate) mod threads;
}

#[path = "parts/replay_inside.rs"]
mod inside;

#[path = "parts/replay_detours.rs"]
mod detours;

use std::{
    collections::HashMap,
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rand::Rng;
use serde::{Deserialize, Serialize};
use stepgraph::{
    Answers, Append, AsNode, Ask, Context, Difference, END, Effect, Graph, Memory, OnPending, Outcome, Recording,
    Replayed, Route, RunError, START, State, Sum,
    checkpoint::{At, CheckpointSource, Page},
    from, to,
};
use support::threads::thread;

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Trip {
    #[state(input)]
    city: String,
    #[state(per_run, reducer = Append)]
    hints: Vec<String>,
    #[state(reducer = Append)]
    log: Vec<String>,
    #[state(reducer = Sum)]
    turns: u64,
    #[state(per_run)]
    scores: HashMap<String, u32>,
    #[state(per_run)]
    booked: Option<String>,
}

#[derive(Route, Clone, Copy)]
enum Way {
    Book,
    Stop,
}

#[derive(Ask, Clone, Debug, Serialize)]
#[ask(name = "confirm", answer = bool)]
struct Confirm {
    city: String,
}

/// What differs from one version of the graph to the next.
#[derive(Clone, Copy)]
struct Version {
    prompt: &'static str,
    hint: &'static str,
    always_stops: bool,
    asks_twice: bool,
    charges_as: &'static str,
}

const TODAY: Version = Version {
    prompt: "hints for",
    hint: "see",
    always_stops: false,
    asks_twice: false,
    charges_as: "charge",
};

type Count = Arc<AtomicUsize>;

fn got(count: &Count) -> usize {
    count.load(Ordering::SeqCst)
}

/// A map whose order differs from one process, and one map, to the next.
fn scores() -> HashMap<String, u32> {
    (0..20).map(|n| (n.to_string(), n)).collect()
}

/// `plan` asks a service, `hint` workers ask it each, `look` runs beside them, `book` asks a person and charges once.
fn trip(version: Version, calls: &Count) -> Graph<Trip> {
    let mut g = Graph::<Trip>::builder("trip");
    let called = Arc::clone(calls);
    let plan = g.node("plan", move |trip: Arc<Trip>, ctx: Context<()>| {
        let called = Arc::clone(&called);
        async move {
            let prompt = format!("{} {}", version.prompt, trip.city);
            let service = || async {
                called.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Ok(format!("reply {} to {prompt}", called.load(Ordering::SeqCst)))
            };
            let reply: String = ctx.recorded("model", &prompt, service).await?;
            if version.asks_twice {
                let _again: String = ctx.recorded("model", &prompt, service).await?;
            }
            let drawn: u32 = ctx.rng("plan").random();
            let at = ctx.now();
            Ok(Trip::update()
                .log([format!("{reply} {drawn} {} {at}", ctx.uuid("id"))])
                .turns(1_u64))
        }
    });
    let called = Arc::clone(calls);
    let hint = g.worker("hint", move |number: u32, ctx: Context<()>| {
        let called = Arc::clone(&called);
        async move {
            let service = || async {
                tokio::task::yield_now().await;
                Ok(called.fetch_add(1, Ordering::SeqCst))
            };
            let call: usize = ctx.recorded("model", &number, service).await?;
            Ok(Trip::update().hints([format!("{} {number} by call {call}", version.hint)]))
        }
    });
    let look = g.node("look", |_: Arc<Trip>| ready(Ok(Trip::update().scores(scores()))));
    let decide = g.node("decide", |_: Arc<Trip>| ready(Ok(())));
    let called = Arc::clone(calls);
    let book = g.node("book", move |trip: Arc<Trip>, ctx: Context<()>| {
        let called = Arc::clone(&called);
        async move {
            if !ctx.ask(Confirm {
                city: trip.city.clone(),
            })? {
                return Ok(Trip::update().booked("no".to_owned()));
            }
            let charge = Effect::other(|| {
                let called = Arc::clone(&called);
                async move { Ok(called.fetch_add(1, Ordering::SeqCst)) }
            });
            let receipt: usize = ctx.once(version.charges_as, charge).await?;
            Ok(Trip::update().booked(format!("receipt {receipt}")))
        }
    });
    g.edge(START, plan).edge(plan, look);
    g.fan_out(plan, hint, |_: &Trip| vec![1_u32, 2, 3]);
    g.join([from(hint), from(look)], decide);
    let way = move |trip: &Trip| {
        if version.always_stops || trip.city == "nowhere" {
            Way::Stop
        } else {
            Way::Book
        }
    };
    g.branch(decide, way, |way| match way {
        Way::Book => to(book),
        Way::Stop => to(END),
    });
    g.edge(book, END);
    g.build().unwrap()
}

fn city(name: &str) -> TripInput {
    TripInput { city: name.to_owned() }
}

async fn agrees(graph: &Graph<Trip>, name: &str) -> Replayed {
    let replayed = graph.replay(&thread(name)).await.unwrap();
    assert_eq!(replayed.divergence, None, "{replayed}");
    let deep = graph.replay(&thread(name)).bodies().await.unwrap();
    assert_eq!(deep.divergence, None, "{deep}");
    assert_eq!(deep.checkpoints, replayed.checkpoints);
    deep
}

/// Three runs on one thread: one with a question that is answered, one that stops, one that is forked and edited.
async fn recorded(store: &Arc<Memory>, calls: &Count, name: &str) -> Graph<Trip> {
    let graph = trip(TODAY, calls)
        .shared_checkpointer(store.clone())
        .recording(Recording::Calls);
    let key = thread(name);
    assert!(matches!(
        graph.run(&key, city("rome")).await.unwrap(),
        Outcome::Asked(_)
    ));
    graph.resume(&key).answer::<Confirm>(&true).await.unwrap();
    graph.run(&key, city("nowhere")).await.unwrap();
    graph
}

fn over(store: &Arc<Memory>, version: Version, calls: &Count) -> Graph<Trip> {
    trip(version, calls).shared_checkpointer(store.clone())
}

#[tokio::test]
async fn a_thread_of_several_runs_with_a_fan_out_a_question_and_an_effect_comes_out_as_recorded() {
    let (store, calls) = (Arc::new(Memory::new()), Count::default());
    let graph = recorded(&store, &calls, "t").await;
    let before = got(&calls);
    let history = graph.history(&thread("t"), Page::default()).await.unwrap();
    let replayed = agrees(&graph, "t").await;
    assert_eq!(got(&calls), before, "no call and no effect of a replay leaves");
    assert_eq!(graph.history(&thread("t"), Page::default()).await.unwrap(), history);
    assert_eq!(replayed.checkpoints, history.len() as u64);
    assert_eq!(replayed.bodies, 13, "7 of the first run, 6 of the second");
}

#[tokio::test]
async fn edits_commands_forks_and_discarded_tasks_come_out_as_recorded() {
    let (store, calls) = (Arc::new(Memory::new()), Count::default());
    let graph = recorded(&store, &calls, "t").await;
    let key = thread("t");
    graph
        .update(&key, At::Head, Trip::update().log(["edited".to_owned()]), AsNode::Start)
        .await
        .unwrap();
    graph.resume(&key).update(Trip::update().turns(40_u64)).await.unwrap();
    agrees(&graph, "t").await;
    graph
        .run(&key, city("oslo"))
        .on_pending(OnPending::Discard)
        .await
        .unwrap();
    let history = graph.history(&key, Page::default()).await.unwrap();
    let first = history
        .iter()
        .rev()
        .find(|entry| entry.source == CheckpointSource::Step)
        .unwrap();
    let forked = graph.rerun_from(&key, At::Seq(first.seq)).await.unwrap();
    assert!(matches!(forked, Outcome::Asked(_)), "{forked:?}");
    let line = agrees(&graph, "t").await;
    assert!(
        line.checkpoints < history.len() as u64,
        "only the branch that leads to the head"
    );
    graph.resume(&key).answers(Answers::One(false.into())).await.unwrap();
    graph
        .resume(&key)
        .update(Trip::update().log(["after the end".to_owned()]))
        .await
        .unwrap();
    agrees(&graph, "t").await;
    let old = graph.replay(&key).at(At::Seq(history[0].seq)).bodies().await.unwrap();
    assert_eq!(old.divergence, None, "the other branch: {old}");
}

#[tokio::test]
async fn a_run_that_was_cut_off_and_resumed_comes_out_as_recorded() {
    let (store, calls) = (Arc::new(Memory::new()), Count::default());
    let graph = trip(TODAY, &calls)
        .shared_checkpointer(store.clone())
        .recording(Recording::Calls);
    for polls in 1..12 {
        let key = thread(&polls.to_string());
        let mut run = Box::pin(std::future::IntoFuture::into_future(graph.run(&key, city("rome"))));
        for _ in 0..polls {
            if std::future::poll_fn(|cx| std::task::Poll::Ready(run.as_mut().poll(cx)))
                .await
                .is_ready()
            {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(run);
        agrees(&graph, &polls.to_string()).await;
        if !matches!(graph.resume(&key).await.unwrap(), Outcome::Asked(_)) {
            continue;
        }
        graph.resume(&key).answer::<Confirm>(&true).await.unwrap();
        agrees(&graph, &polls.to_string()).await;
    }
}

#[tokio::test]
async fn a_changed_branch_is_the_first_divergence() {
    let (store, calls) = (Arc::new(Memory::new()), Count::default());
    recorded(&store, &calls, "t").await;
    let stops = over(
        &store,
        Version {
            always_stops: true,
            ..TODAY
        },
        &calls,
    );
    let replayed = stops.replay(&thread("t")).await.unwrap();
    let divergence = replayed.divergence.clone().unwrap();
    assert_eq!(
        divergence.difference,
        Difference::Tasks {
            recorded: vec!["book".to_owned()],
            replayed: Vec::new(),
        }
    );
    assert_eq!(divergence.step, 3);
    assert_eq!(replayed.checkpoints, 3);
    assert!(replayed.to_string().contains("[\"book\"]"), "{replayed}");
}

#[tokio::test]
async fn a_changed_prompt_is_shown_beside_the_recorded_one() {
    let (store, calls) = (Arc::new(Memory::new()), Count::default());
    recorded(&store, &calls, "t").await;
    let before = got(&calls);
    let changed = over(
        &store,
        Version {
            prompt: "tips for",
            ..TODAY
        },
        &calls,
    );
    assert_eq!(
        changed.replay(&thread("t")).await.unwrap().divergence,
        None,
        "the outputs alone"
    );
    let deep = changed.replay(&thread("t")).bodies().await.unwrap();
    let divergence = deep.divergence.clone().unwrap();
    let Difference::Called {
        task,
        service,
        number: 0,
        recorded: Some((was, Some(asked))),
        replayed,
    } = divergence.difference
    else {
        panic!("{deep}");
    };
    assert_eq!(
        (task.as_str(), service.as_str(), was.as_str()),
        ("plan", "model", "model")
    );
    assert_eq!(
        (asked.as_str(), replayed.as_str()),
        (Some("hints for rome"), Some("tips for rome"))
    );
    assert_eq!(got(&calls), before);
}

#[tokio::test]
async fn a_changed_body_call_or_effect_is_the_first_divergence() {
    let (store, calls) = (Arc::new(Memory::new()), Count::default());
    recorded(&store, &calls, "t").await;
    let before = got(&calls);
    let first = async |version| {
        let graph = over(&store, version, &calls);
        let deep = graph.replay(&thread("t")).bodies().await.unwrap();
        deep.divergence.unwrap().difference
    };
    let body = first(Version { hint: "go to", ..TODAY }).await;
    assert!(
        matches!(&body, Difference::Output { task, .. } if task == "hint#0"),
        "{body}"
    );
    let twice = first(Version {
        asks_twice: true,
        ..TODAY
    })
    .await;
    assert!(
        matches!(
            &twice,
            Difference::Called {
                number: 1,
                recorded: None,
                ..
            }
        ),
        "{twice}"
    );
    let effect = first(Version {
        charges_as: "pay",
        ..TODAY
    })
    .await;
    assert!(
        matches!(&effect, Difference::Effect { key, .. } if key == "pay"),
        "{effect}"
    );
    assert_eq!(got(&calls), before);
}

#[tokio::test]
async fn a_call_that_is_not_made_any_more_is_the_first_divergence() {
    let (store, calls) = (Arc::new(Memory::new()), Count::default());
    let twice = over(
        &store,
        Version {
            asks_twice: true,
            ..TODAY
        },
        &calls,
    )
    .recording(Recording::Calls);
    twice.run(&thread("t"), city("nowhere")).await.unwrap();
    agrees(&twice, "t").await;
    let deep = over(&store, TODAY, &calls).replay(&thread("t")).bodies().await.unwrap();
    let difference = deep.divergence.unwrap().difference;
    assert!(
        matches!(
            &difference,
            Difference::NotCalled {
                number: 1,
                request: Some(_),
                ..
            }
        ),
        "{difference}"
    );
}

#[tokio::test]
async fn a_node_that_is_gone_is_named() {
    let (store, calls) = (Arc::new(Memory::new()), Count::default());
    recorded(&store, &calls, "t").await;
    let mut g = Graph::<Trip>::builder("trip");
    let plan = g.node("plan", |_: Arc<Trip>| ready(Ok(())));
    g.edge(START, plan).edge(plan, END);
    let graph = g.build().unwrap().shared_checkpointer(store);
    let replayed = graph.replay(&thread("t")).await.unwrap();
    let difference = replayed.divergence.unwrap().difference;
    assert!(
        matches!(&difference, Difference::Gone { place } if place == "look"),
        "{difference}"
    );
}

#[tokio::test]
async fn what_was_not_recorded_is_named_and_nothing_is_written_unless_asked_for() {
    let calls = Count::default();
    let graph = trip(TODAY, &calls).checkpointer(Memory::new());
    graph.run(&thread("off"), city("nowhere")).await.unwrap();
    let error = graph.replay(&thread("off")).await.unwrap_err();
    assert_eq!(error.code(), "run::not_recorded", "{error}");
    let outputs = graph.clone().recording(Recording::Outputs);
    outputs.run(&thread("outputs"), city("nowhere")).await.unwrap();
    assert_eq!(graph.replay(&thread("outputs")).await.unwrap().divergence, None);
    let error = graph.replay(&thread("outputs")).bodies().await.unwrap_err();
    assert!(matches!(error, RunError::NotRecorded { .. }), "{error}");
    graph
        .run(&thread("run"), city("nowhere"))
        .recording(Recording::Calls)
        .await
        .unwrap();
    agrees(&graph, "run").await;
    let unknown = graph.replay(&thread("never")).await.unwrap_err();
    assert_eq!(unknown.code(), "run::unknown_thread");
}

#[tokio::test]
async fn only_the_newest_checkpoints_are_gone_through_if_asked_for() {
    let (store, calls) = (Arc::new(Memory::new()), Count::default());
    let graph = recorded(&store, &calls, "t").await;
    let replayed = graph.replay(&thread("t")).newest(2).bodies().await.unwrap();
    assert_eq!((replayed.checkpoints, replayed.divergence), (2, None));
}

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Count1000 {
    #[state(input, reducer = Sum)]
    n: u64,
    #[state(reducer = Append)]
    seen: Vec<u64>,
}

#[tokio::test]
async fn a_thread_of_a_thousand_steps_comes_out_byte_for_byte_without_a_call() {
    let calls = Count::default();
    let called = Arc::clone(&calls);
    let mut g = Graph::<Count1000>::builder("thousand");
    let add = g.node("add", move |state: Arc<Count1000>, ctx: Context<()>| {
        let called = Arc::clone(&called);
        async move {
            let service = || async { Ok(called.fetch_add(1, Ordering::SeqCst) as u64) };
            let call: u64 = ctx.recorded("counter", &state.n, service).await?;
            Ok(Count1000::update().n(1_u64).seen([call]))
        }
    });
    g.edge(START, add);
    g.branch(
        add,
        |state: &Count1000| if state.n < 1000 { Way::Book } else { Way::Stop },
        move |way| match way {
            Way::Book => to(add),
            Way::Stop => to(END),
        },
    );
    let graph = g
        .build()
        .unwrap()
        .checkpointer(Memory::new())
        .recording(Recording::Calls);
    graph
        .run(&thread("t"), Count1000Input { n: 0 })
        .step_limit(1001)
        .await
        .unwrap();
    assert_eq!(got(&calls), 1000);
    let replayed = graph.replay(&thread("t")).bodies().await.unwrap();
    assert_eq!(
        (replayed.checkpoints, replayed.bodies, &replayed.divergence),
        (1001, 1000, &None)
    );
    assert_eq!(got(&calls), 1000);
}
