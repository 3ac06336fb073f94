//! What is sealed is read by nobody without the key, and opens nowhere but in its place.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::HashMap, fmt::Debug, sync::Arc, sync::Mutex};

use serde::{Deserialize, Serialize};
use serde_json::json;
use stepgraph::{
    Answers, Ask, CheckpointError, Checkpointer, Context, END, Effect, Graph, Memory, NodeError, Outcome, START, State,
    TenantId, ThreadId, ThreadKey, async_trait,
    checkpoint::{
        At, Checkpoint, CheckpointSource, Commit, Keep, NewCheckpoint, OutboxMessage, Page, Payload, RecordKind,
        RunMark, RunStatus, Seq, TaskRecord, Thinning,
    },
};
use stepgraph_checkpoint::{
    Sealed, conformance,
    seal::{KeyError, KeyId, Keys, MasterKeys, TenantKey},
};
use uuid::Uuid;

const OLD: [u8; 32] = [1; 32];
const NEW: [u8; 32] = [2; 32];

fn one() -> MasterKeys {
    MasterKeys::new(KeyId(1), &OLD)
}

fn key(tenant: &str, thread: &str) -> ThreadKey {
    ThreadKey::new(TenantId::authenticated(tenant).unwrap(), ThreadId::new(thread).unwrap())
}

/// One store in memory behind several seals.
#[derive(Clone, Default)]
struct Same(Arc<Memory>);

impl stepgraph::checkpoint::AroundStore for Same {
    fn within(&self) -> &dyn Checkpointer {
        &*self.0
    }
}

fn sealed() -> Sealed<Same> {
    over(&Same::default(), one())
}

fn over(store: &Same, keys: impl Keys) -> Sealed<Same> {
    Sealed::new(store.clone(), keys)
}

fn checkpoint(number: u64, payload: Payload) -> NewCheckpoint {
    NewCheckpoint {
        id: Uuid::from_u128(number.into()),
        step: i64::try_from(number).unwrap(),
        source: CheckpointSource::Step,
        payload,
        frontier: b"plain: what runs next".as_slice().into(),
        fingerprint: Uuid::nil(),
        state_version: 1,
        created_at: chrono::DateTime::UNIX_EPOCH,
    }
}

fn bytes(text: &str) -> Arc<[u8]> {
    text.as_bytes().into()
}

fn only(checkpoint: NewCheckpoint) -> Commit {
    Commit {
        checkpoint: Some(checkpoint),
        ..Commit::default()
    }
}

fn snapshot(number: u64) -> Commit {
    only(checkpoint(number, Payload::Snapshot(bytes(&format!("state {number}")))))
}

fn delta(number: u64) -> Commit {
    only(checkpoint(number, Payload::Delta(bytes(&format!("change {number}")))))
}

fn record(task: &str, key: &str, body: &str) -> Commit {
    Commit {
        records: vec![TaskRecord {
            task: task.to_owned(),
            kind: RecordKind::Effect,
            key: key.to_owned(),
            body: bytes(body),
        }],
        ..Commit::default()
    }
}

fn failed(run: u128, error: &str) -> Commit {
    Commit {
        run: Some(RunMark {
            run: Uuid::from_u128(run).into(),
            graph: "graph".into(),
            status: RunStatus::Failed,
            error: Some(error.to_owned()),
        }),
        ..Commit::default()
    }
}

/// A thread of a snapshot and two changes, with a record and an error at its head.
async fn written(store: &impl Checkpointer, key: &ThreadKey) {
    let epoch = store.claim(key).await.unwrap();
    store.commit(key, epoch, None, snapshot(1)).await.unwrap();
    store.commit(key, epoch, Some(Seq(1)), delta(2)).await.unwrap();
    store.commit(key, epoch, Some(Seq(2)), delta(3)).await.unwrap();
    let at = Some(Seq(3));
    store
        .commit(key, epoch, at, record("pay", "card", "paid"))
        .await
        .unwrap();
    store.commit(key, epoch, at, failed(1, "no money")).await.unwrap();
}

/// Writes past the seal: what somebody with the store's password could.
async fn slip(store: &impl Checkpointer, key: &ThreadKey, commit: Commit) {
    let epoch = store.claim(key).await.unwrap();
    let head = store.get(key, At::Head).await.unwrap().map(|head| head.info.seq);
    store.commit(key, epoch, head, commit).await.unwrap();
}

fn again(found: &Checkpoint) -> NewCheckpoint {
    NewCheckpoint {
        id: found.info.id,
        step: found.info.step,
        source: found.info.source,
        payload: Payload::Snapshot(Arc::clone(found.parts.first().unwrap())),
        frontier: Arc::clone(&found.info.frontier),
        fingerprint: found.info.fingerprint,
        state_version: found.info.state_version,
        created_at: found.info.created_at,
    }
}

async fn raw(store: &impl Checkpointer, key: &ThreadKey, seq: u64) -> Checkpoint {
    store.get(key, At::Seq(Seq(seq))).await.unwrap().unwrap()
}

fn code<T: Debug>(result: Result<T, CheckpointError>) -> &'static str {
    result.unwrap_err().code()
}

#[tokio::test]
async fn sealed_memory_holds_to_every_fact() {
    let report = conformance::check(async || Sealed::new(Memory::new(), one())).await;
    assert!(report.passed(), "{report}");
}

#[tokio::test]
async fn what_goes_in_comes_out_and_the_store_within_has_none_of_it() {
    let store = sealed();
    let key = key("acme", "t");
    written(&store, &key).await;
    let found = store.get(&key, At::Head).await.unwrap().unwrap();
    assert_eq!(found.parts, ["state 1", "change 2", "change 3"].map(bytes));
    assert_eq!(&*found.info.frontier, b"plain: what runs next");
    let Some(record) = found.records.first() else {
        panic!("no record")
    };
    assert_eq!((record.key.as_str(), &*record.body), ("card", b"paid".as_slice()));
    assert_eq!(found.run.unwrap().error.as_deref(), Some("no money"));

    let within = raw(store.get_ref(), &key, 3).await;
    let mut all = vec![within.info.frontier.to_vec()];
    all.extend(within.parts.iter().map(|part| part.to_vec()));
    all.extend(within.records.iter().map(|record| record.body.to_vec()));
    all.extend(within.records.iter().map(|record| record.key.clone().into_bytes()));
    all.push(within.run.unwrap().error.unwrap().into_bytes());
    for plain in ["state", "change", "plain:", "card", "paid", "money"] {
        for cell in &all {
            assert!(!contains(cell, plain), "{plain}");
        }
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn a_large_state_is_smaller_in_the_store_than_in_the_engine() {
    let store = sealed();
    let key = key("acme", "t");
    let large = "the same again and again, ".repeat(1000);
    let epoch = store.claim(&key).await.unwrap();
    let commit = only(checkpoint(1, Payload::Snapshot(bytes(&large))));
    store.commit(&key, epoch, None, commit).await.unwrap();
    assert_eq!(store.get(&key, At::Head).await.unwrap().unwrap().parts, [bytes(&large)]);
    let within = raw(store.get_ref(), &key, 1).await;
    assert!(within.parts.first().unwrap().len() * 10 < large.len());
}

#[tokio::test]
async fn messages_to_others_are_sealed_too() {
    let store = sealed();
    let key = key("acme", "t");
    let epoch = store.claim(&key).await.unwrap();
    let message = OutboxMessage {
        id: Uuid::from_u128(7),
        topic: "mail".to_owned(),
        body: b"dear".to_vec(),
    };
    let commit = Commit {
        outbox: vec![message.clone()],
        ..snapshot(1)
    };
    store.commit(&key, epoch, None, commit).await.unwrap();
    assert_eq!(store.outbox("mail", 9).await.unwrap(), [(key.clone(), message)]);
    let within = store.get_ref().outbox("mail", 9).await.unwrap();
    let Some((_, within)) = within.first() else {
        panic!("no message")
    };
    assert!(!contains(&within.body, "dear"));
    // Under another topic it does not open.
    let moved = OutboxMessage {
        id: within.id,
        topic: "other".to_owned(),
        body: within.body.clone(),
    };
    store.get_ref().acknowledge(&key, within.id).await.unwrap();
    let commit = Commit {
        outbox: vec![moved],
        ..Commit::default()
    };
    slip(store.get_ref(), &key, commit).await;
    assert_eq!(code(store.outbox("other", 9).await), "checkpoint::forged");
}

#[tokio::test]
async fn rows_of_another_thread_or_tenant_do_not_open() {
    let store = sealed();
    let from = key("acme", "t");
    written(&store, &from).await;
    let row = again(&raw(store.get_ref(), &from, 1).await);
    for other in [key("acme", "u"), key("rival", "t"), from.child("inner")] {
        slip(store.get_ref(), &other, only(row.clone())).await;
        assert_eq!(code(store.get(&other, At::Head).await), "checkpoint::forged", "{other}");
        assert_eq!(
            code(store.list(&other, Page::default()).await),
            "checkpoint::forged",
            "{other}"
        );
    }
}

#[tokio::test]
async fn a_state_of_another_checkpoint_or_column_does_not_open() {
    let store = sealed();
    let key = key("acme", "t");
    written(&store, &key).await;
    let (first, third) = (
        again(&raw(store.get_ref(), &key, 1).await),
        again(&raw(store.get_ref(), &key, 3).await),
    );
    let swapped = [
        // An older state under a newer name.
        NewCheckpoint {
            payload: first.payload.clone(),
            ..third.clone()
        },
        // What runs next, taken from elsewhere.
        NewCheckpoint {
            frontier: Arc::clone(&third.frontier),
            ..first.clone()
        },
        // One column's in another.
        NewCheckpoint {
            payload: Payload::Snapshot(Arc::clone(&first.frontier)),
            ..first.clone()
        },
        // The facts beside it.
        NewCheckpoint {
            step: 9,
            ..first.clone()
        },
        NewCheckpoint {
            state_version: 2,
            ..first.clone()
        },
        NewCheckpoint {
            fingerprint: Uuid::from_u128(5),
            ..first.clone()
        },
        NewCheckpoint {
            created_at: chrono::DateTime::UNIX_EPOCH + chrono::Duration::seconds(1),
            ..first
        },
    ];
    for (index, row) in swapped.into_iter().enumerate() {
        slip(store.get_ref(), &key, only(row)).await;
        assert_eq!(code(store.get(&key, At::Head).await), "checkpoint::forged", "{index}");
    }
}

#[tokio::test]
async fn a_line_with_a_part_left_out_or_moved_does_not_open() {
    for kept in [&[0, 2][..], &[1, 2], &[0, 1], &[0, 2, 1], &[0, 1, 1, 2], &[2]] {
        let store = sealed();
        let key = key("acme", "t");
        written(&store, &key).await;
        let parts = raw(store.get_ref(), &key, 3).await.parts;
        let parts = kept.iter().map(|part| Arc::clone(parts.get(*part).unwrap())).collect();
        let thinning = Thinning {
            rebased: vec![(Seq(3), parts)],
            removed: Vec::new(),
        };
        store.get_ref().thin(&key, thinning).await.unwrap();
        assert_eq!(code(store.get(&key, At::Head).await), "checkpoint::forged", "{kept:?}");
    }
}

#[tokio::test]
async fn a_record_of_another_task_or_step_and_the_error_of_another_run_do_not_open() {
    let store = sealed();
    let key = key("acme", "t");
    written(&store, &key).await;
    let head = raw(store.get_ref(), &key, 3).await;
    let Some(record) = head.records.first().cloned() else {
        panic!("no record")
    };
    let renamed = TaskRecord {
        task: "refund".to_owned(),
        ..record.clone()
    };
    let commit = Commit {
        records: vec![renamed],
        ..Commit::default()
    };
    slip(store.get_ref(), &key, commit).await;
    assert_eq!(code(store.get(&key, At::Head).await), "checkpoint::forged");

    let epoch = store.claim(&key).await.unwrap();
    store.commit(&key, epoch, Some(Seq(3)), delta(4)).await.unwrap();
    let commit = Commit {
        records: vec![record],
        ..Commit::default()
    };
    slip(store.get_ref(), &key, commit).await;
    assert_eq!(code(store.get(&key, At::Head).await), "checkpoint::forged");

    let store = sealed();
    written(&store, &key).await;
    let error = raw(store.get_ref(), &key, 3).await.run.unwrap().error.unwrap();
    slip(store.get_ref(), &key, failed(2, &error)).await;
    assert_eq!(code(store.get(&key, At::Head).await), "checkpoint::forged");
}

#[tokio::test]
async fn what_is_cut_or_plain_or_changed_by_a_bit_says_so() {
    let store = sealed();
    let key = key("acme", "t");
    written(&store, &key).await;
    let first = again(&raw(store.get_ref(), &key, 1).await);
    let whole = first.payload.bytes().to_vec();
    for length in 0..whole.len() {
        let cut = whole.get(..length).unwrap().into();
        let row = NewCheckpoint {
            payload: Payload::Snapshot(cut),
            ..first.clone()
        };
        slip(store.get_ref(), &key, only(row)).await;
        let code = code(store.get(&key, At::Head).await);
        let known = ["checkpoint::corrupt", "checkpoint::forged", "checkpoint::not_sealed"];
        assert!(known.contains(&code), "{length}: {code}");
    }
    for place in 0..whole.len() {
        let mut changed = whole.clone();
        *changed.get_mut(place).unwrap() ^= 0x40;
        let row = NewCheckpoint {
            payload: Payload::Snapshot(changed.into()),
            ..first.clone()
        };
        slip(store.get_ref(), &key, only(row)).await;
        assert!(store.get(&key, At::Head).await.is_err(), "{place}");
    }
    slip(store.get_ref(), &key, snapshot(9)).await;
    assert_eq!(code(store.get(&key, At::Head).await), "checkpoint::not_sealed");
}

#[tokio::test]
async fn another_key_opens_nothing_and_a_number_without_a_key_is_named() {
    let within = Same::default();
    let key = key("acme", "t");
    written(&over(&within, one()), &key).await;
    let wrong = over(&within, MasterKeys::new(KeyId(1), &NEW));
    assert_eq!(code(wrong.get(&key, At::Head).await), "checkpoint::forged");
    let retired = over(&within, MasterKeys::new(KeyId(2), &NEW));
    assert_eq!(code(retired.get(&key, At::Head).await), "checkpoint::no_key");
    assert_eq!(code(retired.list(&key, Page::default()).await), "checkpoint::no_key");
}

#[tokio::test]
async fn after_the_keys_have_changed_old_rows_open_and_records_still_replace_each_other() {
    let within = Same::default();
    let key = key("acme", "t");
    written(&over(&within, one()), &key).await;
    let both = MasterKeys::new(KeyId(2), &NEW).and_older(KeyId(1), &OLD).unwrap();
    let store = over(&within, both);
    let epoch = store.claim(&key).await.unwrap();
    let again = record("pay", "card", "paid twice");
    store.commit(&key, epoch, Some(Seq(3)), again).await.unwrap();
    let found = store.get(&key, At::Head).await.unwrap().unwrap();
    let bodies: Vec<_> = found.records.iter().map(|record| &*record.body).collect();
    assert_eq!(bodies, [b"paid twice"]);
    store.commit(&key, epoch, Some(Seq(3)), delta(4)).await.unwrap();
    assert_eq!(store.get(&key, At::Head).await.unwrap().unwrap().parts.len(), 4);
    // What is new needs the new key: the old one alone opens the old rows, and no more.
    let old = over(&within, one());
    assert!(old.get(&key, At::Seq(Seq(2))).await.is_ok());
    assert_eq!(code(old.get(&key, At::Head).await), "checkpoint::no_key");
}

/// A key of each tenant's own.
#[derive(Clone, Default)]
struct Vault(Arc<Mutex<HashMap<TenantId, TenantKey>>>);

#[async_trait]
impl Keys for Vault {
    async fn current(&self, _: &TenantId) -> Result<KeyId, KeyError> {
        Ok(KeyId(7))
    }

    async fn key(&self, tenant: &TenantId, _: KeyId) -> Result<TenantKey, KeyError> {
        self.0.lock().unwrap().get(tenant).cloned().ok_or(KeyError::Unknown)
    }
}

#[tokio::test]
async fn a_tenant_whose_key_is_erased_is_unreadable_and_others_are_not() {
    let vault = Vault::default();
    let store = over(&Same::default(), vault.clone());
    let (gone, stays) = (key("acme", "t"), key("rival", "t"));
    for (index, key) in [&gone, &stays].into_iter().enumerate() {
        let bytes = [u8::try_from(index).unwrap(); 32];
        vault
            .0
            .lock()
            .unwrap()
            .insert(key.tenant.clone(), TenantKey::new(&bytes));
        written(&store, key).await;
    }
    vault.0.lock().unwrap().remove(&gone.tenant);
    assert_eq!(code(store.get(&gone, At::Head).await), "checkpoint::no_key");
    assert!(store.get(&stays, At::Head).await.is_ok());
    // Nor can anything be written that nobody could read.
    let epoch = store.claim(&gone).await.unwrap();
    let commit = store.commit(&gone, epoch, Some(Seq(3)), delta(4)).await;
    assert_eq!(code(commit), "checkpoint::no_key");
}

#[tokio::test]
async fn a_thinned_thread_opens_with_the_seals_that_it_had() {
    let store = sealed();
    let key = key("acme", "t");
    written(&store, &key).await;
    let before = raw(store.get_ref(), &key, 3).await;
    let keep = Keep::last(1);
    let thinned = stepgraph::checkpoint::thin(&store, &key, keep, chrono::DateTime::UNIX_EPOCH).await;
    assert_eq!(thinned.unwrap().removed, 2);
    let after = raw(store.get_ref(), &key, 3).await;
    assert_eq!(after.parts, before.parts);
    let epoch = store.claim(&key).await.unwrap();
    store.commit(&key, epoch, Some(Seq(3)), delta(4)).await.unwrap();
    let head = store.get(&key, At::Head).await.unwrap().unwrap();
    assert_eq!(head.parts, ["state 1", "change 2", "change 3", "change 4"].map(bytes));
    // Parts that nobody had written before are sealed on their way in, and carry on.
    let rebased = vec![(Seq(3), vec![bytes("a whole"), bytes("and a change")])];
    let removed = Vec::new();
    store.thin(&key, Thinning { rebased, removed }).await.unwrap();
    let head = store.get(&key, At::Head).await.unwrap().unwrap();
    assert_eq!(head.parts, ["a whole", "and a change", "change 4"].map(bytes));
}

#[test]
fn no_key_is_ever_printed() {
    let text = "3:AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=,1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    let keys: MasterKeys = text.parse().unwrap();
    let store = Sealed::new(Memory::new(), keys.clone());
    let shown = format!("{keys:?} {store:?} {:?}", TenantKey::new(&NEW));
    assert_eq!(
        shown,
        "MasterKeys([3: ***, 1: ***]) Sealed { store: Memory { threads: Table { .. } }, .. } TenantKey(***)"
    );
    for wrong in [
        "",
        "1",
        "x:AQ==",
        "1:secretsecret",
        "1:AQEB",
        "1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=,1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
    ] {
        let error = wrong.parse::<MasterKeys>().unwrap_err().to_string();
        assert!(!error.contains("secret") && !error.contains("AQEB"), "{error}");
    }
}

#[cfg(feature = "sqlite")]
mod anew;
mod erased;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "sqlite")]
mod values;
