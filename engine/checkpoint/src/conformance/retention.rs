//! Facts about taking checkpoints out.

use std::sync::Arc;

use chrono::DateTime;
use stepgraph::{
    Checkpointer, TenantId, ThreadId,
    checkpoint::{self, At, CheckpointInfo, Commit, Keep, Page, RecordKind, Seq, Tag, Thinned, Thinning},
};

use super::ground::{Found, Hand, broken, bytes, delta, facts, is, key, record, refused, same, snapshot};

facts![
    what_is_kept_reads_as_before_after_a_thinning,
    a_thinning_takes_the_records_too,
    a_rebased_checkpoint_has_no_parent_and_its_children_stand_on_it,
    a_thread_goes_on_after_a_thinning,
    a_number_is_not_given_twice_after_a_thinning,
    a_head_is_not_removed,
    the_head_of_another_branch_is_not_removed,
    a_tagged_checkpoint_is_not_removed,
    a_parent_is_not_removed_from_under_a_delta,
    a_refused_thinning_removes_nothing,
    a_thinning_passes_over_numbers_that_are_not_there,
    tags_come_by_name_and_can_be_moved_and_taken_back,
    a_tag_of_no_checkpoint_is_refused,
    a_deleted_thread_takes_its_tags_along,
    the_last_ones_are_kept_of_a_long_chain,
    what_is_young_is_kept,
    a_branch_keeps_its_head_through_retention,
    retention_takes_graphs_inside_along,
    a_second_retention_finds_nothing_to_do,
    a_thinning_takes_nothing_of_another_tenant,
    threads_of_a_tenant_come_by_name_and_in_pages,
    an_erased_tenant_has_nothing_left_and_others_everything,
];

/// A thread of so many checkpoints: a snapshot and deltas.
async fn chain<'s>(store: &'s dyn Checkpointer, tenant: &str, length: u32) -> Result<Hand<'s>, super::ground::Broken> {
    let mut hand = Hand::new(store, key(tenant, "thread")?).await?;
    hand.append_state(1, snapshot("whole")).await?;
    for number in 2..=length {
        hand.append_state(number, delta(format!("delta {number}"))).await?;
    }
    Ok(hand)
}

fn numbers(infos: &[CheckpointInfo]) -> Vec<u64> {
    infos.iter().map(|info| info.seq.0).collect()
}

async fn history(hand: &Hand<'_>) -> Result<Vec<u64>, super::ground::Broken> {
    Ok(numbers(&hand.store.list(&hand.key, Page::default()).await?))
}

/// Removes all before one, which is rebased.
async fn cut(hand: &Hand<'_>, at: u64) -> Found {
    let parts = hand.get(At::Seq(Seq(at))).await?.parts;
    let thinning = Thinning {
        rebased: vec![(Seq(at), parts)],
        removed: (1..at).map(Seq).collect(),
    };
    Ok(hand.store.thin(&hand.key, thinning).await?)
}

fn only(removed: &[u64]) -> Thinning {
    Thinning {
        rebased: Vec::new(),
        removed: removed.iter().copied().map(Seq).collect(),
    }
}

async fn what_is_kept_reads_as_before_after_a_thinning(store: &dyn Checkpointer) -> Found {
    let hand = chain(store, "acme", 6).await?;
    let mut before = Vec::new();
    for seq in 4..=6 {
        before.push(hand.get(At::Seq(Seq(seq))).await?);
    }
    cut(&hand, 4).await?;
    for was in before {
        let is = hand.get(At::Id(was.info.id)).await?;
        same("the parts", &is.parts, &was.parts)?;
        let parent = was.info.parent.filter(|_| was.info.seq != Seq(4));
        same("the facts", &is.info, &CheckpointInfo { parent, ..was.info })?;
    }
    same("the history", &history(&hand).await?, &vec![6, 5, 4])?;
    for seq in 1..=3 {
        let found = store.get(&hand.key, At::Seq(Seq(seq))).await?;
        is("a removed checkpoint is not found", found.is_none())?;
    }
    Ok(())
}

async fn a_thinning_takes_the_records_too(store: &dyn Checkpointer) -> Found {
    let mut hand = chain(store, "acme", 1).await?;
    hand.record(vec![record("a", RecordKind::Output, "", "one")]).await?;
    hand.append_state(2, snapshot("two")).await?;
    hand.record(vec![record("b", RecordKind::Output, "", "two")]).await?;
    store.thin(&hand.key, only(&[])).await?;
    same("the records", &hand.get(At::Head).await?.records.len(), &1)?;
    cut(&hand, 2).await?;
    let head = hand.get(At::Head).await?;
    same(
        "the records that stay",
        &head.records,
        &vec![record("b", RecordKind::Output, "", "two")],
    )
}

async fn a_rebased_checkpoint_has_no_parent_and_its_children_stand_on_it(store: &dyn Checkpointer) -> Found {
    let hand = chain(store, "acme", 5).await?;
    cut(&hand, 3).await?;
    let infos = store.list(&hand.key, Page::default()).await?;
    let parents: Vec<_> = infos.iter().map(|info| info.parent).collect();
    same("the parents", &parents, &vec![Some(Seq(4)), Some(Seq(3)), None])?;
    let parts = hand.get(At::Head).await?.parts;
    let wanted: Vec<Arc<[u8]>> = ["whole", "delta 2", "delta 3", "delta 4", "delta 5"].map(bytes).into();
    same("the head's parts", &parts, &wanted)
}

async fn a_thread_goes_on_after_a_thinning(store: &dyn Checkpointer) -> Found {
    let mut hand = chain(store, "acme", 4).await?;
    cut(&hand, 4).await?;
    hand.append_state(5, delta("delta 5")).await?;
    let head = hand.get(At::Head).await?;
    same("the parent", &head.info.parent, &Some(Seq(4)))?;
    same("the number of parts", &head.parts.len(), &5)?;
    hand.branch(Seq(4), "other").await?;
    let commit = Commit {
        parent: Some(Seq(2)),
        ..Commit::default()
    };
    refused(hand.commit(commit).await, "checkpoint::no_checkpoint")
}

async fn a_number_is_not_given_twice_after_a_thinning(store: &dyn Checkpointer) -> Found {
    let mut hand = chain(store, "acme", 3).await?;
    // The branch itself is moved back, so that nothing stands on the two after it.
    hand.branch(Seq(1), checkpoint::MAIN).await?;
    store.thin(&hand.key, only(&[2, 3])).await?;
    same("the history", &history(&hand).await?, &vec![1])?;
    same("the head", &hand.get(At::Head).await?.info.seq, &Seq(1))?;
    let seq = hand.append_state(4, delta("again")).await?;
    same("the next number", &seq, &Seq(4))?;
    let head = hand.get(At::Head).await?;
    same("its parent", &head.info.parent, &Some(Seq(1)))
}

async fn a_head_is_not_removed(store: &dyn Checkpointer) -> Found {
    let hand = chain(store, "acme", 3).await?;
    refused(store.thin(&hand.key, only(&[3])).await, "checkpoint::in_use")
}

async fn the_head_of_another_branch_is_not_removed(store: &dyn Checkpointer) -> Found {
    let mut hand = chain(store, "acme", 3).await?;
    hand.branch(Seq(1), "other").await?;
    hand.append_state(4, snapshot("elsewhere")).await?;
    refused(store.thin(&hand.key, only(&[3])).await, "checkpoint::in_use")
}

async fn a_tagged_checkpoint_is_not_removed(store: &dyn Checkpointer) -> Found {
    let mut hand = chain(store, "acme", 1).await?;
    hand.append_state(2, snapshot("two")).await?;
    store.tag(&hand.key, "release", Some(Seq(1))).await?;
    refused(store.thin(&hand.key, only(&[1])).await, "checkpoint::in_use")?;
    store.tag(&hand.key, "release", None).await?;
    let parts = hand.get(At::Head).await?.parts;
    let thinning = Thinning {
        rebased: vec![(Seq(2), parts)],
        ..only(&[1])
    };
    Ok(store.thin(&hand.key, thinning).await?)
}

async fn a_parent_is_not_removed_from_under_a_delta(store: &dyn Checkpointer) -> Found {
    let hand = chain(store, "acme", 3).await?;
    refused(store.thin(&hand.key, only(&[2])).await, "checkpoint::in_use")?;
    refused(store.thin(&hand.key, only(&[1])).await, "checkpoint::in_use")
}

async fn a_refused_thinning_removes_nothing(store: &dyn Checkpointer) -> Found {
    let hand = chain(store, "acme", 4).await?;
    let before = hand.get(At::Head).await?;
    let thinning = Thinning {
        rebased: vec![(Seq(2), vec![bytes("nonsense")])],
        ..only(&[1, 3])
    };
    refused(store.thin(&hand.key, thinning).await, "checkpoint::in_use")?;
    same("the history", &history(&hand).await?, &vec![4, 3, 2, 1])?;
    same("the head", &hand.get(At::Head).await?, &before)
}

async fn a_thinning_passes_over_numbers_that_are_not_there(store: &dyn Checkpointer) -> Found {
    let hand = chain(store, "acme", 3).await?;
    cut(&hand, 2).await?;
    store.thin(&hand.key, only(&[1, 77])).await?;
    store.thin(&key("acme", "unknown")?, only(&[1])).await?;
    same("the history", &history(&hand).await?, &vec![3, 2])
}

async fn tags_come_by_name_and_can_be_moved_and_taken_back(store: &dyn Checkpointer) -> Found {
    let hand = chain(store, "acme", 3).await?;
    for (name, seq) in [("b", 1), ("a", 2), ("c", 3), ("b", 3)] {
        store.tag(&hand.key, name, Some(Seq(seq))).await?;
    }
    store.tag(&hand.key, "c", None).await?;
    store.tag(&hand.key, "unknown", None).await?;
    let tag = |name: &str, seq| Tag {
        name: name.to_owned(),
        seq: Seq(seq),
    };
    same(
        "the tags",
        &store.tags(&hand.key).await?,
        &vec![tag("a", 2), tag("b", 3)],
    )?;
    let other = store.tags(&key("acme", "unknown")?).await?;
    is("another thread has none", other.is_empty())
}

async fn a_tag_of_no_checkpoint_is_refused(store: &dyn Checkpointer) -> Found {
    let hand = chain(store, "acme", 1).await?;
    let tagged = store.tag(&hand.key, "release", Some(Seq(2))).await;
    refused(tagged, "checkpoint::no_checkpoint")?;
    let tagged = store.tag(&key("acme", "unknown")?, "release", Some(Seq(1))).await;
    refused(tagged, "checkpoint::no_checkpoint")
}

async fn a_deleted_thread_takes_its_tags_along(store: &dyn Checkpointer) -> Found {
    let hand = chain(store, "acme", 1).await?;
    store.tag(&hand.key, "release", Some(Seq(1))).await?;
    store.delete(&hand.key).await?;
    chain(store, "acme", 1).await?;
    is(
        "the thread made anew has no tags",
        store.tags(&hand.key).await?.is_empty(),
    )
}

async fn the_last_ones_are_kept_of_a_long_chain(store: &dyn Checkpointer) -> Found {
    // More than one transaction removes.
    let mut hand = chain(store, "acme", 600).await?;
    store.tag(&hand.key, "release", Some(Seq(50))).await?;
    let mut before = Vec::new();
    for seq in [50, 591, 600] {
        before.push(hand.get(At::Seq(Seq(seq))).await?.parts);
    }
    let now = DateTime::from_timestamp_micros(1_800_000_000_000_000).unwrap_or_default();
    let thinned = checkpoint::thin(store, &hand.key, Keep::last(10), now).await?;
    let wanted = Thinned {
        removed: 589,
        rebased: 2,
    };
    same("what was done", &thinned, &wanted)?;
    let wanted: Vec<u64> = (591..=600).rev().chain([50]).collect();
    same("the history", &history(&hand).await?, &wanted)?;
    for (seq, parts) in [50, 591, 600].into_iter().zip(before) {
        same("the parts", &hand.get(At::Seq(Seq(seq))).await?.parts, &parts)?;
    }
    hand.append_state(601, delta("delta 601")).await?;
    same("the parts of the next", &hand.get(At::Head).await?.parts.len(), &601)
}

async fn what_is_young_is_kept(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "thread")?).await?;
    let day = |day: i64| DateTime::from_timestamp(1_700_000_000 + day * 24 * 60 * 60, 0).unwrap_or_default();
    for number in 1..=5 {
        let new = stepgraph::checkpoint::NewCheckpoint {
            created_at: day(number.into()),
            ..super::ground::checkpoint(number)
        };
        hand.write(new).await?;
    }
    checkpoint::thin(store, &hand.key, Keep::days(2), day(5)).await?;
    same("the history", &history(&hand).await?, &vec![5, 4, 3])?;
    checkpoint::thin(store, &hand.key, Keep::days(1).and_last(3), day(9)).await?;
    same("the history under two rules", &history(&hand).await?, &vec![5, 4, 3])?;
    checkpoint::thin(store, &hand.key, Keep::heads(), day(9)).await?;
    same("the history of the head alone", &history(&hand).await?, &vec![5])
}

async fn a_branch_keeps_its_head_through_retention(store: &dyn Checkpointer) -> Found {
    let mut hand = chain(store, "acme", 4).await?;
    hand.branch(Seq(2), "other").await?;
    for number in 5..=8 {
        hand.append_state(number, delta(format!("other {number}"))).await?;
    }
    let left = hand.get(At::Seq(Seq(4))).await?.parts;
    let now = hand.get(At::Head).await?.parts;
    checkpoint::thin(store, &hand.key, Keep::last(1), DateTime::UNIX_EPOCH).await?;
    same("the history", &history(&hand).await?, &vec![8, 4])?;
    same(
        "the parts of the branch that was left",
        &hand.get(At::Seq(Seq(4))).await?.parts,
        &left,
    )?;
    same("the head's parts", &hand.get(At::Head).await?.parts, &now)?;
    same("the number of branches", &store.branches(&hand.key).await?.len(), &2)
}

async fn retention_takes_graphs_inside_along(store: &dyn Checkpointer) -> Found {
    let root = chain(store, "acme", 3).await?;
    let mut inside = Hand::new(store, root.key.child("host")).await?;
    for number in 1..=3 {
        inside.append(number).await?;
    }
    checkpoint::thin(store, &inside.key, Keep::last(1), DateTime::UNIX_EPOCH).await?;
    same("the outer history", &history(&root).await?, &vec![3])?;
    same("the inner history", &history(&inside).await?, &vec![3])
}

async fn a_second_retention_finds_nothing_to_do(store: &dyn Checkpointer) -> Found {
    let hand = chain(store, "acme", 9).await?;
    checkpoint::thin(store, &hand.key, Keep::last(3), DateTime::UNIX_EPOCH).await?;
    let before = hand.get(At::Head).await?;
    let again = checkpoint::thin(store, &hand.key, Keep::last(3), DateTime::UNIX_EPOCH).await?;
    same("what the second did", &again, &Thinned::default())?;
    same("the head", &hand.get(At::Head).await?, &before)
}

async fn a_thinning_takes_nothing_of_another_tenant(store: &dyn Checkpointer) -> Found {
    let (own, other) = (chain(store, "acme", 4).await?, chain(store, "other", 4).await?);
    let before = other.get(At::Head).await?;
    store.tag(&other.key, "release", Some(Seq(1))).await?;
    cut(&own, 4).await?;
    is("the own thread has no tag", store.tags(&own.key).await?.is_empty())?;
    same("the other's history", &history(&other).await?, &vec![4, 3, 2, 1])?;
    same("the other's head", &other.get(At::Head).await?, &before)
}

async fn threads_of_a_tenant_come_by_name_and_in_pages(store: &dyn Checkpointer) -> Found {
    for name in ["c", "a", "b"] {
        let hand = Hand::begun(store, key("acme", name)?).await?;
        Hand::begun(store, hand.key.child("host")).await?;
    }
    Hand::begun(store, key("other", "d")?).await?;
    let tenant = TenantId::authenticated("acme")?;
    let names = |ids: Vec<ThreadId>| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    let first = store.threads(&tenant, None, 2).await?;
    same(
        "the first page",
        &names(first.clone()),
        &vec!["a".to_owned(), "b".to_owned()],
    )?;
    let rest = store.threads(&tenant, first.last(), 2).await?;
    same("the rest", &names(rest), &vec!["c".to_owned()])
}

async fn an_erased_tenant_has_nothing_left_and_others_everything(store: &dyn Checkpointer) -> Found {
    let other = chain(store, "other", 2).await?;
    let before = other.get(At::Head).await?;
    let mut hands = Vec::new();
    for name in ["a", "b"] {
        let mut hand = Hand::begun(store, key("acme", name)?).await?;
        hand.commit(super::ground::everything(2)).await?;
        store.tag(&hand.key, "release", Some(Seq(1))).await?;
        hands.push(hand);
    }
    let tenant = TenantId::authenticated("acme")?;
    store.erase(&tenant).await?;
    is("no thread is left", store.threads(&tenant, None, 9).await?.is_empty())?;
    for mut hand in hands {
        is("no head is left", store.get(&hand.key, At::Head).await?.is_none())?;
        is("no tag is left", store.tags(&hand.key).await?.is_empty())?;
        refused(hand.commit(Commit::default()).await, "checkpoint::fenced")?;
    }
    if !store.outbox("topic", 9).await?.is_empty() {
        return broken("messages are left");
    }
    same("the other's head", &other.get(At::Head).await?, &before)
}
