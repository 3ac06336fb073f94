//! A commit is whole or not at all.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use futures_util::future::{join_all, select};
use stepgraph::{
    CheckpointError, Checkpointer, ThreadKey,
    checkpoint::{At, Commit, Epoch, Page, RecordKind, RunStatus, Seq},
};

use super::ground::{
    Broken, Found, Hand, checkpoint, everything, facts, get, is, key, message, record, refused, run, same,
};

facts![
    a_commit_gives_back_the_new_head,
    a_commit_without_a_checkpoint_gives_back_the_old_head,
    a_commit_of_nothing_is_no_error,
    a_commit_writes_everything_at_once,
    a_commit_to_an_old_head_is_a_conflict_that_names_both,
    a_commit_to_a_head_that_is_not_there_yet_is_a_conflict,
    a_first_commit_to_a_begun_thread_is_a_conflict,
    records_to_an_old_head_are_a_conflict,
    a_conflict_writes_nothing,
    a_commit_refused_for_its_records_writes_nothing,
    after_a_conflict_the_writer_goes_on_from_the_found_head,
    of_a_hundred_writers_on_one_head_exactly_one_wins,
    a_hundred_threads_are_written_side_by_side,
    of_commits_at_once_each_is_written_or_refused_by_itself,
    of_threads_begun_at_once_each_is_claimed_and_stands_at_its_head,
    a_dropped_commit_is_written_whole_or_not_at_all,
];

async fn a_commit_gives_back_the_new_head(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    for number in 2..=4 {
        let head = hand.commit(everything(number)).await?;
        same("the head", &head, &Some(Seq(u64::from(number))))?;
    }
    Ok(())
}

async fn a_commit_without_a_checkpoint_gives_back_the_old_head(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    let commit = Commit {
        checkpoint: None,
        ..everything(2)
    };
    same("the head", &hand.commit(commit).await?, &Some(Seq(1)))?;
    same(
        "the history's length",
        &store.list(&hand.key, Page::default()).await?.len(),
        &1,
    )
}

async fn a_commit_of_nothing_is_no_error(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    same("the head", &hand.commit(Commit::default()).await?, &None)?;
    hand.append(1).await?;
    same("the head", &hand.commit(Commit::default()).await?, &Some(Seq(1)))
}

/// How much of `everything(number)` beyond its checkpoint is in the store.
async fn traces(store: &dyn Checkpointer, key: &ThreadKey) -> Result<(usize, usize, bool), Broken> {
    let first = get(store, key, At::Seq(Seq(1))).await?;
    let mut messages = store.outbox("topic", 1000).await?;
    messages.retain(|(owner, _)| owner == key);
    Ok((first.records.len(), messages.len(), first.run.is_some()))
}

async fn a_commit_writes_everything_at_once(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    hand.commit(everything(2)).await?;
    same("the head's number", &hand.get(At::Head).await?.info.seq, &Seq(2))?;
    same(
        "records, messages and run",
        &traces(store, &hand.key).await?,
        &(2, 2, true),
    )
}

async fn a_commit_to_an_old_head_is_a_conflict_that_names_both(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    hand.append(2).await?;
    let late = store.commit(&hand.key, hand.epoch, Some(Seq(1)), everything(3)).await;
    is(
        "the error is a conflict that expected 1, found 2 and names the thread",
        matches!(late, Err(CheckpointError::Conflict { key, expected: Some(Seq(1)), found: Some(Seq(2)) }) if key == hand.key),
    )
}

async fn a_commit_to_a_head_that_is_not_there_yet_is_a_conflict(store: &dyn Checkpointer) -> Found {
    let hand = Hand::begun(store, key("acme", "t")?).await?;
    for number in [0, 2, u64::MAX] {
        let early = store
            .commit(&hand.key, hand.epoch, Some(Seq(number)), everything(2))
            .await;
        refused(early, "checkpoint::conflict")?;
    }
    let empty = Hand::new(store, key("acme", "empty")?).await?;
    let early = store.commit(&empty.key, empty.epoch, Some(Seq(1)), everything(2)).await;
    is(
        "the error is a conflict that found no head",
        matches!(early, Err(CheckpointError::Conflict { found: None, .. })),
    )
}

async fn a_first_commit_to_a_begun_thread_is_a_conflict(store: &dyn Checkpointer) -> Found {
    let hand = Hand::begun(store, key("acme", "t")?).await?;
    let commit = Commit {
        checkpoint: Some(checkpoint(2)),
        ..Commit::default()
    };
    refused(
        store.commit(&hand.key, hand.epoch, None, commit).await,
        "checkpoint::conflict",
    )
}

async fn records_to_an_old_head_are_a_conflict(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    hand.append(2).await?;
    let late = Commit {
        records: vec![record("a", RecordKind::Output, "", "late")],
        ..Commit::default()
    };
    refused(
        store.commit(&hand.key, hand.epoch, Some(Seq(1)), late).await,
        "checkpoint::conflict",
    )?;
    same(
        "the old head's records",
        &hand.get(At::Seq(Seq(1))).await?.records,
        &Vec::new(),
    )
}

async fn a_conflict_writes_nothing(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    hand.append(2).await?;
    let before = (hand.get(At::Seq(Seq(1))).await?, hand.get(At::Head).await?);
    let late = store.commit(&hand.key, hand.epoch, Some(Seq(1)), everything(3)).await;
    refused(late, "checkpoint::conflict")?;
    let after = (hand.get(At::Seq(Seq(1))).await?, hand.get(At::Head).await?);
    same("the thread", &after, &before)?;
    same(
        "records, messages and run",
        &traces(store, &hand.key).await?,
        &(0, 0, false),
    )?;
    same("the next number", &hand.append(3).await?, &Seq(3))
}

async fn a_commit_refused_for_its_records_writes_nothing(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    refused(hand.commit(everything(1)).await, "checkpoint::no_checkpoint")?;
    same(
        "the history",
        &store.list(&hand.key, Page::default()).await?,
        &Vec::new(),
    )?;
    same("the next number", &hand.append(1).await?, &Seq(1))?;
    same(
        "records, messages and run",
        &traces(store, &hand.key).await?,
        &(0, 0, false),
    )
}

async fn after_a_conflict_the_writer_goes_on_from_the_found_head(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    hand.append(2).await?;
    hand.head = Some(Seq(1));
    let Err(CheckpointError::Conflict { found, .. }) = hand.commit(everything(3)).await else {
        return is("the late commit is a conflict", false);
    };
    hand.head = found;
    same("the next number", &hand.append(3).await?, &Seq(3))
}

async fn of_a_hundred_writers_on_one_head_exactly_one_wins(store: &dyn Checkpointer) -> Found {
    let hand = Hand::begun(store, key("acme", "t")?).await?;
    let writers = (2..102).map(|number| {
        let commit = Commit {
            checkpoint: Some(checkpoint(number)),
            ..everything(number)
        };
        store.commit(&hand.key, hand.epoch, hand.head, commit)
    });
    let mut won = 0;
    for outcome in join_all(writers).await {
        match outcome {
            Ok(head) => {
                won += 1;
                same("the winner's head", &head, &Some(Seq(2)))?;
            }
            Err(error) => same("a loser's error", &error.code(), &"checkpoint::conflict")?,
        }
    }
    same("how many won", &won, &1)?;
    same(
        "the history's length",
        &store.list(&hand.key, Page::default()).await?.len(),
        &2,
    )?;
    same(
        "records, messages and run",
        &traces(store, &hand.key).await?,
        &(2, 2, true),
    )
}

async fn a_hundred_threads_are_written_side_by_side(store: &dyn Checkpointer) -> Found {
    let threads = (0..100).map(|number| async move {
        let mut hand = Hand::begun(store, key("acme", &format!("t{number}"))?).await?;
        hand.append(2).await?;
        same("the head's number", &hand.get(At::Head).await?.info.seq, &Seq(2))
    });
    join_all(threads).await.into_iter().collect()
}

/// Stores may write them together: what is wrong with one is no matter of the others.
async fn of_commits_at_once_each_is_written_or_refused_by_itself(store: &dyn Checkpointer) -> Found {
    let mut hands = Vec::new();
    for number in 0..40 {
        hands.push(Hand::begun(store, key("acme", &format!("t{number}"))?).await?);
    }
    let commits = hands.iter().enumerate().map(|(number, hand)| {
        let commit = Commit {
            checkpoint: Some(checkpoint(2)),
            ..Commit::default()
        };
        match number % 4 {
            0 => store.commit(&hand.key, hand.epoch, Some(Seq(7)), commit),
            1 => store.commit(&hand.key, Epoch(hand.epoch.0 + 1000), hand.head, commit),
            2 => {
                let parent = Some(Seq(9));
                store.commit(&hand.key, hand.epoch, hand.head, Commit { parent, ..commit })
            }
            _ => store.commit(&hand.key, hand.epoch, hand.head, commit),
        }
    });
    for (number, outcome) in join_all(commits).await.into_iter().enumerate() {
        match number % 4 {
            0 => refused(outcome, "checkpoint::conflict")?,
            1 => refused(outcome, "checkpoint::fenced")?,
            2 => refused(outcome, "checkpoint::no_checkpoint")?,
            _ => same("the head", &outcome?, &Some(Seq(2)))?,
        }
    }
    for (number, hand) in hands.iter().enumerate() {
        let head = hand.get(At::Head).await?.info.seq;
        same("the head's number", &head, &Seq(if number % 4 == 3 { 2 } else { 1 }))?;
    }
    Ok(())
}

async fn of_threads_begun_at_once_each_is_claimed_and_stands_at_its_head(store: &dyn Checkpointer) -> Found {
    let keys: Vec<ThreadKey> = (0..20)
        .map(|number| key("acme", &format!("t{number}")))
        .collect::<Result<_, _>>()?;
    // One is there already, and one was claimed and no more.
    Hand::begun(store, key("acme", "t3")?).await?;
    let claimed = store.claim(&key("acme", "t4")?).await?;
    let first = || Commit {
        checkpoint: Some(checkpoint(1)),
        run: Some(run(1, "graph", RunStatus::Running)),
        ..Commit::default()
    };
    let begun = join_all(keys.iter().map(|key| store.begin(key, None, first()))).await;
    for (number, (outcome, key)) in begun.into_iter().zip(&keys).enumerate() {
        if number == 3 {
            refused(outcome, "checkpoint::conflict")?;
            continue;
        }
        let (epoch, head) = outcome?;
        same("the head", &head, &Some(Seq(1)))?;
        is("a later epoch than the claim's", number != 4 || epoch > claimed)?;
        let next = Commit {
            checkpoint: Some(checkpoint(2)),
            ..Commit::default()
        };
        same(
            "the next head",
            &store.commit(key, epoch, head, next).await?,
            &Some(Seq(2)),
        )?;
        same("the run", &get(store, key, At::Head).await?.run, &first().run)?;
    }
    Ok(())
}

/// Ready when it has been polled so often: lets everything else go on in between, without a clock.
async fn pauses(count: u32) {
    let mut left = count;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Drops the future after some pauses, unless it is done by then.
async fn drop_after(count: u32, future: impl Future) {
    select(pin!(future), pin!(pauses(count))).await;
}

async fn a_dropped_commit_is_written_whole_or_not_at_all(store: &dyn Checkpointer) -> Found {
    for power in 0..16 {
        let mut hand = Hand::begun(store, key("acme", &format!("t{power}"))?).await?;
        drop_after(
            1 << power,
            store.commit(&hand.key, hand.epoch, hand.head, everything(2)),
        )
        .await;
        // Whatever is left of the dropped commit is over once the thread is another's.
        hand.epoch = store.claim(&hand.key).await?;
        let head = hand.get(At::Head).await?.info.seq;
        let wanted = if head == Seq(2) { (2, 2, true) } else { (0, 0, false) };
        same("records, messages and run", &traces(store, &hand.key).await?, &wanted)?;
        hand.head = Some(head);
        same("the next number", &hand.append(3).await?, &Seq(head.0 + 1))?;
        hand.mark(run(9, "graph", stepgraph::checkpoint::RunStatus::Done))
            .await?;
        hand.send(vec![message(9, "other")]).await?;
    }
    Ok(())
}
