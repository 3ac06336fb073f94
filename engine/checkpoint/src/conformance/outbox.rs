//! Messages leave with the commit that sends them.

use stepgraph::{
    Checkpointer,
    checkpoint::{Commit, OutboxMessage, Seq},
};
use uuid::Uuid;

use super::ground::{Broken, Found, Hand, checkpoint, facts, is, key, message, refused, same};

facts![
    a_message_waits_once_its_commit_is_done,
    a_message_leaves_with_its_checkpoint,
    a_message_of_a_refused_commit_is_not_sent,
    messages_come_oldest_first,
    messages_are_cut_at_the_limit,
    messages_are_those_of_one_topic,
    an_acknowledged_message_is_forgotten,
    an_unknown_acknowledgement_is_ignored,
    a_message_is_given_until_it_is_acknowledged,
    a_message_that_waits_already_is_kept_once,
    a_message_may_say_anything,
    a_message_outlives_later_commits_and_branches,
];

async fn ids(store: &dyn Checkpointer, topic: &str) -> Result<Vec<u128>, Broken> {
    let waiting = store.outbox(topic, 100).await?;
    Ok(waiting.into_iter().map(|(_, message)| message.id.as_u128()).collect())
}

async fn a_message_waits_once_its_commit_is_done(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?.child("host")).await?;
    same("the messages", &store.outbox("topic", 10).await?, &Vec::new())?;
    hand.send(vec![message(1, "topic")]).await?;
    same(
        "the messages",
        &store.outbox("topic", 10).await?,
        &vec![(hand.key, message(1, "topic"))],
    )
}

async fn a_message_leaves_with_its_checkpoint(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    let commit = Commit {
        checkpoint: Some(checkpoint(2)),
        outbox: vec![message(1, "topic"), message(2, "topic")],
        ..Commit::default()
    };
    same("the head", &hand.commit(commit).await?, &Some(Seq(2)))?;
    same("the messages", &ids(store, "topic").await?, &vec![1, 2])
}

async fn a_message_of_a_refused_commit_is_not_sent(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    let commit = Commit {
        outbox: vec![message(1, "topic")],
        ..Commit::default()
    };
    let late = store.commit(&hand.key, hand.epoch, None, commit.clone()).await;
    refused(late, "checkpoint::conflict")?;
    store.claim(&hand.key).await?;
    refused(hand.commit(commit).await, "checkpoint::fenced")?;
    same("the messages", &ids(store, "topic").await?, &Vec::new())
}

async fn messages_come_oldest_first(store: &dyn Checkpointer) -> Found {
    let mut one = Hand::new(store, key("acme", "one")?).await?;
    let mut two = Hand::new(store, key("rival", "two")?).await?;
    one.send(vec![message(1, "topic"), message(2, "topic")]).await?;
    two.send(vec![message(3, "topic")]).await?;
    one.send(vec![message(4, "topic")]).await?;
    two.send(vec![message(5, "topic"), message(1 << 100, "topic")]).await?;
    same(
        "the messages",
        &ids(store, "topic").await?,
        &vec![1, 2, 3, 4, 5, 1 << 100],
    )
}

async fn messages_are_cut_at_the_limit(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    hand.send((1..=5).map(|number| message(number, "topic")).collect())
        .await?;
    let two = store.outbox("topic", 2).await?;
    let two: Vec<_> = two.into_iter().map(|(_, message)| message).collect();
    same("the messages", &two, &vec![message(1, "topic"), message(2, "topic")])?;
    same("none of them", &store.outbox("topic", 0).await?, &Vec::new())
}

async fn messages_are_those_of_one_topic(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    let topics = ["jobs", "Jobs", "jobs ", "", "\0", "仕事"];
    let messages = (1..).zip(topics).map(|(number, topic)| message(number, topic));
    hand.send(messages.collect()).await?;
    for (number, topic) in (1..).zip(topics) {
        same("the topic's messages", &ids(store, topic).await?, &vec![number])?;
    }
    same("another topic's messages", &ids(store, "job").await?, &Vec::new())
}

async fn an_acknowledged_message_is_forgotten(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    hand.send((1..=3).map(|number| message(number, "topic")).collect())
        .await?;
    store.acknowledge(&hand.key, Uuid::from_u128(2)).await?;
    same("the messages", &ids(store, "topic").await?, &vec![1, 3])
}

async fn an_unknown_acknowledgement_is_ignored(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    hand.send(vec![message(1, "topic")]).await?;
    store.acknowledge(&hand.key, Uuid::from_u128(9)).await?;
    store.acknowledge(&key("acme", "unknown")?, Uuid::from_u128(1)).await?;
    same("the messages", &ids(store, "topic").await?, &vec![1])?;
    store.acknowledge(&hand.key, Uuid::from_u128(1)).await?;
    store.acknowledge(&hand.key, Uuid::from_u128(1)).await?;
    same("the messages", &ids(store, "topic").await?, &Vec::new())
}

async fn a_message_is_given_until_it_is_acknowledged(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    hand.send(vec![message(1, "topic")]).await?;
    for _ in 0..3 {
        same("the messages", &ids(store, "topic").await?, &vec![1])?;
    }
    Ok(())
}

async fn a_message_that_waits_already_is_kept_once(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    hand.send(vec![message(1, "topic")]).await?;
    hand.send(vec![message(1, "topic"), message(2, "topic")]).await?;
    same("the messages", &ids(store, "topic").await?, &vec![1, 2])
}

async fn a_message_may_say_anything(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    for (number, body) in (1..).zip([Vec::new(), vec![0], vec![0xFF; 100_000]]) {
        let topic = format!("topic {number}");
        let sent = OutboxMessage {
            id: Uuid::from_u128(number),
            topic: topic.clone(),
            body,
        };
        hand.send(vec![sent.clone()]).await?;
        let waiting = store.outbox(&topic, 10).await?;
        is(
            "the one message of the topic is the one sent",
            matches!(waiting.as_slice(), [(key, message)] if *key == hand.key && *message == sent),
        )?;
    }
    Ok(())
}

async fn a_message_outlives_later_commits_and_branches(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    hand.send(vec![message(1, "topic")]).await?;
    hand.append(2).await?;
    hand.branch(Seq(1), "retry").await?;
    hand.append(3).await?;
    same("the messages", &ids(store, "topic").await?, &vec![1])
}
