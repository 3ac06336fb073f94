//! A run that is cut off anywhere ends, when it is resumed, as if nothing had happened.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect"
)]

mod support {
    pub(crate) mod store;
    pub(crate) mod threads;
}

use std::{
    collections::BTreeMap,
    future::{IntoFuture, poll_fn},
    sync::{Arc, Mutex},
    task::Poll,
};

use serde::{Deserialize, Serialize};
use serde_json::json;
use stepgraph::{
    Answers, Append, Ask, Context, Durability, END, Effect, FromState, Graph, NodeError, Outcome, Route, RunError,
    START, State, Sum, from, to,
};
use support::{store::Watched, threads::thread};

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Tale {
    #[state(input)]
    items: u64,
    #[state(reducer = Append)]
    log: Vec<String>,
    #[state(reducer = Sum)]
    rounds: u64,
    note: Option<String>,
}

#[derive(Serialize, Ask)]
#[ask(name = "sure", answer = bool)]
struct Sure;

#[derive(Route, Clone, Copy)]
enum Round {
    Again,
    Enough,
}

impl FromState<Tale> for TaleInput {
    fn from_state(tale: &Arc<Tale>) -> Self {
        Self { items: tale.items }
    }
}

impl From<Arc<Tale>> for TaleUpdate {
    fn from(inner: Arc<Tale>) -> Self {
        Tale::update().log(inner.log.clone())
    }
}

/// What services outside have been asked to do, by idempotency key.
type Ledger = Arc<Mutex<BTreeMap<String, u32>>>;

async fn pay(ctx: &Context<()>, ledger: &Ledger) -> Result<u64, NodeError> {
    let effect = Effect::idempotent(|key| async move {
        tokio::task::yield_now().await;
        *ledger.lock().unwrap().entry(key.as_str().to_owned()).or_default() += 1;
        Ok(7)
    });
    ctx.once("pay", effect).await
}

/// Pays, then asks.
fn inner(ledger: &Ledger) -> Graph<Tale> {
    let ledger = Arc::clone(ledger);
    let mut g = Graph::<Tale>::builder("inner");
    let pays = g.node("pays", move |_: Arc<Tale>, ctx: Context<()>| {
        let ledger = Arc::clone(&ledger);
        async move { Ok(Tale::update().log([format!("paid {}", pay(&ctx, &ledger).await?)])) }
    });
    let asks = g.node("asks", |_: Arc<Tale>, ctx: Context<()>| async move {
        tokio::task::yield_now().await;
        Ok(Tale::update().log([format!("sure: {}", ctx.ask(Sure)?)]))
    });
    g.edge(START, pays).edge(pays, asks).edge(asks, END);
    g.build().unwrap()
}

/// Two rounds of: three workers, a node that pays and a graph inside side by side, and a join behind them.
fn outer(ledger: &Ledger) -> Graph<Tale> {
    let mut g = Graph::<Tale>::builder("outer");
    let plan = g.node("plan", |_: Arc<Tale>| async {
        tokio::task::yield_now().await;
        Ok(Tale::update().rounds(1_u64))
    });
    let work = g.worker("work", |item: u64| async move {
        for _ in 0..item {
            tokio::task::yield_now().await;
        }
        Ok(Tale::update().log([format!("item {item}")]))
    });
    let kept = Arc::clone(ledger);
    let pays = g.node("pays", move |_: Arc<Tale>, ctx: Context<()>| {
        let ledger = Arc::clone(&kept);
        async move { Ok(Tale::update().note(format!("paid {}", pay(&ctx, &ledger).await?))) }
    });
    let host = g.node("host", inner(ledger).as_node::<TaleInput, Arc<Tale>>());
    let gather = g.node("gather", |tale: Arc<Tale>| async move {
        Ok(Tale::update().log([tale.rounds.to_string()]))
    });
    g.edge(START, plan).edge(plan, pays).edge(plan, host);
    g.fan_out(plan, work, |tale: &Tale| 0..tale.items);
    g.join([from(work), from(pays), from(host)], gather);
    g.branch(
        gather,
        |tale: &Tale| if tale.rounds < 2 { Round::Again } else { Round::Enough },
        |round| match round {
            Round::Again => to(plan),
            Round::Enough => to(END),
        },
    );
    g.build().unwrap()
}

/// Brings a thread to its end, whatever was left of it.
async fn finish(graph: &Graph<Tale>, durability: Durability) -> Result<Tale, RunError> {
    let mut answers = Answers::None;
    for _ in 0..20 {
        let resumed = graph.resume(&thread("t")).answers(std::mem::take(&mut answers));
        let outcome = match resumed.durability(durability).await {
            Err(RunError::UnknownThread { .. }) => {
                let run = graph.run(&thread("t"), TaleInput { items: 3 });
                run.durability(durability).await
            }
            outcome => outcome,
        };
        match outcome? {
            Outcome::Done(tale) => return Ok(tale),
            Outcome::Asked(questions) => {
                answers = Answers::Many(
                    questions
                        .into_iter()
                        .map(|question| (question.id, json!(true)))
                        .collect(),
                );
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("no end")
}

/// What must come out, and how many commits it takes.
async fn undisturbed(durability: Durability) -> (Tale, u64) {
    let (ledger, store) = (Ledger::default(), Watched::default());
    let tale = finish(&outer(&ledger).checkpointer(store.clone()), durability)
        .await
        .unwrap();
    assert_eq!(tale.log.len(), 2 * (3 + 2 + 1));
    assert_eq!(ledger.lock().unwrap().len(), 4);
    (tale, store.commits())
}

const EVERY: [Durability; 3] = [Durability::Sync, Durability::Async, Durability::Exit];

#[tokio::test]
async fn whichever_commit_fails_the_thread_ends_the_same() {
    for durability in EVERY {
        let (expected, commits) = undisturbed(durability).await;
        let mut failed = 0;
        for commit in 1..=commits {
            let at = format!("{durability:?}, commit {commit}");
            let (ledger, store) = (Ledger::default(), Watched::default());
            let graph = outer(&ledger).checkpointer(store.clone());
            store.fail_commit_at(commit);
            // Results that come together are kept together, so that there may be one commit fewer.
            let tale = if let Ok(tale) = finish(&graph, durability).await {
                tale
            } else {
                failed += 1;
                finish(&graph, durability).await.unwrap()
            };
            assert_eq!(tale, expected, "{at}");
            let ledger = ledger.lock().unwrap();
            assert_eq!(ledger.len(), 4, "{at}: {ledger:?}");
            // The two effects of a step are cut off together when what fails is the record of a third task.
            assert!(ledger.values().sum::<u32>() <= 6, "{at}: {ledger:?}");
        }
        assert!(
            failed > commits / 2,
            "{durability:?}: only {failed} of {commits} commits failed"
        );
    }
}

#[tokio::test]
async fn wherever_a_run_is_dropped_the_thread_ends_the_same() {
    for durability in EVERY {
        let (expected, _) = undisturbed(durability).await;
        let mut polls = 0;
        loop {
            let (ledger, store) = (Ledger::default(), Watched::default());
            let graph = outer(&ledger).checkpointer(store.clone());
            let ended = {
                let mut run = Box::pin(async { finish(&graph, durability).await }.into_future());
                let mut left = polls;
                poll_fn(|cx| {
                    if left == 0 {
                        return Poll::Ready(None);
                    }
                    left -= 1;
                    run.as_mut().poll(cx).map(Some)
                })
                .await
            };
            if ended.is_some() {
                break;
            }
            let at = format!("{durability:?}, dropped after {polls} polls");
            assert_eq!(finish(&graph, durability).await.unwrap(), expected, "{at}");
            assert_eq!(ledger.lock().unwrap().len(), 4, "{at}");
            polls += 1;
        }
        assert!(polls > 15, "{durability:?}: only {polls} places to drop it");
    }
}
