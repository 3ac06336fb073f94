//! What a run may spend, and what becomes of one that has spent more.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect"
)]

mod support {
    pub(crate) mod threads;
}

use std::{
    num::NonZeroU32,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use serde_json::json;
use stepgraph::{
    Answers, Append, Ask, Budget, Context, Durability, END, FromState, Graph, Memory, NodeError, OnBudget, Outcome,
    OverBudget, Policy, RaiseBudget, Retry, RunError, START, Spend, Spent, State,
    checkpoint::{At, RunStatus},
};
use support::threads::thread;

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Log {
    #[state(reducer = Append)]
    lines: Vec<String>,
}

impl FromState<Log> for LogInput {
    fn from_state(_: &Arc<Log>) -> Self {
        Self {}
    }
}

impl From<Arc<Log>> for LogUpdate {
    fn from(inner: Arc<Log>) -> Self {
        Log::update().lines(inner.lines.clone())
    }
}

#[derive(Serialize, Ask)]
#[ask(name = "sure", answer = bool)]
struct Sure;

fn line(text: impl Into<String>) -> LogUpdate {
    Log::update().lines([text.into()])
}

const fn tokens(tokens: u64) -> Spend {
    Spend { tokens, cost_micros: 0 }
}

/// What the run had spent when a node was entered.
type Seen = Arc<Mutex<Vec<(&'static str, Spent)>>>;

/// A chain of nodes that each spend 10 tokens and 1 millionth.
fn chain(graph: &'static str, nodes: &[&'static str], seen: &Seen) -> stepgraph::GraphBuilder<Log> {
    let mut g = Graph::<Log>::builder(graph);
    let mut before = None;
    for &name in nodes {
        let seen = Arc::clone(seen);
        let node = g.node(name, move |_: Arc<Log>, ctx: Context<()>| {
            seen.lock().unwrap().push((name, ctx.spent()));
            ctx.spend(tokens(4));
            ctx.spend(Spend {
                tokens: 6,
                cost_micros: 1,
            });
            async move { Ok(line(name)) }
        });
        match before.replace(node) {
            None => g.edge(START, node),
            Some(before) => g.edge(before, node),
        };
    }
    g.edge(before.unwrap(), END);
    g
}

fn names(seen: &Seen) -> Vec<&'static str> {
    seen.lock().unwrap().iter().map(|(name, _)| *name).collect()
}

fn lines(outcome: Outcome<Log>) -> Vec<String> {
    match outcome {
        Outcome::Done(log) => log.lines,
        other => panic!("{other:?}"),
    }
}

fn spent_of(error: &RunError) -> (u64, u64, u64) {
    match error {
        RunError::Budget { spent, .. } => (spent.tokens, spent.cost_micros, spent.steps),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_run_that_has_spent_more_than_its_budget_stops_between_steps_and_goes_on_with_a_larger_one() {
    for durability in [Durability::Sync, Durability::Async, Durability::Exit] {
        for (budget, larger) in [
            (Budget::tokens(15), Budget::tokens(99)),
            (Budget::cost_micros(1), Budget::cost_micros(99)),
            (Budget::steps(1), Budget::steps(99)),
            (Budget::tokens(15).and(Budget::tokens(50)), Budget::tokens(99)),
        ] {
            let seen = Seen::default();
            let graph = chain("chain", &["a", "b", "c"], &seen)
                .build()
                .unwrap()
                .checkpointer(Memory::new());
            let run = graph
                .run(&thread("t"), LogInput {})
                .durability(durability)
                .budget(budget);
            let error = run.await.unwrap_err();
            assert_eq!(error.code(), "run::budget", "{budget:?}");
            assert_eq!(spent_of(&error), (20, 2, 2), "{budget:?}");
            assert_eq!(names(&seen), ["a", "b"]);
            // The same budget is still spent after a resume; nothing runs.
            let again = graph
                .resume(&thread("t"))
                .durability(durability)
                .budget(budget)
                .await
                .unwrap_err();
            assert_eq!(spent_of(&again), (20, 2, 2), "{budget:?}");
            let outcome = graph
                .resume(&thread("t"))
                .durability(durability)
                .budget(larger)
                .await
                .unwrap();
            assert_eq!(lines(outcome), ["a", "b", "c"]);
            let (_, before_last) = *seen.lock().unwrap().last().unwrap();
            assert_eq!(
                (before_last.tokens, before_last.cost_micros, before_last.steps),
                (20, 2, 2)
            );
        }
    }
}

#[tokio::test]
async fn a_run_within_its_budget_or_with_nothing_left_to_do_is_done() {
    for budget in [
        Budget::tokens(20),
        Budget::tokens(15),
        Budget::steps(2),
        Budget::steps(1),
    ] {
        let seen = Seen::default();
        let graph = chain("chain", &["a", "b"], &seen)
            .build()
            .unwrap()
            .checkpointer(Memory::new());
        let outcome = graph.run(&thread("t"), LogInput {}).budget(budget).await.unwrap();
        assert_eq!(lines(outcome), ["a", "b"], "{budget:?}");
    }
}

#[tokio::test]
async fn new_input_begins_a_new_account() {
    let seen = Seen::default();
    let graph = chain("chain", &["a", "b"], &seen)
        .build()
        .unwrap()
        .checkpointer(Memory::new());
    for _ in 0..3 {
        graph
            .run(&thread("t"), LogInput {})
            .budget(Budget::tokens(20))
            .await
            .unwrap();
    }
    let last = seen.lock().unwrap().last().unwrap().1;
    assert_eq!(last.tokens, 10);
}

#[tokio::test]
async fn a_person_raises_the_budget_and_the_raise_lasts() {
    let seen = Seen::default();
    let nodes = ["a", "b", "c", "d", "e"];
    let graph = chain("chain", &nodes, &seen)
        .build()
        .unwrap()
        .checkpointer(Memory::new());
    let t = thread("t");
    let budget = Budget::tokens(10).then(OnBudget::Ask);
    let Outcome::Asked(questions) = graph.run(&t, LogInput {}).budget(budget).await.unwrap() else {
        panic!("20 tokens are within 10");
    };
    let [question] = questions.as_slice() else {
        panic!("{questions:?}")
    };
    assert_eq!(question.payload["spent"]["tokens"], 20);
    assert_eq!(question.payload["budget"], json!({"tokens": 10}));
    assert!(question.answer_schema["properties"]["tokens"].is_object());
    let kept = graph.state(&t, At::Head).await.unwrap().unwrap();
    assert_eq!(kept.questions, questions);
    assert_eq!(kept.run.unwrap().status, RunStatus::Asked);
    // Without an answer, with one that does not fit, and with one that is too small, it is asked again.
    for answers in [
        Answers::None,
        Answers::One(json!("more")),
        Answers::One(json!({"tokens": 15})),
    ] {
        let problem = answers != Answers::None;
        let Outcome::Asked(again) = graph.resume(&t).budget(budget).answers(answers).await.unwrap() else {
            panic!("no answer that is enough was given");
        };
        assert_eq!(again.first().unwrap().problem.is_some(), problem);
    }
    let raise = RaiseBudget {
        tokens: Some(30),
        ..RaiseBudget::default()
    };
    let outcome = graph
        .resume(&t)
        .budget(budget)
        .answer::<OverBudget>(&raise)
        .await
        .unwrap();
    assert!(matches!(outcome, Outcome::Asked(_)), "{outcome:?}");
    assert_eq!(names(&seen), ["a", "b", "c", "d"]);
    let raise = RaiseBudget {
        tokens: Some(99),
        ..RaiseBudget::default()
    };
    let outcome = graph
        .resume(&t)
        .budget(budget)
        .answer::<OverBudget>(&raise)
        .step_limit(0)
        .await;
    assert_eq!(outcome.unwrap_err().code(), "run::step_limit");
    let outcome = graph.resume(&t).budget(budget).await.unwrap();
    assert_eq!(lines(outcome), nodes);
}

#[tokio::test]
async fn a_graph_may_name_a_node_for_it_that_runs_once_instead_of_what_was_next() {
    let seen = Seen::default();
    let mut g = chain("chain", &["a", "b", "c"], &seen);
    let noted = Arc::clone(&seen);
    let sum_up = g.node("sum_up", move |_: Arc<Log>, ctx: Context<()>| {
        noted.lock().unwrap().push(("sum_up", ctx.spent()));
        ctx.spend(tokens(500));
        async { Ok(line("sum up")) }
    });
    let after = g.node("after", |_: Arc<Log>| async { Ok(line("after")) });
    g.on_budget(sum_up).edge(sum_up, after).edge(after, END);
    let graph = g.build().unwrap();
    for (budget, expected) in [
        (Budget::tokens(10), vec!["a", "b", "sum up", "after"]),
        (Budget::tokens(99), vec!["a", "b", "c"]),
    ] {
        let graph = graph.clone().checkpointer(Memory::new());
        let run = graph
            .run(&thread("t"), LogInput {})
            .budget(budget.then(OnBudget::Route));
        assert_eq!(lines(run.await.unwrap()), expected);
    }
    // A budget that is smaller when the run is resumed counts as well.
    let graph = graph.checkpointer(Memory::new());
    let stopped = graph.run(&thread("t"), LogInput {}).step_limit(1).await;
    assert_eq!(stopped.unwrap_err().code(), "run::step_limit");
    let run = graph
        .resume(&thread("t"))
        .budget(Budget::tokens(5).then(OnBudget::Route));
    assert_eq!(lines(run.await.unwrap()), ["a", "sum up", "after"]);
}

#[tokio::test]
async fn a_budget_that_routes_needs_a_node_to_route_to() {
    let seen = Seen::default();
    let graph = chain("chain", &["a"], &seen).build().unwrap();
    let run = graph
        .run(&thread("t"), LogInput {})
        .budget(Budget::tokens(1).then(OnBudget::Route));
    assert_eq!(run.await.unwrap_err().code(), "run::no_budget_node");
    assert!(names(&seen).is_empty());
}

#[tokio::test]
async fn what_is_spent_counts_once_whatever_a_task_goes_through() {
    let entries = Arc::new(AtomicUsize::new(0));
    let mut g = Graph::<Log>::builder("wide");
    let counted = Arc::clone(&entries);
    let asks = g.node("asks", move |_: Arc<Log>, ctx: Context<()>| {
        counted.fetch_add(1, Ordering::SeqCst);
        ctx.spend(tokens(100));
        async move { Ok(line(format!("{}", ctx.ask(Sure)?))) }
    });
    let flaky = g.node("flaky", |_: Arc<Log>, ctx: Context<()>| {
        ctx.spend(tokens(10));
        async move {
            if ctx.attempt() == 1 {
                Err(NodeError::retryable("once more"))
            } else {
                Ok(line("flaky"))
            }
        }
    });
    g.policy(
        flaky,
        Policy::default().retry(Retry::attempts(NonZeroU32::new(2).unwrap())),
    );
    let work = g.worker("work", |n: u64, ctx: Context<()>| async move {
        ctx.spend(tokens(n));
        tokio::task::yield_now().await;
        Ok(line(format!("work {n}")))
    });
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    let last = g.node("last", move |_: Arc<Log>, ctx: Context<()>| {
        noted.lock().unwrap().push(("last", ctx.spent()));
        async { Ok(line("last")) }
    });
    g.edge(START, asks)
        .edge(START, flaky)
        .fan_out(START, work, |_: &Log| [1_u64, 2, 3]);
    g.join(
        [stepgraph::from(asks), stepgraph::from(flaky), stepgraph::from(work)],
        last,
    )
    .edge(last, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    assert!(matches!(
        graph.run(&thread("t"), LogInput {}).await.unwrap(),
        Outcome::Asked(_)
    ));
    assert!(matches!(graph.resume(&thread("t")).await.unwrap(), Outcome::Asked(_)));
    graph.resume(&thread("t")).answer::<Sure>(&true).await.unwrap();
    assert_eq!(entries.load(Ordering::SeqCst), 2);
    // The attempts of one entry count together; entries that ended in a question do not.
    assert_eq!(seen.lock().unwrap().first().unwrap().1.tokens, 100 + 20 + 6);
}

#[tokio::test]
async fn a_graph_inside_spends_for_the_run_around_it_and_is_stopped_by_its_budget() {
    for durability in [Durability::Sync, Durability::Exit] {
        let seen = Seen::default();
        let inner = chain("inner", &["x", "y", "z"], &seen).build().unwrap();
        let mut g = Graph::<Log>::builder("outer");
        let a = g.node("a", |_: Arc<Log>, ctx: Context<()>| {
            ctx.spend(tokens(100));
            async { Ok(line("a")) }
        });
        let host = g.node("host", inner.as_node::<LogInput, Arc<Log>>());
        let noted = Arc::clone(&seen);
        let last = g.node("last", move |_: Arc<Log>, ctx: Context<()>| {
            noted.lock().unwrap().push(("last", ctx.spent()));
            async { Ok(line("last")) }
        });
        g.edge(START, a).edge(a, host).edge(host, last).edge(last, END);
        let graph = g.build().unwrap().checkpointer(Memory::new());
        let run = graph
            .run(&thread("t"), LogInput {})
            .durability(durability)
            .budget(Budget::tokens(115));
        let error = run.await.unwrap_err();
        assert_eq!(error.code(), "run::budget", "{error}");
        assert_eq!(spent_of(&error).0, 120);
        assert_eq!(names(&seen), ["x", "y"]);
        let ask = Budget::tokens(115).then(OnBudget::Ask);
        let asked = graph
            .resume(&thread("t"))
            .durability(durability)
            .budget(ask)
            .await
            .unwrap();
        assert!(matches!(asked, Outcome::Asked(_)), "{asked:?}");
        let raise = RaiseBudget {
            tokens: Some(1000),
            ..RaiseBudget::default()
        };
        let run = graph.resume(&thread("t")).durability(durability).budget(ask);
        assert_eq!(
            lines(run.answer::<OverBudget>(&raise).await.unwrap()),
            ["a", "x", "y", "z", "last"]
        );
        assert_eq!(names(&seen), ["x", "y", "z", "last"]);
        assert_eq!(seen.lock().unwrap().last().unwrap().1.tokens, 130);
    }
}

#[tokio::test]
async fn a_node_reads_how_many_steps_are_left() {
    let left = Arc::new(Mutex::new(Vec::new()));
    let mut g = Graph::<Log>::builder("two");
    let noted = Arc::clone(&left);
    let mut add = |name: &'static str| {
        let noted = Arc::clone(&noted);
        g.node(name, move |_: Arc<Log>, ctx: Context<()>| {
            noted.lock().unwrap().push(ctx.steps_left());
            async { Ok(()) }
        })
    };
    let (a, b) = (add("a"), add("b"));
    g.edge(START, a).edge(a, b).edge(b, END);
    let graph = g.build().unwrap();
    graph.run(&thread("t"), LogInput {}).step_limit(2).await.unwrap();
    assert_eq!(*left.lock().unwrap(), [1, 0]);
}
