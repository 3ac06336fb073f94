//! Commits to PostgreSQL that come while another is under way share a statement, and each has its own end.

use std::{future::Future, sync::Arc};

use futures_util::{
    future::{join_all, maybe_done},
    poll,
};
use sqlx::{ConnectOptions as _, PgConnection, postgres::PgConnectOptions};
use stepgraph::{
    CheckpointError, Checkpointer, END, Graph, START, State, ThreadKey,
    checkpoint::{At, Commit, Epoch, Payload, RunMark, RunStatus, Seq},
};
use stepgraph_checkpoint::{Postgres, PostgresOptions};
use uuid::Uuid;

use super::ground::{checkpoint, key, only};

const THREADS: usize = 64;

async fn opened() -> (PgConnection, Postgres) {
    let url = stepgraph_live::Postgres::shared().unwrap().database().await.unwrap();
    let store = Postgres::open(&url).await.unwrap();
    let raw = url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap();
    (raw, store)
}

fn thread(number: usize) -> ThreadKey {
    key(&number.to_string())
}

fn marked(number: u64, graph: &str) -> Commit {
    Commit {
        run: Some(RunMark {
            run: Uuid::from_u128(9).into(),
            graph: graph.to_owned().into(),
            status: RunStatus::Running,
            error: None,
        }),
        ..only(checkpoint(number))
    }
}

async fn begun(store: &Postgres) -> Vec<Epoch> {
    let begun = (0..THREADS).map(async |number| store.begin(&thread(number), None, marked(1, "graph")).await.unwrap());
    let begun = join_all(begun).await;
    assert!(begun.iter().all(|(_, head)| *head == Some(Seq(1))));
    begun.into_iter().map(|(epoch, _)| epoch).collect()
}

/// The commit of step 2 of each thread.
fn second<'a>(
    store: &'a Postgres,
    epochs: &'a [Epoch],
    commit: impl Fn(usize) -> Commit + 'a,
) -> impl Iterator<Item = impl Future<Output = Result<Option<Seq>, CheckpointError>> + 'a> {
    epochs.iter().enumerate().map(move |(number, epoch)| {
        let commit = commit(number);
        async move { store.commit(&thread(number), *epoch, Some(Seq(1)), commit).await }
    })
}

/// Transactions that have written something since the server began.
async fn transactions(raw: &mut PgConnection) -> i64 {
    let next = "SELECT pg_snapshot_xmax(pg_current_snapshot())::TEXT::BIGINT";
    sqlx::query_scalar(next).fetch_one(raw).await.unwrap()
}

#[tokio::test]
async fn sixty_four_commits_at_once_take_a_few_transactions() {
    let (mut raw, store) = opened().await;
    let before = transactions(&mut raw).await;
    let epochs = begun(&store).await;
    let beginnings = transactions(&mut raw).await - before;
    assert!(beginnings <= 4, "{beginnings} for the beginnings");
    for commit in join_all(second(&store, &epochs, |_| only(checkpoint(2)))).await {
        assert_eq!(commit.unwrap(), Some(Seq(2)));
    }
    let commits = transactions(&mut raw).await - before - beginnings;
    assert!(commits <= 6, "{commits} for 64 commits");
}

#[tokio::test]
async fn one_that_fails_in_a_group_leaves_the_others() {
    let (_, store) = opened().await;
    let epochs = begun(&store).await;
    // Longer than the index of the unfinished takes, and not to be compressed.
    let digits = (0_u32..2000).map(|number| number.wrapping_mul(2_654_435_761).to_string());
    let long: String = digits.collect();
    let commits = second(&store, &epochs, |number| {
        marked(2, if number == 40 { &long } else { "graph" })
    });
    for (number, outcome) in join_all(commits).await.into_iter().enumerate() {
        match (number, outcome) {
            (40, Err(refused)) => assert_eq!(refused.code(), "checkpoint::unavailable"),
            (_, Ok(head)) => assert_eq!(head, Some(Seq(2)), "thread {number}"),
            (_, other) => panic!("thread {number}: {other:?}"),
        }
    }
    let head = store.get(&thread(40), At::Head).await.unwrap().unwrap();
    assert_eq!(head.info.seq, Seq(1));
}

#[tokio::test]
async fn a_thread_that_another_holds_keeps_nobody_waiting_but_its_own_writer() {
    let (mut raw, store) = opened().await;
    let epochs = begun(&store).await;
    sqlx::raw_sql("BEGIN; SELECT 1 FROM checkpoint_threads WHERE thread = '40' FOR UPDATE")
        .execute(&mut raw)
        .await
        .unwrap();
    let mut held = None;
    let mut others = Vec::new();
    for (number, commit) in second(&store, &epochs, |_| only(checkpoint(2))).enumerate() {
        let mut commit = Box::pin(commit);
        assert!(poll!(&mut commit).is_pending(), "thread {number}");
        if number == 40 {
            held = Some(commit);
        } else {
            others.push(commit);
        }
    }
    let mut held = held.unwrap();
    tokio::select! {
        biased;
        written = join_all(others) => assert!(written.iter().all(Result::is_ok), "{written:?}"),
        early = &mut held => panic!("the held thread was written: {early:?}"),
    }
    sqlx::raw_sql("COMMIT").execute(&mut raw).await.unwrap();
    assert_eq!(held.await.unwrap(), Some(Seq(2)));
}

#[tokio::test]
async fn a_caller_who_goes_away_takes_nothing_of_the_others_along() {
    let (_, store) = opened().await;
    let epochs = begun(&store).await;
    // The first writes by itself, the others queue behind it.
    for gone in [vec![0], vec![0, 1, 2], vec![5, 63]] {
        let mut heads = Vec::new();
        for number in 0..THREADS {
            heads.push(store.get(&thread(number), At::Head).await.unwrap().unwrap().info.seq);
        }
        let mut waiting = Vec::new();
        for (number, epoch) in epochs.iter().enumerate() {
            let (store, head) = (&store, heads[number]);
            // A server that answers at once has it done by the first poll.
            let mut commit = Box::pin(maybe_done(async move {
                let commit = only(checkpoint(head.0 + 1));
                store.commit(&thread(number), *epoch, Some(head), commit).await
            }));
            let _ = poll!(&mut commit);
            waiting.push((number, commit));
        }
        waiting.retain(|(number, _)| !gone.contains(number));
        let waiting = waiting.into_iter().map(async |(number, mut commit)| {
            commit.as_mut().await;
            (number, commit.as_mut().take_output().unwrap())
        });
        for (number, written) in join_all(waiting).await {
            assert_eq!(written.unwrap(), Some(Seq(heads[number].0 + 1)), "thread {number}");
        }
        for number in gone {
            // All of it or nothing, perhaps still on its way.
            let head = store.get(&thread(number), At::Head).await.unwrap().unwrap().info.seq;
            assert!([heads[number], Seq(heads[number].0 + 1)].contains(&head), "{head:?}");
        }
    }
}

/// As the futures of a buffered stream whose consumer is busy.
#[tokio::test]
async fn a_caller_who_lets_its_commit_lie_holds_nobody_up_for_ever() {
    let (_, store) = opened().await;
    let epochs = begun(&store).await;
    let mut commits = second(&store, &epochs, |_| only(checkpoint(2)));
    let mut left_lying = Box::pin(maybe_done(commits.next().unwrap()));
    let _ = poll!(&mut left_lying);
    for written in join_all(commits).await {
        assert_eq!(written.unwrap(), Some(Seq(2)));
    }
    left_lying.as_mut().await;
    let written = left_lying.as_mut().take_output().unwrap();
    assert_eq!(written.unwrap(), Some(Seq(2)));
}

#[tokio::test]
async fn commits_whose_connections_are_dead_are_made_on_others_and_once() {
    let (mut raw, store) = opened().await;
    let epochs = begun(&store).await;
    for commit in join_all(second(&store, &epochs, |_| only(checkpoint(2)))).await {
        commit.unwrap();
    }
    let killed = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                  WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let killed: i64 = sqlx::query_scalar(killed).fetch_one(&mut raw).await.unwrap();
    assert!(killed >= 2, "{killed}");
    let commits = epochs.iter().enumerate().map(async |(number, epoch)| {
        let commit = only(checkpoint(3));
        store.commit(&thread(number), *epoch, Some(Seq(2)), commit).await
    });
    for head in join_all(commits).await {
        assert_eq!(head.unwrap(), Some(Seq(3)));
    }
}

#[tokio::test]
async fn what_is_large_is_written_by_itself() {
    let (mut raw, store) = opened().await;
    let epochs = begun(&store).await;
    let before = transactions(&mut raw).await;
    let large = |_| {
        let mut new = checkpoint(2);
        new.payload = Payload::Snapshot(vec![7; 70 << 10].into());
        only(new)
    };
    for head in join_all(second(&store, &epochs, large)).await {
        assert_eq!(head.unwrap(), Some(Seq(2)));
    }
    assert_eq!(transactions(&mut raw).await - before, 64);
}

#[tokio::test]
async fn a_server_that_is_down_is_waited_for_once_and_not_by_each_in_turn() {
    let mut server = stepgraph_live::Postgres::start().unwrap();
    let url = server.database().await.unwrap();
    let options = PostgresOptions::default().wait_max(std::time::Duration::from_secs(2));
    let store = Postgres::open_with(&url, options).await.unwrap();
    let epochs = begun(&store).await;
    server.kill().unwrap();
    let commits = join_all(second(&store, &epochs, |_| only(checkpoint(2))));
    let in_time = tokio::time::timeout(std::time::Duration::from_secs(40), commits);
    for outcome in in_time.await.expect("far less than two seconds for each") {
        assert!(outcome.unwrap_err().is_retryable());
    }
}

#[derive(State, Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Count {
    #[state(input)]
    count: u32,
}

#[tokio::test]
async fn a_run_of_three_steps_takes_four_transactions() {
    let (mut raw, store) = opened().await;
    let mut g = Graph::<Count>::builder("count");
    let [a, b, c] = ["a", "b", "c"].map(|name| {
        g.node(name, |state: Arc<Count>| {
            std::future::ready(Ok(Count::update().count(state.count + 1)))
        })
    });
    g.edge(START, a).edge(a, b).edge(b, c).edge(c, END);
    let graph = g.build().unwrap().checkpointer(store);
    for number in 0..3 {
        let before = transactions(&mut raw).await;
        let outcome = graph.run(&thread(number), CountInput { count: 0 }).await.unwrap();
        assert_eq!(outcome.done().unwrap().count, 3);
        let taken = transactions(&mut raw).await - before;
        assert_eq!(taken, 4, "the admission and three steps");
    }
}
