//! Supersteps: which tasks run, in which order their updates apply, what routing sees, where a run ends.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    pub(crate) mod threads;
}

use std::{
    future::{Ready, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Command, Context, END, Graph, JoinRule, Memory, NodeError, Outcome, Route, RunError, START, StalledJoin,
    State, Sum, checkpoint::At, from, to,
};
use support::threads::thread;
use tokio::sync::Notify;

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Trail {
    #[state(reducer = Append)]
    log: Vec<String>,
    #[state(input, default = 0)]
    items: u64,
    #[state(reducer = Sum)]
    sum: u64,
    note: Option<String>,
}

#[derive(Route, Clone, Copy, Debug, PartialEq)]
enum Turn {
    Again,
    Enough,
}

/// A node that notes that it was here.
fn says(what: &'static str) -> impl Fn(Arc<Trail>) -> Ready<Result<TrailUpdate, NodeError>> + Send + Sync + 'static {
    move |_| ready(Ok(Trail::update().log([what.to_owned()])))
}

fn noted(outcome: Outcome<Trail>) -> Vec<String> {
    outcome.done().unwrap().log
}

fn items(items: u64) -> TrailInput {
    TrailInput { items }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_apply_by_name_bytewise_whatever_finishes_first() {
    let names = ["Z", "_", "a", "a0", "aa", "b"];
    let gates: Arc<Vec<Notify>> = Arc::new(names.iter().map(|_| Notify::new()).collect());
    let mut g = Graph::<Trail>::builder("order");
    for (at, name) in names.iter().enumerate().rev() {
        let gates = Arc::clone(&gates);
        let node = g.node(*name, move |_: Arc<Trail>| {
            let gates = Arc::clone(&gates);
            async move {
                gates[at].notified().await;
                if at > 0 {
                    gates[at - 1].notify_one();
                }
                Ok(Trail::update().log([names[at].to_owned()]))
            }
        });
        g.edge(START, node).edge(node, END);
    }
    gates[names.len() - 1].notify_one();
    let outcome = g.build().unwrap().run(&thread("t"), items(0)).await.unwrap();
    assert_eq!(noted(outcome), names);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_apply_by_their_number_after_the_nodes_whatever_finishes_first() {
    let gates: Arc<Vec<Notify>> = Arc::new((0..12).map(|_| Notify::new()).collect());
    let mut g = Graph::<Trail>::builder("sends");
    let last = Arc::clone(&gates);
    let node = g.node("zz", move |_: Arc<Trail>| {
        let gates = Arc::clone(&last);
        async move {
            gates[11].notify_one();
            Ok(Trail::update().log(["zz".to_owned()]))
        }
    });
    let worker = g.worker("a", move |item: u64| {
        let gates = Arc::clone(&gates);
        async move {
            let at = usize::try_from(item).unwrap();
            gates[at].notified().await;
            if at > 0 {
                gates[at - 1].notify_one();
            }
            Ok(Trail::update().log([item.to_string()]))
        }
    });
    g.edge(START, node).edge(node, END);
    g.fan_out(START, worker, |trail: &Trail| 0..trail.items)
        .edge(worker, END);
    let outcome = g.build().unwrap().run(&thread("t"), items(12)).await.unwrap();
    let expected: Vec<_> = std::iter::once("zz".to_owned())
        .chain((0..12).map(|n| n.to_string()))
        .collect();
    assert_eq!(noted(outcome), expected);
}

#[tokio::test]
async fn routing_sees_the_steps_start_and_the_tasks_own_update_only() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut g = Graph::<Trail>::builder("routing");
    let first = g.node("first", |_: Arc<Trail>| ready(Ok(Trail::update().sum(100_u64))));
    let left = g.node("left", |_: Arc<Trail>| ready(Ok(Trail::update().sum(1_u64))));
    let right = g.node("right", |_: Arc<Trail>| ready(Ok(Trail::update().sum(10_u64))));
    g.edge(START, first).edge(first, left).edge(first, right);
    for (name, node) in [("left", left), ("right", right)] {
        let seen = Arc::clone(&seen);
        g.branch(
            node,
            move |trail: &Trail| {
                seen.lock().unwrap().push((name, trail.sum));
                Turn::Enough
            },
            |turn| match turn {
                Turn::Again => to(first),
                Turn::Enough => to(END),
            },
        );
    }
    let outcome = g.build().unwrap().run(&thread("t"), items(0)).await.unwrap();
    assert_eq!(outcome.done().unwrap().sum, 111);
    assert_eq!(*seen.lock().unwrap(), [("left", 101), ("right", 110)]);
}

#[tokio::test]
async fn the_end_of_a_diamond_runs_once() {
    let mut g = Graph::<Trail>::builder("diamond");
    let top = g.node("top", says("top"));
    let (left, right) = (g.node("left", says("left")), g.node("right", says("right")));
    let bottom = g.node("bottom", says("bottom"));
    g.edge(START, top).edge(top, to(left).and(right));
    g.edge(left, bottom).edge(right, bottom).edge(bottom, END);
    let outcome = g.build().unwrap().run(&thread("t"), items(0)).await.unwrap();
    assert_eq!(noted(outcome), ["top", "left", "right", "bottom"]);
}

#[tokio::test]
async fn plain_edges_of_uneven_length_run_their_end_twice() {
    let mut g = Graph::<Trail>::builder("uneven");
    let (short, long) = (g.node("short", says("short")), g.node("long", says("long")));
    let longer = g.node("longer", says("longer"));
    let end = g.node("z", says("z"));
    g.edge(START, short).edge(START, long).edge(long, longer);
    g.edge(short, end).edge(longer, end).edge(end, END);
    let outcome = g.build().unwrap().run(&thread("t"), items(0)).await.unwrap();
    assert_eq!(noted(outcome), ["long", "short", "longer", "z", "z"]);
}

#[tokio::test]
async fn a_join_waits_for_the_longest_way_and_fires_once() {
    let mut g = Graph::<Trail>::builder("join");
    let (short, long) = (g.node("short", says("short")), g.node("long", says("long")));
    let longer = g.node("longer", says("longer"));
    let end = g.node("z", says("z"));
    g.edge(START, short).edge(START, long).edge(long, longer);
    g.join([short, longer], end).edge(end, END);
    let outcome = g.build().unwrap().run(&thread("t"), items(0)).await.unwrap();
    assert_eq!(noted(outcome), ["long", "short", "longer", "z"]);
}

#[tokio::test]
async fn a_join_in_a_loop_waits_anew_each_round() {
    let mut g = Graph::<Trail>::builder("rounds");
    let spread = g.node("spread", |_: Arc<Trail>| ready(Ok(Trail::update().sum(1_u64))));
    let (left, right) = (g.node("left", says("left")), g.node("right", says("right")));
    let (far, gather) = (g.node("right2", says("right2")), g.node("gather", says("gather")));
    g.edge(START, spread).edge(spread, to(left).and(right)).edge(right, far);
    g.join([left, far], gather);
    g.branch(
        gather,
        |trail: &Trail| if trail.sum < 3 { Turn::Again } else { Turn::Enough },
        |turn| match turn {
            Turn::Again => to(spread),
            Turn::Enough => to(END),
        },
    );
    let outcome = g.build().unwrap().run(&thread("t"), items(0)).await.unwrap();
    assert_eq!(noted(outcome), ["left", "right", "right2", "gather"].repeat(3));
}

#[tokio::test]
async fn a_source_that_finishes_twice_counts_once() {
    let mut g = Graph::<Trail>::builder("twice");
    let a = g.node("a", |_: Arc<Trail>| {
        ready(Ok(Trail::update().log(["a".to_owned()]).sum(1_u64)))
    });
    let slow: Vec<_> = ["b", "c", "d"]
        .into_iter()
        .map(|name| g.node(name, says(name)))
        .collect();
    let end = g.node("end", says("end"));
    g.edge(START, a)
        .edge(START, slow[0])
        .edge(slow[0], slow[1])
        .edge(slow[1], slow[2]);
    g.branch(
        a,
        |trail: &Trail| if trail.sum < 2 { Turn::Again } else { Turn::Enough },
        |turn| match turn {
            Turn::Again => to(a),
            Turn::Enough => to(END),
        },
    );
    g.join([a, slow[2]], end).edge(end, END);
    let outcome = g.build().unwrap().run(&thread("t"), items(0)).await.unwrap();
    assert_eq!(noted(outcome), ["a", "b", "a", "c", "d", "end"]);
}

#[tokio::test]
async fn two_joins_into_one_node_keep_their_own_counts_over_a_resume() {
    let mut g = Graph::<Trail>::builder("two_joins");
    let (a, b, c) = (g.node("a", says("a")), g.node("b", says("b")), g.node("c", says("c")));
    let (before_b, end) = (g.node("before_b", says("before_b")), g.node("end", says("end")));
    let before_c: Vec<_> = ["c0", "c1"].into_iter().map(|name| g.node(name, says(name))).collect();
    g.edge(START, a).edge(START, before_b).edge(before_b, b);
    g.edge(START, before_c[0])
        .edge(before_c[0], before_c[1])
        .edge(before_c[1], c);
    g.join([a, b], end).join([a, c], end).edge(end, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let mut outcome = graph.run(&thread("t"), items(0)).step_limit(1).await;
    while matches!(outcome, Err(RunError::StepLimit { .. })) {
        outcome = graph.resume(&thread("t")).step_limit(1).await;
    }
    assert_eq!(
        noted(outcome.unwrap()),
        ["a", "before_b", "c0", "b", "c1", "c", "end", "end"]
    );
}

fn skipping() -> Graph<Trail> {
    let mut g = Graph::<Trail>::builder("skipping");
    let choose = g.node("choose", says("choose"));
    let (a, b, end) = (
        g.node("a", says("a")),
        g.node("b", says("b")),
        g.node("end", says("end")),
    );
    g.edge(START, choose);
    g.branch(
        choose,
        |trail: &Trail| if trail.items == 0 { Turn::Enough } else { Turn::Again },
        |turn| match turn {
            Turn::Again => to(a).and(b),
            Turn::Enough => to(a),
        },
    );
    g.join([a, b], end).edge(end, END);
    g.build().unwrap().checkpointer(Memory::new())
}

#[tokio::test]
async fn a_join_whose_source_was_skipped_is_told_by_name() {
    let graph = skipping();
    let stalled = graph.run(&thread("t"), items(0)).await.unwrap();
    let Outcome::Stalled { state, waiting } = &stalled else {
        panic!("{stalled:?}");
    };
    assert_eq!(state.log, ["choose", "a"]);
    assert_eq!(
        *waiting,
        [StalledJoin {
            to: vec!["end".to_owned()],
            missing: vec!["b".to_owned()]
        }]
    );
    assert_eq!(graph.resume(&thread("t")).await.unwrap(), stalled);
}

#[tokio::test]
async fn new_input_on_a_stalled_thread_begins_its_joins_anew() {
    let graph = skipping();
    graph.run(&thread("t"), items(0)).await.unwrap();
    let outcome = graph.run(&thread("t"), items(1)).await.unwrap();
    assert_eq!(noted(outcome), ["choose", "a", "choose", "a", "b", "end"]);
}

#[tokio::test]
async fn a_fan_out_runs_one_task_for_each_item() {
    for count in [0, 1, 100] {
        let mut g = Graph::<Trail>::builder("each");
        let plan = g.node("plan", says("plan"));
        let work = g.worker("work", |item: u64| ready(Ok(Trail::update().sum(item))));
        let gather = g.node("gather", says("gather"));
        g.edge(START, plan).fan_out(plan, work, |trail: &Trail| 1..=trail.items);
        g.edge(work, gather).edge(gather, END);
        let state = g
            .build()
            .unwrap()
            .run(&thread("t"), items(count))
            .await
            .unwrap()
            .done()
            .unwrap();
        assert_eq!(state.sum, count * (count + 1) / 2);
        assert_eq!(state.log, ["plan", "gather"], "{count} items");
    }
}

#[tokio::test]
async fn a_fan_out_may_begin_at_start_and_end_in_a_join() {
    for count in [0, 1, 100] {
        let mut g = Graph::<Trail>::builder("from_start");
        let work = g.worker("work", |item: u64| ready(Ok(Trail::update().sum(item))));
        let (other, gather) = (g.node("other", says("other")), g.node("gather", says("gather")));
        g.fan_out(START, work, |trail: &Trail| 1..=trail.items)
            .edge(START, other);
        g.join([from(work), from(other)], gather).edge(gather, END);
        let outcome = g.build().unwrap().run(&thread("t"), items(count)).await.unwrap();
        let state = outcome.done().unwrap();
        assert_eq!((state.sum, state.log.len()), (count * (count + 1) / 2, 2));
    }
}

#[tokio::test]
async fn a_worker_may_branch_and_spread_on() {
    let mut g = Graph::<Trail>::builder("tree");
    let leaf = g.worker("leaf", |item: u64| ready(Ok(Trail::update().log([item.to_string()]))));
    let bough = g.worker("bough", |item: u64| ready(Ok(Trail::update().sum(item))));
    g.fan_out(START, bough, |_: &Trail| [10, 20]);
    g.fan_out(bough, leaf, |trail: &Trail| [trail.sum, trail.sum + 1])
        .edge(leaf, END);
    let state = g
        .build()
        .unwrap()
        .run(&thread("t"), items(0))
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(state.log, ["10", "11", "20", "21"]);
}

fn countdown() -> Graph<Trail> {
    let mut g = Graph::<Trail>::builder("countdown");
    let count = g.router("count", |trail: Arc<Trail>, _: Context<()>| {
        let goto = if trail.sum + 1 < trail.items {
            Turn::Again
        } else {
            Turn::Enough
        };
        ready(Ok(Command {
            update: Trail::update().sum(1_u64),
            goto,
        }))
    });
    let end = g.node("end", says("end"));
    g.edge(START, count).routes(count, |turn| match turn {
        Turn::Again => to(count),
        Turn::Enough => to(end),
    });
    g.edge(end, END);
    g.build().unwrap()
}

#[tokio::test]
async fn a_routers_command_updates_and_chooses() {
    let state = countdown().run(&thread("t"), items(7)).await.unwrap().done().unwrap();
    assert_eq!((state.sum, state.log), (7, vec!["end".to_owned()]));
}

#[tokio::test]
async fn as_many_steps_as_the_limit_says_are_enough_and_one_fewer_is_not() {
    let graph = countdown().checkpointer(Memory::new());
    assert!(
        graph
            .run(&thread("enough"), items(4))
            .step_limit(5)
            .await
            .unwrap()
            .done()
            .is_some()
    );
    let error = graph.run(&thread("few"), items(4)).step_limit(4).await.unwrap_err();
    assert!(matches!(error, RunError::StepLimit { limit: 4, .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "no end of thread acme/few after 4 step(s): raise `step_limit`, or look for a loop that never ends; resume goes on"
    );
    assert!(
        graph
            .resume(&thread("few"))
            .step_limit(1)
            .await
            .unwrap()
            .done()
            .is_some()
    );
}

#[tokio::test]
async fn the_limit_of_a_resumed_run_counts_its_own_steps() {
    let graph = countdown().checkpointer(Memory::new());
    graph.run(&thread("t"), items(5)).step_limit(1).await.unwrap_err();
    let error = graph.resume(&thread("t")).step_limit(4).await.unwrap_err();
    assert!(matches!(error, RunError::StepLimit { limit: 4, .. }), "{error}");
    assert_eq!(
        graph.state(&thread("t"), At::Head).await.unwrap().unwrap().entry.step,
        5
    );
    assert!(graph.resume(&thread("t")).step_limit(1).await.unwrap().done().is_some());
    assert!(graph.resume(&thread("t")).step_limit(0).await.unwrap().done().is_some());
}

#[tokio::test]
async fn two_writers_of_a_replaced_field_are_named_and_nothing_of_their_step_is_kept() {
    let mut g = Graph::<Trail>::builder("conflict");
    for name in ["b", "a"] {
        let node = g.node(name, move |_: Arc<Trail>| {
            ready(Ok(Trail::update().sum(1_u64).note(name.to_owned())))
        });
        g.edge(START, node).edge(node, END);
    }
    let graph = g.build().unwrap().checkpointer(Memory::new());
    for _ in 0..2 {
        let error = graph
            .run(&thread("t"), items(0))
            .on_pending(stepgraph::OnPending::Discard)
            .await;
        let error = error.unwrap_err();
        assert!(
            error.to_string().starts_with("`a` and `b` both wrote `note` in step "),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .ends_with(": let one of them write it, or give the field a reducer that merges"),
            "{error}"
        );
        assert_eq!(error.code(), "run::conflict");
        let kept = graph.state(&thread("t"), At::Head).await.unwrap().unwrap().state;
        assert_eq!((kept.sum, kept.note), (0, None));
    }
}

#[tokio::test]
async fn two_workers_that_write_one_field_are_named_by_their_numbers() {
    let mut g = Graph::<Trail>::builder("conflict");
    let work = g.worker("work", |item: u64| ready(Ok(Trail::update().note(item.to_string()))));
    g.fan_out(START, work, |_: &Trail| [7, 7]).edge(work, END);
    let error = g.build().unwrap().run(&thread("t"), items(0)).await.unwrap_err();
    let RunError::Conflict {
        first,
        second,
        field,
        step,
        ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(
        (first.as_str(), second.as_str(), field.as_str(), step),
        ("work#0", "work#1", "note", 1)
    );
}

#[tokio::test]
async fn names_of_nodes_may_be_known_only_when_the_program_runs() {
    let runs = Arc::new(AtomicUsize::new(0));
    let mut g = Graph::<Trail>::builder(format!("graph {}", 1));
    let mut before = None;
    for at in 0..5 {
        let runs = Arc::clone(&runs);
        let node = g.node(format!("step {at}"), move |_: Arc<Trail>| {
            runs.fetch_add(1, Ordering::SeqCst);
            ready(Ok(()))
        });
        match before.replace(node) {
            None => g.edge(START, node),
            Some(before) => g.edge(before, node),
        };
    }
    g.edge(before.unwrap(), END);
    g.build().unwrap().run(&thread("t"), items(0)).await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn a_deferred_node_waits_for_what_joins_lead_to_that_nobody_else_can_reach() {
    let mut g = Graph::<Trail>::builder("begun");
    let [a, b, last, gather] = ["a", "b", "at last", "gather"].map(|name| g.node(name, says(name)));
    let soon = JoinRule::all().within(Duration::from_hours(1));
    g.edge(START, a).defer(last);
    // `b` never runs, so both joins lead on when nothing is left.
    g.branch(
        a,
        |_| Turn::Enough,
        |turn| match turn {
            Turn::Again => to(b),
            Turn::Enough => to(END),
        },
    );
    g.edge(b, END)
        .join_when(soon, [a, b], last)
        .join_when(soon, [a, b], gather);
    g.edge(gather, END).edge(last, END);
    let outcome = g.build().unwrap().run(&thread("t"), items(0)).await.unwrap();
    // In one step, `at last` would be merged first.
    assert_eq!(noted(outcome), ["a", "gather", "at last"]);
}
