//! What a thread takes in a store that needs a server: a thousand appends of one chat message each.

use sqlx::{ConnectOptions as _, postgres::PgConnectOptions};
use stepgraph::{
    Checkpointer, RunId,
    checkpoint::{At, Commit, NewCheckpoint, Payload, RunMark, RunStatus},
};
use stepgraph_checkpoint::{Postgres, Redis};
use stepgraph_live::{Fsync, Redis as Server};
use uuid::Uuid;

use super::ground::{checkpoint, key};

const APPENDS: u64 = 1_000;
/// Tables and indexes of the thread in PostgreSQL.
const POSTGRES_BYTES_MAX: i64 = 600_000;
/// Keys of the thread in Redis, with what the server adds.
const REDIS_BYTES_MAX: i64 = 680_000;

fn message(number: u64) -> Vec<u8> {
    let role = if number.is_multiple_of(2) { "user" } else { "assistant" };
    let content = "lorem ipsum dolor sit amet ".repeat(4);
    format!(r#"[{{"id":"m{number:06}","role":"{role}","content":"{content}"}}]"#).into_bytes()
}

fn append(number: u64) -> Commit {
    let bytes = message(number).into();
    let payload = if number == 0 {
        Payload::Snapshot(bytes)
    } else {
        Payload::Delta(bytes)
    };
    let checkpoint = NewCheckpoint {
        payload,
        id: RunId::random().as_uuid(),
        frontier: b"{\"ready\":[\"generate\"]}".as_slice().into(),
        fingerprint: Uuid::from_u128(u128::MAX / 3),
        ..checkpoint(number)
    };
    Commit {
        checkpoint: Some(checkpoint),
        run: (number == 0).then(|| RunMark {
            run: RunId::random(),
            graph: "chat".into(),
            status: RunStatus::Running,
            error: None,
        }),
        ..Commit::default()
    }
}

async fn appended(store: &dyn Checkpointer) {
    let key = key("t");
    let (epoch, mut head) = (store.claim(&key).await.unwrap(), None);
    for number in 0..APPENDS {
        head = store.commit(&key, epoch, head, append(number)).await.unwrap();
    }
    let parts = store.get(&key, At::Head).await.unwrap().unwrap().parts;
    assert_eq!(parts.len(), usize::try_from(APPENDS).unwrap());
}

#[tokio::test]
async fn a_thousand_appends_take_few_bytes_in_postgres() {
    let url = stepgraph_live::Postgres::shared().unwrap().database().await.unwrap();
    let store = Postgres::open(&url).await.unwrap();
    let mut connection = url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap();
    let size = "SELECT sum(pg_total_relation_size(c.oid))::BIGINT FROM pg_class c \
                JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname = 'public'";
    let empty: i64 = sqlx::query_scalar(size).fetch_one(&mut connection).await.unwrap();
    appended(&store).await;
    let full: i64 = sqlx::query_scalar(size).fetch_one(&mut connection).await.unwrap();
    let bytes = full - empty;
    println!("{bytes} bytes in PostgreSQL for {APPENDS} appends, {empty} before");
    assert!(
        bytes <= POSTGRES_BYTES_MAX,
        "{bytes} bytes, at most {POSTGRES_BYTES_MAX}"
    );
}

#[tokio::test]
async fn a_thousand_appends_take_few_bytes_in_redis() {
    let server = Server::start(Fsync::Never).unwrap();
    let store = Redis::open(&server.url()).await.unwrap();
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    appended(&store).await;
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    let mut bytes = 0;
    for key in &keys {
        let mut usage = redis::cmd("MEMORY");
        // No sampling: each element of a key is looked at.
        usage.arg("USAGE").arg(key).arg("SAMPLES").arg(0);
        bytes += usage.query_async::<i64>(&mut connection).await.unwrap();
    }
    println!("{bytes} bytes in {} keys of Redis for {APPENDS} appends", keys.len());
    assert!(bytes <= REDIS_BYTES_MAX, "{bytes} bytes, at most {REDIS_BYTES_MAX}");
}
