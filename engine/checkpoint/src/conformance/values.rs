//! Facts about states with large values: whatever a store does to keep them small, they read as they were written, for as
//! long as anybody can read them.

use std::sync::Arc;

use stepgraph::{
    Checkpointer, ThreadKey,
    checkpoint::{At, Commit, NewCheckpoint, Payload, Seq, Thinning},
};

use super::ground::{Broken, Found, Hand, checkpoint, everything, facts, get, is, key, same};

facts![
    a_large_value_reads_as_it_was_written,
    a_large_state_of_any_bytes_reads_as_it_was_written,
    a_state_of_many_large_values_reads_as_it_was_written,
    a_chain_that_writes_two_large_values_in_turn_reads_at_every_step,
    a_large_value_may_come_with_the_first_commit_and_with_everything_else,
    a_large_value_reads_on_after_a_thinning,
    a_large_value_may_be_written_again_after_it_was_thinned_out,
    a_branch_keeps_its_large_values_when_the_checkpoints_before_it_go,
    a_copy_keeps_its_large_values_when_the_thread_it_came_from_is_deleted,
    a_thread_made_anew_writes_the_large_values_of_before,
    an_erased_tenant_takes_no_large_value_of_another_along,
    a_refused_commit_takes_no_large_value_away,
];

const KILOBYTE: usize = 1024;
const MEGABYTE: usize = 1024 * KILOBYTE;

/// Bytes that nothing makes shorter, the same for the same number.
pub(super) fn noise(number: u64, length: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Text that can be made much shorter.
pub(super) fn prose(number: u32, length: usize) -> Vec<u8> {
    let line = format!("chapter {number}: it was a dark and stormy night, and the store kept on writing. ");
    line.as_bytes().iter().copied().cycle().take(length).collect()
}

/// A state as the engine writes one: `MessagePack`, a map from name to value.
pub(super) fn fields(fields: &[(&str, &[u8])]) -> Arc<[u8]> {
    let short = |length: usize| u8::try_from(length).unwrap_or(u8::MAX);
    let mut bytes = vec![0x80 | short(fields.len())];
    for (name, value) in fields {
        bytes.push(0xa0 | short(name.len()));
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0xc6);
        bytes.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(value);
    }
    bytes.into()
}

fn with(number: u32, payload: Payload) -> NewCheckpoint {
    let new = checkpoint(number);
    NewCheckpoint { payload, ..new }
}

/// Parts as long as these cannot be shown: what is told is where they differ first.
fn same_parts(what: &str, found: &[Arc<[u8]>], wanted: &[Arc<[u8]>]) -> Found {
    let lengths = |parts: &[Arc<[u8]>]| parts.iter().map(|part| part.len()).collect::<Vec<_>>();
    same(&format!("the lengths of {what}"), &lengths(found), &lengths(wanted))?;
    for (number, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        let place = found
            .iter()
            .zip(wanted.iter())
            .position(|(found, wanted)| found != wanted);
        same(&format!("where part {number} of {what} differs"), &place, &None)?;
    }
    Ok(())
}

async fn a_large_value_reads_as_it_was_written(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    let whole = fields(&[
        ("small", b"1"),
        ("noise", &noise(1, MEGABYTE)),
        ("prose", &prose(1, MEGABYTE)),
    ]);
    let change = fields(&[("prose", &prose(2, MEGABYTE)), ("small", b"2")]);
    hand.append_state(1, Payload::Snapshot(Arc::clone(&whole))).await?;
    hand.append_state(2, Payload::Delta(Arc::clone(&change))).await?;
    same_parts(
        "the head",
        &hand.get(At::Head).await?.parts,
        &[Arc::clone(&whole), change],
    )?;
    same_parts("the first", &hand.get(At::Seq(Seq(1))).await?.parts, &[whole])
}

async fn a_large_state_of_any_bytes_reads_as_it_was_written(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    let text = prose(1, 100 * KILOBYTE);
    let odd: [Vec<u8>; 7] = [
        vec![0xc1; 10 * KILOBYTE],
        [b"\xc1B", text.as_slice()].concat(),
        [b"\xdd\xff\xff\xff\xff", text.as_slice()].concat(),
        vec![0x91; 100 * KILOBYTE],
        [&fields(&[("a", &text)]), &b"more"[..]].concat(),
        b"\n".repeat(10 * KILOBYTE),
        vec![0; MEGABYTE],
    ];
    let parts: Vec<Arc<[u8]>> = odd.into_iter().map(Arc::from).collect();
    for (number, part) in (1..).zip(&parts) {
        let payload = match number {
            1 => Payload::Snapshot(Arc::clone(part)),
            _ => Payload::Delta(Arc::clone(part)),
        };
        hand.append_state(number, payload).await?;
    }
    same_parts("the head", &hand.get(At::Head).await?.parts, &parts)
}

async fn a_state_of_many_large_values_reads_as_it_was_written(store: &dyn Checkpointer) -> Found {
    const VALUES: u16 = 300;
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    // A list, with the same value at several places.
    let mut list = vec![0xdc];
    list.extend(VALUES.to_be_bytes());
    for number in 0..VALUES {
        list.push(0xc5);
        list.extend(u16::try_from(5 * KILOBYTE).unwrap_or_default().to_be_bytes());
        list.extend(noise(u64::from(number % 200), 5 * KILOBYTE));
    }
    let whole: Arc<[u8]> = [b"\x82\xa1a\x01\xa1b", list.as_slice()].concat().into();
    hand.append_state(1, Payload::Snapshot(Arc::clone(&whole))).await?;
    same_parts("the head", &hand.get(At::Head).await?.parts, &[whole])
}

async fn a_chain_that_writes_two_large_values_in_turn_reads_at_every_step(store: &dyn Checkpointer) -> Found {
    const STEPS: u32 = 40;
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    let texts = [prose(1, 20 * KILOBYTE), noise(2, 20 * KILOBYTE)];
    let mut parts: Vec<Vec<Arc<[u8]>>> = Vec::new();
    for (number, text) in (1..=STEPS).zip(texts.iter().cycle()) {
        let part = fields(&[("step", &number.to_be_bytes()), ("text", text)]);
        // A snapshot at every seventh.
        let (payload, before) = match (number % 7, parts.last()) {
            (1, _) | (_, None) => (Payload::Snapshot(Arc::clone(&part)), Vec::new()),
            (_, Some(before)) => (Payload::Delta(Arc::clone(&part)), before.clone()),
        };
        hand.append_state(number, payload).await?;
        parts.push([before, vec![part]].concat());
    }
    for (seq, wanted) in (1..).zip(&parts) {
        same_parts("a checkpoint", &hand.get(At::Seq(Seq(seq))).await?.parts, wanted)?;
    }
    Ok(())
}

async fn a_large_value_may_come_with_the_first_commit_and_with_everything_else(store: &dyn Checkpointer) -> Found {
    let thread = key("acme", "t")?;
    let first = fields(&[("text", &prose(1, 50 * KILOBYTE))]);
    let begin = Commit {
        checkpoint: Some(with(1, Payload::Snapshot(Arc::clone(&first)))),
        records: Vec::new(),
        outbox: Vec::new(),
        ..everything(1)
    };
    let (epoch, head) = store.begin(&thread, None, begin).await?;
    same("the first head", &head, &Some(Seq(1)))?;
    let second = fields(&[("text", &noise(1, 50 * KILOBYTE)), ("more", &prose(1, 50 * KILOBYTE))]);
    let commit = Commit {
        checkpoint: Some(with(2, Payload::Delta(Arc::clone(&second)))),
        ..everything(2)
    };
    let head = store.commit(&thread, epoch, head, commit).await?;
    same("the second head", &head, &Some(Seq(2)))?;
    let found = get(store, &thread, At::Head).await?;
    same_parts("the head", &found.parts, &[first, second])?;
    let records = get(store, &thread, At::Seq(Seq(1))).await?.records;
    same("the records", &records.len(), &everything(2).records.len())
}

/// A thread whose first, second and third checkpoint hold one large value, and the second another.
async fn shared(store: &dyn Checkpointer, thread: ThreadKey) -> Result<(Hand<'_>, [Arc<[u8]>; 3]), Broken> {
    let mut hand = Hand::new(store, thread).await?;
    let stays = prose(1, 100 * KILOBYTE);
    let first = fields(&[("stays", &stays), ("n", b"1")]);
    let second = fields(&[("goes", &noise(1, 100 * KILOBYTE)), ("n", b"2")]);
    let third = fields(&[("stays", &stays), ("n", b"3")]);
    hand.append_state(1, Payload::Snapshot(Arc::clone(&first))).await?;
    hand.append_state(2, Payload::Delta(Arc::clone(&second))).await?;
    hand.append_state(3, Payload::Snapshot(Arc::clone(&third))).await?;
    Ok((hand, [first, second, third]))
}

/// Takes out all before a checkpoint, which is rebased.
async fn cut(hand: &Hand<'_>, at: u64) -> Found {
    let parts = hand.get(At::Seq(Seq(at))).await?.parts;
    let thinning = Thinning {
        rebased: vec![(Seq(at), parts)],
        removed: (1..at).map(Seq).collect(),
    };
    Ok(hand.store.thin(&hand.key, thinning).await?)
}

async fn a_large_value_reads_on_after_a_thinning(store: &dyn Checkpointer) -> Found {
    let (mut hand, [first, second, third]) = shared(store, key("acme", "t")?).await?;
    cut(&hand, 2).await?;
    let found = hand.get(At::Seq(Seq(2))).await?;
    same_parts("the rebased", &found.parts, &[first, second])?;
    same_parts("the head", &hand.get(At::Head).await?.parts, &[Arc::clone(&third)])?;
    let change = fields(&[("goes", &noise(1, 100 * KILOBYTE))]);
    hand.append_state(4, Payload::Delta(Arc::clone(&change))).await?;
    cut(&hand, 4).await?;
    same_parts("the last", &hand.get(At::Head).await?.parts, &[third, change])
}

async fn a_large_value_may_be_written_again_after_it_was_thinned_out(store: &dyn Checkpointer) -> Found {
    let (mut hand, [_, second, third]) = shared(store, key("acme", "t")?).await?;
    cut(&hand, 3).await?;
    same_parts("the head", &hand.get(At::Head).await?.parts, &[Arc::clone(&third)])?;
    hand.append_state(4, Payload::Delta(Arc::clone(&second))).await?;
    same_parts("the head", &hand.get(At::Head).await?.parts, &[third, second])
}

async fn a_branch_keeps_its_large_values_when_the_checkpoints_before_it_go(store: &dyn Checkpointer) -> Found {
    let (mut hand, [first, second, third]) = shared(store, key("acme", "t")?).await?;
    hand.branch(Seq(2), "other").await?;
    let change = fields(&[("stays", &prose(2, 100 * KILOBYTE))]);
    hand.append_state(4, Payload::Delta(Arc::clone(&change))).await?;
    let parts = hand.get(At::Head).await?.parts;
    let thinning = Thinning {
        rebased: vec![(Seq(4), parts)],
        removed: vec![Seq(2)],
    };
    // The third stands on the second by its parent, and not by its state.
    let own = hand.get(At::Seq(Seq(3))).await?.parts;
    let rebased = [thinning.rebased, vec![(Seq(3), own)]].concat();
    store.thin(&hand.key, Thinning { rebased, ..thinning }).await?;
    same_parts(
        "the branch",
        &hand.get(At::Head).await?.parts,
        &[Arc::clone(&first), second, change],
    )?;
    same_parts("the line it left", &hand.get(At::Seq(Seq(3))).await?.parts, &[third])?;
    same_parts("where both began", &hand.get(At::Seq(Seq(1))).await?.parts, &[first])
}

async fn a_copy_keeps_its_large_values_when_the_thread_it_came_from_is_deleted(store: &dyn Checkpointer) -> Found {
    let (origin, [_, _, third]) = shared(store, key("acme", "origin")?).await?;
    let (copy, parts) = shared(store, key("acme", "copy")?).await?;
    store.delete(&origin.key).await?;
    is("the origin is gone", store.get(&origin.key, At::Head).await?.is_none())?;
    same_parts("the copy", &copy.get(At::Head).await?.parts, &[third])?;
    let [first, second, _] = parts;
    same_parts("its past", &copy.get(At::Seq(Seq(2))).await?.parts, &[first, second])
}

async fn a_thread_made_anew_writes_the_large_values_of_before(store: &dyn Checkpointer) -> Found {
    let (hand, _) = shared(store, key("acme", "t")?).await?;
    store.delete(&hand.key).await?;
    let (hand, [first, second, third]) = shared(store, hand.key).await?;
    same_parts("the head", &hand.get(At::Head).await?.parts, &[third])?;
    same_parts("the second", &hand.get(At::Seq(Seq(2))).await?.parts, &[first, second])
}

async fn an_erased_tenant_takes_no_large_value_of_another_along(store: &dyn Checkpointer) -> Found {
    let (gone, _) = shared(store, key("acme", "t")?).await?;
    let (stays, [first, second, third]) = shared(store, key("bolt", "t")?).await?;
    store.erase(&gone.key.tenant).await?;
    is("the erased is gone", store.get(&gone.key, At::Head).await?.is_none())?;
    same_parts("the other's head", &stays.get(At::Head).await?.parts, &[third])?;
    same_parts("its past", &stays.get(At::Seq(Seq(2))).await?.parts, &[first, second])
}

async fn a_refused_commit_takes_no_large_value_away(store: &dyn Checkpointer) -> Found {
    let (hand, [.., third]) = shared(store, key("acme", "t")?).await?;
    let same_value = fields(&[("stays", &prose(1, 100 * KILOBYTE)), ("n", b"4")]);
    let commit = Commit {
        checkpoint: Some(with(4, Payload::Snapshot(same_value))),
        ..Commit::default()
    };
    let refused = store.commit(&hand.key, hand.epoch, Some(Seq(1)), commit).await;
    is("a commit at an old head is refused", refused.is_err())?;
    same_parts("the head", &hand.get(At::Head).await?.parts, &[third])?;
    let history = store.list(&hand.key, stepgraph::checkpoint::Page::default()).await?;
    same("the number of checkpoints", &history.len(), &3)
}
