//! Replaying graphs inside graphs, races, and what a record does not hold.

use std::sync::{Arc, atomic::Ordering};

use stepgraph::{
    Context, Difference, Durability, END, Graph, Memory, NodeError, Recording, START, State,
    checkpoint::{At, RecordKind, Seq},
};

use crate::{Confirm, Count, TODAY, Trip, agrees, city, got, recorded, support::threads::thread, trip};

/// A graph of one node that asks a service, as a node of another, which asks a person as well.
fn nested(prompt: &'static str, store: &Arc<Memory>, calls: &Count) -> Graph<Trip> {
    let called = Arc::clone(calls);
    let mut inner = Graph::<Trip>::builder("inner");
    let ask = inner.node("ask", move |trip: Arc<Trip>, ctx: Context<()>| {
        let called = Arc::clone(&called);
        async move {
            let sure = ctx.ask(Confirm {
                city: trip.city.clone(),
            })?;
            let service = || async { Ok(called.fetch_add(1, Ordering::SeqCst)) };
            let call: usize = ctx.recorded("model", prompt, service).await?;
            Ok(Trip::update().hints([format!("{sure} {call} {}", ctx.uuid("inner"))]))
        }
    });
    inner.edge(START, ask).edge(ask, END);
    let inner = inner.build().unwrap();
    let mut g = Graph::<Trip>::builder("outer");
    let host = g.node("host", move |trip: Arc<Trip>, ctx: Context<()>| {
        let inner = inner.clone();
        async move {
            let first = ctx.call(&inner, "first", city(&trip.city)).await?;
            let second = ctx.call(&inner, "second", city("second")).await?;
            Ok::<_, NodeError>(Trip::update().hints(first.hints).log(second.hints))
        }
    });
    g.edge(START, host).edge(host, END);
    g.build().unwrap().shared_checkpointer(store.clone())
}

#[tokio::test]
async fn graphs_inside_are_replayed_on_threads_of_their_own() {
    let (store, calls) = (Arc::new(Memory::new()), Count::default());
    let graph = nested("what now?", &store, &calls).recording(Recording::Calls);
    let key = thread("t");
    graph.run(&key, city("rome")).await.unwrap();
    for _ in 0..2 {
        graph.resume(&key).answer::<Confirm>(&true).await.unwrap();
    }
    assert_eq!(got(&calls), 2);
    let replayed = agrees(&graph, "t").await;
    assert_eq!((replayed.checkpoints, replayed.bodies), (2, 3));
    assert_eq!(got(&calls), 2);
    let changed = nested("what next?", &store, &calls);
    assert_eq!(
        changed.replay(&key).await.unwrap().divergence,
        None,
        "the host's output stands"
    );
    let deep = changed.replay(&key).bodies().await.unwrap();
    let Difference::Inside { namespace, divergence } = deep.divergence.unwrap().difference else {
        panic!("not inside");
    };
    assert!(namespace.starts_with("host:first@"), "{namespace}");
    assert!(divergence.to_string().contains("what next?"), "{divergence}");
    assert!(divergence.to_string().contains("what now?"), "{divergence}");
    assert_eq!(got(&calls), 2);
}

#[tokio::test]
async fn records_stay_with_the_checkpoint_they_belong_to() {
    use stepgraph::Checkpointer;
    let (store, calls) = (Arc::new(Memory::new()), Count::default());
    recorded(&store, &calls, "t").await;
    let second = store.get(&thread("t"), At::Seq(Seq(2))).await.unwrap().unwrap();
    let kinds: Vec<_> = second
        .records
        .iter()
        .map(|record| (record.task.as_str(), record.kind))
        .collect();
    let both = |task| [(task, RecordKind::Output), (task, RecordKind::Calls)];
    assert_eq!(kinds, ["hint#0", "hint#1", "hint#2", "look"].map(both).concat());
}

#[tokio::test(start_paused = true)]
async fn a_race_and_a_join_whose_time_was_up_are_decided_as_they_were() {
    let mut g = Graph::<Trip>::builder("timed");
    let [quick, slow, late] = [("quick", 1_u64), ("slow", 60), ("late", 600)].map(|(name, seconds)| {
        g.node(name, move |_: Arc<Trip>, ctx: Context<()>| async move {
            let wait = || async {
                tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
                Ok(())
            };
            ctx.recorded("wait", &seconds, wait).await?;
            Ok(Trip::update().hints([name.to_owned()]))
        })
    });
    let [first, gather] = ["first", "gather"].map(|name| {
        g.node(name, move |_: Arc<Trip>, ctx: Context<()>| async move {
            Ok(Trip::update().log([format!("{name} after {:?}", ctx.arrived())]))
        })
    });
    g.edge(START, quick).edge(START, slow);
    g.race([quick, slow], first);
    g.edge(first, late);
    let rule = stepgraph::JoinRule::all().within(std::time::Duration::from_secs(5));
    g.join_when(rule, [first, late], gather).edge(gather, END);
    let graph = g
        .build()
        .unwrap()
        .checkpointer(Memory::new())
        .recording(Recording::Calls);
    let trip = graph.run(&thread("t"), city("rome")).await.unwrap().done().unwrap();
    assert_eq!(trip.hints, ["quick"], "the others were cancelled");
    let replayed = agrees(&graph, "t").await;
    assert_eq!(replayed.bodies, 3, "those that were cancelled are not entered");
}

#[tokio::test]
async fn a_recorded_run_may_save_behind_and_may_not_hold_steps_back() {
    let calls = Count::default();
    let graph = trip(TODAY, &calls)
        .checkpointer(Memory::new())
        .recording(Recording::Calls);
    graph
        .run(&thread("t"), city("nowhere"))
        .durability(Durability::Async)
        .await
        .unwrap();
    agrees(&graph, "t").await;
    let held = graph.run(&thread("held"), city("nowhere")).durability(Durability::Exit);
    assert_eq!(held.await.unwrap_err().code(), "run::recorded_exit");
    let free = graph.run(&thread("held"), city("nowhere")).recording(Recording::Off);
    free.durability(Durability::Exit).await.unwrap();
}

#[tokio::test]
async fn what_came_from_the_node_cache_is_taken_from_the_record() {
    let calls = Count::default();
    let called = Arc::clone(&calls);
    let mut g = Graph::<Trip>::builder("cached");
    let node = g.node("node", move |trip: Arc<Trip>, ctx: Context<()>| {
        let called = Arc::clone(&called);
        async move {
            let service = || async { Ok(called.fetch_add(1, Ordering::SeqCst)) };
            let call: usize = ctx.recorded("model", &trip.city, service).await?;
            Ok(Trip::update().hints([call.to_string()]))
        }
    });
    g.cache(node, std::time::Duration::from_hours(1), |trip: &Trip| {
        trip.city.clone()
    });
    g.edge(START, node).edge(node, END);
    let graph = g
        .build()
        .unwrap()
        .checkpointer(Memory::new())
        .recording(Recording::Calls);
    for name in ["first", "second"] {
        graph.run(&thread(name), city("rome")).await.unwrap();
    }
    assert_eq!(got(&calls), 1, "the second was a hit");
    assert_eq!(agrees(&graph, "first").await.bodies, 1);
    assert_eq!(agrees(&graph, "second").await.bodies, 0);
    assert_eq!(got(&calls), 1);
}
