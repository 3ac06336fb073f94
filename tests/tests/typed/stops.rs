//! Where a run stops: questions, failures, conflicts, retries, graphs that are not built.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use serde_json::Value;
use stepgraph::{Context, END, Graph, NodeError, Policy, Retry, Route, START, State, to};

use super::script::{Line, Probe, Question, case, cases, said};

cases! {
    two_questions_of_one_node_are_asked_one_after_the_other: "interrupt-two-in-one-node" => two_questions;
    a_node_in_a_loop_asks_each_time: "interrupt-in-loop" => asking_loop;
    siblings_of_a_failure_are_not_run_again: "error-sibling-not-rerun" => failing_sibling;
    two_writers_of_one_field_are_a_conflict: "error-concurrent-last-value" => conflict;
    the_third_attempt_counts: "retry-third-attempt" => third_attempt;
    there_is_nothing_to_resume_on_a_new_thread: "input-null-on-empty-thread" => one;
}

/// Cases whose graph is not built. That an edge leads to or from what is no node does not compile in a typed graph.
pub(crate) const UNBUILT: &[&str] = &["build-duplicate-node"];

#[test]
fn two_nodes_of_one_name_are_refused() {
    let mut g = Graph::<Line>::builder("twice");
    let probe = Probe::default();
    for node in probe.all_say(&mut g, ["a", "a"]) {
        g.edge(START, node).edge(node, END);
    }
    let errors = g.build().unwrap_err();
    let codes: Vec<_> = errors.errors().iter().map(stepgraph::BuildError::code).collect();
    let expected = case(UNBUILT[0])["build"]["error"].as_str().unwrap().to_owned();
    assert_eq!(codes, [format!("graph::{expected}")]);
}

fn one(probe: &Probe) -> Graph<Line> {
    let mut g = Graph::<Line>::builder("one");
    let a = probe.says(&mut g, "a");
    g.edge(START, a).edge(a, END);
    g.build().unwrap()
}

fn two_questions(probe: &Probe) -> Graph<Line> {
    let mut g = Graph::<Line>::builder("questions");
    let probe = probe.clone();
    let b = g.node("b", move |_: Arc<Line>, ctx: Context<Value>| {
        probe.enter("b");
        async move {
            let x = ctx.ask_as("x", Question("first".to_owned()))?;
            let y = ctx.ask_as("y", Question(format!("second after {x}")))?;
            Ok(Line::update().log([x, y]))
        }
    });
    g.edge(START, b).edge(b, END);
    g.build().unwrap()
}

#[derive(Route, Clone, Copy)]
enum Turn {
    Again,
    Over,
}

fn asking_loop(probe: &Probe) -> Graph<Line> {
    let mut g = Graph::<Line>::builder("loop");
    let probe = probe.clone();
    let a = g.node("a", move |line: Arc<Line>, ctx: Context<Value>| {
        probe.enter("a");
        async move {
            let answer = ctx.ask(Question(format!("turn {}", line.n)))?;
            Ok(said(&answer).n(line.n + 1))
        }
    });
    g.edge(START, a);
    let turn = |line: &Line| if line.n < 3 { Turn::Again } else { Turn::Over };
    g.branch(a, turn, |turn| match turn {
        Turn::Again => to(a),
        Turn::Over => to(END),
    });
    g.build().unwrap()
}

fn failing_sibling(probe: &Probe) -> Graph<Line> {
    let mut g = Graph::<Line>::builder("siblings");
    let [a, c, j] = probe.all_say(&mut g, ["a", "c", "j"]);
    let probe = probe.clone();
    let b = g.node("b", move |_: Arc<Line>| {
        probe.enter("b");
        let fails = probe.fails(1);
        async move {
            if fails {
                Err(NodeError::terminal("fatal"))
            } else {
                Ok(said("b"))
            }
        }
    });
    g.edge(START, a)
        .edge(START, b)
        .edge(START, c)
        .join([a, b, c], j)
        .edge(j, END);
    g.build().unwrap()
}

fn conflict(probe: &Probe) -> Graph<Line> {
    let mut g = Graph::<Line>::builder("conflict");
    for (name, n) in [("a", 1), ("b", 2)] {
        let probe = probe.clone();
        let node = g.node(name, move |_: Arc<Line>| {
            probe.enter(name);
            async move { Ok(Line::update().n(n)) }
        });
        g.edge(START, node).edge(node, END);
    }
    g.build().unwrap()
}

fn third_attempt(probe: &Probe) -> Graph<Line> {
    let mut g = Graph::<Line>::builder("retry");
    let a = probe.says(&mut g, "a");
    let probe = probe.clone();
    let b = g.node("b", move |_: Arc<Line>, ctx: Context<Value>| {
        probe.enter("b");
        async move {
            if ctx.attempt() < 3 {
                Err(NodeError::retryable("fatal"))
            } else {
                Ok(said("b"))
            }
        }
    });
    let thrice = Retry::attempts(const { NonZeroU32::new(3).unwrap() }).first_delay(Duration::ZERO);
    g.policy(b, Policy::new().retry(thrice))
        .edge(START, a)
        .edge(a, b)
        .edge(b, END);
    g.build().unwrap()
}
