//! Names and commits for the tests of the stores.

use stepgraph::{
    Checkpointer, TenantId, ThreadId, ThreadKey,
    checkpoint::{
        CheckpointSource, Commit, Epoch, NewCheckpoint, OutboxMessage, Payload, RecordKind, RunMark, RunStatus,
        TaskRecord,
    },
};
use stepgraph_checkpoint::{Redis, RedisOptions};
use uuid::Uuid;

pub(crate) fn key(thread: &str) -> ThreadKey {
    ThreadKey::new(TenantId::authenticated("acme").unwrap(), ThreadId::new(thread).unwrap())
}

pub(crate) fn checkpoint(number: u64) -> NewCheckpoint {
    NewCheckpoint {
        id: Uuid::from_u128(number.into()),
        step: i64::try_from(number).unwrap(),
        source: CheckpointSource::Step,
        payload: Payload::Snapshot(vec![7; 100].into()),
        frontier: b"next".as_slice().into(),
        fingerprint: Uuid::nil(),
        state_version: 1,
        created_at: chrono::DateTime::UNIX_EPOCH,
    }
}

pub(crate) fn only(checkpoint: NewCheckpoint) -> Commit {
    Commit {
        checkpoint: Some(checkpoint),
        ..Commit::default()
    }
}

/// A checkpoint, a record at the one before, a message and the run.
pub(crate) fn everything(number: u64) -> Commit {
    Commit {
        records: vec![TaskRecord {
            task: format!("task {number}"),
            kind: RecordKind::Output,
            key: String::new(),
            body: b"update".as_slice().into(),
        }],
        run: Some(RunMark {
            run: Uuid::from_u128(number.into()).into(),
            graph: "graph".into(),
            status: RunStatus::Running,
            error: None,
        }),
        outbox: vec![OutboxMessage {
            id: Uuid::from_u128(number.into()),
            topic: "topic".to_owned(),
            body: Vec::new(),
        }],
        ..only(checkpoint(number))
    }
}

/// A thread with one checkpoint.
pub(crate) async fn begun(store: &dyn Checkpointer, key: &ThreadKey) -> Epoch {
    let epoch = store.claim(key).await.unwrap();
    store.commit(key, epoch, None, only(checkpoint(1))).await.unwrap();
    epoch
}

/// Says something to a Redis by a connection of its own.
pub(crate) async fn tell<T: redis::FromRedisValue>(server: &stepgraph_live::Redis, command: &[&str]) -> T {
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let (name, values) = command.split_first().unwrap();
    redis::cmd(name).arg(values).query_async(&mut connection).await.unwrap()
}

/// How many scripts it has run.
pub(crate) async fn scripts(server: &stepgraph_live::Redis) -> u64 {
    let stats: String = tell(server, &["INFO", "commandstats"]).await;
    let line = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap()
}

/// A store there whose calls look through so many checkpoints, or take out so many, at a time.
pub(crate) async fn opened(server: &stepgraph_live::Redis, at_once: u32) -> Redis {
    let options = RedisOptions::default().at_once_max(at_once);
    Redis::open_with(&server.url(), &options).await.unwrap()
}
