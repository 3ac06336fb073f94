//! No call reaches another tenant's rows, another thread's or another graph's of the nest.

use stepgraph::{
    Checkpointer, ThreadKey,
    checkpoint::{At, Page, RunStatus, Seq},
};
use uuid::Uuid;

use super::ground::{Broken, Found, Hand, bytes, checkpoint, everything, facts, key, message, refused, run, same};

facts![
    a_tenant_cannot_get_anothers_checkpoint,
    a_tenant_cannot_list_anothers_history,
    a_tenant_cannot_commit_to_anothers_thread,
    a_tenants_claim_does_not_fence_another,
    a_tenant_cannot_branch_anothers_thread,
    a_tenant_cannot_delete_anothers_thread,
    a_tenant_cannot_acknowledge_anothers_message,
    two_tenants_may_use_the_same_ids_everywhere,
    operators_calls_say_whose_a_thing_is,
    ids_are_compared_byte_by_byte,
    ids_do_not_run_into_each_other,
    graphs_of_a_nest_are_kept_apart,
    namespaces_of_any_text_are_kept_apart,
    deleting_takes_a_thread_with_all_its_graphs,
    deleting_takes_nothing_else,
    deleting_takes_records_runs_and_messages_too,
    deleting_from_inside_a_nest_takes_the_whole_thread,
    deleting_an_unknown_thread_is_no_error,
    a_deleted_thread_begins_anew,
    a_long_thread_is_deleted_whole,
];

/// Two tenants' threads of one id, the first with two checkpoints and the second with one.
async fn two(store: &dyn Checkpointer) -> Result<(Hand<'_>, Hand<'_>), Broken> {
    let mut acme = Hand::begun(store, key("acme", "t")?).await?;
    acme.commit(everything(2)).await?;
    let mut rival = Hand::new(store, key("rival", "t")?).await?;
    rival.append(3).await?;
    Ok((acme, rival))
}

async fn a_tenant_cannot_get_anothers_checkpoint(store: &dyn Checkpointer) -> Found {
    let (acme, rival) = two(store).await?;
    same("its own head", &rival.get(At::Head).await?.info.id, &checkpoint(3).id)?;
    same(
        "the other's number",
        &store.get(&rival.key, At::Seq(Seq(2))).await?,
        &None,
    )?;
    same(
        "the other's id",
        &store.get(&rival.key, At::Id(checkpoint(1).id)).await?,
        &None,
    )?;
    same(
        "its own records",
        &rival.get(At::Seq(Seq(1))).await?.records,
        &Vec::new(),
    )?;
    same("its own run", &rival.get(At::Head).await?.run, &None)?;
    same(
        "the other's head",
        &acme.get(At::Head).await?.info.id,
        &checkpoint(2).id,
    )
}

async fn a_tenant_cannot_list_anothers_history(store: &dyn Checkpointer) -> Found {
    let (_, rival) = two(store).await?;
    let ids: Vec<Uuid> = store
        .list(&rival.key, Page::default())
        .await?
        .iter()
        .map(|info| info.id)
        .collect();
    same("its own history", &ids, &vec![checkpoint(3).id])?;
    let stranger = key("stranger", "t")?;
    same(
        "a stranger's history",
        &store.list(&stranger, Page::default()).await?,
        &Vec::new(),
    )
}

async fn a_tenant_cannot_commit_to_anothers_thread(store: &dyn Checkpointer) -> Found {
    let (acme, rival) = two(store).await?;
    let stranger = key("stranger", "t")?;
    for epoch in [acme.epoch, rival.epoch] {
        let commit = store.commit(&stranger, epoch, acme.head, everything(9)).await;
        refused(commit, "checkpoint::fenced")?;
    }
    let with_the_others_epoch = store.commit(&rival.key, acme.epoch, acme.head, everything(9)).await;
    is_refused(with_the_others_epoch)?;
    same("the other's head", &acme.get(At::Head).await?.info.seq, &Seq(2))?;
    same("its own head", &rival.get(At::Head).await?.info.seq, &Seq(1))
}

/// Refused as fenced or, where two threads were given equal epochs, as a conflict.
fn is_refused<T>(result: Result<T, stepgraph::CheckpointError>) -> Found {
    let code = result.err().map(|error| error.code());
    super::ground::is(
        "the commit is fenced or a conflict",
        matches!(code, Some("checkpoint::fenced" | "checkpoint::conflict")),
    )
}

async fn a_tenants_claim_does_not_fence_another(store: &dyn Checkpointer) -> Found {
    let (mut acme, rival) = two(store).await?;
    store.claim(&rival.key).await?;
    store.claim(&key("stranger", "t")?).await?;
    same("the other's next number", &acme.append(4).await?, &Seq(3))
}

async fn a_tenant_cannot_branch_anothers_thread(store: &dyn Checkpointer) -> Found {
    let (acme, rival) = two(store).await?;
    let branch = store.branch(&key("stranger", "t")?, acme.epoch, Seq(1), "theirs").await;
    refused(branch, "checkpoint::fenced")?;
    let beyond_its_own = store.branch(&rival.key, rival.epoch, Seq(2), "theirs").await;
    refused(beyond_its_own, "checkpoint::no_checkpoint")?;
    same("the other's head", &acme.get(At::Head).await?.info.seq, &Seq(2))
}

async fn a_tenant_cannot_delete_anothers_thread(store: &dyn Checkpointer) -> Found {
    let (acme, rival) = two(store).await?;
    store.delete(&key("stranger", "t")?).await?;
    store.delete(&rival.key).await?;
    same("its own thread", &store.get(&rival.key, At::Head).await?, &None)?;
    same("the other's head", &acme.get(At::Head).await?.info.seq, &Seq(2))?;
    same("the other's messages", &store.outbox("topic", 10).await?.len(), &2)
}

async fn a_tenant_cannot_acknowledge_anothers_message(store: &dyn Checkpointer) -> Found {
    let (_, rival) = two(store).await?;
    for (_, message) in store.outbox("topic", 10).await? {
        store.acknowledge(&rival.key, message.id).await?;
        store.acknowledge(&key("stranger", "t")?, message.id).await?;
        store.acknowledge(&key("acme", "another")?, message.id).await?;
        store.acknowledge(&key("acme", "t")?.child("host"), message.id).await?;
    }
    same("the messages left", &store.outbox("topic", 10).await?.len(), &2)
}

async fn two_tenants_may_use_the_same_ids_everywhere(store: &dyn Checkpointer) -> Found {
    let keys = [key("acme", "t")?, key("rival", "t")?, key("acme", "u")?];
    for key in &keys {
        let mut hand = Hand::begun(store, key.clone()).await?;
        hand.commit(everything(2)).await?;
        hand.branch(Seq(1), "main").await?;
    }
    for key in &keys {
        same(
            "its history's length",
            &store.list(key, Page::default()).await?.len(),
            &2,
        )?;
        let mut messages = store.outbox("topic", 100).await?;
        messages.retain(|(owner, _)| owner == key);
        same("how many messages are its own", &messages.len(), &2)?;
    }
    let first = everything(2)
        .outbox
        .first()
        .map(|message| message.id)
        .unwrap_or_default();
    let [acme, ..] = &keys;
    store.acknowledge(acme, first).await?;
    same("the messages left in all", &store.outbox("topic", 100).await?.len(), &5)
}

async fn operators_calls_say_whose_a_thing_is(store: &dyn Checkpointer) -> Found {
    let mut keys = vec![key("acme", "t")?, key("rival", "t")?, key("rival", "u")?];
    for (number, key) in (1..).zip(&keys) {
        let mut hand = Hand::begun(store, key.clone()).await?;
        hand.mark(run(number, "graph", RunStatus::Running)).await?;
        hand.send(vec![message(number, "topic")]).await?;
    }
    same(
        "whose runs are unfinished",
        &store.unfinished("graph", 10).await?,
        &keys,
    )?;
    let owners: Vec<ThreadKey> = store
        .outbox("topic", 10)
        .await?
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    same("whose messages wait", &owners, &keys)?;
    store.delete(&keys.remove(0)).await?;
    same("whose runs are left", &store.unfinished("graph", 10).await?, &keys)
}

async fn each_apart(store: &dyn Checkpointer, keys: &[ThreadKey]) -> Found {
    for (number, key) in (1..).zip(keys) {
        Hand::new(store, key.clone()).await?.append(number).await?;
    }
    for (number, key) in (1_u32..).zip(keys) {
        let found = super::ground::get(store, key, At::Head).await?;
        same(
            &format!("the state of {key}"),
            &found.parts,
            &vec![bytes(format!("state {number}"))],
        )?;
        same(
            "its history's length",
            &store.list(key, Page::default()).await?.len(),
            &1,
        )?;
    }
    Ok(())
}

async fn ids_are_compared_byte_by_byte(store: &dyn Checkpointer) -> Found {
    let ids = [
        "acme", "ACME", "acme%", "acm_", "acme'--", "\"acme\"", "acme*", "0", "00", "1e1", "10",
    ];
    let keys = ids.iter().flat_map(|id| [key(id, "t"), key("tenant", id)]);
    each_apart(store, &keys.collect::<Result<Vec<_>, _>>()?).await
}

async fn ids_do_not_run_into_each_other(store: &dyn Checkpointer) -> Found {
    let keys = [
        key("a", "bc")?,
        key("ab", "c")?,
        key("abc", "c")?,
        key("a", "b")?.child("c"),
        key("a", "b:c")?,
        key("a:b", "c")?,
        key("c", "ab")?,
    ];
    each_apart(store, &keys).await
}

async fn graphs_of_a_nest_are_kept_apart(store: &dyn Checkpointer) -> Found {
    let root = key("acme", "t")?;
    let keys = [
        root.clone(),
        root.child("a"),
        root.child("b"),
        root.child("a").child("a"),
        root.child("a").child("b"),
    ];
    each_apart(store, &keys).await
}

async fn namespaces_of_any_text_are_kept_apart(store: &dyn Checkpointer) -> Found {
    let root = key("acme", "t")?;
    let keys = [
        "host",
        "HOST",
        "host\0",
        "\0",
        "hôte",
        "宿主 🎏",
        "host'; --",
        "host%",
        " ",
    ]
    .map(|host| root.child(host));
    each_apart(store, &keys).await
}

async fn deleting_takes_a_thread_with_all_its_graphs(store: &dyn Checkpointer) -> Found {
    let root = key("acme", "t")?;
    let keys = [
        root.clone(),
        root.child("a"),
        root.child("a").child("b"),
        root.child("c"),
    ];
    each_apart(store, &keys).await?;
    store.delete(&root).await?;
    for key in &keys {
        same("what is found", &store.get(key, At::Head).await?, &None)?;
        same("its history", &store.list(key, Page::default()).await?, &Vec::new())?;
    }
    Ok(())
}

async fn deleting_takes_nothing_else(store: &dyn Checkpointer) -> Found {
    let gone = Hand::begun(store, key("acme", "t")?).await?;
    let (mut before, mut others) = (Vec::new(), Vec::new());
    for key in [
        key("acme", "t2")?,
        key("acme", "T")?,
        key("acm", "t")?,
        key("rival", "t")?.child("a"),
    ] {
        let mut hand = Hand::begun(store, key).await?;
        hand.commit(everything(2)).await?;
        before.push((hand.get(At::Seq(Seq(1))).await?, hand.get(At::Head).await?));
        others.push(hand);
    }
    store.delete(&gone.key).await?;
    for (mut hand, before) in others.into_iter().zip(before) {
        let after = (hand.get(At::Seq(Seq(1))).await?, hand.get(At::Head).await?);
        same("another thread", &after, &before)?;
        same("its next number", &hand.append(3).await?, &Seq(3))?;
    }
    same("the messages left", &store.outbox("topic", 100).await?.len(), &8)
}

async fn deleting_takes_records_runs_and_messages_too(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    hand.commit(everything(2)).await?;
    store.delete(&hand.key).await?;
    same("the unfinished", &store.unfinished("graph", 10).await?, &Vec::new())?;
    same("the messages", &store.outbox("topic", 10).await?, &Vec::new())?;
    let anew = Hand::begun(store, hand.key).await?;
    let found = anew.get(At::Head).await?;
    same("the new thread's records", &found.records, &Vec::new())?;
    same("the new thread's run", &found.run, &None)
}

async fn deleting_from_inside_a_nest_takes_the_whole_thread(store: &dyn Checkpointer) -> Found {
    let root = key("acme", "t")?;
    each_apart(store, &[root.clone(), root.child("a")]).await?;
    store.delete(&root.child("a")).await?;
    same("the root", &store.get(&root, At::Head).await?, &None)
}

async fn deleting_an_unknown_thread_is_no_error(store: &dyn Checkpointer) -> Found {
    store.delete(&key("acme", "unknown")?).await?;
    Ok(())
}

async fn a_deleted_thread_begins_anew(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    hand.append(2).await?;
    store.delete(&hand.key).await?;
    let mut anew = Hand::new(store, hand.key).await?;
    same("its first number", &anew.append(3).await?, &Seq(1))?;
    same("its state", &anew.get(At::Head).await?.parts, &vec![bytes("state 3")])
}

async fn a_long_thread_is_deleted_whole(store: &dyn Checkpointer) -> Found {
    // More than a store may take out at a time.
    const LENGTH: u32 = 300;
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    let other = Hand::begun(store, key("acme", "t2")?).await?;
    for number in 2..=LENGTH {
        hand.commit(everything(number)).await?;
    }
    store.delete(&hand.key).await?;
    same("the head", &store.get(&hand.key, At::Head).await?, &None)?;
    same(
        "the history",
        &store.list(&hand.key, Page::default()).await?,
        &Vec::new(),
    )?;
    same("the messages", &store.outbox("topic", 10).await?, &Vec::new())?;
    same("the unfinished", &store.unfinished("graph", 10).await?, &Vec::new())?;
    refused(hand.commit(everything(LENGTH + 1)).await, "checkpoint::fenced")?;
    let mut anew = Hand::new(store, hand.key).await?;
    for number in 1..=9 {
        anew.append(number).await?;
        let head = anew.get(At::Head).await?;
        same("the new number", &head.info.seq, &Seq(number.into()))?;
        same("the records of the new thread", &head.records, &Vec::new())?;
    }
    same("the other's head", &other.get(At::Head).await?.info.seq, &Seq(1))
}
