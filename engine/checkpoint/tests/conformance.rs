//! Both stores hold to every fact of the suite.

use stepgraph::Memory;
use stepgraph_checkpoint::conformance;

#[tokio::test]
async fn memory_holds_to_every_fact() {
    let report = conformance::check(async || Memory::new()).await;
    println!("{report}");
    assert!(report.passed(), "{report}");
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sqlite_holds_to_every_fact() {
    use std::sync::atomic::{AtomicU32, Ordering};

    use stepgraph_checkpoint::{Durability, Sqlite, SqliteOptions};

    let folder = tempfile::tempdir().unwrap();
    let count = AtomicU32::new(0);
    let make = async || {
        let file = format!("{}.db", count.fetch_add(1, Ordering::Relaxed));
        // What waits for the disk and what does not differ only after a power loss, which no fact can ask for.
        let options = SqliteOptions::default().durability(Durability::Normal);
        Sqlite::open_with(folder.path().join(file), options).await.unwrap()
    };
    let report = conformance::check(make).await;
    println!("{report}");
    assert!(report.passed(), "{report}");
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn what_sqlite_keeps_it_keeps_over_reopening() {
    use stepgraph_checkpoint::{Durability, Sqlite, SqliteOptions};

    let folder = tempfile::tempdir().unwrap();
    let report = conformance::check_kept(async |name: &str| {
        let options = SqliteOptions::default().durability(Durability::Normal);
        Sqlite::open_with(folder.path().join(name), options).await.unwrap()
    })
    .await;
    println!("{report}");
    assert!(report.passed(), "{report}");
}
