//! Keys of tenants' own: what a destroyed one has sealed opens nowhere any more.

use std::path::Path;

use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};
use stepgraph_checkpoint::{
    Sqlite,
    seal::{KeyStore, OWN_KEYS_FROM, SqliteKeys, TenantKeys},
};

use super::*;

#[path = "../contract/key_store.rs"]
mod key_store;

async fn keys(folder: &Path, master: MasterKeys) -> TenantKeys<SqliteKeys> {
    TenantKeys::new(master, SqliteKeys::open(folder.join("keys.db")).await.unwrap())
}

async fn store(folder: &Path, threads: &str, master: MasterKeys) -> Sealed<Sqlite> {
    let threads = Sqlite::open(folder.join(threads)).await.unwrap();
    Sealed::new(threads, keys(folder, master).await)
}

fn tenant(name: &str) -> TenantId {
    TenantId::authenticated(name).unwrap()
}

async fn backup(folder: &Path, to: &str) {
    let from = format!("sqlite://{}", folder.join("threads.db").display());
    let mut connection = SqliteConnection::connect(&from).await.unwrap();
    let copy = format!("VACUUM INTO '{}'", folder.join(to).display());
    sqlx::query(AssertSqlSafe(copy)).execute(&mut connection).await.unwrap();
}

#[tokio::test]
async fn keys_in_a_file_hold_to_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/keys.db");
    key_store::holds(&SqliteKeys::open(&path).await.unwrap()).await;
    key_store::holds_again(&SqliteKeys::open(&path).await.unwrap()).await;
}

#[tokio::test]
async fn rows_of_an_erased_tenant_do_not_open_when_they_come_back_from_a_backup() {
    let folder = tempfile::tempdir().unwrap();
    let (acme, other) = (key("acme", "t"), key("other", "t"));
    let before = store(folder.path(), "threads.db", one()).await;
    written(&before, &acme).await;
    written(&before, &other).await;
    backup(folder.path(), "monday.db").await;
    let wrapped = keys_of(folder.path(), "acme").await;
    assert!(file_holds(folder.path(), &wrapped));

    before.erase(&acme.tenant).await.unwrap();

    assert!(before.get(&acme, At::Head).await.unwrap().is_none());
    assert!(
        !file_holds(folder.path(), &wrapped),
        "the key is gone from the file's pages too"
    );
    // In this process, and in one that starts anew.
    let copy = Sqlite::open(folder.path().join("monday.db")).await.unwrap();
    let restored = Sealed::new(copy, keys(folder.path(), one()).await);
    for _ in 0..2 {
        let error = restored.get(&acme, At::Head).await.unwrap_err();
        assert!(
            matches!(error, CheckpointError::NoKey { id: OWN_KEYS_FROM, .. }),
            "{error}"
        );
        assert_eq!(error.code(), "checkpoint::no_key");
        assert!(!error.is_retryable());
    }
    assert!(restored.list(&acme, Page::default()).await.is_err());
    let kept = restored.get(&other, At::Head).await.unwrap().unwrap();
    assert_eq!(kept.parts.len(), 3, "others are as they were");

    // A tenant of the same name begins anew, with a key of another number.
    written(&before, &acme).await;
    assert!(before.get(&acme, At::Head).await.unwrap().is_some());
    assert!(restored.get(&acme, At::Head).await.is_err(), "the old rows stay shut");
    let newest = SqliteKeys::open(folder.path().join("keys.db")).await.unwrap();
    assert_eq!(
        newest.newest(&acme.tenant).await.unwrap().unwrap().id.0,
        OWN_KEYS_FROM + 1
    );
}

async fn keys_of(folder: &Path, name: &str) -> Vec<u8> {
    let keys = SqliteKeys::open(folder.join("keys.db")).await.unwrap();
    keys.newest(&tenant(name)).await.unwrap().unwrap().wrapped.unwrap()
}

fn file_holds(folder: &Path, bytes: &[u8]) -> bool {
    let file = std::fs::read(folder.join("keys.db")).unwrap();
    file.windows(bytes.len()).any(|part| part == bytes)
}

#[tokio::test]
async fn two_processes_make_one_key() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (keys(folder.path(), one()).await, keys(folder.path(), one()).await);
    let acme = tenant("acme");
    let (first, second) = tokio::join!(a.current(&acme), b.current(&acme));
    assert_eq!(first.unwrap(), second.unwrap());
    assert_ne!(a.current(&tenant("other")).await.unwrap().0, 0);
}

#[tokio::test]
async fn a_key_is_wrapped_anew_by_the_next_master_key_and_opens_what_it_has_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let acme = key("acme", "t");
    written(&store(folder.path(), "threads.db", one()).await, &acme).await;

    let both = MasterKeys::new(KeyId(2), &NEW).and_older(KeyId(1), &OLD).unwrap();
    let turned = store(folder.path(), "threads.db", both).await;
    let epoch = turned.claim(&acme).await.unwrap();
    turned.commit(&acme, epoch, Some(Seq(3)), delta(4)).await.unwrap();

    let newer = store(folder.path(), "threads.db", MasterKeys::new(KeyId(2), &NEW)).await;
    assert_eq!(newer.get(&acme, At::Head).await.unwrap().unwrap().parts.len(), 4);
    let without = store(folder.path(), "threads.db", one()).await;
    let error = without.get(&acme, At::Head).await.unwrap_err();
    assert!(matches!(error, CheckpointError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("master key 2"), "{error}");
    let wrong = store(folder.path(), "threads.db", MasterKeys::new(KeyId(2), &OLD)).await;
    assert!(
        wrong
            .get(&acme, At::Head)
            .await
            .unwrap_err()
            .to_string()
            .contains("does not open")
    );
}

#[tokio::test]
async fn a_wrapped_key_opens_for_its_tenant_alone() {
    let folder = tempfile::tempdir().unwrap();
    let own = keys(folder.path(), one()).await;
    let (acme, other) = (tenant("acme"), tenant("other"));
    let id = own.current(&acme).await.unwrap();
    let taken = keys_of(folder.path(), "acme").await;
    let rows = SqliteKeys::open(folder.path().join("keys.db")).await.unwrap();
    assert!(rows.keep(&other, id, &taken).await.unwrap());
    let error = own.key(&other, id).await.unwrap_err();
    assert!(matches!(error, KeyError::Unavailable { .. }), "{error}");
    assert!(!format!("{own:?} {:?}", rows.newest(&acme).await).contains(&format!("{taken:?}")));
}

#[tokio::test]
async fn a_process_forgets_a_key_that_another_has_destroyed() {
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (keys(folder.path(), one()).await, keys(folder.path(), one()).await);
    let acme = tenant("acme");
    let id = here.current(&acme).await.unwrap();
    there.erase(&acme).await.unwrap();
    assert!(here.key(&acme, id).await.is_ok(), "for a while");
    // No longer than that: a pool of connections would take the time that passes for its own.
    tokio::time::pause();
    tokio::time::advance(stepgraph_checkpoint::seal::REMEMBERED_FOR).await;
    tokio::time::resume();
    assert!(matches!(here.key(&acme, id).await, Err(KeyError::Unknown)));
    assert_ne!(here.current(&acme).await.unwrap(), id);
}

#[tokio::test]
async fn what_master_keys_alone_have_sealed_still_opens() {
    let folder = tempfile::tempdir().unwrap();
    let acme = key("acme", "t");
    let old = Sealed::new(Sqlite::open(folder.path().join("threads.db")).await.unwrap(), one());
    written(&old, &acme).await;
    drop(old);
    let now = store(folder.path(), "threads.db", one()).await;
    assert!(now.get(&acme, At::Head).await.unwrap().is_some());
    let epoch = now.claim(&acme).await.unwrap();
    now.commit(&acme, epoch, Some(Seq(3)), delta(4)).await.unwrap();
    assert_eq!(now.get(&acme, At::Head).await.unwrap().unwrap().parts.len(), 4);
}
