//! When joins lead on, whom they cancel, and what their targets learn.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    pub(crate) mod clock;
    pub(crate) mod store;
    pub(crate) mod threads;
}

use std::{
    future::{IntoFuture, pending},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::json;
use stepgraph::{
    Append, Ask, BuildError, Context, END, Effect, EventKind, FromState, Graph, GraphBuilder, JoinRule, NodeError,
    NodeId, Outcome, ReaderGone, Route, RunError, START, State, Sum,
    checkpoint::At,
    dynamic::{Channels, DynamicBuilder, JsonInput, JsonUpdate, Merge},
    events, from, to,
};
use support::{clock::TokioClock, store::Watched, threads::thread};

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Log {
    #[state(reducer = Append)]
    log: Vec<String>,
    #[state(reducer = Sum)]
    rounds: u64,
}

impl FromState<Log> for LogInput {
    fn from_state(_: &Arc<Log>) -> Self {
        Self::new()
    }
}

impl From<Arc<Log>> for LogUpdate {
    fn from(inner: Arc<Log>) -> Self {
        line(format!("inside: {:?}", inner.log))
    }
}

#[derive(Serialize, Ask)]
#[ask(name = "sure", answer = bool)]
struct Sure;

#[derive(Route, Clone, Copy)]
enum Round {
    Again,
    Enough,
}

type Builder = GraphBuilder<Log>;

fn line(text: impl Into<String>) -> LogUpdate {
    Log::update().log([text.into()])
}

/// Writes its name at once.
fn quick(g: &mut Builder, name: &'static str) -> NodeId<Log> {
    g.node(name, move |_: Arc<Log>| async move { Ok(line(name)) })
}

/// Writes its name after so many seconds.
fn after(g: &mut Builder, name: &'static str, seconds: u64) -> NodeId<Log> {
    g.node(name, move |_: Arc<Log>| async move {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        Ok(line(name))
    })
}

/// Never ends.
fn stuck(g: &mut Builder, name: &'static str) -> NodeId<Log> {
    g.node(name, move |_: Arc<Log>| pending::<Result<LogUpdate, NodeError>>())
}

/// Writes who has arrived.
fn gather(g: &mut Builder) -> NodeId<Log> {
    let gather = g.node("gather", |_: Arc<Log>, ctx: Context<()>| async move {
        Ok(line(format!("with {}", ctx.arrived().join(" and "))))
    });
    g.edge(gather, END);
    gather
}

fn new(name: &'static str) -> Builder {
    Graph::<Log>::builder(name)
}

async fn log_of(graph: &Graph<Log>) -> Vec<String> {
    graph
        .run(&thread("t"), LogInput::new())
        .await
        .unwrap()
        .done()
        .unwrap()
        .log
}

#[tokio::test]
async fn a_join_of_any_leads_on_with_all_that_finished_in_the_same_step() {
    let mut g = new("any");
    let [a, b, c] = ["a", "b", "c"].map(|name| quick(&mut g, name));
    let gather = gather(&mut g);
    g.edge(START, a).edge(START, b).edge(b, c);
    g.join_when(JoinRule::any(), [a, b], gather).edge(c, END);
    assert_eq!(log_of(&g.build().unwrap()).await, ["a", "b", "c", "with a and b"]);
}

#[tokio::test]
async fn a_quorum_is_reached_over_several_steps_and_takes_nothing_until_its_target_has_run() {
    let mut g = new("quorum");
    let [a, b, c, last, late] = ["a", "b", "c", "d", "late"].map(|name| quick(&mut g, name));
    let gather = gather(&mut g);
    // `a` arrives after the first step, `c` after the second, `late` while `gather` runs.
    g.edge(START, a)
        .edge(START, b)
        .edge(b, c)
        .edge(c, last)
        .edge(c, late)
        .edge(last, END);
    g.join_when(JoinRule::quorum(2), [a, c, late], gather);
    let graph = g.build().unwrap();
    match graph.run(&thread("t"), LogInput::new()).await.unwrap() {
        Outcome::Stalled { state, waiting } => {
            assert_eq!(state.log, ["a", "b", "c", "d", "with a and c", "late"]);
            assert_eq!(
                (&waiting[0].to, &waiting[0].missing),
                (&vec!["gather".into()], &vec!["a".into(), "c".into()])
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn half_of_three_sources_are_two() {
    let mut g = new("fraction");
    let [a, b, c] = ["a", "b", "c"].map(|name| quick(&mut g, name));
    let gather = gather(&mut g);
    g.edge(START, a).edge(a, b).edge(b, c).edge(c, END);
    g.join_when(JoinRule::fraction(0.5), [a, b, c], gather);
    let outcome = g.build().unwrap().run(&thread("t"), LogInput::new()).await.unwrap();
    let Outcome::Stalled { state, .. } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(state.log, ["a", "b", "c", "with a and b"]);
}

#[tokio::test]
async fn a_join_of_any_begins_anew_in_each_round_of_a_loop() {
    let mut g = new("rounds");
    let plan = g.node("plan", |_: Arc<Log>| async { Ok(Log::update().rounds(1_u64)) });
    let [a, b] = ["a", "b"].map(|name| quick(&mut g, name));
    let gather = g.node("gather", |_: Arc<Log>, ctx: Context<()>| async move {
        Ok(line(ctx.arrived().join("+")))
    });
    g.edge(START, plan).edge(plan, a).edge(plan, b);
    g.join_when(JoinRule::any(), [a, b], gather);
    g.branch(
        gather,
        |log: &Log| if log.rounds < 3 { Round::Again } else { Round::Enough },
        |round| match round {
            Round::Again => to(plan),
            Round::Enough => to(END),
        },
    );
    let log = log_of(&g.build().unwrap()).await;
    assert_eq!(log, ["a", "b", "a+b"].repeat(3));
}

/// A race of `quick` and `stuck`, whose own way on must not be gone.
fn race(g: &mut Builder) {
    let (quick, slow) = (quick(g, "quick"), stuck(g, "slow"));
    let never = g.node("never", |_: Arc<Log>| async { Ok(line("never")) });
    let gather = gather(g);
    g.edge(START, quick)
        .edge(START, slow)
        .edge(slow, never)
        .edge(never, END);
    g.race([slow, quick], gather);
}

#[tokio::test]
async fn the_first_of_a_race_cancels_the_others_and_nothing_follows_from_them() {
    for kept in [false, true] {
        let mut g = new("race");
        race(&mut g);
        let graph = g.build().unwrap();
        let graph = if kept {
            graph.checkpointer(Watched::default())
        } else {
            graph
        };
        let (sender, mut reader) = events(100, ReaderGone::Finish);
        let outcome = graph.run(&thread("t"), LogInput::new()).events(sender).await.unwrap();
        assert_eq!(outcome.done().unwrap().log, ["quick", "with quick"]);
        let mut cancelled = Vec::new();
        while let Some(event) = reader.next().await {
            match event.kind {
                EventKind::Cancelled { task, .. } => cancelled.push(task),
                EventKind::Failed { task, .. } => panic!("{task} failed"),
                _ => {}
            }
        }
        assert_eq!(cancelled, ["slow"]);
    }
}

#[tokio::test]
async fn a_source_that_waits_for_an_answer_loses_its_race() {
    let mut g = new("asking");
    let quick = after(&mut g, "quick", 0);
    let asks = g.node("asks", |_: Arc<Log>, ctx: Context<()>| async move {
        Ok(line(format!("sure: {}", ctx.ask(Sure)?)))
    });
    let gather = gather(&mut g);
    g.edge(START, quick).edge(START, asks);
    g.race([quick, asks], gather);
    let graph = g.build().unwrap().checkpointer(Watched::default());
    assert_eq!(log_of(&graph).await, ["quick", "with quick"]);
}

#[tokio::test]
async fn a_source_outside_the_step_is_not_cancelled_and_counts_for_the_next_time() {
    let mut g = new("later");
    let [a, b, late] = ["a", "b", "late"].map(|name| quick(&mut g, name));
    let gather = gather(&mut g);
    g.edge(START, a).edge(START, b).edge(b, late);
    g.race([a, late], gather);
    assert_eq!(
        log_of(&g.build().unwrap()).await,
        ["a", "b", "with a", "late", "with late"]
    );
}

/// `slow` counts how often it was entered, and ends at once when it is entered again.
fn decided(entered: &Arc<AtomicUsize>) -> Graph<Log> {
    let mut g = new("decided");
    let entered = Arc::clone(entered);
    let slow = g.node("a slow one", move |_: Arc<Log>| {
        let first = entered.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                pending::<()>().await;
            }
            Ok(line("slow"))
        }
    });
    let quick = after(&mut g, "quick", 0);
    let gather = gather(&mut g);
    g.edge(START, slow).edge(START, quick);
    g.race([slow, quick], gather);
    g.build().unwrap()
}

#[tokio::test]
async fn a_race_that_was_decided_ends_the_same_whichever_later_commit_fails() {
    let store = Watched::default();
    decided(&Arc::default())
        .checkpointer(store.clone())
        .run(&thread("t"), LogInput::new())
        .await
        .unwrap();
    // The first commit admits, the second is the decision.
    assert_eq!(store.commits(), 4);
    for commit in 3..=4 {
        let (store, entered) = (Watched::default(), Arc::new(AtomicUsize::new(0)));
        let graph = decided(&entered).checkpointer(store.clone());
        store.fail_commit_at(commit);
        let error = graph.run(&thread("t"), LogInput::new()).await.unwrap_err();
        assert!(matches!(error, RunError::Checkpoint(_)), "{error}");
        if commit == 3 {
            let tasks = graph.state(&thread("t"), At::Head).await.unwrap().unwrap().tasks;
            let stands: Vec<_> = tasks
                .iter()
                .map(|t| (t.task.as_str(), t.finished, t.cancelled))
                .collect();
            assert_eq!(stands, [("a slow one", false, true), ("quick", true, false)]);
        }
        let state = graph.resume(&thread("t")).await.unwrap().done().unwrap();
        assert_eq!(state.log, ["quick", "with quick"], "commit {commit}");
        assert_eq!(entered.load(Ordering::SeqCst), 1, "commit {commit}");
    }
}

#[tokio::test]
async fn a_race_whose_decision_was_not_kept_is_run_again() {
    let (store, entered) = (Watched::default(), Arc::new(AtomicUsize::new(0)));
    let graph = decided(&entered).checkpointer(store.clone());
    store.fail_commit_at(2);
    graph.run(&thread("t"), LogInput::new()).await.unwrap_err();
    let state = graph.resume(&thread("t")).await.unwrap().done().unwrap();
    assert_eq!(
        (state.log.last().unwrap().as_str(), entered.load(Ordering::SeqCst)),
        ("with a slow one", 2)
    );
}

#[tokio::test(start_paused = true)]
async fn when_time_is_up_a_join_leads_on_with_whoever_has_finished() {
    for (limit, expected) in [
        (1, vec!["with "]),
        (3, vec!["two", "with two"]),
        (5, vec!["four", "two", "with two and four"]),
        (9, vec!["four", "six", "two", "with two and four and six"]),
    ] {
        let mut g = new("timed");
        let names = [("two", 2), ("four", 4), ("six", 6)];
        let sources = names.map(|(name, seconds)| after(&mut g, name, seconds));
        let gather = gather(&mut g);
        for source in sources {
            g.edge(START, source);
        }
        g.join_when(JoinRule::all().within(Duration::from_secs(limit)), sources, gather);
        let graph = g
            .build()
            .unwrap()
            .clock(TokioClock::start())
            .checkpointer(Watched::default());
        let began = tokio::time::Instant::now();
        assert_eq!(log_of(&graph).await, expected, "within {limit} s");
        assert!(
            began.elapsed() <= Duration::from_secs(limit + 1),
            "within {limit} s: {:?}",
            began.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_join_goes_on_over_steps() {
    let mut g = new("steps");
    let (first, second, third) = (
        after(&mut g, "first", 1),
        after(&mut g, "second", 1),
        after(&mut g, "third", 5),
    );
    let lone = after(&mut g, "lone", 3);
    let gather = gather(&mut g);
    g.edge(START, first)
        .edge(START, lone)
        .edge(first, second)
        .edge(second, third);
    g.join_when(
        JoinRule::all().within(Duration::from_secs(6)),
        [first, third, lone],
        gather,
    );
    let graph = g
        .build()
        .unwrap()
        .clock(TokioClock::start())
        .checkpointer(Watched::default());
    let began = tokio::time::Instant::now();
    // The first step takes 3 s, the second 1 s, and 2 s of the third are left.
    assert_eq!(log_of(&graph).await, ["first", "lone", "second", "with first and lone"]);
    assert_eq!(began.elapsed().as_secs(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_join_whose_time_is_up_while_the_run_is_down_leads_on_when_it_is_resumed() {
    let (store, clock) = (Watched::default(), TokioClock::start());
    let entered = Arc::new(AtomicUsize::new(0));
    let mut g = new("down");
    let quick = after(&mut g, "quick", 1);
    let count = Arc::clone(&entered);
    let slow = g.node("slow", move |_: Arc<Log>| {
        count.fetch_add(1, Ordering::SeqCst);
        pending::<Result<LogUpdate, NodeError>>()
    });
    let gather = gather(&mut g);
    g.edge(START, quick).edge(START, slow);
    g.join_when(JoinRule::all().within(Duration::from_secs(10)), [quick, slow], gather);
    let graph = g.build().unwrap().clock(clock).checkpointer(store.clone());
    let cut_off = tokio::time::timeout(
        Duration::from_secs(5),
        graph.run(&thread("t"), LogInput::new()).into_future(),
    );
    assert!(cut_off.await.is_err());
    tokio::time::advance(Duration::from_mins(1)).await;
    let state = graph.resume(&thread("t")).await.unwrap().done().unwrap();
    assert_eq!(state.log, ["quick", "with quick"]);
    assert_eq!(
        entered.load(Ordering::SeqCst),
        1,
        "who is too late is not entered again"
    );
}

#[tokio::test]
async fn a_join_in_time_does_not_stall_for_sources_that_are_never_started() {
    let mut g = new("skipped");
    let [a, b] = ["a", "b"].map(|name| quick(&mut g, name));
    let gather = gather(&mut g);
    g.branch(
        START,
        |_: &Log| Round::Enough,
        |round| match round {
            Round::Again => to(a).and(b),
            Round::Enough => to(a),
        },
    );
    g.join_when(JoinRule::all().within(Duration::from_hours(1)), [a, b], gather);
    assert_eq!(log_of(&g.build().unwrap()).await, ["a", "with a"]);
}

#[tokio::test(start_paused = true)]
async fn the_items_of_a_fan_out_that_finished_in_time_are_merged() {
    let mut g = new("items");
    let work = g.worker("work", |seconds: u64| async move {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        Ok(line(format!("item {seconds}")))
    });
    let gather = gather(&mut g);
    g.fan_out(START, work, |_: &Log| [1, 60, 2]);
    g.join_when(JoinRule::all().within(Duration::from_secs(3)), [work], gather);
    let graph = g.build().unwrap().clock(TokioClock::start());
    // The worker as a whole has not arrived.
    assert_eq!(log_of(&graph).await, ["item 1", "item 2", "with "]);
}

#[tokio::test]
async fn a_cancelled_source_stops_at_every_depth_once_its_effects_have_landed() {
    let (landed, inner_went_on) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let began = Arc::new(tokio::sync::Notify::new());
    let mut g = new("inner");
    let (kept, told) = (Arc::clone(&landed), Arc::clone(&began));
    let pays = g.node("pays", move |_: Arc<Log>, ctx: Context<()>| {
        let (landed, began) = (Arc::clone(&kept), Arc::clone(&told));
        async move {
            let effect = Effect::other(|| {
                let (landed, began) = (Arc::clone(&landed), Arc::clone(&began));
                async move {
                    began.notify_one();
                    for _ in 0..50 {
                        tokio::task::yield_now().await;
                    }
                    landed.store(true, Ordering::SeqCst);
                    Ok(1_u64)
                }
            });
            Ok(line(ctx.once("pay", effect).await?.to_string()))
        }
    });
    let kept = Arc::clone(&inner_went_on);
    let next = g.node("next", move |_: Arc<Log>| {
        kept.store(true, Ordering::SeqCst);
        async { Ok(line("next")) }
    });
    g.edge(START, pays).edge(pays, next).edge(next, END);
    let inner = g.build().unwrap();
    let mut g = new("outer");
    let host = g.node("host", inner.as_node::<LogInput, Arc<Log>>());
    let quick = g.node("quick", move |_: Arc<Log>| {
        let began = Arc::clone(&began);
        async move {
            began.notified().await;
            Ok(line("quick"))
        }
    });
    let gather = gather(&mut g);
    g.edge(START, host).edge(START, quick);
    g.race([host, quick], gather);
    let graph = g.build().unwrap().checkpointer(Watched::default());
    assert_eq!(log_of(&graph).await, ["quick", "with quick"]);
    assert!(landed.load(Ordering::SeqCst), "an effect that has begun is waited for");
    assert!(
        !inner_went_on.load(Ordering::SeqCst),
        "the graph inside goes on after its host was cancelled"
    );
}

#[tokio::test]
async fn a_failing_source_fails_its_race() {
    let mut g = new("failing");
    let slow = stuck(&mut g, "slow");
    let fails = g.node("fails", |_: Arc<Log>| async {
        tokio::task::yield_now().await;
        Err::<LogUpdate, _>(NodeError::terminal("no"))
    });
    let (quick, gather) = (after(&mut g, "quick", 0), gather(&mut g));
    g.edge(START, slow).edge(START, fails).edge(START, quick);
    g.join_when(JoinRule::any().cancel_others(), [slow, fails, quick], gather);
    let error = g.build().unwrap().run(&thread("t"), LogInput::new()).await.unwrap_err();
    assert_eq!(error.code(), "run::node");
}

#[tokio::test]
async fn who_arrived_is_the_same_when_the_target_is_entered_again() {
    let mut g = new("again");
    let [a, b] = ["a", "b"].map(|name| quick(&mut g, name));
    let gather = g.node("gather", |_: Arc<Log>, ctx: Context<()>| async move {
        let sure = ctx.ask(Sure)?;
        Ok(line(format!("{sure} with {}", ctx.arrived().join(" and "))))
    });
    g.edge(START, a).edge(a, b).edge(gather, END).edge(b, END);
    g.join_when(JoinRule::any(), [a, b], gather);
    let graph = g.build().unwrap().checkpointer(Watched::default());
    let outcome = graph.run(&thread("t"), LogInput::new()).await.unwrap();
    assert!(matches!(outcome, Outcome::Asked(_)), "{outcome:?}");
    let outcome = graph.resume(&thread("t")).answer::<Sure>(&true).await.unwrap();
    assert!(matches!(outcome, Outcome::Asked(_)), "{outcome:?}");
    let outcome = graph.resume(&thread("t")).answer::<Sure>(&true).await.unwrap();
    assert_eq!(outcome.done().unwrap().log, ["a", "b", "true with a", "true with b"]);
}

#[test]
fn rules_that_cannot_hold_are_told_when_the_graph_is_built() {
    for (rule, code) in [
        (JoinRule::quorum(0), "graph::impossible_rule"),
        (JoinRule::quorum(3), "graph::impossible_rule"),
        (JoinRule::fraction(2.0), "graph::impossible_rule"),
        (JoinRule::all().cancel_others(), "graph::impossible_rule"),
        (JoinRule::any().within(Duration::ZERO), "graph::impossible_rule"),
    ] {
        let mut g = new("impossible");
        let [a, b] = ["a", "b"].map(|name| quick(&mut g, name));
        let gather = gather(&mut g);
        g.edge(START, a).edge(START, b);
        g.join_when(rule, [a, b], gather);
        let errors = g.build().unwrap_err();
        assert_eq!(
            errors.errors().iter().map(BuildError::code).collect::<Vec<_>>(),
            [code],
            "{rule:?}"
        );
    }
}

#[test]
fn what_a_join_can_start_depends_on_its_rule() {
    // `b` runs only behind the join that waits for it.
    let build = |rule: JoinRule| {
        let mut g = new("circle");
        let [a, b] = ["a", "b"].map(|name| quick(&mut g, name));
        g.edge(START, a).edge(b, END);
        g.join_when(rule, [a, b], b);
        g.build()
    };
    for rule in [
        JoinRule::any(),
        JoinRule::quorum(1),
        JoinRule::all().within(Duration::from_secs(1)),
    ] {
        assert!(build(rule).is_ok(), "{rule:?}");
    }
    for rule in [JoinRule::all(), JoinRule::quorum(2), JoinRule::fraction(1.0)] {
        let errors = build(rule).unwrap_err();
        assert_eq!(errors.errors()[0].code(), "graph::impossible_join", "{rule:?}");
    }
}

#[tokio::test]
async fn joins_of_a_dynamic_graph_take_the_same_rules() {
    let channels = || Channels::new([("log", Merge::Append)]).unwrap();
    let mut g = DynamicBuilder::new("dynamic", channels());
    g.node("quick", |_, _| async {
        Ok(JsonUpdate::new().set("log", json!(["quick"])).into())
    });
    g.node("slow", |_, _| pending());
    g.node("gather", |_, ctx: Context<_>| async move {
        Ok(JsonUpdate::new().set("log", json!([ctx.arrived()])).into())
    });
    g.edge("START", "quick").edge("START", "slow").edge("gather", "END");
    g.join_when(JoinRule::any().cancel_others(), ["slow", "quick"], "gather");
    let graph = g.build().unwrap();
    let state = graph.run(&thread("t"), JsonInput::new()).await.unwrap().done().unwrap();
    assert_eq!(state.get("log"), Some(&json!(["quick", ["quick"]])));

    let mut g = DynamicBuilder::new("impossible", channels());
    g.node("a", |_, _| pending());
    g.edge("START", "a").join_when(JoinRule::quorum(2), ["a"], "END");
    assert_eq!(g.build().unwrap_err().errors()[0].code(), "graph::impossible_rule");
}

#[test]
fn a_drawing_names_the_rule() {
    let mut g = new("drawn");
    let [a, b] = ["a", "b"].map(|name| quick(&mut g, name));
    let gather = gather(&mut g);
    g.edge(START, a).edge(START, b);
    g.join_when(
        JoinRule::any().within(Duration::from_secs(1)),
        [from(a), from(b)],
        gather,
    );
    assert!(g.build().unwrap().mermaid().contains("n0 -->|\"any, in time\"| n2"));
}
