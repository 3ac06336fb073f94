//! A thread may go on from an old checkpoint; nothing is lost.

use stepgraph::{
    Checkpointer,
    checkpoint::{At, Branch, Commit, MAIN, NewCheckpoint, Page, Seq},
};

use super::ground::{Broken, Found, Hand, bytes, checkpoint, delta, everything, facts, key, refused, same, snapshot};

facts![
    a_branch_makes_an_old_checkpoint_the_head,
    a_commit_after_a_branch_grows_from_there,
    numbers_go_on_over_all_branches,
    the_old_head_stays_readable,
    a_commit_to_the_old_head_is_a_conflict,
    a_thread_goes_back_to_its_old_head,
    a_branch_from_an_unknown_checkpoint_is_refused,
    a_branch_of_an_empty_thread_is_refused,
    a_branch_of_an_unclaimed_thread_is_fenced,
    a_branch_name_may_be_given_again,
    a_branch_name_may_be_any_text,
    two_branches_grow_from_one_checkpoint,
    deltas_of_one_branch_stay_out_of_another,
    a_branch_keeps_records_where_they_are,
    a_commit_may_grow_from_an_older_checkpoint,
    a_commit_from_an_unknown_checkpoint_writes_nothing,
    a_thread_begins_on_main,
    a_thread_without_checkpoints_has_no_branch,
    a_branch_that_was_left_stays_where_it_was,
    the_branch_a_thread_is_on_moves_with_its_head,
    a_branch_that_is_moved_is_listed_once,
    branches_of_anothers_thread_are_not_listed,
    a_refused_branch_moves_no_other,
];

async fn three(store: &dyn Checkpointer) -> Result<Hand<'_>, Broken> {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    hand.append(2).await?;
    hand.append(3).await?;
    Ok(hand)
}

async fn a_branch_makes_an_old_checkpoint_the_head(store: &dyn Checkpointer) -> Found {
    let mut hand = three(store).await?;
    hand.branch(Seq(1), "retry").await?;
    same(
        "the head",
        &hand.get(At::Head).await?,
        &hand.get(At::Seq(Seq(1))).await?,
    )
}

async fn a_commit_after_a_branch_grows_from_there(store: &dyn Checkpointer) -> Found {
    let mut hand = three(store).await?;
    hand.branch(Seq(1), "retry").await?;
    hand.append(4).await?;
    let head = hand.get(At::Head).await?;
    same("its parent", &head.info.parent, &Some(Seq(1)))?;
    same("its state", &head.parts, &vec![bytes("state 4")])
}

async fn numbers_go_on_over_all_branches(store: &dyn Checkpointer) -> Found {
    let mut hand = three(store).await?;
    hand.branch(Seq(1), "retry").await?;
    same("the next number", &hand.append(4).await?, &Seq(4))?;
    hand.branch(Seq(2), "again").await?;
    same("the next number", &hand.append(5).await?, &Seq(5))
}

async fn the_old_head_stays_readable(store: &dyn Checkpointer) -> Found {
    let mut hand = three(store).await?;
    let before = hand.get(At::Head).await?;
    hand.branch(Seq(1), "retry").await?;
    hand.append(4).await?;
    same("the old head by number", &hand.get(At::Seq(Seq(3))).await?, &before)?;
    same("the old head by id", &hand.get(At::Id(before.info.id)).await?, &before)
}

async fn a_commit_to_the_old_head_is_a_conflict(store: &dyn Checkpointer) -> Found {
    let mut hand = three(store).await?;
    hand.branch(Seq(1), "retry").await?;
    hand.head = Some(Seq(3));
    refused(hand.commit(everything(4)).await, "checkpoint::conflict")
}

async fn a_thread_goes_back_to_its_old_head(store: &dyn Checkpointer) -> Found {
    let mut hand = three(store).await?;
    hand.branch(Seq(1), "retry").await?;
    hand.append(4).await?;
    hand.branch(Seq(3), "main").await?;
    hand.append(5).await?;
    same(
        "the head's parent",
        &hand.get(At::Head).await?.info.parent,
        &Some(Seq(3)),
    )
}

async fn a_branch_from_an_unknown_checkpoint_is_refused(store: &dyn Checkpointer) -> Found {
    let hand = three(store).await?;
    for from in [0, 4, u64::MAX] {
        let branch = store.branch(&hand.key, hand.epoch, Seq(from), "nowhere").await;
        refused(branch, "checkpoint::no_checkpoint")?;
    }
    same("the head's number", &hand.get(At::Head).await?.info.seq, &Seq(3))
}

async fn a_branch_of_an_empty_thread_is_refused(store: &dyn Checkpointer) -> Found {
    let hand = Hand::new(store, key("acme", "t")?).await?;
    let branch = store.branch(&hand.key, hand.epoch, Seq(1), "nowhere").await;
    refused(branch, "checkpoint::no_checkpoint")
}

async fn a_branch_of_an_unclaimed_thread_is_fenced(store: &dyn Checkpointer) -> Found {
    let hand = three(store).await?;
    let branch = store
        .branch(&key("acme", "unclaimed")?, hand.epoch, Seq(1), "nowhere")
        .await;
    refused(branch, "checkpoint::fenced")
}

async fn a_branch_name_may_be_given_again(store: &dyn Checkpointer) -> Found {
    let mut hand = three(store).await?;
    for from in [1, 2, 2, 3, 1] {
        hand.branch(Seq(from), "retry").await?;
        same("the head's number", &hand.get(At::Head).await?.info.seq, &Seq(from))?;
    }
    Ok(())
}

async fn a_branch_name_may_be_any_text(store: &dyn Checkpointer) -> Found {
    let mut hand = three(store).await?;
    for name in ["", "\0", "a/b", "支線 🎏", "'; --"] {
        hand.branch(Seq(3), "main").await?;
        hand.branch(Seq(1), name).await?;
        same("the head's number", &hand.get(At::Head).await?.info.seq, &Seq(1))?;
    }
    Ok(())
}

async fn two_branches_grow_from_one_checkpoint(store: &dyn Checkpointer) -> Found {
    let mut hand = three(store).await?;
    for (name, number) in [("left", 4), ("right", 5)] {
        hand.branch(Seq(2), name).await?;
        hand.append(number).await?;
    }
    let history = store.list(&hand.key, Page::default()).await?;
    let parents: Vec<_> = history.iter().map(|info| info.parent.map(|parent| parent.0)).collect();
    same("the parents", &parents, &vec![Some(2), Some(2), Some(2), Some(1), None])
}

async fn deltas_of_one_branch_stay_out_of_another(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    hand.append_state(1, snapshot("root")).await?;
    hand.append_state(2, delta("common")).await?;
    hand.append_state(3, delta("left 1")).await?;
    hand.append_state(4, delta("left 2")).await?;
    hand.branch(Seq(2), "right").await?;
    hand.append_state(5, delta("right 1")).await?;
    hand.branch(Seq(4), "left").await?;
    hand.append_state(6, delta("left 3")).await?;
    hand.branch(Seq(5), "right").await?;
    hand.append_state(7, delta("right 2")).await?;
    let parts = |names: &[&str]| names.iter().map(bytes).collect::<Vec<_>>();
    let right = parts(&["root", "common", "right 1", "right 2"]);
    same("the right branch", &hand.get(At::Head).await?.parts, &right)?;
    let left = parts(&["root", "common", "left 1", "left 2", "left 3"]);
    same("the left branch", &hand.get(At::Seq(Seq(6))).await?.parts, &left)
}

async fn a_branch_keeps_records_where_they_are(store: &dyn Checkpointer) -> Found {
    let mut hand = three(store).await?;
    let commit = Commit {
        checkpoint: None,
        ..everything(9)
    };
    hand.commit(commit.clone()).await?;
    hand.branch(Seq(1), "retry").await?;
    same(
        "the new head's records",
        &hand.get(At::Head).await?.records,
        &Vec::new(),
    )?;
    same(
        "the old head's records",
        &hand.get(At::Seq(Seq(3))).await?.records,
        &commit.records,
    )
}

async fn a_commit_may_grow_from_an_older_checkpoint(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    hand.append_state(1, snapshot("root")).await?;
    hand.append_state(2, delta("left")).await?;
    let grown = Commit {
        checkpoint: Some(NewCheckpoint {
            payload: delta("right"),
            ..checkpoint(3)
        }),
        parent: Some(Seq(1)),
        ..Commit::default()
    };
    same("the new head", &hand.commit(grown).await?, &Some(Seq(3)))?;
    let head = hand.get(At::Head).await?;
    same("its parent", &head.info.parent, &Some(Seq(1)))?;
    same("its state", &head.parts, &vec![bytes("root"), bytes("right")])?;
    same("the old head", &hand.get(At::Seq(Seq(2))).await?.info.seq, &Seq(2))
}

async fn a_commit_from_an_unknown_checkpoint_writes_nothing(store: &dyn Checkpointer) -> Found {
    let mut hand = three(store).await?;
    let before = hand.get(At::Head).await?;
    let grown = Commit {
        parent: Some(Seq(9)),
        ..everything(4)
    };
    refused(hand.commit(grown).await, "checkpoint::no_checkpoint")?;
    same("the head", &hand.get(At::Head).await?, &before)
}

async fn listed(hand: &Hand<'_>) -> Result<Vec<(String, u64, bool)>, Broken> {
    let branches = hand.store.branches(&hand.key).await?;
    let short = |Branch { name, head, current }| (name, head.0, current);
    Ok(branches.into_iter().map(short).collect())
}

fn branch(name: &str, head: u64, current: bool) -> (String, u64, bool) {
    (name.to_owned(), head, current)
}

async fn a_thread_begins_on_main(store: &dyn Checkpointer) -> Found {
    let hand = three(store).await?;
    same("the branches", &listed(&hand).await?, &vec![branch(MAIN, 3, true)])
}

async fn a_thread_without_checkpoints_has_no_branch(store: &dyn Checkpointer) -> Found {
    same(
        "the branches of no thread",
        &store.branches(&key("acme", "t")?).await?,
        &Vec::new(),
    )?;
    let hand = Hand::new(store, key("acme", "t")?).await?;
    same("the branches", &listed(&hand).await?, &Vec::new())
}

async fn a_branch_that_was_left_stays_where_it_was(store: &dyn Checkpointer) -> Found {
    let mut hand = three(store).await?;
    hand.branch(Seq(1), "retry").await?;
    hand.append(4).await?;
    let wanted = vec![branch(MAIN, 3, false), branch("retry", 4, true)];
    same("the branches", &listed(&hand).await?, &wanted)
}

async fn the_branch_a_thread_is_on_moves_with_its_head(store: &dyn Checkpointer) -> Found {
    let mut hand = three(store).await?;
    hand.branch(Seq(1), "retry").await?;
    hand.branch(Seq(3), MAIN).await?;
    hand.append(4).await?;
    hand.append(5).await?;
    let wanted = vec![branch(MAIN, 5, true), branch("retry", 1, false)];
    same("the branches", &listed(&hand).await?, &wanted)?;
    hand.branch(Seq(1), "retry").await?;
    hand.append(6).await?;
    let wanted = vec![branch(MAIN, 5, false), branch("retry", 6, true)];
    same("the branches after another turn", &listed(&hand).await?, &wanted)
}

async fn a_branch_that_is_moved_is_listed_once(store: &dyn Checkpointer) -> Found {
    let mut hand = three(store).await?;
    for from in [1, 2, 2] {
        hand.branch(Seq(from), "retry").await?;
    }
    let wanted = vec![branch(MAIN, 3, false), branch("retry", 2, true)];
    same("the branches", &listed(&hand).await?, &wanted)
}

async fn branches_of_anothers_thread_are_not_listed(store: &dyn Checkpointer) -> Found {
    let mut hand = three(store).await?;
    hand.branch(Seq(1), "retry").await?;
    let other = Hand::begun(store, key("evil", "t")?).await?;
    same(
        "the other's branches",
        &listed(&other).await?,
        &vec![branch(MAIN, 1, true)],
    )
}

async fn a_refused_branch_moves_no_other(store: &dyn Checkpointer) -> Found {
    let mut hand = three(store).await?;
    hand.branch(Seq(1), "retry").await?;
    let before = listed(&hand).await?;
    let refusal = store.branch(&hand.key, hand.epoch, Seq(9), "nowhere").await;
    refused(refusal, "checkpoint::no_checkpoint")?;
    same("the branches", &listed(&hand).await?, &before)
}
