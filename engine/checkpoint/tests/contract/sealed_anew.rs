//! Threads from before there was a key, or of an older key, are sealed anew and stay what they were: for any store that two
//! handles open.

use std::{collections::BTreeMap, sync::Arc};

use stepgraph::{
    Checkpointer, TenantId, ThreadId, ThreadKey,
    checkpoint::{
        At, CheckpointSource, Commit, NewCheckpoint, Page, Payload, RecordKind, RunMark, RunStatus, Seq, TaskRecord,
        Thinning,
    },
};
use stepgraph_checkpoint::{
    Sealed,
    seal::{KeyId, MasterKeys, SealedAnew},
};
use uuid::Uuid;

pub(crate) fn thread(name: &str) -> ThreadKey {
    ThreadKey::new(TenantId::authenticated("acme").unwrap(), ThreadId::new(name).unwrap())
}

pub(crate) fn new_key() -> MasterKeys {
    MasterKeys::new(KeyId(2), &[2; 32])
}

pub(crate) fn both_keys() -> MasterKeys {
    new_key().and_older(KeyId(1), &[1; 32]).unwrap()
}

fn commit(number: u64, snapshot: bool) -> Commit {
    let bytes: Arc<[u8]> = format!("plain {number}").into_bytes().into();
    Commit {
        checkpoint: Some(NewCheckpoint {
            id: Uuid::from_u128(number.into()),
            step: i64::try_from(number).unwrap(),
            source: CheckpointSource::Step,
            payload: if snapshot {
                Payload::Snapshot(bytes)
            } else {
                Payload::Delta(bytes)
            },
            frontier: format!("plain next {number}").into_bytes().into(),
            fingerprint: Uuid::from_u128(7),
            state_version: 3,
            created_at: chrono::DateTime::from_timestamp_micros(1_000_000 + i64::try_from(number).unwrap()).unwrap(),
        }),
        ..Commit::default()
    }
}

fn run(number: u128, status: RunStatus, error: Option<&str>) -> RunMark {
    RunMark {
        run: Uuid::from_u128(number).into(),
        graph: "chat".into(),
        status,
        error: error.map(str::to_owned),
    }
}

/// A thread with all that a thread can have: two runs, of which the second has failed, records at two checkpoints, two
/// branches, a tag, a gap in its numbers, one that stands on its own in several parts, and a graph inside.
pub(crate) async fn write(store: &dyn Checkpointer, key: &ThreadKey) {
    let epoch = store.claim(key).await.unwrap();
    let first = Commit {
        run: Some(run(1, RunStatus::Done, None)),
        ..commit(1, true)
    };
    store.commit(key, epoch, None, first).await.unwrap();
    for number in 2..=6 {
        let head = Some(Seq(number - 1));
        store.commit(key, epoch, head, commit(number, false)).await.unwrap();
        if number != 4 && number != 6 {
            continue;
        }
        let record = |name: &str| TaskRecord {
            task: "pay".to_owned(),
            kind: RecordKind::Effect,
            key: format!("plain {name}"),
            body: format!("plain paid {number}").into_bytes().into(),
        };
        let records = Commit {
            records: vec![record("card"), record("cash")],
            ..Commit::default()
        };
        store.commit(key, epoch, Some(Seq(number)), records).await.unwrap();
    }
    // 1 and 2 go, and 3 stands on its own in three parts.
    let parts = store.get(key, At::Seq(Seq(3))).await.unwrap().unwrap().parts;
    let thinning = Thinning {
        rebased: vec![(Seq(3), parts)],
        removed: vec![Seq(1), Seq(2)],
    };
    store.thin(key, thinning).await.unwrap();
    store.tag(key, "release", Some(Seq(4))).await.unwrap();
    store.branch(key, epoch, Seq(4), "other").await.unwrap();
    let forked = Commit {
        run: Some(run(2, RunStatus::Failed, Some("plain error"))),
        ..commit(7, false)
    };
    store.commit(key, epoch, Some(Seq(4)), forked).await.unwrap();
    let inner = key.child("inside");
    let epoch = store.claim(&inner).await.unwrap();
    store.commit(&inner, epoch, None, commit(8, true)).await.unwrap();
}

type Told = (Vec<Vec<u8>>, String, Option<Uuid>);

/// All of a thread but its numbers: by id what each checkpoint says and whose child it is, then branches, tags and run.
pub(crate) async fn told(store: &dyn Checkpointer, root: &ThreadKey) -> (BTreeMap<Uuid, Told>, Vec<String>) {
    let (mut checkpoints, mut names) = (BTreeMap::new(), Vec::new());
    for key in [root.clone(), root.child("inside")] {
        let infos = store.list(&key, Page::default()).await.unwrap();
        let id_of = |seq| infos.iter().find(|info| info.seq == seq).map(|info| info.id);
        for info in &infos {
            let found = store.get(&key, At::Id(info.id)).await.unwrap().unwrap();
            let parts = found.parts.iter().map(|part| part.to_vec()).collect();
            let facts = (info.step, info.source, info.run, info.fingerprint, info.state_version);
            let rest = format!(
                "{facts:?} {:?} {:?} {:?}",
                info.created_at, info.frontier, found.records
            );
            checkpoints.insert(info.id, (parts, rest, info.parent.and_then(id_of)));
        }
        for branch in store.branches(&key).await.unwrap() {
            names.push(format!("{} {:?} {}", branch.name, id_of(branch.head), branch.current));
        }
        for tag in store.tags(&key).await.unwrap() {
            names.push(format!("{} {:?}", tag.name, id_of(tag.seq)));
        }
        let head = store.get(&key, At::Head).await.unwrap();
        names.push(format!("{:?}", head.and_then(|head| head.run)));
    }
    (checkpoints, names)
}

/// Nothing of the thread is readable in the store within, and everything is sealed by this key.
pub(crate) async fn is_sealed(within: &dyn Checkpointer, root: &ThreadKey, id: u32) {
    for key in [root.clone(), root.child("inside")] {
        for info in within.list(&key, Page::default()).await.unwrap() {
            let found = within.get(&key, At::Seq(info.seq)).await.unwrap().unwrap();
            let mut cells = vec![info.frontier.to_vec()];
            cells.extend(found.parts.iter().map(|part| part.to_vec()));
            cells.extend(found.records.iter().map(|record| record.body.to_vec()));
            for cell in &cells {
                assert_eq!(cell.get(3..7).unwrap(), id.to_be_bytes(), "the number of the key");
                assert!(!cell.windows(5).any(|window| window == b"plain"));
            }
            let text = format!("{:?} {:?}", found.records, found.run);
            assert!(!text.contains("plain "), "{text}");
        }
    }
}

pub(crate) async fn seal(store: &Sealed<impl Checkpointer>) -> SealedAnew {
    let (tenant, mut done, mut after) = (thread("t").tenant, SealedAnew::default(), None);
    loop {
        let (some, last) = store.seal_anew(&tenant, (after.as_ref(), 1)).await.unwrap();
        done += some;
        after = last;
        if after.is_none() {
            return done;
        }
    }
}

/// Holds for a store of which `open` gives handles.
pub(crate) async fn holds<S: Checkpointer, F: AsyncFn() -> S>(open: F) {
    let (plain, old, unborn) = (thread("plain"), thread("old"), thread("claimed"));
    let within = open().await;
    write(&within, &plain).await;
    let wanted = told(&within, &plain).await;
    write(&Sealed::new(open().await, MasterKeys::new(KeyId(1), &[1; 32])), &old).await;
    within.claim(&unborn).await.unwrap();

    let done = seal(&Sealed::new(open().await, both_keys())).await;
    assert_eq!((done.sealed, done.already, done.taken), (2, 1, 0));

    // The old key is needed no more.
    let store = Sealed::new(open().await, new_key());
    for key in [&plain, &old] {
        assert_eq!(told(&store, key).await, wanted);
        is_sealed(&within, key, 2).await;
    }
    let threads = within.threads(&plain.tenant, None, 10).await.unwrap();
    let names: Vec<_> = threads.iter().map(ThreadId::as_str).collect();
    assert_eq!(names, ["claimed", "old", "plain"], "nothing else is left");
    let again = seal(&store).await;
    assert_eq!((again.sealed, again.already, again.taken), (0, 3, 0));
    // The thread goes on.
    let head = store.get(&plain, At::Head).await.unwrap().unwrap().info.seq;
    let epoch = store.claim(&plain).await.unwrap();
    store.commit(&plain, epoch, Some(head), commit(9, false)).await.unwrap();
    let parts = store.get(&plain, At::Head).await.unwrap().unwrap().parts;
    assert_eq!(parts.last().map(|part| &**part), Some(b"plain 9".as_slice()));
}
