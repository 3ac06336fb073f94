//! What every table of keys does.

use stepgraph::TenantId;
use stepgraph_checkpoint::seal::{KeyId, KeyStore};

fn tenant(name: &str) -> TenantId {
    TenantId::authenticated(name).unwrap()
}

/// Asserts it of an empty table; a key of the tenant `kept` stays.
pub(crate) async fn holds(keys: &impl KeyStore) {
    let (acme, kept) = (tenant("acme"), tenant("kept"));
    assert_eq!(keys.newest(&acme).await.unwrap(), None);
    assert!(keys.keep(&acme, KeyId(7), b"seven").await.unwrap());
    assert!(
        !keys.keep(&acme, KeyId(7), b"other").await.unwrap(),
        "a number is given once"
    );
    assert!(keys.keep(&acme, KeyId(u32::MAX), b"last").await.unwrap());
    assert!(keys.keep(&kept, KeyId(7), b"theirs").await.unwrap());
    assert_eq!(keys.newest(&acme).await.unwrap().unwrap().id, KeyId(u32::MAX));
    assert_eq!(
        keys.get(&acme, KeyId(7)).await.unwrap().unwrap().wrapped.unwrap(),
        b"seven"
    );
    assert_eq!(keys.get(&acme, KeyId(8)).await.unwrap(), None);

    keys.rewrap(&acme, KeyId(7), b"seven", b"anew").await.unwrap();
    keys.rewrap(&acme, KeyId(7), b"seven", b"late").await.unwrap();
    assert_eq!(
        keys.get(&acme, KeyId(7)).await.unwrap().unwrap().wrapped.unwrap(),
        b"anew"
    );

    assert_eq!(keys.destroy(&acme).await.unwrap(), 2);
    assert_eq!(keys.destroy(&acme).await.unwrap(), 0);
    let left = keys.newest(&acme).await.unwrap().unwrap();
    assert_eq!((left.id, left.wrapped), (KeyId(u32::MAX), None), "the number stays");
    assert!(!keys.keep(&acme, KeyId(7), b"again").await.unwrap());
    keys.rewrap(&acme, KeyId(7), b"anew", b"back").await.unwrap();
    assert_eq!(keys.get(&acme, KeyId(7)).await.unwrap().unwrap().wrapped, None);
    assert_eq!(
        keys.get(&kept, KeyId(7)).await.unwrap().unwrap().wrapped.unwrap(),
        b"theirs"
    );
}

/// What is still there once the table is opened again.
pub(crate) async fn holds_again(keys: &impl KeyStore) {
    let newest = keys.newest(&tenant("kept")).await.unwrap().unwrap();
    assert_eq!(newest.wrapped.unwrap(), b"theirs");
    assert_eq!(keys.newest(&tenant("acme")).await.unwrap().unwrap().wrapped, None);
}
