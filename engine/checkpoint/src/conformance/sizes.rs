//! What holds of the bytes that a store takes, where somebody can count them.

use futures_util::future::LocalBoxFuture;
use stepgraph::{
    Checkpointer,
    checkpoint::{At, Payload, Seq, Thinning},
};

use super::{
    ground::{Found, Hand, is, key},
    values::{fields, noise, prose},
};

/// A store, and how many bytes it takes.
pub(super) trait Counts {
    fn store(&self) -> &dyn Checkpointer;
    fn bytes(&self) -> LocalBoxFuture<'_, u64>;
}

pub(super) struct Counted<'c, S, B> {
    pub(super) store: S,
    pub(super) bytes: &'c B,
}

impl<S, B> Counts for Counted<'_, S, B>
where
    S: Checkpointer,
    B: AsyncFn(&S) -> u64,
{
    fn store(&self) -> &dyn Checkpointer {
        &self.store
    }

    fn bytes(&self) -> LocalBoxFuture<'_, u64> {
        Box::pin((self.bytes)(&self.store))
    }
}

/// A statement about a store whose bytes can be counted.
pub(super) struct SizeFact {
    pub(super) name: &'static str,
    pub(super) holds: for<'a> fn(&'a dyn Counts) -> LocalBoxFuture<'a, Found>,
}

macro_rules! size_facts {
    ($($name:ident),* $(,)?) => {
        pub(super) const FACTS: &[SizeFact] = &[
            $(SizeFact { name: stringify!($name), holds: |counts| Box::pin($name(counts)) }),*
        ];
    };
}

size_facts![
    a_large_value_is_kept_once_in_a_thread,
    a_large_value_that_can_be_made_shorter_is,
    what_only_removed_checkpoints_held_goes_with_them,
    what_a_kept_checkpoint_holds_stays_once,
    a_deleted_thread_leaves_no_large_value_behind,
    an_erased_tenant_leaves_no_large_value_behind,
];

const VALUE: usize = 256 * 1024;
/// What the rest of a few small checkpoints may take, with whatever a store adds: memory comes in steps.
const REST: u64 = 128 * 1024;

fn large(values: u64) -> u64 {
    values * VALUE as u64
}

async fn takes(what: &str, counts: &dyn Counts, before: u64, (least, most): (u64, u64)) -> Found {
    let bytes = counts.bytes().await.saturating_sub(before);
    is(
        &format!("{what} takes {bytes} bytes, between {least} and {most}"),
        (least..=most).contains(&bytes),
    )
}

/// Snapshots that all hold one large value, each beside a number of its own.
async fn repeated<'s>(
    store: &'s dyn Checkpointer,
    (tenant, thread): (&str, &str),
    checkpoints: u32,
) -> Result<Hand<'s>, super::ground::Broken> {
    let mut hand = Hand::new(store, key(tenant, thread)?).await?;
    let value = noise(1, VALUE);
    for number in 1..=checkpoints {
        let state = fields(&[("number", &number.to_be_bytes()), ("value", &value)]);
        hand.append_state(number, Payload::Snapshot(state)).await?;
    }
    Ok(hand)
}

async fn a_large_value_is_kept_once_in_a_thread(counts: &dyn Counts) -> Found {
    let before = counts.bytes().await;
    let mut hand = repeated(counts.store(), ("acme", "t"), 10).await?;
    takes("a value in ten snapshots", counts, before, (large(1), large(1) + REST)).await?;
    let change = fields(&[("value", &noise(1, VALUE))]);
    hand.append_state(11, Payload::Delta(change)).await?;
    takes("the same in a delta", counts, before, (large(1), large(1) + REST)).await
}

async fn a_large_value_that_can_be_made_shorter_is(counts: &dyn Counts) -> Found {
    let before = counts.bytes().await;
    let mut hand = Hand::new(counts.store(), key("acme", "t")?).await?;
    for number in 1..=4 {
        let state = fields(&[("text", &prose(number, VALUE))]);
        hand.append_state(number, Payload::Snapshot(state)).await?;
    }
    takes("four repetitive texts", counts, before, (1, REST)).await
}

async fn what_only_removed_checkpoints_held_goes_with_them(counts: &dyn Counts) -> Found {
    let before = counts.bytes().await;
    let mut hand = repeated(counts.store(), ("acme", "t"), 3).await?;
    hand.append_state(4, Payload::Snapshot(fields(&[("number", b"4")])))
        .await?;
    let own = hand.get(At::Head).await?.parts;
    let thinning = Thinning {
        rebased: vec![(Seq(4), own)],
        removed: (1..=3).map(Seq).collect(),
    };
    hand.store.thin(&hand.key, thinning).await?;
    takes("a thread whose large value is gone", counts, before, (0, REST)).await
}

async fn what_a_kept_checkpoint_holds_stays_once(counts: &dyn Counts) -> Found {
    let before = counts.bytes().await;
    let mut hand = repeated(counts.store(), ("acme", "t"), 3).await?;
    hand.append_state(4, Payload::Delta(fields(&[("number", b"4")])))
        .await?;
    let own = hand.get(At::Head).await?.parts;
    let thinning = Thinning {
        rebased: vec![(Seq(4), own)],
        removed: (1..=3).map(Seq).collect(),
    };
    hand.store.thin(&hand.key, thinning).await?;
    takes(
        "a rebased delta with its snapshot",
        counts,
        before,
        (large(1), large(1) + REST),
    )
    .await?;
    hand.append_state(5, Payload::Snapshot(fields(&[("number", b"5")])))
        .await?;
    let own = hand.get(At::Head).await?.parts;
    let thinning = Thinning {
        rebased: vec![(Seq(5), own)],
        removed: vec![Seq(4)],
    };
    hand.store.thin(&hand.key, thinning).await?;
    takes("the thread once that is gone too", counts, before, (0, REST)).await
}

async fn a_deleted_thread_leaves_no_large_value_behind(counts: &dyn Counts) -> Found {
    let before = counts.bytes().await;
    let gone = repeated(counts.store(), ("acme", "gone"), 3).await?;
    repeated(counts.store(), ("acme", "stays"), 3).await?;
    counts.store().delete(&gone.key).await?;
    takes("the thread that stays", counts, before, (large(1), large(1) + REST)).await
}

async fn an_erased_tenant_leaves_no_large_value_behind(counts: &dyn Counts) -> Found {
    let before = counts.bytes().await;
    for thread in ["a", "b"] {
        repeated(counts.store(), ("acme", thread), 2).await?;
    }
    let stays = repeated(counts.store(), ("bolt", "a"), 2).await?;
    counts.store().erase(&key("acme", "a")?.tenant).await?;
    takes("the tenant that stays", counts, before, (large(1), large(1) + REST)).await?;
    counts.store().erase(&stays.key.tenant).await?;
    takes("nobody", counts, before, (0, REST)).await
}
