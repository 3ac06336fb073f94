//! A file as an earlier release has left it goes on.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::{borrow::Cow, path::Path};

use sqlx::{ConnectOptions, SqliteConnection, migrate::Migrator, sqlite::SqliteConnectOptions};
use stepgraph::{
    Checkpointer, TenantId, ThreadId, ThreadKey,
    checkpoint::{self, At, CheckpointSource, Commit, Keep, NewCheckpoint, Page, Payload, Seq},
};
use stepgraph_checkpoint::Sqlite;
use uuid::Uuid;

async fn raw(file: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .pragma("journal_mode", "WAL");
    options.connect().await.unwrap()
}

/// The tables of before rows said only what differs, with a thread of three checkpoints, two of them on a branch.
async fn second_layout(file: &Path) {
    const ROWS: &str = "
        INSERT INTO checkpoint_threads (number, tenant, thread, namespace, epoch, last, head, run, graph, status, branch)
        VALUES (1, 'acme', 't', '', 1, 3, 3, x'0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a', 'graph', 'stopped', 'retry');
        INSERT INTO checkpoint_epochs (only, last) VALUES (1, 1) ON CONFLICT DO UPDATE SET last = 1;
        INSERT INTO checkpoint_branches (thread, name, seq) VALUES (1, 'main', 2);
        INSERT INTO checkpoints VALUES
        (1, 1, NULL, x'01010101010101010101010101010101', -1, 'input', x'0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a', 1,
         x'0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f', 2, 1763000000000001, x'66', x'736e617073686f74'),
        (1, 2, 1, x'02020202020202020202020202020202', 1, 'step', x'0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a', 0,
         x'0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f', 2, 1763000000000002, x'66', x'64656c746132'),
        (1, 3, 1, x'03030303030303030303030303030303', 1, 'fork', NULL, 0,
         x'0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f', 2, 1763000000000003, x'6767', x'64656c746133');
        INSERT INTO checkpoint_records VALUES (1, 3, 'a', 'output', '', x'75');";
    layout(file, 2, ROWS).await;
}

/// A file of so many migrations, with rows.
async fn layout(file: &Path, migrations: usize, rows: &'static str) {
    let mut migrator = sqlx::migrate!("./migrations");
    migrator.migrations = Cow::Owned(migrator.iter().take(migrations).cloned().collect());
    let mut migrator = Migrator { ..migrator };
    migrator.dangerous_set_table_name("checkpoint_migrations");
    let mut connection = raw(file).await;
    migrator.run_direct(None, &mut connection, false).await.unwrap();
    sqlx::raw_sql(rows).execute(&mut connection).await.unwrap();
}

#[tokio::test]
async fn a_file_of_the_second_layout_reads_as_it_was_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.db");
    second_layout(&file).await;
    let key = ThreadKey::new(TenantId::authenticated("acme").unwrap(), ThreadId::new("t").unwrap());

    let store = Sqlite::open(&file).await.unwrap();

    let infos = store.list(&key, Page::default()).await.unwrap();
    let told: Vec<_> = infos
        .iter()
        .map(|info| {
            (
                info.seq,
                info.parent,
                info.step,
                info.source,
                info.created_at.timestamp_micros(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (Seq(3), Some(Seq(1)), 1, CheckpointSource::Fork, 1_763_000_000_000_003),
            (Seq(2), Some(Seq(1)), 1, CheckpointSource::Step, 1_763_000_000_000_002),
            (Seq(1), None, -1, CheckpointSource::Input, 1_763_000_000_000_001),
        ]
    );
    let head = store.get(&key, At::Head).await.unwrap().unwrap();
    assert_eq!(head.info.id, Uuid::from_bytes([3; 16]));
    assert_eq!((head.info.run, head.info.state_version), (None, 2));
    assert_eq!(head.parts, [b"snapshot".as_slice().into(), b"delta3".as_slice().into()]);
    assert_eq!((head.records.len(), head.run.unwrap().graph), (1, "graph".into()));

    let epoch = store.claim(&key).await.unwrap();
    let next = NewCheckpoint {
        id: Uuid::from_bytes([4; 16]),
        step: 2,
        source: CheckpointSource::Step,
        payload: Payload::Delta(b"delta4".as_slice().into()),
        frontier: b"gg".as_slice().into(),
        fingerprint: Uuid::from_bytes([15; 16]),
        state_version: 2,
        created_at: chrono::DateTime::from_timestamp_micros(1_763_000_000_000_004).unwrap(),
    };
    let commit = Commit {
        checkpoint: Some(next),
        ..Commit::default()
    };
    assert_eq!(
        store.commit(&key, epoch, Some(Seq(3)), commit).await.unwrap(),
        Some(Seq(4))
    );
    let before = store.get(&key, At::Head).await.unwrap().unwrap();

    let now = chrono::DateTime::from_timestamp_micros(1_763_000_000_000_005).unwrap();

    // What the newest has of an older one, which goes, it says itself then.
    let thinned = checkpoint::thin(&store, &key, Keep::last(1), now).await.unwrap();

    assert_eq!(
        thinned.removed, 2,
        "the input, and the fork; the other branch keeps its head"
    );
    let after = store.get(&key, At::Head).await.unwrap().unwrap();
    assert_eq!(after.parts, before.parts);
    assert_eq!(
        (after.info.id, after.info.created_at),
        (before.info.id, before.info.created_at)
    );
    assert_eq!(
        (after.info.run, after.info.frontier),
        (before.info.run, before.info.frontier)
    );
}

/// A thread of before large values were kept apart: a line of parts in one row, and a delta upon it.
#[tokio::test]
async fn a_file_of_the_third_layout_reads_as_it_was_and_takes_large_values_from_then_on() {
    const ROWS: &str = "
        INSERT INTO checkpoint_threads (number, tenant, thread, namespace, epoch, last, head, branch)
        VALUES (1, 'acme', 't', '', 1, 2, 2, 'main');
        UPDATE checkpoint_epochs SET last = 1;
        INSERT INTO checkpoint_rows VALUES
        (1, 1, 0, 0, 2, 1, -1, 1763000000000001, 1, NULL, x'0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f',
         x'01010101010101010101010101010101', x'66', x'0500000077686f6c65040000006d6f7265'),
        (1, 2, 1, 1, 0, 0, 1, 1, NULL, NULL, NULL, x'02020202020202020202020202020202', NULL, x'6368616e6765');";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.db");
    layout(&file, 3, ROWS).await;
    let key = ThreadKey::new(TenantId::authenticated("acme").unwrap(), ThreadId::new("t").unwrap());

    let store = Sqlite::open(&file).await.unwrap();

    let old = store.get(&key, At::Head).await.unwrap().unwrap();
    let parts = [b"whole".as_slice(), b"more", b"change"].map(Into::into);
    assert_eq!(old.parts, parts);
    let epoch = store.claim(&key).await.unwrap();
    let text = b"a long text of many words ".repeat(1_000);
    let next = NewCheckpoint {
        id: Uuid::from_bytes([4; 16]),
        step: 2,
        source: CheckpointSource::Step,
        payload: Payload::Delta(text.clone().into()),
        frontier: b"f".as_slice().into(),
        fingerprint: Uuid::from_bytes([15; 16]),
        state_version: 1,
        created_at: chrono::DateTime::from_timestamp_micros(1_763_000_000_000_004).unwrap(),
    };
    let commit = Commit {
        checkpoint: Some(next),
        ..Commit::default()
    };
    store.commit(&key, epoch, Some(Seq(2)), commit).await.unwrap();
    let values = "SELECT count(*) FROM checkpoint_values";
    let values: i64 = sqlx::query_scalar(values)
        .fetch_one(&mut raw(&file).await)
        .await
        .unwrap();
    assert_eq!(values, 1);
    let now = chrono::DateTime::from_timestamp_micros(1_763_000_000_000_005).unwrap();
    checkpoint::thin(&store, &key, Keep::last(1), now).await.unwrap();
    let new = store.get(&key, At::Head).await.unwrap().unwrap();
    assert_eq!(new.parts, [&parts[..], &[text.into()]].concat());
}
