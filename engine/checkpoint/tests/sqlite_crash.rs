//! A process killed while it commits leaves whole commits, and all that it had reported.
#![cfg(feature = "sqlite")]
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a test may panic and print")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use stepgraph::{
    Checkpointer, TenantId, ThreadId, ThreadKey,
    checkpoint::{At, CheckpointSource, Commit, NewCheckpoint, OutboxMessage, Payload, RecordKind, Seq, TaskRecord},
};
use stepgraph_checkpoint::Sqlite;
use uuid::Uuid;

/// Set in the child: the file to write to until killed.
const FILE: &str = "STEPGRAPH_CRASH_TEST_FILE";
const REPORT: &str = "committed ";

fn key() -> ThreadKey {
    ThreadKey::new(TenantId::authenticated("acme").unwrap(), ThreadId::new("t").unwrap())
}

/// Step N: a checkpoint, three records at the one before it, and a message.
fn step(number: u64) -> Commit {
    let record = |task: u32| TaskRecord {
        task: format!("task#{task}"),
        kind: RecordKind::Output,
        key: String::new(),
        body: vec![1; 2000].into(),
    };
    Commit {
        parent: None,
        checkpoint: Some(NewCheckpoint {
            id: Uuid::from_u128(number.into()),
            step: i64::try_from(number).unwrap(),
            source: CheckpointSource::Step,
            payload: Payload::Snapshot(vec![2; 3000].into()),
            frontier: Vec::new().into(),
            fingerprint: Uuid::nil(),
            state_version: 1,
            created_at: chrono::DateTime::UNIX_EPOCH,
        }),
        records: if number == 1 {
            Vec::new()
        } else {
            (0..3).map(record).collect()
        },
        run: None,
        outbox: vec![OutboxMessage {
            id: Uuid::from_u128(number.into()),
            topic: "topic".to_owned(),
            body: vec![3; 1000],
        }],
    }
}

async fn commit_until_killed(file: &Path) {
    let store = Sqlite::open(file).await.unwrap();
    let epoch = store.claim(&key()).await.unwrap();
    let mut head = store.get(&key(), At::Head).await.unwrap().map(|found| found.info.seq);
    loop {
        let number = head.map_or(1, |seq| seq.0 + 1);
        head = store.commit(&key(), epoch, head, step(number)).await.unwrap();
        println!("{REPORT}{number}");
    }
}

/// Runs this test's own binary as the writer and kills it after some reports; the last number it reported.
fn write_and_kill(file: &Path, reports: usize) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_writer_leaves_whole_commits", "--nocapture"])
        .env(FILE, file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut numbers = lines.filter_map(|line| line.unwrap().strip_prefix(REPORT).map(|text| text.parse().unwrap()));
    let mut last = numbers.by_ref().take(reports).last();
    child.kill().unwrap();
    // What it reported between the last line read and its end counts too.
    last = numbers.last().or(last);
    child.wait().unwrap();
    last.unwrap()
}

#[tokio::test]
async fn a_killed_writer_leaves_whole_commits() {
    if let Some(file) = std::env::var_os(FILE) {
        return commit_until_killed(Path::new(&file)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.db");
    for reports in [1, 2, 5, 11, 3] {
        let reported = write_and_kill(&file, reports);
        let store = Sqlite::open(&file).await.unwrap();
        let head = store.get(&key(), At::Head).await.unwrap().unwrap().info.seq;
        assert!(head >= Seq(reported), "reported {reported}, found {head:?}");
        for seq in 1..=head.0 {
            let found = store.get(&key(), At::Seq(Seq(seq))).await.unwrap().unwrap();
            assert_eq!(found.records.len(), if seq == head.0 { 0 } else { 3 });
            assert_eq!(found.parts.len(), 1);
        }
        let messages = store.outbox("topic", u32::MAX).await.unwrap();
        assert_eq!(messages.len() as u64, head.0);
    }
}
