//! Large values of sealed states: sealed apart, under names that say nothing.

use sqlx::{Connection, SqliteConnection};

use super::{sqlite::open, *};

/// A text of so many pieces, and one thing in each that is looked for. Compressed it is a third as long.
fn text(number: u64, pieces: u64) -> Vec<u8> {
    let piece = |piece: u64| {
        format!(
            "jane-in-chapter-{number} {:08x} ",
            (piece * 0x9e37_79b9 + number * 77) & 0xffff_ffff
        )
    };
    let text: String = (0..pieces).map(piece).collect();
    let mut state = b"\x82\xa1n\x01\xa4text\xdb".to_vec();
    state.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    state.extend(text.as_bytes());
    state
}

fn long(number: u64) -> Vec<u8> {
    text(number, 1_000)
}

fn state(number: u64, text: u64) -> Commit {
    only(checkpoint(number, Payload::Snapshot(long(text).into())))
}

async fn at(store: &impl Checkpointer, key: &ThreadKey, seq: u64) -> Result<Vec<u8>, CheckpointError> {
    let found = store.get(key, At::Seq(Seq(seq))).await?.unwrap();
    Ok(found.parts.first().unwrap().to_vec())
}

async fn raw_file(folder: &tempfile::TempDir) -> SqliteConnection {
    let file = folder.path().join("t.db");
    SqliteConnection::connect(&file.display().to_string()).await.unwrap()
}

async fn names(folder: &tempfile::TempDir) -> Vec<Vec<u8>> {
    let names = "SELECT name FROM checkpoint_values ORDER BY thread, name";
    sqlx::query_scalar(names)
        .fetch_all(&mut raw_file(folder).await)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_large_value_is_sealed_once_and_its_name_differs_from_thread_to_thread() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sealed::new(open(&folder.path().join("t.db")).await, one());
    let threads = [
        key("acme", "one"),
        key("acme", "two"),
        key("bolt", "one"),
        key("acme", "one").child("inside"),
    ];
    for key in &threads {
        let (epoch, mut head) = (store.claim(key).await.unwrap(), None);
        for number in 1..=3 {
            head = store.commit(key, epoch, head, state(number, 1)).await.unwrap();
        }
        assert_eq!(at(&store, key, 3).await.unwrap(), long(1));
    }
    let mut names = names(&folder).await;
    assert_eq!(names.len(), threads.len());
    names.sort();
    names.dedup();
    assert_eq!(names.len(), threads.len(), "no two threads have one name");
    let files = std::fs::read_dir(folder.path()).unwrap();
    for file in files {
        assert!(!contains(
            &std::fs::read(file.unwrap().path()).unwrap(),
            "jane-in-chapter"
        ));
    }
}

#[tokio::test]
async fn a_large_value_opens_under_its_own_name_and_in_its_own_thread_only() {
    // Of two threads with two values each: one in the other's place, one of the other thread, one that is gone, one cut.
    let exchanges = [
        "CREATE TABLE was AS SELECT * FROM checkpoint_values; \
         UPDATE checkpoint_values AS v SET body = (SELECT o.body FROM was o \
         WHERE o.thread = v.thread AND o.name <> v.name) WHERE v.thread = 1",
        "UPDATE checkpoint_values AS v SET body = (SELECT o.body FROM checkpoint_values o \
         WHERE o.thread <> v.thread LIMIT 1) WHERE v.thread = 1",
        "UPDATE checkpoint_values SET body = CAST(substr(body, 1, length(body) - 1) AS BLOB) WHERE thread = 1",
        "UPDATE checkpoint_values SET body = CAST(x'00' AS BLOB) WHERE thread = 1",
    ];
    for exchange in exchanges {
        let folder = tempfile::tempdir().unwrap();
        let store = Sealed::new(open(&folder.path().join("t.db")).await, one());
        let (one, two) = (key("acme", "one"), key("acme", "two"));
        for key in [&one, &two] {
            let epoch = store.claim(key).await.unwrap();
            store.commit(key, epoch, None, state(1, 1)).await.unwrap();
            store.commit(key, epoch, Some(Seq(1)), state(2, 2)).await.unwrap();
        }
        sqlx::raw_sql(exchange)
            .execute(&mut raw_file(&folder).await)
            .await
            .unwrap();
        for seq in [1, 2] {
            let found = at(&store, &one, seq).await.map(|found| found.len()).unwrap_err();
            let said = ["checkpoint::forged", "checkpoint::not_sealed"].contains(&found.code());
            assert!(said, "{exchange}: {found}");
            assert_eq!(at(&store, &two, seq).await.unwrap(), long(seq));
        }
    }
}

#[tokio::test]
async fn after_the_keys_have_changed_old_values_open_and_new_ones_have_another_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.db");
    let key = key("acme", "t");
    let before = Sealed::new(open(&file).await, one());
    let epoch = before.claim(&key).await.unwrap();
    before.commit(&key, epoch, None, state(1, 1)).await.unwrap();
    let both = MasterKeys::new(KeyId(2), &NEW).and_older(KeyId(1), &OLD).unwrap();
    let after = Sealed::new(open(&file).await, both);
    after.commit(&key, epoch, Some(Seq(1)), state(2, 1)).await.unwrap();
    for seq in [1, 2] {
        assert_eq!(at(&after, &key, seq).await.unwrap(), long(1));
    }
    assert_eq!(names(&folder).await.len(), 2);
}

#[tokio::test]
async fn from_how_many_bytes_on_a_value_is_sealed_apart_is_told_and_each_reads_what_the_others_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.db");
    let key = key("acme", "t");
    let told = async |bytes| Sealed::new(open(&file).await, one()).values_from(bytes);
    let (whole, apart) = (told(usize::MAX).await, told(100).await);
    let epoch = whole.claim(&key).await.unwrap();
    whole.commit(&key, epoch, None, state(1, 1)).await.unwrap();
    assert_eq!(names(&folder).await.len(), 0);
    // Shorter than what the store within takes for large: it keeps the bundle whole.
    let short = text(2, 10);
    let small = only(checkpoint(2, Payload::Snapshot(short.clone().into())));
    apart.commit(&key, epoch, Some(Seq(1)), small).await.unwrap();
    assert_eq!(names(&folder).await.len(), 0);
    apart.commit(&key, epoch, Some(Seq(2)), state(3, 3)).await.unwrap();
    assert_eq!(names(&folder).await.len(), 1);
    for store in [&whole, &apart] {
        assert_eq!(at(store, &key, 1).await.unwrap(), long(1));
        assert_eq!(at(store, &key, 2).await.unwrap(), short);
        assert_eq!(at(store, &key, 3).await.unwrap(), long(3));
    }
}
