//! A thread has one owner: whoever claimed it last.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use stepgraph::{
    Checkpointer,
    checkpoint::{At, Commit, Epoch, Page, Seq},
};

use super::ground::{Broken, Found, Hand, checkpoint, everything, facts, is, key, refused, same};

facts![
    each_claim_raises_the_epoch,
    a_claim_makes_the_thread,
    a_claim_leaves_the_checkpoints_alone,
    a_commit_under_an_old_epoch_is_fenced,
    a_commit_under_an_epoch_nobody_was_given_is_fenced,
    a_commit_to_a_thread_that_nobody_claimed_is_fenced,
    a_fenced_commit_writes_nothing,
    being_fenced_is_said_before_a_conflict,
    a_branch_under_an_old_epoch_is_fenced,
    a_claim_fences_no_other_thread,
    a_claim_fences_no_other_namespace,
    a_writer_from_before_a_deletion_stays_fenced,
    of_a_hundred_owners_only_the_last_may_write,
];

fn one_checkpoint(number: u32) -> Commit {
    Commit {
        checkpoint: Some(checkpoint(number)),
        ..Commit::default()
    }
}

async fn each_claim_raises_the_epoch(store: &dyn Checkpointer) -> Found {
    let thread = key("acme", "t")?;
    let mut newest = store.claim(&thread).await?;
    for _ in 0..5 {
        let epoch = store.claim(&thread).await?;
        is("the epoch is higher than the one before", epoch > newest)?;
        newest = epoch;
    }
    Ok(())
}

async fn a_claim_makes_the_thread(store: &dyn Checkpointer) -> Found {
    let thread = key("acme", "t")?;
    let epoch = store.claim(&thread).await?;
    let head = store.commit(&thread, epoch, None, one_checkpoint(1)).await?;
    same("the head", &head, &Some(Seq(1)))
}

async fn a_claim_leaves_the_checkpoints_alone(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    hand.commit(everything(2)).await?;
    let before = hand.get(At::Head).await?;
    hand.epoch = store.claim(&hand.key).await?;
    same("the head", &hand.get(At::Head).await?, &before)?;
    same("the next number", &hand.append(3).await?, &Seq(3))
}

async fn a_commit_under_an_old_epoch_is_fenced(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    let newer = store.claim(&hand.key).await?;
    refused(hand.commit(one_checkpoint(2)).await, "checkpoint::fenced")?;
    refused(hand.commit(Commit::default()).await, "checkpoint::fenced")?;
    hand.epoch = newer;
    same("the next number", &hand.append(2).await?, &Seq(2))
}

async fn a_commit_under_an_epoch_nobody_was_given_is_fenced(store: &dyn Checkpointer) -> Found {
    let hand = Hand::begun(store, key("acme", "t")?).await?;
    for epoch in [Epoch(0), Epoch(hand.epoch.0 + 1), Epoch(u64::MAX)] {
        let commit = store.commit(&hand.key, epoch, hand.head, one_checkpoint(2)).await;
        refused(commit, "checkpoint::fenced")?;
    }
    Ok(())
}

async fn a_commit_to_a_thread_that_nobody_claimed_is_fenced(store: &dyn Checkpointer) -> Found {
    let thread = key("acme", "t")?;
    for epoch in [Epoch(0), Epoch(1)] {
        refused(
            store.commit(&thread, epoch, None, one_checkpoint(1)).await,
            "checkpoint::fenced",
        )?;
    }
    same("what was written", &store.get(&thread, At::Head).await?, &None)
}

async fn a_fenced_commit_writes_nothing(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    let before = hand.get(At::Head).await?;
    store.claim(&hand.key).await?;
    refused(hand.commit(everything(2)).await, "checkpoint::fenced")?;
    same("the head", &hand.get(At::Head).await?, &before)?;
    same("the messages", &store.outbox("topic", 10).await?, &Vec::new())?;
    same(
        "the history's length",
        &store.list(&hand.key, Page::default()).await?.len(),
        &1,
    )
}

async fn being_fenced_is_said_before_a_conflict(store: &dyn Checkpointer) -> Found {
    let hand = Hand::begun(store, key("acme", "t")?).await?;
    store.claim(&hand.key).await?;
    let wrong_in_both = store.commit(&hand.key, hand.epoch, None, one_checkpoint(2)).await;
    refused(wrong_in_both, "checkpoint::fenced")
}

async fn a_branch_under_an_old_epoch_is_fenced(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    hand.append(2).await?;
    store.claim(&hand.key).await?;
    for from in [1, 9] {
        let branch = store.branch(&hand.key, hand.epoch, Seq(from), "late").await;
        refused(branch, "checkpoint::fenced")?;
    }
    same("the head's number", &hand.get(At::Head).await?.info.seq, &Seq(2))
}

async fn a_claim_fences_no_other_thread(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "one")?).await?;
    store.claim(&key("acme", "two")?).await?;
    same("the next number", &hand.append(2).await?, &Seq(2))
}

async fn a_claim_fences_no_other_namespace(store: &dyn Checkpointer) -> Found {
    let root = key("acme", "t")?;
    let mut outer = Hand::begun(store, root.clone()).await?;
    let mut inner = Hand::begun(store, root.child("host")).await?;
    same("the outer's next number", &outer.append(2).await?, &Seq(2))?;
    outer.epoch = store.claim(&root).await?;
    same("the inner's next number", &inner.append(2).await?, &Seq(2))
}

async fn a_writer_from_before_a_deletion_stays_fenced(store: &dyn Checkpointer) -> Found {
    let mut old = Hand::new(store, key("acme", "t")?).await?;
    store.delete(&old.key).await?;
    refused(old.commit(one_checkpoint(1)).await, "checkpoint::fenced")?;
    let mut new = Hand::new(store, old.key.clone()).await?;
    is("the new epoch is higher", new.epoch > old.epoch)?;
    refused(old.commit(one_checkpoint(1)).await, "checkpoint::fenced")?;
    same("the new thread's first number", &new.append(1).await?, &Seq(1))
}

async fn of_a_hundred_owners_only_the_last_may_write(store: &dyn Checkpointer) -> Found {
    let thread = &key("acme", "t")?;
    let claims = join_all((0..100).map(|_| store.claim(thread))).await;
    let epochs: Vec<u64> = claims
        .into_iter()
        .map(|claim| Ok(claim?.0))
        .collect::<Result<_, Broken>>()?;
    let distinct: BTreeSet<u64> = epochs.iter().copied().collect();
    same("how many epochs were given", &distinct.len(), &100)?;
    let writes = epochs.iter().map(|epoch| async move {
        let outcome = store.commit(thread, Epoch(*epoch), None, one_checkpoint(1)).await;
        (*epoch, outcome)
    });
    for (epoch, outcome) in join_all(writes).await {
        if distinct.last() == Some(&epoch) {
            same("the last owner's head", &outcome?, &Some(Seq(1)))?;
        } else {
            refused(outcome, "checkpoint::fenced")?;
        }
    }
    Ok(())
}
