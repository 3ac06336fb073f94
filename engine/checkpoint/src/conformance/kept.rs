//! What holds over the closing and opening of a store, and between two openings of one.

use futures_util::future::LocalBoxFuture;
use stepgraph::{
    Checkpointer,
    checkpoint::{At, Page, RunStatus, Seq},
};

use super::ground::{Found, Hand, bytes, delta, everything, get, is, key, refused, run, same, snapshot};

/// A way to a store by its name: with a new name a fresh and empty one, with one given before the same again.
pub(super) trait Opens {
    fn open<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Box<dyn Checkpointer>>;
}

pub(super) struct Opener<F>(pub(super) F);

impl<F, S> Opens for Opener<F>
where
    F: AsyncFn(&str) -> S,
    S: Checkpointer,
{
    fn open<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Box<dyn Checkpointer>> {
        Box::pin(async move { Box::new((self.0)(name).await) as Box<dyn Checkpointer> })
    }
}

/// A statement about every store that outlives its handle.
pub(super) struct KeptFact {
    pub(super) name: &'static str,
    pub(super) holds: for<'a> fn(&'a dyn Opens, &'a str) -> LocalBoxFuture<'a, Found>,
}

macro_rules! kept_facts {
    ($($name:ident),* $(,)?) => {
        pub(super) const FACTS: &[KeptFact] = &[
            $(KeptFact { name: stringify!($name), holds: |opens, name| Box::pin($name(opens, name)) }),*
        ];
    };
}

kept_facts![
    what_was_committed_is_read_after_reopening,
    a_thousand_deltas_are_read_after_reopening,
    a_writer_goes_on_under_its_epoch_after_reopening,
    an_old_owner_stays_fenced_after_reopening,
    epochs_grow_over_reopening,
    branches_and_inner_graphs_are_there_after_reopening,
    what_runs_is_found_after_reopening,
    a_deleted_thread_is_gone_after_reopening,
    an_acknowledged_message_is_forgotten_after_reopening,
    a_commit_is_read_at_once_through_another_opening,
    a_claim_fences_writers_of_another_opening,
    of_two_openings_on_one_head_one_wins,
];

async fn what_was_committed_is_read_after_reopening(opens: &dyn Opens, name: &str) -> Found {
    let thread = key("acme", "t")?;
    let store = opens.open(name).await;
    let mut hand = Hand::begun(&*store, thread.clone()).await?;
    hand.commit(everything(2)).await?;
    let before = (hand.get(At::Seq(Seq(1))).await?, hand.get(At::Head).await?);
    let history = store.list(&thread, Page::default()).await?;
    let messages = store.outbox("topic", 10).await?;
    drop(store);
    let store = opens.open(name).await;
    let after = (
        get(&*store, &thread, At::Seq(Seq(1))).await?,
        get(&*store, &thread, At::Head).await?,
    );
    same("the thread", &after, &before)?;
    same("its history", &store.list(&thread, Page::default()).await?, &history)?;
    same("the messages", &store.outbox("topic", 10).await?, &messages)?;
    same("how many messages wait", &messages.len(), &2)
}

async fn a_thousand_deltas_are_read_after_reopening(opens: &dyn Opens, name: &str) -> Found {
    let thread = key("acme", "t")?;
    let store = opens.open(name).await;
    let mut hand = Hand::new(&*store, thread.clone()).await?;
    hand.append_state(1, snapshot("1")).await?;
    for number in 2..=1000_u32 {
        hand.append_state(number, delta(number.to_string())).await?;
    }
    drop(store);
    let store = opens.open(name).await;
    let wanted: Vec<_> = (1..=1000).map(|number| bytes(number.to_string())).collect();
    same("the parts", &get(&*store, &thread, At::Head).await?.parts, &wanted)
}

async fn a_writer_goes_on_under_its_epoch_after_reopening(opens: &dyn Opens, name: &str) -> Found {
    let thread = key("acme", "t")?;
    let store = opens.open(name).await;
    let hand = Hand::begun(&*store, thread.clone()).await?;
    let (epoch, head) = (hand.epoch, hand.head);
    drop(store);
    let store = opens.open(name).await;
    same(
        "the new head",
        &store.commit(&thread, epoch, head, everything(2)).await?,
        &Some(Seq(2)),
    )
}

async fn an_old_owner_stays_fenced_after_reopening(opens: &dyn Opens, name: &str) -> Found {
    let thread = key("acme", "t")?;
    let store = opens.open(name).await;
    let hand = Hand::begun(&*store, thread.clone()).await?;
    let (old, head) = (hand.epoch, hand.head);
    store.claim(&thread).await?;
    drop(store);
    let store = opens.open(name).await;
    refused(
        store.commit(&thread, old, head, everything(2)).await,
        "checkpoint::fenced",
    )
}

async fn epochs_grow_over_reopening(opens: &dyn Opens, name: &str) -> Found {
    let (thread, other) = (key("acme", "t")?, key("rival", "t")?);
    let mut newest = None;
    for _ in 0..3 {
        let store = opens.open(name).await;
        let epoch = store.claim(&thread).await?;
        is(
            "the epoch is higher than all before",
            newest.is_none_or(|newest| epoch > newest),
        )?;
        newest = Some(epoch);
        store.claim(&other).await?;
        store.delete(&thread).await?;
    }
    Ok(())
}

async fn branches_and_inner_graphs_are_there_after_reopening(opens: &dyn Opens, name: &str) -> Found {
    let thread = key("acme", "t")?;
    let store = opens.open(name).await;
    let mut hand = Hand::begun(&*store, thread.clone()).await?;
    hand.append(2).await?;
    hand.branch(Seq(1), "retry").await?;
    Hand::begun(&*store, thread.child("host")).await?;
    let branches = store.branches(&thread).await?;
    drop(store);
    let store = opens.open(name).await;
    same("the branches", &store.branches(&thread).await?, &branches)?;
    same("how many there are", &branches.len(), &2)?;
    let inner = store.inner(&thread, &stepgraph::Namespace::ROOT, 10).await?;
    same("the graphs inside", &inner, &vec![thread.child("host").namespace])
}

async fn what_runs_is_found_after_reopening(opens: &dyn Opens, name: &str) -> Found {
    let (running, done) = (key("acme", "running")?, key("acme", "done")?);
    let store = opens.open(name).await;
    for (number, key, status) in [(1, &running, RunStatus::Running), (2, &done, RunStatus::Done)] {
        let mut hand = Hand::begun(&*store, key.clone()).await?;
        hand.mark(run(number, "graph", status)).await?;
    }
    drop(store);
    let store = opens.open(name).await;
    same("the unfinished", &store.unfinished("graph", 10).await?, &vec![running])
}

async fn a_deleted_thread_is_gone_after_reopening(opens: &dyn Opens, name: &str) -> Found {
    let thread = key("acme", "t")?;
    let store = opens.open(name).await;
    let mut hand = Hand::begun(&*store, thread.clone()).await?;
    hand.commit(everything(2)).await?;
    store.delete(&thread).await?;
    drop(store);
    let store = opens.open(name).await;
    same("the thread", &store.get(&thread, At::Head).await?, &None)?;
    same("the messages", &store.outbox("topic", 10).await?, &Vec::new())?;
    same("the unfinished", &store.unfinished("graph", 10).await?, &Vec::new())
}

async fn an_acknowledged_message_is_forgotten_after_reopening(opens: &dyn Opens, name: &str) -> Found {
    let thread = key("acme", "t")?;
    let store = opens.open(name).await;
    let mut hand = Hand::begun(&*store, thread.clone()).await?;
    hand.commit(everything(2)).await?;
    let waiting = store.outbox("topic", 10).await?;
    for (owner, message) in waiting.iter().take(1) {
        store.acknowledge(owner, message.id).await?;
    }
    drop(store);
    let store = opens.open(name).await;
    let left: Vec<_> = waiting.into_iter().skip(1).collect();
    same("the messages left", &store.outbox("topic", 10).await?, &left)
}

async fn a_commit_is_read_at_once_through_another_opening(opens: &dyn Opens, name: &str) -> Found {
    let (one, two) = (opens.open(name).await, opens.open(name).await);
    let thread = key("acme", "t")?;
    let mut hand = Hand::begun(&*one, thread.clone()).await?;
    for number in 2..=20 {
        let head = hand.append(number).await?;
        same("the head", &get(&*two, &thread, At::Head).await?.info.seq, &head)?;
    }
    Ok(())
}

async fn a_claim_fences_writers_of_another_opening(opens: &dyn Opens, name: &str) -> Found {
    let (one, two) = (opens.open(name).await, opens.open(name).await);
    let mut hand = Hand::begun(&*one, key("acme", "t")?).await?;
    let newer = two.claim(&hand.key).await?;
    refused(hand.commit(everything(2)).await, "checkpoint::fenced")?;
    same(
        "the new owner's head",
        &two.commit(&hand.key, newer, hand.head, everything(2)).await?,
        &Some(Seq(2)),
    )
}

async fn of_two_openings_on_one_head_one_wins(opens: &dyn Opens, name: &str) -> Found {
    let (one, two) = (opens.open(name).await, opens.open(name).await);
    let hand = Hand::begun(&*one, key("acme", "t")?).await?;
    let commits = [(&one, 2), (&two, 3)]
        .map(|(store, number)| store.commit(&hand.key, hand.epoch, hand.head, everything(number)));
    let outcomes = futures_util::future::join_all(commits).await;
    let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    same("how many won", &won, &1)?;
    for error in outcomes.into_iter().filter_map(Result::err) {
        same("the loser's error", &error.code(), &"checkpoint::conflict")?;
    }
    same("how many messages were sent", &one.outbox("topic", 10).await?.len(), &2)
}
