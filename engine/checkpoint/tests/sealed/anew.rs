//! Sealing anew, on stores that need no server, and broken off at every one of its calls.

use std::sync::atomic::{AtomicU32, Ordering};

use stepgraph::checkpoint::Epoch;

use super::*;

#[path = "../contract/sealed_anew.rs"]
mod contract;

use contract::{both_keys, is_sealed, new_key, seal, thread, told, write};

#[tokio::test]
async fn threads_in_memory_are_sealed_anew() {
    let store = Same::default();
    contract::holds(async || store.clone()).await;
}

#[tokio::test]
async fn threads_in_sqlite_are_sealed_anew() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.db");
    contract::holds(async || stepgraph_checkpoint::Sqlite::open(&file).await.unwrap()).await;
}

/// A store that is gone after so many writes.
struct Dies {
    within: Same,
    writes: AtomicU32,
}

impl Dies {
    fn write(&self) -> Result<(), CheckpointError> {
        let left = self
            .writes
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| CheckpointError::Unavailable {
            message: "gone".to_owned(),
            source: None,
        })
    }
}

#[async_trait]
impl stepgraph::checkpoint::AroundStore for Dies {
    fn within(&self) -> &dyn Checkpointer {
        &self.within
    }

    async fn claim(&self, key: &ThreadKey) -> Result<Epoch, CheckpointError> {
        self.write()?;
        self.within.0.claim(key).await
    }

    async fn commit(
        &self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        commit: Commit,
    ) -> Result<Option<Seq>, CheckpointError> {
        self.write()?;
        self.within.0.commit(key, epoch, expected, commit).await
    }

    async fn branch(&self, key: &ThreadKey, epoch: Epoch, from: Seq, name: &str) -> Result<(), CheckpointError> {
        self.write()?;
        self.within.0.branch(key, epoch, from, name).await
    }

    async fn delete(&self, key: &ThreadKey) -> Result<(), CheckpointError> {
        self.write()?;
        self.within.0.delete(key).await
    }

    async fn tag(&self, key: &ThreadKey, name: &str, at: Option<Seq>) -> Result<(), CheckpointError> {
        self.write()?;
        self.within.0.tag(key, name, at).await
    }

    async fn thin(&self, key: &ThreadKey, thinning: Thinning) -> Result<(), CheckpointError> {
        self.write()?;
        self.within.0.thin(key, thinning).await
    }
}

#[tokio::test]
async fn broken_off_at_any_write_it_goes_on_and_loses_nothing() {
    const WRITES_MAX: u32 = 200;
    let key = thread("t");
    for writes in 0..WRITES_MAX {
        let store = Same::default();
        write(&store, &key).await;
        let wanted = told(&store, &key).await;
        let dies = Dies {
            within: store.clone(),
            writes: AtomicU32::new(writes),
        };
        let broken = Sealed::new(dies, new_key()).seal_anew(&key.tenant, (None, 10)).await;
        // Nobody takes up what is on its way.
        let running = store.unfinished("chat", 10).await.unwrap();
        assert!(running.iter().all(|running| *running == key), "{running:?}");
        seal(&over(&store, new_key())).await;
        assert_eq!(
            told(&over(&store, new_key()), &key).await,
            wanted,
            "after {writes} writes"
        );
        is_sealed(&store, &key, 2).await;
        let left = store.threads(&key.tenant, None, 10).await.unwrap();
        assert_eq!(left, std::slice::from_ref(&key.thread), "after {writes} writes");
        if broken.is_ok() {
            assert!(writes > 20, "a thread is some writes: {writes}");
            return;
        }
    }
    panic!("more than {WRITES_MAX} writes for one thread");
}

#[tokio::test]
async fn a_thread_begun_anew_meanwhile_stays_and_so_does_the_old_one() {
    let (store, key) = (Same::default(), thread("t"));
    for writes in 0..200 {
        write(&store, &key).await;
        let dies = Dies {
            within: store.clone(),
            writes: AtomicU32::new(writes),
        };
        let broken = Sealed::new(dies, new_key()).seal_anew(&key.tenant, (None, 10)).await;
        assert!(broken.is_err(), "it was to be broken off while the old thread is gone");
        if store.get(&key, At::Head).await.unwrap().is_none() {
            break;
        }
        for thread in store.threads(&key.tenant, None, 10).await.unwrap() {
            store.delete(&ThreadKey::new(key.tenant.clone(), thread)).await.unwrap();
        }
    }
    let sealed = over(&store, both_keys());
    let epoch = sealed.claim(&key).await.unwrap();
    let begun = only(checkpoint(99, Payload::Snapshot(bytes("anew"))));
    sealed.commit(&key, epoch, None, begun).await.unwrap();

    let done = seal(&sealed).await;

    assert_eq!((done.sealed, done.taken), (0, 1));
    assert_eq!(
        sealed.get(&key, At::Head).await.unwrap().unwrap().parts,
        [bytes("anew")]
    );
    let left = store.threads(&key.tenant, None, 10).await.unwrap();
    let [way, new] = left.as_slice() else {
        panic!("{left:?}")
    };
    assert!(way.as_str().starts_with("sealing~") && *new == key.thread, "{left:?}");
    let kept = told(&sealed, &ThreadKey::new(key.tenant.clone(), way.clone())).await;
    assert_eq!(kept.0.len(), 6);
}

#[tokio::test]
async fn what_is_sealed_by_a_key_that_is_missing_is_told_and_left() {
    let (store, key) = (Same::default(), thread("t"));
    write(&over(&store, one()), &key).await;
    let refused = over(&store, new_key()).seal_anew(&key.tenant, (None, 10)).await;
    assert_eq!(code(refused), "checkpoint::no_key");
    assert_eq!(told(&over(&store, one()), &key).await.0.len(), 6);
}
