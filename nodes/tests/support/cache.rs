//! The contract of [`Cache`]. Each check uses tenants of its own, so that all run on one cache.

use std::{sync::Arc, time::Duration};

use stepgraph::TenantId;
use stepgraph_nodes::service::{Cache, CacheState, MESSAGES};

pub(crate) const LONG: Duration = Duration::from_hours(1);
const PATIENCE: Duration = Duration::from_secs(20);

/// Panics with the first thing the cache does wrong.
pub(crate) async fn check(cache: Arc<dyn Cache>, state: CacheState) {
    assert_eq!(cache.state().await, state);
    a_value_is_its_own_tenants(&*cache).await;
    a_value_lives_as_long_as_its_last_write_says(&*cache).await;
    a_counter_lives_from_its_first_increment(&*cache).await;
    a_counter_stops_at_its_cap(&*cache).await;
    a_generation_holds_until_it_is_renewed(&*cache).await;
    what_is_erased_is_all_of_the_tenant_and_nothing_of_another(&*cache).await;
    no_more_than_the_cap_are_accepted_however_many_ask_at_once(cache).await;
}

pub(crate) fn tenant(id: &str) -> TenantId {
    TenantId::authenticated(id).unwrap()
}

async fn a_value_is_its_own_tenants(cache: &dyn Cache) {
    let (a, b) = (tenant("value:a"), tenant("value"));
    let bytes: Vec<u8> = (0..=255).collect();
    cache.put(&a, "key", bytes.clone(), LONG).await.unwrap();
    assert_eq!(cache.get(&a, "key").await.unwrap(), Some(bytes));
    assert_eq!(cache.get(&b, "key").await.unwrap(), None);
    assert_eq!(
        cache.get(&b, "a:key").await.unwrap(),
        None,
        "no name of a tenant reaches into another's keys"
    );
    assert_eq!(
        cache.increment(&a, "key", LONG).await.unwrap(),
        1,
        "a counter is no value"
    );
    assert_eq!(cache.increment(&b, "key", LONG).await.unwrap(), 1);
}

async fn a_value_lives_as_long_as_its_last_write_says(cache: &dyn Cache) {
    let tenant = tenant("lifetimes");
    let short = Duration::from_millis(300);
    for (key, first, last) in [("shortened", LONG, short), ("lengthened", short, LONG)] {
        cache.put(&tenant, key, b"1".to_vec(), first).await.unwrap();
        cache.put(&tenant, key, b"2".to_vec(), last).await.unwrap();
    }
    let expired = async {
        while cache.get(&tenant, "shortened").await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, expired).await.unwrap();
    assert_eq!(cache.get(&tenant, "lengthened").await.unwrap(), Some(b"2".to_vec()));
}

async fn a_counter_lives_from_its_first_increment(cache: &dyn Cache) {
    let tenant = tenant("counter");
    let short = Duration::from_millis(500);
    let first = cache.count(&tenant, "hour:1", short, None).await.unwrap();
    assert!(
        first.count == 1 && first.accepted && first.expires_in <= short,
        "{first:?}"
    );
    // Were a later increment to prolong it, the counter would never come back to one.
    let reborn = async {
        while cache.increment(&tenant, "hour:1", LONG).await.unwrap() != 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, reborn).await.unwrap();
    let second = cache.count(&tenant, "hour:1", LONG, None).await.unwrap();
    assert_eq!(second.count, 2);
    assert!(second.expires_in > LONG / 2 && second.expires_in <= LONG, "{second:?}");
}

async fn a_counter_stops_at_its_cap(cache: &dyn Cache) {
    let tenant = tenant("cap");
    let none = cache.count(&tenant, "none", LONG, Some(0)).await.unwrap();
    assert!((none.count, none.accepted) == (0, false), "{none:?}");
    let mut seen = Vec::new();
    for _ in 0..4 {
        let counted = cache.count(&tenant, "two", LONG, Some(2)).await.unwrap();
        seen.push((counted.count, counted.accepted));
    }
    assert_eq!(
        seen,
        [(1, true), (2, true), (2, false), (2, false)],
        "what is refused is not counted"
    );
    assert_eq!(
        cache.increment(&tenant, "two", LONG).await.unwrap(),
        3,
        "without a cap it goes on"
    );
}

async fn a_generation_holds_until_it_is_renewed(cache: &dyn Cache) {
    let (ours, theirs) = (tenant("generation"), tenant("generation-of-another"));
    let (first, other) = (
        cache.generation(&ours).await.unwrap(),
        cache.generation(&theirs).await.unwrap(),
    );
    assert_ne!(first, other);
    assert_eq!(cache.generation(&ours).await.unwrap(), first);
    cache.renew(&ours).await.unwrap();
    let second = cache.generation(&ours).await.unwrap();
    assert_ne!(second, first);
    assert_eq!(cache.generation(&ours).await.unwrap(), second);
    assert_eq!(
        cache.generation(&theirs).await.unwrap(),
        other,
        "a tenant renews its own"
    );
}

async fn what_is_erased_is_all_of_the_tenant_and_nothing_of_another(cache: &dyn Cache) {
    // Names that hold what keys and patterns are made of, and beginnings of each other.
    let names = [
        "erased",
        "erased:a",
        "erased*",
        "erase?",
        "[erased]",
        "erased\\",
        "e%3Arased",
    ];
    let tenants = names.map(tenant);
    let many = 40;
    let mut generations = Vec::new();
    for tenant in &tenants {
        for number in 0..many {
            let key = format!("hits:{number}");
            cache.put(tenant, &key, b"found".to_vec(), LONG).await.unwrap();
        }
        cache.count(tenant, &format!("{MESSAGES}:7"), LONG, None).await.unwrap();
        generations.push(cache.generation(tenant).await.unwrap());
    }
    for (erased, tenant) in tenants.iter().enumerate() {
        cache.erase(tenant).await.unwrap();
        for (other, tenant) in tenants.iter().enumerate().skip(erased) {
            let is_there = other > erased;
            for number in [0, many - 1] {
                let found = cache.get(tenant, &format!("hits:{number}")).await.unwrap();
                assert_eq!(found.is_some(), is_there, "{tenant}");
            }
            let standing = cache
                .count(tenant, &format!("{MESSAGES}:7"), LONG, Some(0))
                .await
                .unwrap();
            assert_eq!(standing.count, u64::from(is_there), "{tenant}");
            let is_same = cache.generation(tenant).await.unwrap() == generations[other];
            assert_eq!(is_same, is_there, "{tenant}");
        }
    }
}

async fn no_more_than_the_cap_are_accepted_however_many_ask_at_once(cache: Arc<dyn Cache>) {
    let tasks: tokio::task::JoinSet<_> = (0..200)
        .map(|_| {
            let cache = Arc::clone(&cache);
            async move { cache.count(&tenant("crowd"), "limit", LONG, Some(64)).await.unwrap() }
        })
        .collect();
    let counted = tasks.join_all().await;
    let mut accepted: Vec<u64> = counted.iter().filter(|one| one.accepted).map(|one| one.count).collect();
    accepted.sort_unstable();
    assert_eq!(accepted, (1..=64).collect::<Vec<_>>());
    assert!(counted.iter().all(|one| one.accepted || one.count == 64));
}
