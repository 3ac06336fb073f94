//! How many tasks run at once: by run, by node, by key.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    pub(crate) mod threads;
}

use std::{
    future::IntoFuture,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Cancel, END, FromState, Graph, Limiter, LimiterFull, Memory, NodeError, NodeTimeout, Outcome, PermitHeld,
    Policy, Retry, RunError, START, State, WorkerId,
};
use support::threads::{thread, thread_of};
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Work {
    #[state(input)]
    items: u64,
    #[state(reducer = Append)]
    done: Vec<u64>,
}

impl FromState<Work> for WorkInput {
    fn from_state(work: &Arc<Work>) -> Self {
        Self { items: work.items }
    }
}

impl From<Arc<Work>> for WorkUpdate {
    fn from(inner: Arc<Work>) -> Self {
        Work::update().done(inner.done.clone())
    }
}

fn at_once(tasks: u32) -> NonZeroU32 {
    NonZeroU32::new(tasks).unwrap()
}

/// Sees who is inside at once, and who came when.
#[derive(Clone, Default)]
struct Gauge(Arc<Mutex<(usize, usize, Vec<u64>)>>);

impl Gauge {
    async fn pass(&self, item: u64) -> u64 {
        {
            let mut seen = self.0.lock().unwrap();
            seen.0 += 1;
            seen.1 = seen.1.max(seen.0);
            seen.2.push(item);
        }
        let leave = Leave(self);
        // The later of two that began together ends first.
        tokio::time::sleep(Duration::from_millis(1000 - item % 1000)).await;
        drop(leave);
        item
    }

    fn most(&self) -> usize {
        self.0.lock().unwrap().1
    }

    fn order(&self) -> Vec<u64> {
        self.0.lock().unwrap().2.clone()
    }
}

struct Leave<'a>(&'a Gauge);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().0 -= 1;
    }
}

/// A graph that sends so many items to one worker.
fn spread(
    name: &'static str,
    gauge: &Gauge,
    around: impl Fn(&mut stepgraph::GraphBuilder<Work>, WorkerId<Work, u64>),
) -> Graph<Work> {
    let gauge = gauge.clone();
    let mut g = Graph::<Work>::builder(name);
    let work = g.worker("work", move |item: u64| {
        let gauge = gauge.clone();
        async move { Ok(Work::update().done([gauge.pass(item).await])) }
    });
    g.fan_out(START, work, |work: &Work| 0..work.items);
    g.edge(work, END);
    around(&mut g, work);
    g.build().unwrap()
}

fn items(items: u64) -> WorkInput {
    WorkInput { items }
}

#[tokio::test(start_paused = true)]
async fn a_run_of_one_at_a_time_runs_a_hundred_sends_all_of_them_and_in_order() {
    for kept in [false, true] {
        let gauge = Gauge::default();
        let mut graph = spread("work", &gauge, |_, _| {});
        if kept {
            graph = graph.checkpointer(Memory::new());
        }
        let outcome = graph.run(&thread("t"), items(100)).concurrency(at_once(1)).await;
        let all: Vec<u64> = (0..100).collect();
        assert_eq!(outcome.unwrap().done().unwrap().done, all, "kept: {kept}");
        assert_eq!((gauge.most(), gauge.order()), (1, all), "kept: {kept}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_runs_limit_bounds_what_is_in_flight_and_no_limit_bounds_nothing() {
    for (limit, most) in [(Some(3), 3), (None, 40)] {
        let gauge = Gauge::default();
        let graph = spread("work", &gauge, |_, _| {});
        let mut run = graph.run(&thread("t"), items(40));
        if let Some(limit) = limit {
            run = run.concurrency(at_once(limit));
        }
        assert_eq!(run.await.unwrap().done().unwrap().done.len(), 40);
        assert_eq!(gauge.most(), most);
    }
}

#[tokio::test(start_paused = true)]
async fn a_policys_limit_bounds_a_node_over_all_runs_of_its_graph() {
    let gauge = Gauge::default();
    let graph = spread("work", &gauge, |g, work| {
        g.policy(work, Policy::new().concurrency(at_once(2)));
    });
    let threads: Vec<_> = (0..5).map(|n| thread(&n.to_string())).collect();
    let runs = threads.iter().map(|thread| graph.run(thread, items(4)).into_future());
    for outcome in join_all(runs).await {
        assert_eq!(outcome.unwrap().done().unwrap().done, [0, 1, 2, 3]);
    }
    assert_eq!(gauge.most(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_limiter_is_shared_by_graphs_and_forgets_what_nobody_uses() {
    let (gauge, limiter) = (Gauge::default(), Limiter::new("service", at_once(3)));
    let graph = |name| {
        spread(name, &gauge, |g, work| {
            g.limit(work, &limiter);
        })
    };
    let (one, two) = (graph("one"), graph("two"));
    let (first, second) = (thread("1"), thread("2"));
    let (a, b) = tokio::join!(
        one.run(&first, items(6)).into_future(),
        two.run(&second, items(6)).into_future()
    );
    assert_eq!(
        (
            a.unwrap().done().unwrap().done.len(),
            b.unwrap().done().unwrap().done.len()
        ),
        (6, 6)
    );
    assert_eq!((gauge.most(), limiter.keys_in_use()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn keys_have_permits_of_their_own() {
    let (gauge, limiter) = (Gauge::default(), Limiter::new("by tenant", at_once(1)));
    let graph = spread("work", &gauge, |g, work| {
        g.limit_by(work, &limiter, |_: &Work, tenant| tenant.clone());
    });
    let threads: Vec<_> = ["a", "b", "c"].map(|tenant| thread_of(tenant, "t")).into();
    let runs = threads.iter().map(|thread| graph.run(thread, items(5)).into_future());
    for outcome in join_all(runs).await {
        assert_eq!(outcome.unwrap().done().unwrap().done.len(), 5);
    }
    assert_eq!((gauge.most(), limiter.keys_in_use()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn one_key_more_than_a_limiter_may_have_in_use_is_an_error_that_says_so() {
    let (gauge, limiter) = (Gauge::default(), Limiter::with_keys("by tenant", at_once(1), 1));
    let graph = spread("work", &gauge, |g, work| {
        g.limit_by(work, &limiter, |_: &Work, tenant| tenant.clone());
    });
    let (a, b) = (thread_of("a", "t"), thread_of("b", "t"));
    let (first, second) = tokio::join!(
        graph.run(&a, items(1)).into_future(),
        graph.run(&b, items(1)).into_future()
    );
    assert!(first.is_ok());
    let error = second.unwrap_err();
    let full = error.node_error::<LimiterFull>().unwrap();
    assert_eq!((full.limiter.as_str(), full.keys_max), ("by tenant", 1));
    graph.run(&b, items(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_cancelled_while_it_waits_ends_at_once_and_leaves_the_queue() {
    let (gauge, limiter) = (Gauge::default(), Limiter::new("service", at_once(1)));
    let graph = spread("work", &gauge, |g, work| {
        g.limit(work, &limiter);
    });
    let (cancel, begun) = (Cancel::new(), Instant::now());
    let (a, b, c) = (thread("a"), thread("b"), thread("c"));
    let first = graph.run(&a, items(1)).into_future();
    let second = graph.run(&b, items(1)).cancel(&cancel).into_future();
    let third = graph.run(&c, items(1)).into_future();
    let second = async {
        let outcome = second.await;
        (outcome, begun.elapsed())
    };
    let cancelling = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        cancel.cancel();
    };
    let (first, (second, waited), third, ()) = tokio::join!(first, second, third, cancelling);
    assert!(matches!(second, Ok(Outcome::Cancelled)), "{second:?}");
    assert_eq!(waited, Duration::from_millis(10));
    assert!(first.unwrap().done().is_some() && third.unwrap().done().is_some());
    assert_eq!((gauge.most(), limiter.keys_in_use()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn waiting_counts_to_the_runs_time_limit_but_not_to_the_nodes() {
    let limiter = Limiter::new("service", at_once(1));
    let graph = spread("work", &Gauge::default(), |g, work| {
        g.limit(work, &limiter);
        g.policy(work, Policy::new().timeout(Duration::from_millis(1500)));
    });
    let run = graph.run(&thread("t"), items(5)).await.unwrap();
    assert_eq!(run.done().unwrap().done.len(), 5);
    let error = graph
        .run(&thread("u"), items(5))
        .time_limit(Duration::from_millis(2500))
        .await
        .unwrap_err();
    assert!(matches!(error, RunError::TimeLimit { .. }), "{error}");
    let hasty = spread("work", &Gauge::default(), |g, work| {
        g.policy(work, Policy::new().timeout(Duration::from_millis(10)));
    });
    let error = hasty.run(&thread("v"), items(1)).await.unwrap_err();
    assert!(error.node_error::<NodeTimeout>().is_some(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_for_its_next_attempt_lets_others_in() {
    let limiter = Limiter::new("service", at_once(1));
    let order = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&order);
    let mut g = Graph::<Work>::builder("work");
    let work = g.worker("work", move |item: u64, ctx: stepgraph::Context<()>| {
        let order = Arc::clone(&kept);
        async move {
            order.lock().unwrap().push((item, ctx.attempt()));
            tokio::task::yield_now().await;
            if item == 0 && ctx.attempt() == 1 {
                return Err(NodeError::retryable("busy"));
            }
            Ok(Work::update().done([item]))
        }
    });
    g.policy(work, Policy::new().retry(Retry::attempts(at_once(2))));
    g.limit(work, &limiter)
        .fan_out(START, work, |work: &Work| 0..work.items);
    g.edge(work, END);
    let outcome = g.build().unwrap().run(&thread("t"), items(3)).await.unwrap();
    assert_eq!(outcome.done().unwrap().done, [0, 1, 2]);
    assert_eq!(*order.lock().unwrap(), [(0, 1), (1, 1), (2, 1), (0, 2)]);
}

#[tokio::test(start_paused = true)]
async fn two_nodes_that_take_the_same_permits_the_other_way_round_do_not_wait_for_each_other() {
    let (one, two) = (Limiter::new("one", at_once(1)), Limiter::new("two", at_once(1)));
    let mut g = Graph::<Work>::builder("work");
    for name in ["a", "b", "c", "d"] {
        let node = g.node(name, |_: Arc<Work>| async {
            tokio::task::yield_now().await;
            Ok(())
        });
        if name < "c" {
            g.limit(node, &one).limit(node, &two);
        } else {
            g.limit(node, &two).limit(node, &one).limit(node, &one);
        }
        g.edge(START, node).edge(node, END);
    }
    let run = g.build().unwrap();
    let run = run.run(&thread("t"), items(0)).time_limit(Duration::from_mins(1));
    assert!(run.await.unwrap().done().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_graph_inside_a_node_has_the_runs_limit_for_itself() {
    let gauge = Gauge::default();
    let inner = spread("inner", &gauge, |_, _| {});
    let mut g = Graph::<Work>::builder("outer");
    let host = g.node("host", inner.as_node::<WorkInput, Arc<Work>>());
    g.edge(START, host).edge(host, END);
    let run = g.build().unwrap();
    let run = run.run(&thread("t"), items(6)).concurrency(at_once(2));
    let outcome = run.time_limit(Duration::from_mins(1)).await.unwrap();
    assert_eq!((outcome.done().unwrap().done.len(), gauge.most()), (6, 2));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_asks_for_a_permit_held_around_it_fails_instead_of_waiting_for_ever() {
    let limiter = Limiter::new("service", at_once(1));
    let inner = spread("inner", &Gauge::default(), |g, work| {
        g.limit(work, &limiter);
    });
    let mut g = Graph::<Work>::builder("outer");
    let host = g.node("host", inner.as_node::<WorkInput, Arc<Work>>());
    g.limit(host, &limiter).edge(START, host).edge(host, END);
    let error = g.build().unwrap().run(&thread("t"), items(1)).await.unwrap_err();
    assert_eq!(error.node_error::<PermitHeld>().unwrap().limiter, "service");
}

#[tokio::test]
async fn a_key_that_panics_is_an_error_of_its_node() {
    let limiter = Limiter::new("service", at_once(1));
    let graph = spread("work", &Gauge::default(), |g, work| {
        g.limit_by(work, &limiter, |work: &Work, _| 1 / (work.items - work.items));
    });
    let error = graph.run(&thread("t"), items(1)).await.unwrap_err();
    assert_eq!(error.code(), "run::node");
    assert!(error.to_string().contains("divide by zero"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_gives_its_permits_back_and_goes_on_when_it_is_resumed() {
    let (gauge, limiter) = (Gauge::default(), Limiter::new("service", at_once(2)));
    let graph = spread("work", &gauge, |g, work| {
        g.limit(work, &limiter);
    })
    .checkpointer(Memory::new());
    {
        let key = thread("t");
        let run = graph.run(&key, items(9)).concurrency(at_once(4)).into_future();
        let cut = tokio::time::timeout(Duration::from_millis(2500), run).await;
        assert!(cut.is_err());
    }
    // Aborted tasks are dropped when the runtime comes to them.
    while limiter.keys_in_use() > 0 {
        tokio::task::yield_now().await;
    }
    let before = gauge.order().len();
    assert!((4..9).contains(&before), "{before}");
    let outcome = graph.resume(&thread("t")).await.unwrap();
    assert_eq!(outcome.done().unwrap().done, (0..9).collect::<Vec<_>>());
    assert_eq!((gauge.most(), limiter.keys_in_use()), (2, 0));
    assert!(gauge.order().len() < 9 + before, "what had finished ran again");
}

#[tokio::test]
async fn a_permit_is_held_until_the_node_has_ended() {
    let limiter = Limiter::new("service", at_once(1));
    let (inside, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
    let mut g = Graph::<Work>::builder("work");
    let kept = (Arc::clone(&inside), Arc::clone(&go_on));
    let node = g.node("node", move |_: Arc<Work>| {
        let (inside, go_on) = kept.clone();
        async move {
            inside.add_permits(1);
            go_on.notified().await;
            Ok(())
        }
    });
    g.limit(node, &limiter).edge(START, node).edge(node, END);
    let graph = g.build().unwrap();
    let run = tokio::spawn(async move { graph.run(&thread("t"), items(0)).await });
    inside.acquire().await.unwrap().forget();
    assert_eq!(limiter.keys_in_use(), 1);
    go_on.notify_one();
    run.await.unwrap().unwrap();
    assert_eq!(limiter.keys_in_use(), 0);
}
