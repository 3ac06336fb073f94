//! A thread's history.

use stepgraph::{
    Checkpointer, Namespace,
    checkpoint::{At, CheckpointInfo, Page, Seq},
};

use super::ground::{Broken, Found, Hand, delta, facts, key, same, snapshot};

facts![
    a_history_is_listed_newest_first,
    a_history_is_cut_at_its_limit,
    a_limit_of_zero_lists_nothing,
    a_history_goes_on_before_a_number,
    a_history_before_its_first_checkpoint_is_empty,
    a_history_before_an_unknown_number_holds_what_is_older,
    pages_of_a_history_join_without_a_gap,
    a_history_says_what_reading_each_checkpoint_says,
    a_history_shows_every_branch,
    a_history_of_deltas_lists_each_of_them,
    inner_graphs_are_listed_by_name,
    inner_graphs_of_another_thread_or_tenant_are_not_listed,
];

async fn ten(store: &dyn Checkpointer) -> Result<Hand<'_>, Broken> {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    for number in 2..=10 {
        hand.append(number).await?;
    }
    Ok(hand)
}

fn numbers(list: &[CheckpointInfo]) -> Vec<u64> {
    list.iter().map(|info| info.seq.0).collect()
}

async fn page(hand: &Hand<'_>, before: Option<u64>, limit: u32) -> Result<Vec<u64>, Broken> {
    let before = before.map(Seq);
    Ok(numbers(&hand.store.list(&hand.key, Page { before, limit }).await?))
}

async fn a_history_is_listed_newest_first(store: &dyn Checkpointer) -> Found {
    let hand = ten(store).await?;
    let all: Vec<u64> = (1..=10).rev().collect();
    same("the history", &page(&hand, None, 100).await?, &all)
}

async fn a_history_is_cut_at_its_limit(store: &dyn Checkpointer) -> Found {
    let hand = ten(store).await?;
    same("the history", &page(&hand, None, 3).await?, &vec![10, 9, 8])?;
    same("the history's length", &page(&hand, None, u32::MAX).await?.len(), &10)
}

async fn a_limit_of_zero_lists_nothing(store: &dyn Checkpointer) -> Found {
    let hand = ten(store).await?;
    same("the history", &page(&hand, None, 0).await?, &Vec::new())
}

async fn a_history_goes_on_before_a_number(store: &dyn Checkpointer) -> Found {
    let hand = ten(store).await?;
    same("the history", &page(&hand, Some(4), 100).await?, &vec![3, 2, 1])?;
    same("the history", &page(&hand, Some(4), 2).await?, &vec![3, 2])
}

async fn a_history_before_its_first_checkpoint_is_empty(store: &dyn Checkpointer) -> Found {
    let hand = ten(store).await?;
    same("the history", &page(&hand, Some(1), 100).await?, &Vec::new())?;
    same("the history", &page(&hand, Some(0), 100).await?, &Vec::new())
}

async fn a_history_before_an_unknown_number_holds_what_is_older(store: &dyn Checkpointer) -> Found {
    let hand = ten(store).await?;
    for before in [11, 1000, u64::MAX] {
        same(
            "the history's length",
            &page(&hand, Some(before), 100).await?.len(),
            &10,
        )?;
    }
    Ok(())
}

async fn pages_of_a_history_join_without_a_gap(store: &dyn Checkpointer) -> Found {
    let hand = ten(store).await?;
    let (mut joined, mut before) = (Vec::new(), None);
    loop {
        let page = page(&hand, before, 4).await?;
        let Some(oldest) = page.last() else { break };
        before = Some(*oldest);
        joined.extend(page);
    }
    same("all pages", &joined, &page(&hand, None, 100).await?)
}

async fn a_history_says_what_reading_each_checkpoint_says(store: &dyn Checkpointer) -> Found {
    let hand = ten(store).await?;
    for info in store.list(&hand.key, Page::default()).await? {
        same("the listed checkpoint", &info, &hand.get(At::Seq(info.seq)).await?.info)?;
    }
    Ok(())
}

async fn a_history_shows_every_branch(store: &dyn Checkpointer) -> Found {
    let mut hand = ten(store).await?;
    hand.branch(Seq(5), "retry").await?;
    hand.append(11).await?;
    let all: Vec<u64> = (1..=11).rev().collect();
    same("the history", &page(&hand, None, 100).await?, &all)
}

async fn a_history_of_deltas_lists_each_of_them(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    hand.append_state(1, snapshot("a")).await?;
    hand.append_state(2, delta("b")).await?;
    hand.append_state(3, delta("c")).await?;
    same("the history", &page(&hand, None, 100).await?, &vec![3, 2, 1])
}

/// A thread with three graphs inside, made in another order than that of their names.
async fn nest(store: &dyn Checkpointer) -> Result<Hand<'_>, Broken> {
    let root = Hand::begun(store, key("acme", "t")?).await?;
    for host in ["b@1", "a@1", "a@1/c@1"] {
        let namespace = Namespace::from_stored(host);
        Hand::begun(
            store,
            stepgraph::ThreadKey {
                namespace,
                ..root.key.clone()
            },
        )
        .await?;
    }
    Ok(root)
}

async fn inner(hand: &Hand<'_>, after: &str, limit: u32) -> Result<Vec<String>, Broken> {
    let found = hand
        .store
        .inner(&hand.key, &Namespace::from_stored(after), limit)
        .await?;
    Ok(found.iter().map(ToString::to_string).collect())
}

async fn inner_graphs_are_listed_by_name(store: &dyn Checkpointer) -> Found {
    let mut root = nest(store).await?;
    let all = ["a@1", "a@1/c@1", "b@1"].map(str::to_owned).to_vec();
    same("the graphs", &inner(&root, "", 10).await?, &all)?;
    same("the first", &inner(&root, "", 1).await?, &vec!["a@1".to_owned()])?;
    same(
        "those behind one",
        &inner(&root, "a@1", 10).await?,
        &vec!["a@1/c@1".to_owned(), "b@1".to_owned()],
    )?;
    root.key = root.key.child("b@1");
    same("the same asked from inside", &inner(&root, "", 10).await?, &all)
}

async fn inner_graphs_of_another_thread_or_tenant_are_not_listed(store: &dyn Checkpointer) -> Found {
    nest(store).await?;
    for (tenant, thread) in [("acme", "other"), ("evil", "t")] {
        let other = Hand::begun(store, key(tenant, thread)?).await?;
        same("the graphs inside", &inner(&other, "", 10).await?, &Vec::new())?;
    }
    Ok(())
}
