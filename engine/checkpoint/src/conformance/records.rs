//! What tasks leave behind inside a step.

use stepgraph::{
    Checkpointer,
    checkpoint::{At, Commit, RecordKind, Seq},
};

use super::ground::{Found, Hand, bytes, checkpoint, facts, key, record, refused, same};

facts![
    records_come_back_with_their_checkpoint,
    records_of_every_kind_come_back,
    a_later_record_replaces_the_earlier,
    kinds_keys_and_tasks_keep_records_apart,
    records_are_ordered_by_task_kind_and_key,
    records_stay_with_the_checkpoint_they_were_written_at,
    records_beside_a_new_checkpoint_belong_to_the_old_one,
    records_before_the_first_checkpoint_are_refused,
    records_grow_over_several_commits,
    an_empty_body_comes_back,
    nul_and_unicode_come_back_in_names_and_keys,
    names_of_a_thousand_characters_come_back,
    five_hundred_records_in_one_commit_come_back,
    records_of_a_nested_graph_stay_apart,
];

const KINDS: [RecordKind; 9] = [
    RecordKind::Output,
    RecordKind::Failure,
    RecordKind::Question,
    RecordKind::Answer,
    RecordKind::Intent,
    RecordKind::Effect,
    RecordKind::Command,
    RecordKind::Calls,
    RecordKind::Attempt,
];

async fn records_come_back_with_their_checkpoint(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    let written = vec![record("search", RecordKind::Output, "", "found")];
    hand.record(written.clone()).await?;
    same("the head", &hand.head, &Some(Seq(1)))?;
    for at in [At::Head, At::Seq(Seq(1)), At::Id(checkpoint(1).id)] {
        same("the records", &hand.get(at).await?.records, &written)?;
    }
    Ok(())
}

async fn records_of_every_kind_come_back(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    let written: Vec<_> = KINDS.map(|kind| record("task", kind, "key", kind.as_str())).into();
    hand.record(written.clone()).await?;
    same("the records", &hand.get(At::Head).await?.records, &written)
}

async fn a_later_record_replaces_the_earlier(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    hand.record(vec![record("task", RecordKind::Effect, "key", "first")])
        .await?;
    let twice = vec![
        record("task", RecordKind::Effect, "key", "second"),
        record("task", RecordKind::Effect, "key", "third, and longer"),
    ];
    hand.record(twice).await?;
    let wanted = vec![record("task", RecordKind::Effect, "key", "third, and longer")];
    same("the records", &hand.get(At::Head).await?.records, &wanted)
}

async fn kinds_keys_and_tasks_keep_records_apart(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    let written = vec![
        record("a", RecordKind::Intent, "key", "1"),
        record("a", RecordKind::Effect, "", "2"),
        record("a", RecordKind::Effect, "key", "3"),
        record("a#0", RecordKind::Effect, "key", "4"),
        record("a#1", RecordKind::Effect, "key", "5"),
        record("b", RecordKind::Effect, "KEY", "6"),
        record("b", RecordKind::Effect, "key", "7"),
    ];
    hand.record(written.clone()).await?;
    same("the records", &hand.get(At::Head).await?.records, &written)
}

async fn records_are_ordered_by_task_kind_and_key(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    let mut wanted = Vec::new();
    for task in ["", "B", "a", "a#10", "a#9", "é"] {
        for kind in KINDS {
            wanted.extend(["", "1", "10", "9"].map(|key| record(task, kind, key, "body")));
        }
    }
    let backwards = wanted.iter().rev().cloned().collect();
    hand.record(backwards).await?;
    same("the records", &hand.get(At::Head).await?.records, &wanted)
}

async fn records_stay_with_the_checkpoint_they_were_written_at(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    let first = vec![record("a", RecordKind::Output, "", "first step")];
    hand.record(first.clone()).await?;
    hand.append(2).await?;
    same(
        "the new head's records",
        &hand.get(At::Head).await?.records,
        &Vec::new(),
    )?;
    let second = vec![record("a", RecordKind::Output, "", "second step")];
    hand.record(second.clone()).await?;
    same("the old records", &hand.get(At::Seq(Seq(1))).await?.records, &first)?;
    same("the new records", &hand.get(At::Head).await?.records, &second)
}

async fn records_beside_a_new_checkpoint_belong_to_the_old_one(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    let written = vec![record("a", RecordKind::Output, "", "update")];
    let commit = Commit {
        checkpoint: Some(checkpoint(2)),
        records: written.clone(),
        ..Commit::default()
    };
    same("the new head", &hand.commit(commit).await?, &Some(Seq(2)))?;
    same(
        "the old head's records",
        &hand.get(At::Seq(Seq(1))).await?.records,
        &written,
    )?;
    same(
        "the new head's records",
        &hand.get(At::Head).await?.records,
        &Vec::new(),
    )
}

async fn records_before_the_first_checkpoint_are_refused(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    let commit = Commit {
        checkpoint: Some(checkpoint(1)),
        records: vec![record("a", RecordKind::Output, "", "update")],
        ..Commit::default()
    };
    refused(hand.commit(commit).await, "checkpoint::no_checkpoint")?;
    same("what was written", &store.get(&hand.key, At::Head).await?, &None)
}

async fn records_grow_over_several_commits(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    let mut wanted = Vec::new();
    for task in ["a", "b", "c"] {
        let one = record(task, RecordKind::Output, "", task);
        wanted.push(one.clone());
        hand.record(vec![one]).await?;
        same("the records so far", &hand.get(At::Head).await?.records, &wanted)?;
    }
    Ok(())
}

async fn an_empty_body_comes_back(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    hand.record(vec![record("a", RecordKind::Output, "", "")]).await?;
    let bodies: Vec<_> = hand
        .get(At::Head)
        .await?
        .records
        .into_iter()
        .map(|record| record.body)
        .collect();
    same("the bodies", &bodies, &vec![bytes("")])
}

async fn nul_and_unicode_come_back_in_names_and_keys(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    let written = vec![
        record("\0", RecordKind::Question, "\0\0", "nul"),
        record("a", RecordKind::Question, "", "bare"),
        record("a\0", RecordKind::Question, "", "nul behind"),
        record("a\0b", RecordKind::Question, "x\0y", "nul between"),
        record("e\u{301}", RecordKind::Question, "two code points", "accent"),
        record(
            "'; DROP TABLE checkpoints; --",
            RecordKind::Question,
            "%_\\\"`",
            "quotes",
        ),
        record("é", RecordKind::Question, "one code point", "accent"),
        record("節点", RecordKind::Question, "質問 🎏", "wide"),
    ];
    let mut wanted = written.clone();
    wanted.sort_by(|a, b| a.task.cmp(&b.task));
    hand.record(written).await?;
    same("the records", &hand.get(At::Head).await?.records, &wanted)
}

async fn names_of_a_thousand_characters_come_back(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    // Digits that do not repeat themselves: a store that packs texts must not get away with a short one.
    let long = |seed: u64| {
        let mut number = seed;
        let digits = std::iter::repeat_with(move || {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from_digit(u32::try_from(number >> 60).unwrap_or(0), 16).unwrap_or('0')
        });
        digits.take(1000).collect::<String>()
    };
    let written = vec![record(&long(1), RecordKind::Effect, &long(2), "body")];
    hand.record(written.clone()).await?;
    same("the records", &hand.get(At::Head).await?.records, &written)
}

async fn five_hundred_records_in_one_commit_come_back(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    let written: Vec<_> = (0..500)
        .map(|send| record(&format!("worker#{send:03}"), RecordKind::Output, "", &send.to_string()))
        .collect();
    hand.record(written.clone()).await?;
    same("the records", &hand.get(At::Head).await?.records, &written)
}

async fn records_of_a_nested_graph_stay_apart(store: &dyn Checkpointer) -> Found {
    let root = key("acme", "t")?;
    let mut outer = Hand::begun(store, root.clone()).await?;
    let mut inner = Hand::begun(store, root.child("host")).await?;
    let (of_outer, of_inner) = (
        vec![record("a", RecordKind::Output, "", "outer")],
        vec![record("a", RecordKind::Output, "", "inner")],
    );
    outer.record(of_outer.clone()).await?;
    inner.record(of_inner.clone()).await?;
    same("the outer records", &outer.get(At::Head).await?.records, &of_outer)?;
    same("the inner records", &inner.get(At::Head).await?.records, &of_inner)
}
