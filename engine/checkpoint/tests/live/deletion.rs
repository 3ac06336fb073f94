//! A thread in Redis is deleted in calls of bounded work, and is gone from the first of them on.

use stepgraph::{
    Checkpointer, Namespace, ThreadKey,
    checkpoint::{At, Epoch, Page, Seq},
};
use stepgraph_checkpoint::Redis;
use stepgraph_live::{Fsync, Redis as Server, Tools};

use super::ground::{begun, checkpoint, everything, key, only, opened, scripts, tell};

const LENGTH: u64 = 200;

/// A thread of so many checkpoints with a record and a message each, a branch, a tag, and a graph inside.
async fn filled(store: &Redis, key: &ThreadKey) -> Epoch {
    let epoch = begun(store, key).await;
    for number in 2..=LENGTH {
        let head = Some(Seq(number - 1));
        store.commit(key, epoch, head, everything(number)).await.unwrap();
    }
    store.branch(key, epoch, Seq(7), "other").await.unwrap();
    store.tag(key, "release", Some(Seq(8))).await.unwrap();
    begun(store, &key.child("host")).await;
    epoch
}

/// Begins to delete and is dropped as soon as the thread is being deleted, as a process that dies.
async fn cut_off(store: &Redis, server: &Server, key: &ThreadKey) {
    let name = format!("{}/{}", key.tenant.as_str(), key.thread.as_str());
    let seen = async {
        let grave = ["ZSCORE", "stepgraph:graves", &name];
        while tell::<Option<String>>(server, &grave).await.is_none() {}
    };
    tokio::select! {
        biased;
        () = seen => {}
        done = store.delete(key) => panic!("the deletion ended too soon: {done:?}"),
    }
    let left: u64 = tell(server, &["ZCARD", &format!("stepgraph:infos:{name}/")]).await;
    assert!(left > 0, "something is left to be taken out");
}

async fn left(server: &Server) -> Vec<String> {
    let mut left: Vec<String> = tell(server, &["KEYS", "*"]).await;
    left.sort();
    left
}

const NOTHING: [&str; 2] = ["stepgraph:epoch", "stepgraph:version"];

#[tokio::test]
async fn a_thread_whose_deletion_was_cut_off_is_gone_for_readers_and_writers() {
    let server = Server::start(Fsync::Never).unwrap();
    let store = opened(&server, 1).await;
    let (key, other) = (key("t"), key("t2"));
    let epoch = filled(&store, &key).await;
    let kept = begun(&store, &other).await;
    store.commit(&other, kept, Some(Seq(1)), everything(2)).await.unwrap();
    cut_off(&store, &server, &key).await;

    for at in [At::Head, At::Seq(Seq(LENGTH)), At::Id(checkpoint(LENGTH).id)] {
        assert_eq!(store.get(&key, at).await.unwrap(), None, "{at:?}");
    }
    let inner = key.child("host");
    assert_eq!(store.get(&inner, At::Head).await.unwrap(), None);
    assert_eq!(store.list(&key, Page::default()).await.unwrap(), []);
    assert_eq!(store.list(&inner, Page::default()).await.unwrap(), []);
    assert_eq!(store.branches(&key).await.unwrap(), []);
    assert_eq!(store.tags(&key).await.unwrap(), []);
    assert_eq!(store.inner(&key, &Namespace::ROOT, 10).await.unwrap(), []);
    let threads = store.threads(&key.tenant, None, 10).await.unwrap();
    assert_eq!(threads, std::slice::from_ref(&other.thread));
    let unfinished = store.unfinished("graph", 10).await.unwrap();
    assert_eq!(unfinished, std::slice::from_ref(&other));
    // Its messages stand before the other's, and are passed over.
    let messages = store.outbox("topic", 1).await.unwrap();
    assert_eq!(messages.first().map(|(key, _)| key), Some(&other));

    for (wanted, said) in [
        (
            "checkpoint::fenced",
            store
                .commit(&key, epoch, Some(Seq(LENGTH)), only(checkpoint(999)))
                .await
                .map(drop),
        ),
        ("checkpoint::fenced", store.branch(&key, epoch, Seq(150), "third").await),
        (
            "checkpoint::no_checkpoint",
            store.tag(&key, "late", Some(Seq(150))).await,
        ),
    ] {
        assert_eq!(said.unwrap_err().code(), wanted);
    }
    store.delete(&key).await.unwrap();
    store.delete(&other).await.unwrap();
    assert_eq!(left(&server).await, NOTHING);
}

#[tokio::test]
async fn who_claims_the_name_ends_the_deletion_and_begins_anew() {
    let server = Server::start(Fsync::Never).unwrap();
    let store = opened(&server, 1).await;
    let key = key("t");
    let old = filled(&store, &key).await;
    cut_off(&store, &server, &key).await;
    let new = begun(&store, &key).await;
    assert!(new > old);
    let head = store.get(&key, At::Head).await.unwrap().unwrap();
    assert_eq!((head.info.seq, head.records.len()), (Seq(1), 0));
    assert_eq!(store.outbox("topic", 10).await.unwrap(), []);
    let kinds = ["ids", "infos", "payloads", "thread"].map(|kind| format!("stepgraph:{kind}:acme/t/"));
    let lists = ["epoch", "inside:acme/t", "threads:acme", "version"].map(|kind| format!("stepgraph:{kind}"));
    let mut wanted: Vec<String> = kinds.into_iter().chain(lists).collect();
    wanted.sort();
    assert_eq!(left(&server).await, wanted);
}

#[tokio::test]
async fn the_next_opening_ends_a_deletion_that_was_cut_off_and_so_does_the_erasure_of_the_tenant() {
    let server = Server::start(Fsync::Never).unwrap();
    let store = opened(&server, 1).await;
    filled(&store, &key("t")).await;
    cut_off(&store, &server, &key("t")).await;
    let anew = opened(&server, 500).await;
    assert_eq!(left(&server).await, NOTHING);
    filled(&anew, &key("t")).await;
    begun(&anew, &key("t2")).await;
    cut_off(&store, &server, &key("t")).await;
    anew.erase(&key("t").tenant).await.unwrap();
    assert_eq!(left(&server).await, NOTHING);
}

#[tokio::test]
async fn a_call_takes_out_no_more_than_it_was_told() {
    let server = Server::start(Fsync::Never).unwrap();
    let mut taken = Vec::new();
    for at_once in [1, 50, 5_000] {
        let store = opened(&server, at_once).await;
        filled(&store, &key("t")).await;
        let before = scripts(&server).await;
        store.delete(&key("t")).await.unwrap();
        taken.push(scripts(&server).await - before);
    }
    // The checkpoints, and the messages: of so few and small ones the server gives all that are in a hash at a time.
    assert!(taken[0] > LENGTH && taken[1] > LENGTH / 50, "{taken:?}");
    assert!(taken[1] < LENGTH / 10 && taken[2] == 1, "{taken:?}");
}

#[tokio::test]
async fn a_full_server_still_deletes() {
    let more = ["--maxmemory", "4mb", "--maxmemory-policy", "noeviction"];
    let server = Server::start_with(&Tools::of("redis-server").unwrap(), Fsync::Never, &more).unwrap();
    let store = opened(&server, 10).await;
    filled(&store, &key("t")).await;
    let _: String = tell(&server, &["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_eq!(store.claim(&key("t2")).await.unwrap_err().code(), "checkpoint::full");
    store.delete(&key("t")).await.unwrap();
    assert_eq!(left(&server).await, NOTHING);
}
