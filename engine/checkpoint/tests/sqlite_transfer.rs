//! Threads as lines of JSON, out of a file and into another.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{path::Path, sync::Arc};

use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Ask, Context, END, Graph, Memory, Outcome, Recording, START, State, TenantId, ThreadId, ThreadKey,
    TransferError,
    checkpoint::{At, MAIN, Page, Seq},
};
use stepgraph_checkpoint::Sqlite;

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    #[state(input)]
    item: String,
    #[state(reducer = Append)]
    said: Vec<String>,
}

#[derive(Ask, Clone, Debug, Serialize)]
#[ask(name = "confirm", answer = bool)]
struct Confirm {
    item: String,
}

/// Looks up a price, then a graph inside asks a person.
fn order() -> Graph<Order> {
    let mut inner = Graph::<Order>::builder("inner");
    let ask = inner.node("ask", |order: Arc<Order>, ctx: Context<()>| async move {
        let sure = ctx.ask(Confirm {
            item: order.item.clone(),
        })?;
        Ok(Order::update().said([format!("{} is {sure}", order.item)]))
    });
    inner.edge(START, ask).edge(ask, END);
    let inner = inner.build().unwrap();
    let mut g = Graph::<Order>::builder("order");
    let price = g.node("price", |order: Arc<Order>, ctx: Context<()>| async move {
        let price: f32 = ctx.recorded("prices", &order.item, || async { Ok(0.1) }).await?;
        Ok(Order::update().said([price.to_string()]))
    });
    let confirm = g.node("confirm", move |order: Arc<Order>, ctx: Context<()>| {
        let inner = inner.clone();
        async move {
            let input = OrderInput {
                item: order.item.clone(),
            };
            let confirmed = ctx.call(&inner, "person", input).await?;
            Ok(Order::update().said(confirmed.said))
        }
    });
    g.edge(START, price).edge(price, confirm).edge(confirm, END);
    g.build().unwrap().recording(Recording::Calls)
}

async fn in_file(path: &Path) -> Graph<Order> {
    order().checkpointer(Sqlite::open(path).await.unwrap())
}

fn key(tenant: &str) -> ThreadKey {
    ThreadKey::new(TenantId::authenticated(tenant).unwrap(), ThreadId::new("t").unwrap())
}

fn item(name: &str) -> OrderInput {
    OrderInput { item: name.to_owned() }
}

async fn lines(graph: &Graph<Order>, key: &ThreadKey) -> Vec<String> {
    graph.export(key).try_collect().await.unwrap()
}

/// One run to its end, a branch beside it, and one that waits for an answer.
async fn waiting(graph: &Graph<Order>, key: &ThreadKey) {
    graph.run(key, item("kettle")).await.unwrap();
    graph.resume(key).answer::<Confirm>(&true).await.unwrap();
    graph.fork(key, At::Seq(Seq(2)), "aside").await.unwrap();
    graph.switch(key, MAIN).await.unwrap();
    let outcome = graph.run(key, item("bicycle")).await.unwrap();
    assert!(matches!(outcome, Outcome::Asked(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_thread_goes_from_one_file_to_another_and_on_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from.db"), folder.path().join("to.db"));
    let (own, copy) = (key("acme"), key("other"));
    let graph = in_file(&from).await;
    waiting(&graph, &own).await;
    let exported = lines(&graph, &own).await;

    in_file(&to).await.import(&copy, &exported).await.unwrap();
    let reopened = in_file(&to).await;
    assert_eq!(lines(&reopened, &copy).await, exported);
    assert_eq!(
        reopened.history(&copy, Page::default()).await.unwrap(),
        graph.history(&own, Page::default()).await.unwrap()
    );
    assert_eq!(
        reopened.branches(&copy).await.unwrap(),
        graph.branches(&own).await.unwrap()
    );
    let outcome = reopened.resume(&copy).answer::<Confirm>(&false).await.unwrap();
    let said = outcome.done().unwrap().said;
    assert_eq!(said, ["0.1", "kettle is true", "0.1", "bicycle is false"]);
    let replayed = reopened.replay(&copy).bodies().await.unwrap();
    assert_eq!(replayed.divergence, None, "{replayed}");
    assert!(replayed.bodies >= 6, "{} bodies", replayed.bodies);

    let taken = reopened.import(&copy, &exported).await.unwrap_err();
    assert!(matches!(taken, TransferError::Exists { .. }), "{taken}");
}

#[tokio::test]
async fn a_file_takes_from_memory_what_memory_takes_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let own = key("acme");
    let graph = in_file(&folder.path().join("own.db")).await;
    waiting(&graph, &own).await;
    let exported = lines(&graph, &own).await;
    let memory = order().checkpointer(Memory::new());
    memory.import(&own, &exported).await.unwrap();
    let back = in_file(&folder.path().join("back.db")).await;
    back.import(&own, lines(&memory, &own).await).await.unwrap();
    assert_eq!(lines(&back, &own).await, exported);
}

#[tokio::test]
async fn lines_that_end_in_nonsense_leave_no_row_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let own = key("acme");
    let graph = in_file(&folder.path().join("own.db")).await;
    waiting(&graph, &own).await;
    let mut broken = lines(&graph, &own).await;
    broken.push("{}".to_owned());
    let other = in_file(&folder.path().join("other.db")).await;
    let refused = other.import(&own, &broken).await.unwrap_err();
    assert!(matches!(refused, TransferError::Line { .. }), "{refused}");
    assert!(other.state(&own, At::Head).await.unwrap().is_none());
    broken.pop();
    other.import(&own, &broken).await.unwrap();
}
