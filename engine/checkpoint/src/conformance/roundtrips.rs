//! What was written is read again.

use chrono::{DateTime, TimeDelta};
use stepgraph::{
    Checkpointer,
    checkpoint::{At, CheckpointSource, NewCheckpoint, Page, Seq},
};
use uuid::Uuid;

use super::ground::{Found, Hand, bytes, checkpoint, facts, is, key, same, snapshot};

facts![
    an_unknown_thread_has_no_checkpoint,
    a_claimed_thread_has_no_checkpoint_yet,
    a_checkpoint_comes_back_with_all_its_facts,
    the_first_checkpoint_is_number_one_without_a_parent,
    each_checkpoint_names_its_parent,
    every_source_comes_back,
    every_step_number_comes_back,
    every_state_version_comes_back,
    the_time_comes_back_to_the_microsecond,
    an_empty_payload_and_frontier_come_back,
    every_byte_comes_back,
    a_payload_of_five_megabytes_comes_back,
    the_head_is_the_newest_checkpoint,
    an_old_checkpoint_is_found_by_number,
    an_old_checkpoint_is_found_by_id,
    an_unknown_number_finds_nothing,
    an_unknown_id_finds_nothing,
    an_id_finds_nothing_in_another_thread,
    reading_changes_nothing,
];

async fn an_unknown_thread_has_no_checkpoint(store: &dyn Checkpointer) -> Found {
    let unknown = key("acme", "unknown")?;
    for at in [At::Head, At::Seq(Seq(1)), At::Id(Uuid::from_u128(1))] {
        same("what is found", &store.get(&unknown, at).await?, &None)?;
    }
    same(
        "its history",
        &store.list(&unknown, Page::default()).await?,
        &Vec::new(),
    )
}

async fn a_claimed_thread_has_no_checkpoint_yet(store: &dyn Checkpointer) -> Found {
    let hand = Hand::new(store, key("acme", "t")?).await?;
    for at in [At::Head, At::Seq(Seq(0)), At::Seq(Seq(1))] {
        same("what is found", &store.get(&hand.key, at).await?, &None)?;
    }
    Ok(())
}

async fn a_checkpoint_comes_back_with_all_its_facts(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    let wanted = checkpoint(7);
    hand.write(wanted.clone()).await?;
    let found = hand.get(At::Head).await?;
    same("its parts", &found.parts, &vec![wanted.payload.bytes().clone()])?;
    same("its records", &found.records, &Vec::new())?;
    same("the thread's run", &found.run, &None)?;
    let info = found.info;
    same("its id", &info.id, &wanted.id)?;
    same("its step", &info.step, &wanted.step)?;
    same("its source", &info.source, &wanted.source)?;
    same("its run", &info.run, &None)?;
    same("its frontier", &info.frontier, &wanted.frontier)?;
    same("its fingerprint", &info.fingerprint, &wanted.fingerprint)?;
    same("its state version", &info.state_version, &wanted.state_version)?;
    same("its time", &info.created_at, &wanted.created_at)
}

async fn the_first_checkpoint_is_number_one_without_a_parent(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    same("the new head", &hand.append(1).await?, &Seq(1))?;
    let info = hand.get(At::Head).await?.info;
    same("its number", &info.seq, &Seq(1))?;
    same("its parent", &info.parent, &None)
}

async fn each_checkpoint_names_its_parent(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    for number in 2..=5 {
        let parent = hand.head;
        let seq = hand.append(number).await?;
        same("the new head", &seq, &Seq(u64::from(number)))?;
        same("its parent", &hand.get(At::Seq(seq)).await?.info.parent, &parent)?;
    }
    Ok(())
}

async fn every_source_comes_back(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    let sources = [
        CheckpointSource::Input,
        CheckpointSource::Step,
        CheckpointSource::Update,
        CheckpointSource::Fork,
    ];
    for (number, source) in (1..).zip(sources) {
        let new = checkpoint(number);
        hand.write(NewCheckpoint { source, ..new }).await?;
        same("its source", &hand.get(At::Head).await?.info.source, &source)?;
    }
    Ok(())
}

async fn every_step_number_comes_back(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    for (number, step) in (1..).zip([-1, 0, 1, i64::MIN, i64::MAX]) {
        let new = checkpoint(number);
        hand.write(NewCheckpoint { step, ..new }).await?;
        same("its step", &hand.get(At::Head).await?.info.step, &step)?;
    }
    Ok(())
}

async fn every_state_version_comes_back(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    for (number, state_version) in (1..).zip([0, 1, u32::MAX]) {
        let new = checkpoint(number);
        hand.write(NewCheckpoint { state_version, ..new }).await?;
        same(
            "its state version",
            &hand.get(At::Head).await?.info.state_version,
            &state_version,
        )?;
    }
    Ok(())
}

async fn the_time_comes_back_to_the_microsecond(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    for (number, micros) in (1..).zip([0, -1, 1_763_000_000_123_456, 253_402_300_799_999_999]) {
        let exact = DateTime::from_timestamp_micros(micros).unwrap_or_default();
        let created_at = exact + TimeDelta::nanoseconds(789);
        let new = checkpoint(number);
        hand.write(NewCheckpoint { created_at, ..new }).await?;
        let found = hand.get(At::Head).await?.info.created_at;
        same("its time in microseconds", &found.timestamp_micros(), &micros)?;
    }
    Ok(())
}

async fn an_empty_payload_and_frontier_come_back(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    let new = NewCheckpoint {
        payload: snapshot(""),
        frontier: bytes(""),
        ..checkpoint(1)
    };
    hand.write(new).await?;
    let found = hand.get(At::Head).await?;
    same("its parts", &found.parts, &vec![bytes("")])?;
    same("its frontier", &found.info.frontier, &bytes(""))
}

async fn every_byte_comes_back(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    let all: Vec<u8> = (0..=u8::MAX).chain((0..=u8::MAX).rev()).collect();
    let new = NewCheckpoint {
        payload: snapshot(&all),
        frontier: bytes(&all),
        id: Uuid::nil(),
        fingerprint: Uuid::max(),
        ..checkpoint(1)
    };
    hand.write(new).await?;
    let found = hand.get(At::Id(Uuid::nil())).await?;
    same("its parts", &found.parts, &vec![bytes(&all)])?;
    same("its frontier", &found.info.frontier, &bytes(&all))?;
    same("its fingerprint", &found.info.fingerprint, &Uuid::max())
}

async fn a_payload_of_five_megabytes_comes_back(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    let large: Vec<u8> = (0..=250).cycle().take(5_000_000).collect();
    hand.append_state(1, snapshot(&large)).await?;
    let parts = hand.get(At::Head).await?.parts;
    is(
        "its one part is the 5,000,000 bytes written",
        matches!(parts.as_slice(), [part] if part[..] == large[..]),
    )
}

async fn the_head_is_the_newest_checkpoint(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    for number in 2..=4 {
        let seq = hand.append(number).await?;
        let head = hand.get(At::Head).await?;
        same("the head's number", &head.info.seq, &seq)?;
        same("the head's state", &head.parts, &vec![bytes(format!("state {number}"))])?;
    }
    Ok(())
}

async fn an_old_checkpoint_is_found_by_number(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    hand.append(2).await?;
    hand.append(3).await?;
    let found = hand.get(At::Seq(Seq(2))).await?;
    same("its id", &found.info.id, &checkpoint(2).id)?;
    same("its state", &found.parts, &vec![bytes("state 2")])
}

async fn an_old_checkpoint_is_found_by_id(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    hand.append(2).await?;
    hand.append(3).await?;
    let by_id = hand.get(At::Id(checkpoint(2).id)).await?;
    same("what its id finds", &by_id, &hand.get(At::Seq(Seq(2))).await?)
}

async fn an_unknown_number_finds_nothing(store: &dyn Checkpointer) -> Found {
    let hand = Hand::begun(store, key("acme", "t")?).await?;
    for number in [0, 2, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX] {
        same(
            "what is found",
            &store.get(&hand.key, At::Seq(Seq(number))).await?,
            &None,
        )?;
    }
    Ok(())
}

async fn an_unknown_id_finds_nothing(store: &dyn Checkpointer) -> Found {
    let hand = Hand::begun(store, key("acme", "t")?).await?;
    same(
        "what is found",
        &store.get(&hand.key, At::Id(Uuid::nil())).await?,
        &None,
    )
}

async fn an_id_finds_nothing_in_another_thread(store: &dyn Checkpointer) -> Found {
    Hand::begun(store, key("acme", "one")?).await?;
    let mut other = Hand::new(store, key("acme", "two")?).await?;
    other.append(2).await?;
    let found = store.get(&other.key, At::Id(checkpoint(1).id)).await?;
    same("what is found", &found, &None)
}

async fn reading_changes_nothing(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    let before = hand.get(At::Head).await?;
    store.list(&hand.key, Page::default()).await?;
    store.get(&hand.key, At::Seq(Seq(9))).await?;
    same("the head read again", &hand.get(At::Head).await?, &before)?;
    same("the next number", &hand.append(2).await?, &Seq(2))
}
