//! A state is its nearest snapshot and the deltas from there.

use stepgraph::{
    Checkpointer,
    checkpoint::{At, Page, Seq},
};

use super::ground::{Found, Hand, bytes, delta, facts, key, same, snapshot};

facts![
    deltas_come_in_order_behind_their_snapshot,
    a_snapshot_ends_the_chain_before_it,
    an_old_checkpoint_has_the_chain_of_its_time,
    deltas_without_a_snapshot_reach_to_the_first,
    an_empty_delta_keeps_its_place,
    a_chain_of_a_thousand_deltas_is_read_whole,
    chains_of_two_threads_stay_apart,
];

async fn deltas_come_in_order_behind_their_snapshot(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    hand.append_state(1, snapshot("whole")).await?;
    hand.append_state(2, delta("z")).await?;
    hand.append_state(3, delta("a")).await?;
    let wanted = vec![bytes("whole"), bytes("z"), bytes("a")];
    same("the parts", &hand.get(At::Head).await?.parts, &wanted)
}

async fn a_snapshot_ends_the_chain_before_it(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    hand.append_state(1, snapshot("old")).await?;
    hand.append_state(2, delta("gone")).await?;
    hand.append_state(3, snapshot("new")).await?;
    same("the parts", &hand.get(At::Head).await?.parts, &vec![bytes("new")])?;
    hand.append_state(4, delta("more")).await?;
    same(
        "the parts",
        &hand.get(At::Head).await?.parts,
        &vec![bytes("new"), bytes("more")],
    )
}

async fn an_old_checkpoint_has_the_chain_of_its_time(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    hand.append_state(1, snapshot("one")).await?;
    hand.append_state(2, delta("two")).await?;
    hand.append_state(3, delta("three")).await?;
    hand.append_state(4, snapshot("four")).await?;
    let of_two = hand.get(At::Seq(Seq(2))).await?.parts;
    same("the parts of 2", &of_two, &vec![bytes("one"), bytes("two")])?;
    let of_three = hand.get(At::Seq(Seq(3))).await?.parts;
    same(
        "the parts of 3",
        &of_three,
        &vec![bytes("one"), bytes("two"), bytes("three")],
    )
}

async fn deltas_without_a_snapshot_reach_to_the_first(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    hand.append_state(1, delta("one")).await?;
    hand.append_state(2, delta("two")).await?;
    same(
        "the parts",
        &hand.get(At::Head).await?.parts,
        &vec![bytes("one"), bytes("two")],
    )
}

async fn an_empty_delta_keeps_its_place(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    hand.append_state(1, snapshot("whole")).await?;
    hand.append_state(2, delta("")).await?;
    hand.append_state(3, delta("more")).await?;
    let wanted = vec![bytes("whole"), bytes(""), bytes("more")];
    same("the parts", &hand.get(At::Head).await?.parts, &wanted)
}

async fn a_chain_of_a_thousand_deltas_is_read_whole(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    hand.append_state(1, snapshot("1")).await?;
    for number in 2..=1000_u32 {
        hand.append_state(number, delta(number.to_string())).await?;
    }
    let wanted: Vec<_> = (1..=1000).map(|number| bytes(number.to_string())).collect();
    same("the parts", &hand.get(At::Head).await?.parts, &wanted)?;
    let half = hand.get(At::Seq(Seq(500))).await?.parts;
    same("the first half's length", &half.len(), &500)?;
    same("the first half's end", &half.last(), &wanted.get(499))?;
    let page = Page {
        before: Some(Seq(900)),
        limit: 1,
    };
    let listed: Vec<_> = store.list(&hand.key, page).await?.iter().map(|info| info.seq).collect();
    same("the page", &listed, &vec![Seq(899)])
}

async fn chains_of_two_threads_stay_apart(store: &dyn Checkpointer) -> Found {
    let mut one = Hand::new(store, key("acme", "one")?).await?;
    let mut two = Hand::new(store, key("acme", "two")?).await?;
    one.append_state(1, snapshot("a")).await?;
    two.append_state(1, snapshot("x")).await?;
    one.append_state(2, delta("b")).await?;
    two.append_state(2, delta("y")).await?;
    same(
        "the one's parts",
        &one.get(At::Head).await?.parts,
        &vec![bytes("a"), bytes("b")],
    )?;
    same(
        "the other's parts",
        &two.get(At::Head).await?.parts,
        &vec![bytes("x"), bytes("y")],
    )
}
