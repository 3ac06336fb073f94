//! Replays of steps that went another way than their edges say: to a handler, or to the node for a spent budget.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Budget, Context, END, Failed, Graph, Memory, NodeError, OnBudget, Outcome, Policy, Recording, Replayed,
    Retry, START, Spend, State,
};

use super::support::threads::thread;

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Log {
    #[state(reducer = Append)]
    lines: Vec<String>,
}

type Count = Arc<AtomicUsize>;

/// Asks a service, and counts that it did.
async fn ask(ctx: &Context<()>, calls: &Count, of: &str) -> Result<String, NodeError> {
    let reply = ctx.recorded("service", of, || async {
        calls.fetch_add(1, Ordering::SeqCst);
        Ok(format!("{of}!"))
    });
    reply.await
}

async fn agrees(graph: &Graph<Log>, name: &str) -> Replayed {
    let shallow = graph.replay(&thread(name)).await.unwrap();
    assert_eq!(shallow.divergence, None);
    let deep = graph.replay(&thread(name)).bodies().await.unwrap();
    assert_eq!(deep.divergence, None);
    deep
}

/// A node that asks and fails, and a handler that asks, fails once, and asks again.
fn handled(calls: &Count, word: &'static str) -> Graph<Log> {
    let mut g = Graph::<Log>::builder("handled");
    let (first, second) = (Arc::clone(calls), Arc::clone(calls));
    let fails = g.node("fails", move |_: Arc<Log>, ctx: Context<()>| {
        let calls = Arc::clone(&first);
        async move {
            ask(&ctx, &calls, "node").await?;
            Err::<LogUpdate, _>(NodeError::terminal("it cannot"))
        }
    });
    let recover = g.handler("recover", move |failed: Failed<Arc<Log>>, ctx: Context<()>| {
        let calls = Arc::clone(&second);
        async move {
            let heard = ask(&ctx, &calls, word).await?;
            if ctx.attempt() == 1 {
                return Err(NodeError::retryable("not yet"));
            }
            let line = format!("{} {heard} {}", failed.failure().message, ctx.uuid("line"));
            Ok(Log::update().lines(vec![line]))
        }
    });
    let after = g.node("after", |_: Arc<Log>, _: Context<()>| async {
        Ok(Log::update().lines(vec!["after".to_owned()]))
    });
    let twice = Retry::attempts(std::num::NonZeroU32::MIN.saturating_add(1)).first_delay(std::time::Duration::ZERO);
    g.policy(recover, Policy::new().retry(twice));
    g.on_error(fails, recover);
    g.edge(START, fails)
        .edge(fails, after)
        .edge(recover, after)
        .edge(after, END);
    g.build().unwrap().recording(Recording::Calls)
}

#[tokio::test]
async fn a_task_that_a_handler_has_answered_comes_out_as_recorded() {
    let (store, calls) = (Arc::new(Memory::new()), Count::default());
    let graph = handled(&calls, "handler").shared_checkpointer(store.clone());
    let done = graph.run(&thread("t"), LogInput {}).await.unwrap().done().unwrap();
    assert_eq!((done.lines.len(), calls.load(Ordering::SeqCst)), (2, 3));
    assert_eq!(agrees(&graph, "t").await.bodies, 2);
    assert_eq!(calls.load(Ordering::SeqCst), 3, "a replay calls nothing");

    let other = handled(&calls, "other").shared_checkpointer(store);
    let replayed = other.replay(&thread("t")).bodies().await.unwrap();
    assert!(replayed.divergence.is_some(), "what a handler asks is compared too");
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}

/// Work that spends, again and again, and a node that sums up.
fn spending(store: &Arc<Memory>) -> Graph<Log> {
    let mut g = Graph::<Log>::builder("spending");
    let line = |line: &str| Log::update().lines(vec![line.to_owned()]);
    let work = g.node("work", move |_: Arc<Log>, ctx: Context<()>| async move {
        ctx.spend(Spend {
            tokens: 10,
            cost_micros: 0,
        });
        Ok(line("work"))
    });
    let more = g.node(
        "more",
        move |_: Arc<Log>, _: Context<()>| async move { Ok(line("more")) },
    );
    let sum_up = g.node("sum_up", move |_: Arc<Log>, _: Context<()>| async move {
        Ok(line("sum up"))
    });
    g.edge(START, work).edge(work, more).edge(more, END);
    g.on_budget(sum_up).edge(sum_up, END);
    let graph = g.build().unwrap().recording(Recording::Calls);
    graph.shared_checkpointer(store.clone())
}

#[tokio::test]
async fn a_step_that_a_spent_budget_has_led_elsewhere_comes_out_as_recorded() {
    let store = Arc::new(Memory::new());
    let graph = spending(&store);
    let budget = Budget::tokens(5).then(OnBudget::Route);
    let run = graph.run(&thread("t"), LogInput {}).budget(budget);
    assert_eq!(run.await.unwrap().done().unwrap().lines, ["work", "sum up"]);
    assert_eq!(agrees(&graph, "t").await.bodies, 2);
}

#[tokio::test]
async fn a_resumed_run_whose_budget_is_smaller_than_what_was_spent_comes_out_as_recorded() {
    let store = Arc::new(Memory::new());
    let graph = spending(&store);
    let stopped = graph.run(&thread("t"), LogInput {}).stop_after(["work"]).await;
    assert!(matches!(stopped, Ok(Outcome::Breakpoint(_))));
    let budget = Budget::tokens(5).then(OnBudget::Route);
    let resumed = graph.resume(&thread("t")).budget(budget).await;
    assert_eq!(resumed.unwrap().done().unwrap().lines, ["work", "sum up"]);
    assert_eq!(agrees(&graph, "t").await.bodies, 2);
}
