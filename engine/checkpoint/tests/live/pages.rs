//! A thread in Redis is thinned in calls of bounded work, however long it is.

use stepgraph::{
    Checkpointer, ThreadKey,
    checkpoint::{At, Commit, Epoch, NewCheckpoint, Page, Payload, Seq, Thinning},
};
use stepgraph_checkpoint::Redis;
use stepgraph_live::{Fsync, Redis as Server};

use super::ground::{begun, checkpoint, key, only, opened, scripts, tell};

const LENGTH: u64 = 300;
const AT_ONCE: u32 = 10;

fn delta(number: u64) -> NewCheckpoint {
    NewCheckpoint {
        payload: Payload::Delta(format!("delta {number}").into_bytes().into()),
        ..checkpoint(number)
    }
}

/// A thread of so many deltas upon one snapshot.
async fn chain(store: &Redis, key: &ThreadKey, length: u64) -> Epoch {
    let epoch = begun(store, key).await;
    for number in 2..=length {
        let head = Some(Seq(number - 1));
        store.commit(key, epoch, head, only(delta(number))).await.unwrap();
    }
    epoch
}

/// What makes the head stand on its own and takes out all the others.
async fn all_but_the_head(store: &Redis, key: &ThreadKey) -> Thinning {
    let head = store.get(key, At::Head).await.unwrap().unwrap();
    Thinning {
        removed: (1..head.info.seq.0).map(Seq).collect(),
        rebased: vec![(head.info.seq, head.parts)],
    }
}

/// Every checkpoint that is listed reads, and is what it was.
async fn what_is_left(store: &Redis, key: &ThreadKey) -> Vec<u64> {
    let page = Page {
        before: None,
        limit: 1000,
    };
    let infos = store.list(key, page).await.unwrap();
    for info in &infos {
        let found = store.get(key, At::Seq(info.seq)).await.unwrap().unwrap();
        let parts: Vec<&[u8]> = found.parts.iter().map(|part| &**part).collect();
        assert_eq!(parts.len() as u64, info.seq.0, "{:?}", info.seq);
        let (first, others) = parts.split_first().unwrap();
        assert_eq!(*first, [7; 100], "{:?} begins with a snapshot", info.seq);
        for (number, part) in (2..).zip(others) {
            assert_eq!(*part, format!("delta {number}").as_bytes());
        }
    }
    infos.iter().map(|info| info.seq.0).collect()
}

#[tokio::test]
async fn a_child_at_the_far_end_is_found_page_by_page() {
    let server = Server::start(Fsync::Never).unwrap();
    let store = opened(&server, AT_ONCE).await;
    let key = key("t");
    let epoch = chain(&store, &key, LENGTH).await;
    let fork = Commit {
        parent: Some(Seq(5)),
        ..only(delta(LENGTH + 1))
    };
    store.commit(&key, epoch, Some(Seq(LENGTH)), fork).await.unwrap();
    let six = store.get(&key, At::Seq(Seq(6))).await.unwrap().unwrap().parts;
    let thinning = Thinning {
        rebased: vec![(Seq(6), six)],
        removed: vec![Seq(3), Seq(4), Seq(5)],
    };
    let before = scripts(&server).await;
    let refused = store.thin(&key, thinning).await.unwrap_err();
    assert_eq!(refused.code(), "checkpoint::in_use");
    let calls = scripts(&server).await - before;
    assert!((LENGTH / u64::from(AT_ONCE)..40).contains(&calls), "{calls} calls");
    let all = store
        .list(
            &key,
            Page {
                before: None,
                limit: 1000,
            },
        )
        .await
        .unwrap();
    assert_eq!(all.len() as u64, LENGTH + 1, "nothing is gone");
    let head = store.get(&key, At::Head).await.unwrap().unwrap();
    assert_eq!(head.parts.len(), 6);
}

#[tokio::test]
async fn more_than_a_call_takes_out_is_refused_before_anything_is_gone() {
    let server = Server::start(Fsync::Never).unwrap();
    let store = opened(&server, AT_ONCE).await;
    let key = key("t");
    let epoch = chain(&store, &key, 50).await;
    let all: Vec<u64> = (1..=50).rev().collect();
    let thinning = all_but_the_head(&store, &key).await;
    store.tag(&key, "release", Some(Seq(2))).await.unwrap();
    let refused = store.thin(&key, thinning.clone()).await.unwrap_err();
    assert_eq!(refused.code(), "checkpoint::in_use");
    assert_eq!(what_is_left(&store, &key).await, all);
    store.tag(&key, "release", None).await.unwrap();
    store.branch(&key, epoch, Seq(3), "other").await.unwrap();
    assert!(store.thin(&key, thinning.clone()).await.is_err());
    let (main, rest) = (
        Seq(50),
        Thinning {
            rebased: Vec::new(),
            ..thinning.clone()
        },
    );
    store.branch(&key, epoch, main, "main").await.unwrap();
    store.branch(&key, epoch, main, "other").await.unwrap();
    assert!(store.thin(&key, rest).await.is_err(), "the head stands on one of them");
    assert_eq!(what_is_left(&store, &key).await, all);
    store.thin(&key, thinning).await.unwrap();
    assert_eq!(what_is_left(&store, &key).await, [50]);
}

#[tokio::test]
async fn a_thinning_that_is_cut_off_between_two_pages_leaves_a_thread_that_reads() {
    let server = Server::start(Fsync::Never).unwrap();
    let store = opened(&server, AT_ONCE).await;
    let key = key("t");
    let epoch = chain(&store, &key, LENGTH).await;
    let thinning = all_but_the_head(&store, &key).await;
    let begun_to_go = async { while tell::<u64>(&server, &["ZCARD", "stepgraph:infos:acme/t/"]).await == LENGTH {} };
    tokio::select! {
        biased;
        () = begun_to_go => {}
        done = store.thin(&key, thinning.clone()) => panic!("it ended too soon: {done:?}"),
    }
    let left = what_is_left(&store, &key).await;
    assert!(left.len() > 1 && left.len() < 300, "{} are left", left.len());
    // The thread goes on, and so does the thinning.
    let head = Some(Seq(LENGTH));
    store.commit(&key, epoch, head, only(delta(LENGTH + 1))).await.unwrap();
    store.thin(&key, thinning).await.unwrap();
    assert_eq!(what_is_left(&store, &key).await, [LENGTH + 1, LENGTH]);
}

/// Numbers begin at one again then, and what was looked through is no longer there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_made_anew_while_it_is_looked_through_is_looked_through_again() {
    let server = Server::start(Fsync::Never).unwrap();
    let store = opened(&server, 1).await;
    let key = key("t");
    for _ in 0..20 {
        chain(&store, &key, 20).await;
        let parts = store.get(&key, At::Seq(Seq(6))).await.unwrap().unwrap().parts;
        let thinning = Thinning {
            rebased: vec![(Seq(6), parts)],
            removed: vec![Seq(4), Seq(5)],
        };
        let ((), thinned) = tokio::join!(
            async {
                store.delete(&key).await.unwrap();
                let epoch = chain(&store, &key, 5).await;
                let fork = Commit {
                    parent: Some(Seq(4)),
                    ..only(delta(6))
                };
                store.commit(&key, epoch, Some(Seq(5)), fork).await.unwrap();
                store.commit(&key, epoch, Some(Seq(6)), only(delta(7))).await.unwrap();
                let fork = Commit {
                    parent: Some(Seq(5)),
                    ..only(delta(8))
                };
                store.commit(&key, epoch, Some(Seq(7)), fork).await.unwrap();
            },
            store.thin(&key, thinning),
        );
        if let Err(error) = thinned {
            assert_eq!(error.code(), "checkpoint::in_use");
        }
        for info in store.list(&key, Page::default()).await.unwrap() {
            store.get(&key, At::Seq(info.seq)).await.unwrap().unwrap();
        }
        store.delete(&key).await.unwrap();
    }
}

/// Checkpoints written as the store writes them, by the server itself: so many commits would take too long here.
const FILL: &str = "
    local info = string.match(redis.call('ZRANGE', KEYS[1], 0, 0)[1], '^%d+,%d*,(.*)$')
    for seq = tonumber(ARGV[1]), tonumber(ARGV[2]) do
        redis.call('ZADD', KEYS[1], seq, seq .. ',' .. (seq - 1) .. ',' .. info)
        redis.call('HSET', KEYS[2], seq, 'D' .. (seq - 1) .. '\\ndelta ' .. seq)
    end
    redis.call('HSET', KEYS[3], 'last', ARGV[2], 'head', ARGV[2])";

/// A line of the server's log of slow calls: its number, when, how long, what was said, by whom.
type Slow = (u64, u64, u64, Vec<Vec<u8>>, Vec<u8>, Vec<u8>);

#[tokio::test]
async fn no_call_looks_through_more_than_a_page_of_a_thread_of_a_hundred_thousand() {
    const MANY: u64 = 100_000;
    let server = Server::start(Fsync::Never).unwrap();
    let store = opened(&server, 500).await;
    let key = key("t");
    begun(&store, &key).await;
    let keys = ["infos", "payloads", "thread"].map(|kind| format!("stepgraph:{kind}:acme/t/"));
    let [infos, payloads, thread] = &keys;
    for from in (2..MANY).step_by(5000) {
        let (from, to) = (from.to_string(), MANY.min(from + 4999).to_string());
        let fill = ["EVAL", FILL, "3", infos, payloads, thread, &from, &to];
        let _: Option<String> = tell(&server, &fill).await;
    }
    let parts = store.get(&key, At::Seq(Seq(257))).await.unwrap().unwrap().parts;
    let _: String = tell(&server, &["CONFIG", "SET", "slowlog-log-slower-than", "0"]).await;
    let _: String = tell(&server, &["CONFIG", "SET", "slowlog-max-len", "1000"]).await;
    let before = scripts(&server).await;
    let thinning = Thinning {
        rebased: vec![(Seq(257), parts)],
        removed: (1..=256).map(Seq).collect(),
    };
    store.thin(&key, thinning).await.unwrap();
    let calls = scripts(&server).await - before;
    assert!(calls >= MANY / 500 - 1, "{calls} calls");
    let slow: Vec<Slow> = tell(&server, &["SLOWLOG", "GET", "1000"]).await;
    let took = slow
        .iter()
        .filter(|(_, _, _, said, ..)| said.first().is_some_and(|name| name.eq_ignore_ascii_case(b"evalsha")));
    let longest = took.map(|(_, _, micros, ..)| *micros).max().unwrap();
    println!("{calls} calls, the longest of {longest} µs");
    let left = store.get(&key, At::Seq(Seq(300))).await.unwrap().unwrap();
    assert_eq!(left.parts.len(), 300);
    assert_eq!(store.get(&key, At::Seq(Seq(256))).await.unwrap(), None);
}
