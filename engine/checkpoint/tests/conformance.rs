//! Both stores hold to every fact of the suite.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a test may panic and print")]

use std::sync::atomic::{AtomicU32, Ordering};

use stepgraph::Memory;
use stepgraph_checkpoint::conformance;
#[cfg(feature = "sqlite")]
use stepgraph_checkpoint::{Durability, Sqlite, SqliteOptions};

#[tokio::test]
async fn memory_holds_to_every_fact() {
    let report = conformance::check(async || Memory::new()).await;
    println!("{report}");
    assert!(report.passed(), "{report}");
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sqlite_holds_to_every_fact() {
    let folder = tempfile::tempdir().unwrap();
    let count = AtomicU32::new(0);
    let report = conformance::check(async || {
        let file = format!("{}.db", count.fetch_add(1, Ordering::Relaxed));
        stepgraph_checkpoint::Sqlite::open(folder.path().join(file))
            .await
            .unwrap()
    })
    .await;
    println!("{report}");
    assert!(report.passed(), "{report}");
}
