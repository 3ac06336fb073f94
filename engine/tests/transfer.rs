//! Threads as lines of JSON: out of one store, into another, and on from there.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    pub(crate) mod threads;
}

use std::sync::Arc;

use chrono::DateTime;
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Ask, Checkpointer, Context, END, Graph, Memory, Outcome, Recording, START, State, ThreadId, ThreadKey,
    TransferError,
    checkpoint::{self, At, Keep, MAIN, Page, Seq},
};
use support::threads::{thread, thread_of};

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Chat {
    #[state(input)]
    question: String,
    #[state(reducer = Append)]
    said: Vec<String>,
    #[state(per_run)]
    score: f32,
}

#[derive(Ask, Clone, Debug, Serialize)]
#[ask(name = "confirm", answer = bool)]
struct Confirm {
    question: String,
}

/// `search` for three things side by side, then a person is asked inside of a graph of its own.
fn chat() -> Graph<Chat> {
    let mut inner = Graph::<Chat>::builder("inner");
    let ask = inner.node("ask", |chat: Arc<Chat>, ctx: Context<()>| async move {
        let sure = ctx.ask(Confirm {
            question: chat.question.clone(),
        })?;
        Ok(Chat::update().said([format!("{sure} {}", ctx.uuid("asked"))]))
    });
    inner.edge(START, ask).edge(ask, END);
    let inner = inner.build().unwrap();
    let mut g = Graph::<Chat>::builder("chat");
    let plan = g.node("plan", |_: Arc<Chat>| async { Ok(Chat::update().score(0.34)) });
    let search = g.worker("search", |number: u32, ctx: Context<()>| async move {
        let found: String = ctx
            .recorded("search", &number, || async { Ok(format!("found {number}")) })
            .await?;
        Ok(Chat::update().said([found]))
    });
    let confirm = g.node("confirm", move |chat: Arc<Chat>, ctx: Context<()>| {
        let inner = inner.clone();
        async move {
            let input = ChatInput {
                question: chat.question.clone(),
            };
            let confirmed = ctx.call(&inner, "person", input).await?;
            Ok(Chat::update().said(confirmed.said))
        }
    });
    g.edge(START, plan);
    g.fan_out(plan, search, |_: &Chat| vec![1_u32, 2, 3]);
    g.join([search], confirm).edge(confirm, END);
    g.build()
        .unwrap()
        .checkpointer(Memory::new())
        .recording(Recording::Calls)
}

fn asks(question: &str) -> ChatInput {
    ChatInput {
        question: question.to_owned(),
    }
}

async fn lines(graph: &Graph<Chat>, key: &ThreadKey) -> Vec<String> {
    graph.export(key).try_collect().await.unwrap()
}

/// Two runs, the second of which waits for an answer, and a branch beside them.
async fn waiting() -> (Graph<Chat>, ThreadKey) {
    let (graph, key) = (chat(), thread_of("the-tenants-name", "t"));
    graph.run(&key, asks("first?")).await.unwrap();
    graph.resume(&key).answer::<Confirm>(&true).await.unwrap();
    graph.fork(&key, At::Seq(Seq(2)), "aside").await.unwrap();
    graph.switch(&key, MAIN).await.unwrap();
    let outcome = graph.run(&key, asks("second?")).await.unwrap();
    assert!(matches!(outcome, Outcome::Asked(_)), "{outcome:?}");
    (graph, key)
}

#[tokio::test]
async fn a_thread_that_was_imported_is_exported_as_it_was() {
    let (graph, key) = waiting().await;
    let exported = lines(&graph, &key).await;
    let (other, copy) = (chat(), thread("imported"));
    other.import(&copy, &exported).await.unwrap();
    assert_eq!(lines(&other, &copy).await, exported);
    assert_eq!(
        other.history(&copy, Page::default()).await.unwrap(),
        graph.history(&key, Page::default()).await.unwrap()
    );
    assert_eq!(
        other.state(&copy, At::Head).await.unwrap(),
        graph.state(&key, At::Head).await.unwrap()
    );
}

#[tokio::test]
async fn a_thread_that_was_thinned_reads_replays_and_goes_on_as_before_also_where_it_is_imported() {
    let (graph, key) = waiting().await;
    let store = Arc::new(Memory::new());
    let graph = {
        let lines = lines(&graph, &key).await;
        let kept = chat().shared_checkpointer(store.clone());
        kept.import(&key, lines).await.unwrap();
        kept
    };
    let head = graph.state(&key, At::Head).await.unwrap().unwrap();
    store.tag(&key, "here", Some(Seq(5))).await.unwrap();
    let tagged = graph.state(&key, At::Seq(Seq(5))).await.unwrap().unwrap();
    let thinned = checkpoint::thin(&*store, &key, Keep::last(2), DateTime::UNIX_EPOCH)
        .await
        .unwrap();
    assert!(thinned.removed > 2 && thinned.rebased > 1, "{thinned:?}");
    let (other, copy) = (chat(), thread("imported"));
    let exported = lines(&graph, &key).await;
    other.import(&copy, &exported).await.unwrap();

    let ids = async |graph: &Graph<Chat>, key: &ThreadKey| {
        let history = graph.history(key, Page::default()).await.unwrap();
        let parent = |at: Option<Seq>| history.iter().find(|entry| Some(entry.seq) == at).map(|entry| entry.id);
        history
            .iter()
            .map(|entry| (entry.id, parent(entry.parent)))
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&other, &copy).await, ids(&graph, &key).await);
    for (graph, key) in [(&graph, &key), (&other, &copy)] {
        let now = graph.state(key, At::Head).await.unwrap().unwrap();
        assert_eq!((&now.state, &now.questions), (&head.state, &head.questions));
        let at = graph.state(key, At::Id(tagged.entry.id)).await.unwrap().unwrap();
        assert_eq!(at.state, tagged.state);
        let replayed = graph.replay(key).bodies().await.unwrap();
        assert_eq!(replayed.divergence, None, "{replayed}");
        let outcome = graph.resume(key).answer::<Confirm>(&false).await.unwrap();
        assert_eq!(outcome.done().unwrap().said.len(), 8);
    }
    assert!(exported.iter().any(|line| line.contains("\"tags\"")));
}

#[tokio::test]
async fn an_imported_thread_is_replayed_and_goes_on_where_it_was() {
    let (graph, key) = waiting().await;
    let (other, copy) = (chat(), thread("imported"));
    other.import(&copy, lines(&graph, &key).await).await.unwrap();
    let replayed = other.replay(&copy).bodies().await.unwrap();
    assert_eq!(replayed.divergence, None, "{replayed}");
    assert!(replayed.bodies > 8, "{} bodies", replayed.bodies);
    let outcome = other.resume(&copy).answer::<Confirm>(&false).await.unwrap();
    assert_eq!(outcome.done().unwrap().said.len(), 8);
    let replayed = other.replay(&copy).bodies().await.unwrap();
    assert_eq!(replayed.divergence, None, "{replayed}");
}

#[tokio::test]
async fn lines_can_be_read_and_do_not_say_whose_they_are() {
    let (graph, key) = waiting().await;
    let lines = lines(&graph, &key).await;
    assert!(lines.iter().all(|line| !line.contains("the-tenants-name")));
    assert!(
        lines[0].starts_with(r#"{"export":{"format":1,"graph":"chat""#),
        "{}",
        lines[0]
    );
    assert!(lines[2].contains(r#""question":"first?""#), "{}", lines[2]);
    assert!(
        lines.iter().any(|line| line.contains(r#"{"$f32":"0.34"}"#)),
        "{lines:?}"
    );
    let unread: Vec<_> = lines.iter().filter(|line| line.contains(r#"{"bytes":"#)).collect();
    assert!(unread.is_empty(), "all of it can be read: {unread:?}");
}

#[tokio::test]
async fn what_cannot_be_imported_is_refused_and_leaves_nothing_behind() {
    let (graph, key) = waiting().await;
    let whole = lines(&graph, &key).await;
    let taken = graph.import(&key, &whole).await.unwrap_err();
    assert_eq!(taken.code(), "transfer::exists", "{taken}");
    let copy = thread("copy");
    let refused = async |lines: Vec<String>| {
        let error = graph.import(&copy, lines).await.unwrap_err();
        assert_eq!(graph.state(&copy, At::Head).await.unwrap(), None, "{error}");
        error
    };
    let changed = |line: usize, from: &str, to: &str| {
        let mut lines = whole.clone();
        assert!(lines[line].contains(from));
        lines[line] = lines[line].replacen(from, to, 1);
        lines
    };
    let format = refused(changed(0, r#""format":1"#, r#""format":2"#)).await;
    assert!(matches!(format, TransferError::Format { found: 2 }), "{format}");
    let other = refused(changed(0, r#""graph":"chat""#, r#""graph":"other""#)).await;
    assert!(matches!(other, TransferError::OtherGraph { .. }), "{other}");
    let mut lines = whole.clone();
    lines.remove(3);
    let gap = refused(lines).await;
    assert!(matches!(gap, TransferError::Line { line: 4, .. }), "{gap}");
    let cut = refused(vec![whole[0].clone(), whole[1].clone(), whole[2][..40].to_owned()]).await;
    assert!(matches!(cut, TransferError::Line { line: 3, .. }), "{cut}");
    for (lines, at) in [(Vec::new(), 1), (vec![whole[0].clone()], 2), (whole[1..].to_vec(), 1)] {
        let error = refused(lines).await;
        assert!(
            matches!(error, TransferError::Line { line, .. } if line == at),
            "{error}"
        );
    }
    graph.import(&copy, &whole).await.unwrap();
}

#[tokio::test]
async fn a_copy_is_a_thread_of_its_own() {
    let (graph, key) = waiting().await;
    let copy = graph.copy(&key, &ThreadId::new("copy").unwrap()).await.unwrap();
    assert_eq!(lines(&graph, &copy).await, lines(&graph, &key).await);
    graph.resume(&copy).answer::<Confirm>(&true).await.unwrap();
    assert_eq!(
        graph.state(&key, At::Head).await.unwrap().unwrap().questions.len(),
        1,
        "still asked"
    );
    let taken = graph.copy(&key, &copy.thread).await.unwrap_err();
    assert_eq!(taken.code(), "transfer::exists", "{taken}");
    let unknown = graph
        .copy(&thread("never"), &ThreadId::new("other").unwrap())
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), "run::unknown_thread", "{unknown}");
}
