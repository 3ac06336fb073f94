//! What holds for the Redis store beyond the facts of every store.

use std::time::Duration;

use stepgraph::{
    Checkpointer,
    checkpoint::{At, Page, Seq, StoreDurability},
};
use stepgraph_checkpoint::{Redis, RedisOptions};
use stepgraph_live::{Fsync, Redis as Server, Tools};

use super::ground::{begun, checkpoint, everything, key, only, tell};

fn server_with(fsync: Fsync, more: &[&str]) -> Server {
    Server::start_with(&Tools::of("redis-server").unwrap(), fsync, more).unwrap()
}

#[tokio::test]
async fn a_thread_survives_the_death_of_the_server_and_the_connection_is_made_again() {
    let mut server = Server::start(Fsync::Always).unwrap();
    let store = Redis::open(&server.url()).await.unwrap();
    let key = key("t");
    let epoch = begun(&store, &key).await;
    store.commit(&key, epoch, Some(Seq(1)), everything(2)).await.unwrap();
    let before = store.get(&key, At::Head).await.unwrap();
    server.kill().unwrap();
    server.start_again().unwrap();
    assert_eq!(
        store.get(&key, At::Head).await.unwrap(),
        before,
        "read by the old store"
    );
    server.kill().unwrap();
    server.start_again().unwrap();
    let head = store
        .commit(&key, epoch, Some(Seq(2)), only(checkpoint(3)))
        .await
        .unwrap();
    assert_eq!(head, Some(Seq(3)), "written by the old store");
    let anew = Redis::open(&server.url()).await.unwrap();
    assert_eq!(anew.list(&key, Page::default()).await.unwrap().len(), 3);
    assert!(anew.claim(&key).await.unwrap() > epoch);
}

#[tokio::test]
async fn an_epoch_is_not_given_twice_even_if_the_server_has_forgotten_the_newest() {
    let mut server = Server::start(Fsync::Never).unwrap();
    let options = RedisOptions::default();
    let store = Redis::open_with(&server.url(), &options).await.unwrap();
    let old = store.claim(&key("t")).await.unwrap();
    server.kill().unwrap();
    server.start_again().unwrap();
    let new = store.claim(&key("t")).await.unwrap();
    assert!(new > old);
    let late = store
        .commit(&key("t"), old, None, only(checkpoint(1)))
        .await
        .unwrap_err();
    assert_eq!(late.code(), "checkpoint::fenced");
}

#[tokio::test]
async fn a_server_that_is_down_is_unavailable() {
    let mut server = Server::start(Fsync::Never).unwrap();
    let options = RedisOptions::default()
        .reconnects_max(1)
        .connect_timeout(Duration::from_secs(1));
    let store = Redis::open_with(&server.url(), &options).await.unwrap();
    let key = key("t");
    let epoch = begun(&store, &key).await;
    server.kill().unwrap();
    let down = store
        .commit(&key, epoch, Some(Seq(1)), everything(2))
        .await
        .unwrap_err();
    assert_eq!(down.code(), "checkpoint::unavailable");
    assert!(
        down.is_retryable() && down.to_string().contains("look after the server"),
        "{down}"
    );
    let never = Redis::open_with(&server.url(), &options).await.unwrap_err();
    assert!(never.is_retryable(), "{never}");
}

#[tokio::test]
async fn a_server_that_keeps_silent_is_waited_for_within_the_limit() {
    let server = Server::start(Fsync::Never).unwrap();
    let options = RedisOptions::default().answer_timeout(Duration::from_secs(1));
    let store = Redis::open_with(&server.url(), &options).await.unwrap();
    let key = key("t");
    let epoch = begun(&store, &key).await;
    let _: String = tell(&server, &["CLIENT", "PAUSE", "20000"]).await;
    let silent = store
        .commit(&key, epoch, Some(Seq(1)), everything(2))
        .await
        .unwrap_err();
    assert!(
        silent.is_retryable() && silent.to_string().contains("answer_timeout"),
        "{silent}"
    );
}

#[tokio::test]
async fn the_server_s_settings_say_what_the_store_promises() {
    for (fsync, more, promised) in [
        (Fsync::Always, &[] as &[&str], StoreDurability::Machine),
        (
            Fsync::Always,
            &["--no-appendfsync-on-rewrite", "yes"],
            StoreDurability::Process,
        ),
        (Fsync::EverySecond, &[], StoreDurability::Process),
        (Fsync::Never, &[], StoreDurability::Process),
        // A hosted server that does not let its settings be read.
        (
            Fsync::Always,
            &["--rename-command", "CONFIG", ""],
            StoreDurability::Process,
        ),
    ] {
        let server = server_with(fsync, more);
        let store = Redis::open(&server.url()).await.unwrap();
        assert_eq!(store.durability(), promised, "{fsync:?} {more:?}");
    }
}

#[tokio::test]
async fn a_server_that_would_lose_parts_of_threads_is_refused() {
    let server = server_with(
        Fsync::Never,
        &["--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"],
    );
    let refused = Redis::open(&server.url()).await.unwrap_err().to_string();
    assert!(refused.contains("noeviction"), "{refused}");
    let replica = server_with(Fsync::Never, &["--replicaof", "127.0.0.1", "1"]);
    let refused = Redis::open(&replica.url()).await.unwrap_err().to_string();
    assert!(refused.contains("primary"), "{refused}");
    let cluster = server_with(Fsync::Never, &["--cluster-enabled", "yes"]);
    let refused = Redis::open(&cluster.url()).await.unwrap_err().to_string();
    assert!(refused.contains("cluster"), "{refused}");
}

#[tokio::test]
async fn a_full_server_is_said_writes_nothing_and_goes_on_once_there_is_room() {
    let server = server_with(
        Fsync::Never,
        &["--maxmemory", "4mb", "--maxmemory-policy", "noeviction"],
    );
    let store = Redis::open(&server.url()).await.unwrap();
    let (first, second) = (key("first"), key("second"));
    let epoch = begun(&store, &first).await;
    let other = begun(&store, &second).await;
    let big = |number| {
        let mut commit = everything(number);
        commit.outbox[0].body = vec![1; 500_000];
        commit
    };
    let (mut head, mut full) = (Some(Seq(1)), None);
    for number in 2..50 {
        match store.commit(&first, epoch, head, big(number)).await {
            Ok(new) => head = new,
            Err(error) => {
                full = Some(error);
                break;
            }
        }
    }
    let full = full.unwrap();
    assert_eq!(full.code(), "checkpoint::full", "{full}");
    assert!(full.is_retryable());
    let kept = store.get(&first, At::Head).await.unwrap().unwrap();
    assert_eq!(
        (Some(kept.info.seq), kept.records.len()),
        (head, 0),
        "nothing of the refused commit"
    );
    assert_eq!(
        store.outbox("topic", 100).await.unwrap().len() as u64,
        head.unwrap().0 - 1
    );
    store.delete(&first).await.unwrap();
    store.commit(&second, other, Some(Seq(1)), everything(2)).await.unwrap();
}

#[tokio::test]
async fn keys_of_a_later_release_are_refused() {
    let server = Server::start(Fsync::Never).unwrap();
    drop(Redis::open(&server.url()).await.unwrap());
    let _: String = tell(&server, &["SET", "stepgraph:version", "9999"]).await;
    let refused = Redis::open(&server.url()).await.unwrap_err().to_string();
    assert!(refused.contains("another release (version 9999"), "{refused}");
}

#[tokio::test]
async fn stores_of_two_prefixes_know_nothing_of_each_other_and_deleting_leaves_no_key() {
    let server = Server::start(Fsync::Never).unwrap();
    let url = server.url();
    let one = Redis::open_with(&url, &RedisOptions::default().prefix("one:"))
        .await
        .unwrap();
    let two = Redis::open_with(&url, &RedisOptions::default().prefix("two:"))
        .await
        .unwrap();
    let key = key("t");
    let inner = key.child("host");
    for key in [&key, &inner] {
        let epoch = begun(&one, key).await;
        one.commit(key, epoch, Some(Seq(1)), everything(2)).await.unwrap();
        one.branch(key, epoch, Seq(1), "retry").await.unwrap();
    }
    assert_eq!(two.get(&key, At::Head).await.unwrap(), None);
    assert_eq!(two.outbox("topic", 10).await.unwrap(), []);
    one.delete(&key).await.unwrap();
    let mut left: Vec<String> = tell(&server, &["KEYS", "*"]).await;
    left.sort();
    assert_eq!(left, ["one:epoch", "one:version", "two:version"]);
}

#[tokio::test]
async fn what_makes_no_sense_is_named_and_not_guessed() {
    let server = Server::start(Fsync::Never).unwrap();
    let store = Redis::open(&server.url()).await.unwrap();
    let damages: [&[&str]; 4] = [
        &["ZADD", "stepgraph:infos:acme/0/", "1", "1,,0,nonsense"],
        &["HDEL", "stepgraph:payloads:acme/1/", "1"],
        &["HSET", "stepgraph:records:1:acme/2/", "nonsense,0,", ""],
        &["HSET", "stepgraph:thread:acme/3/", "status", "nonsense"],
    ];
    for (number, damage) in damages.iter().enumerate() {
        let key = key(&number.to_string());
        let epoch = begun(&store, &key).await;
        store.commit(&key, epoch, Some(Seq(1)), everything(2)).await.unwrap();
        if number == 0 {
            let _: i64 = tell(&server, &["ZREMRANGEBYSCORE", "stepgraph:infos:acme/0/", "1", "1"]).await;
        }
        let _: i64 = tell(&server, damage).await;
        let found = store.get(&key, At::Seq(Seq(1))).await.unwrap_err();
        assert_eq!(found.code(), "checkpoint::corrupt", "{damage:?}: {found}");
        assert!(found.to_string().contains("acme/"), "{found}");
    }
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_without_its_password() {
    let refused = Redis::open("redis://user:s3cret@[").await.unwrap_err();
    assert!(!format!("{refused} {refused:?}").contains("s3cret"), "{refused:?}");
    assert!(refused.to_string().contains("write `redis://"), "{refused}");
}

#[tokio::test]
async fn two_hundred_threads_are_written_side_by_side_and_each_verb_is_one_call() {
    let server = Server::start(Fsync::Never).unwrap();
    let store = Redis::open(&server.url()).await.unwrap();
    let threads = (0..200).map(|number| {
        let (store, key) = (&store, key(&format!("t{number}")));
        async move {
            let epoch = begun(store, &key).await;
            for number in 2..=10 {
                store
                    .commit(&key, epoch, Some(Seq(number - 1)), everything(number))
                    .await
                    .unwrap();
            }
            assert_eq!(store.get(&key, At::Head).await.unwrap().unwrap().info.seq, Seq(10));
        }
    });
    futures_util::future::join_all(threads).await;
    assert_eq!(store.unfinished("graph", 1000).await.unwrap().len(), 200);
    let stats: String = tell(&server, &["INFO", "commandstats"]).await;
    let calls = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next());
    // The look at the version; a claim, ten commits and one reading for each thread.
    assert_eq!(calls, Some((1 + 200 * 12).to_string().as_str()));
}
