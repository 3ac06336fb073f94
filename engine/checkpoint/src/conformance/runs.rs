//! How far a thread's newest run has come.

use stepgraph::{
    Checkpointer, ThreadKey,
    checkpoint::{At, Commit, RunMark, RunStatus, Seq},
};

use super::ground::{Broken, Found, Hand, checkpoint, facts, key, run, same};

facts![
    a_thread_without_a_run_says_so,
    a_run_comes_back_with_every_status,
    a_failed_runs_error_comes_back_and_goes,
    an_old_checkpoint_shows_the_newest_run,
    a_commit_without_a_run_leaves_it_as_it_was,
    a_checkpoint_names_the_run_that_wrote_it,
    a_graph_may_have_any_name,
    the_unfinished_are_the_running_ones,
    the_unfinished_are_those_of_one_graph,
    the_unfinished_come_oldest_first,
    the_unfinished_are_cut_at_the_limit,
    a_nested_run_is_not_listed_as_unfinished,
    a_thread_that_runs_without_a_checkpoint_is_unfinished,
];

const STATUSES: [RunStatus; 5] = [
    RunStatus::Running,
    RunStatus::Asked,
    RunStatus::Stopped,
    RunStatus::Done,
    RunStatus::Failed,
];

async fn a_thread_without_a_run_says_so(store: &dyn Checkpointer) -> Found {
    let hand = Hand::begun(store, key("acme", "t")?).await?;
    same("its run", &hand.get(At::Head).await?.run, &None)
}

async fn a_run_comes_back_with_every_status(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    for (number, status) in (1..).zip(STATUSES) {
        let mark = run(number, "graph", status);
        hand.mark(mark.clone()).await?;
        same("its run", &hand.get(At::Head).await?.run, &Some(mark))?;
    }
    Ok(())
}

async fn a_failed_runs_error_comes_back_and_goes(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    for error in [Some("node `grade`: 節点 \0 failed"), Some(""), None] {
        let mark = RunMark {
            error: error.map(ToOwned::to_owned),
            ..run(1, "graph", RunStatus::Failed)
        };
        hand.mark(mark.clone()).await?;
        same("its run", &hand.get(At::Head).await?.run, &Some(mark))?;
    }
    Ok(())
}

async fn an_old_checkpoint_shows_the_newest_run(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    let mark = run(2, "graph", RunStatus::Asked);
    let commit = Commit {
        checkpoint: Some(checkpoint(2)),
        run: Some(mark.clone()),
        ..Commit::default()
    };
    hand.commit(commit).await?;
    same("the thread's run", &hand.get(At::Seq(Seq(1))).await?.run, &Some(mark))
}

async fn a_commit_without_a_run_leaves_it_as_it_was(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    let mark = run(1, "graph", RunStatus::Running);
    hand.mark(mark.clone()).await?;
    hand.append(2).await?;
    hand.commit(Commit::default()).await?;
    same("its run", &hand.get(At::Head).await?.run, &Some(mark))
}

async fn a_checkpoint_names_the_run_that_wrote_it(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?).await?;
    let (first, second) = (run(1, "graph", RunStatus::Running), run(2, "graph", RunStatus::Running));
    let with = |number, mark: &RunMark| Commit {
        checkpoint: Some(checkpoint(number)),
        run: Some(mark.clone()),
        ..Commit::default()
    };
    hand.commit(with(2, &first)).await?;
    hand.append(3).await?;
    hand.commit(with(4, &second)).await?;
    let mut runs = Vec::new();
    for seq in 1..=4 {
        runs.push(hand.get(At::Seq(Seq(seq))).await?.info.run);
    }
    same(
        "the runs",
        &runs,
        &vec![None, Some(first.run), Some(first.run), Some(second.run)],
    )
}

async fn a_graph_may_have_any_name(store: &dyn Checkpointer) -> Found {
    for (number, graph) in (1..).zip(["", "\0", "a\0b", "グラフ 🎏", "'; --", "%", "Graph", "graph"]) {
        let mut hand = Hand::begun(store, key("acme", &number.to_string())?).await?;
        let mark = run(number, graph, RunStatus::Running);
        hand.mark(mark.clone()).await?;
        same("its run", &hand.get(At::Head).await?.run, &Some(mark))?;
        same("the unfinished", &store.unfinished(graph, 10).await?, &vec![hand.key])?;
    }
    Ok(())
}

/// A thread with a checkpoint and a run.
async fn with_run(store: &dyn Checkpointer, thread: &str, mark: RunMark) -> Result<ThreadKey, Broken> {
    let mut hand = Hand::begun(store, key("acme", thread)?).await?;
    hand.mark(mark).await?;
    Ok(hand.key)
}

async fn the_unfinished_are_the_running_ones(store: &dyn Checkpointer) -> Found {
    Hand::begun(store, key("acme", "without")?).await?;
    for (number, status) in (1..).zip(STATUSES) {
        with_run(store, &number.to_string(), run(number, "graph", status)).await?;
    }
    same(
        "the unfinished",
        &store.unfinished("graph", 10).await?,
        &vec![key("acme", "1")?],
    )?;
    let mut hand = Hand::new(store, key("acme", "1")?).await?;
    hand.head = Some(Seq(1));
    hand.mark(run(1, "graph", RunStatus::Done)).await?;
    same("the unfinished", &store.unfinished("graph", 10).await?, &Vec::new())?;
    hand.mark(run(9, "graph", RunStatus::Running)).await?;
    same("the unfinished", &store.unfinished("graph", 10).await?, &vec![hand.key])
}

async fn the_unfinished_are_those_of_one_graph(store: &dyn Checkpointer) -> Found {
    with_run(store, "chat", run(1, "chat", RunStatus::Running)).await?;
    let ingest = with_run(store, "ingest", run(2, "ingest", RunStatus::Running)).await?;
    same("the unfinished", &store.unfinished("ingest", 10).await?, &vec![ingest])?;
    same(
        "the unfinished of none",
        &store.unfinished("Chat", 10).await?,
        &Vec::new(),
    )
}

async fn the_unfinished_come_oldest_first(store: &dyn Checkpointer) -> Found {
    let mut wanted = Vec::new();
    for (thread, number) in [("c", 3), ("a", 1), ("d", 1 << 100), ("b", 2)] {
        let key = with_run(store, thread, run(number, "graph", RunStatus::Running)).await?;
        wanted.push((number, key));
    }
    wanted.sort();
    let wanted: Vec<_> = wanted.into_iter().map(|(_, key)| key).collect();
    same("the unfinished", &store.unfinished("graph", 10).await?, &wanted)
}

async fn the_unfinished_are_cut_at_the_limit(store: &dyn Checkpointer) -> Found {
    for number in 1..=5 {
        with_run(store, &number.to_string(), run(number, "graph", RunStatus::Running)).await?;
    }
    let first = vec![key("acme", "1")?, key("acme", "2")?];
    same("the unfinished", &store.unfinished("graph", 2).await?, &first)?;
    same("none of them", &store.unfinished("graph", 0).await?, &Vec::new())?;
    same(
        "how many there are",
        &store.unfinished("graph", u32::MAX).await?.len(),
        &5,
    )
}

async fn a_nested_run_is_not_listed_as_unfinished(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::begun(store, key("acme", "t")?.child("host")).await?;
    hand.mark(run(1, "graph", RunStatus::Running)).await?;
    same("the unfinished", &store.unfinished("graph", 10).await?, &Vec::new())
}

async fn a_thread_that_runs_without_a_checkpoint_is_unfinished(store: &dyn Checkpointer) -> Found {
    let mut hand = Hand::new(store, key("acme", "t")?).await?;
    hand.mark(run(1, "graph", RunStatus::Running)).await?;
    same("the unfinished", &store.unfinished("graph", 10).await?, &vec![hand.key])
}
