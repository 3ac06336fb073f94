//! What a file holds of sealed threads, and what damage to it does.

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use stepgraph_checkpoint::{Durability, Sqlite, SqliteOptions};

use super::*;

pub(super) async fn open(file: &Path) -> Sqlite {
    let options = SqliteOptions::default().durability(Durability::Normal);
    Sqlite::open_with(file, options).await.unwrap()
}

#[tokio::test]
async fn sealed_sqlite_holds_to_every_fact() {
    let folder = tempfile::tempdir().unwrap();
    let count = AtomicU32::new(0);
    let make = async || {
        let file = format!("{}.db", count.fetch_add(1, Ordering::Relaxed));
        Sealed::new(open(&folder.path().join(file)).await, one())
    };
    let report = conformance::check(make).await;
    assert!(report.passed(), "{report}");
}

#[tokio::test]
async fn what_sealed_sqlite_keeps_it_keeps_over_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let report =
        conformance::check_kept(async |name: &str| Sealed::new(open(&folder.path().join(name)).await, one())).await;
    assert!(report.passed(), "{report}");
}

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Refund {
    #[state(input)]
    who: String,
    paid: Option<String>,
}

#[derive(Serialize, Ask)]
#[ask(name = "approve", answer = String)]
struct Approve {
    who: String,
}

/// Runs a graph that uses everything that is kept, and gives the bytes of every file of the store.
async fn files<S: Checkpointer>(folder: &Path, seal: impl FnOnce(Sqlite) -> S) -> Vec<u8> {
    let store = seal(Sqlite::open(folder.join("t.db")).await.unwrap());
    let mut g = Graph::<Refund>::builder("refund");
    let pay = g.node("pay", |refund: Arc<Refund>, ctx: Context<()>| async move {
        let receipt: String = ctx
            .once(
                "card-of-jane",
                Effect::idempotent(|_| async { Ok("receipt-4711".to_owned()) }),
            )
            .await?;
        let answer = ctx.ask(Approve {
            who: format!("question-about-{}", refund.who),
        })?;
        if answer == "answer-is-yes" {
            return Err(NodeError::terminal("error-of-the-bank"));
        }
        Ok(Refund::update().paid(receipt))
    });
    g.edge(START, pay).edge(pay, END);
    let graph = g.build().unwrap().checkpointer(store);
    let key = key("acme", "t");
    let input = RefundInput {
        who: "jane-in-the-state".to_owned(),
    };
    let asked = graph.run(&key, input).await.unwrap();
    assert!(matches!(asked, Outcome::Asked(_)));
    let failed = graph.resume(&key).answers(Answers::One(json!("answer-is-yes"))).await;
    assert!(failed.is_err());
    let files = std::fs::read_dir(folder).unwrap();
    files
        .flat_map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect()
}

const PLAIN: [&str; 6] = [
    "jane-in-the-state",
    "card-of-jane",
    "receipt-4711",
    "question-about",
    "answer-is-yes",
    "error-of-the-bank",
];

#[tokio::test]
async fn no_file_of_a_sealed_store_holds_a_word_of_what_the_thread_does() {
    let folder = tempfile::tempdir().unwrap();
    let plain = files(folder.path(), |store| store).await;
    // What is looked for is found where nothing is sealed.
    for text in PLAIN {
        assert!(contains(&plain, text), "{text}");
    }
    let folder = tempfile::tempdir().unwrap();
    let sealed = files(folder.path(), |store| Sealed::new(store, one())).await;
    for text in PLAIN {
        assert!(!contains(&sealed, text), "{text}");
    }
    // Names are labels, and stay.
    assert!(contains(&sealed, "refund"));
}
