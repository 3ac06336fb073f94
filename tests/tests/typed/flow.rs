//! Where a run goes: edges, branches, loops, joins, deferral, limits.

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use stepgraph::{Append, END, Graph, Max, Route, START, State, Sum, Union, to};

use super::script::{Line, Probe, Scripted, cases, said};

cases! {
    three_nodes_run_one_after_the_other: "linear-three-nodes" => three;
    a_branch_sees_its_tasks_own_write: "branch-sees-own-write" => own_write;
    a_loop_runs_until_its_branch_leads_out: "loop-counted" => counted;
    eight_siblings_and_a_join: "fan-out-eight" => eight_joined;
    a_join_waits_for_branches_of_three_lengths: "join-of-three-levels" => three_levels;
    a_deferred_target_of_a_join_waits_for_what_else_runs: "defer-join" => deferred;
    a_limit_counts_steps_and_not_tasks: "recursion-counts-supersteps-not-tasks" => eight_edges;
    a_limit_of_one_step_ends_a_run_after_it: "recursion-limit-one" => three;
    a_deferred_node_that_everything_leads_to_runs_once: "random-100143" => random;
}

#[derive(Route, Clone, Copy)]
enum Side {
    Low,
    High,
}

pub(super) fn three(probe: &Probe) -> Graph<Line> {
    let mut g = Graph::<Line>::builder("three");
    let [a, b, c] = probe.all_say(&mut g, ["a", "b", "c"]);
    g.edge(START, a).edge(a, b).edge(b, c).edge(c, END);
    g.build().unwrap()
}

fn own_write(probe: &Probe) -> Graph<Line> {
    let mut g = Graph::<Line>::builder("own_write");
    let seen = probe.clone();
    let a = g.node("a", move |_: Arc<Line>| {
        seen.enter("a");
        async { Ok(Line::update().n(7)) }
    });
    let [low, high] = probe.all_say(&mut g, ["lo", "hi"]);
    g.edge(START, a).edge(low, END).edge(high, END);
    let side = |line: &Line| if line.n < 5 { Side::Low } else { Side::High };
    g.branch(a, side, |side| match side {
        Side::Low => to(low),
        Side::High => to(high),
    });
    g.build().unwrap()
}

fn counted(probe: &Probe) -> Graph<Line> {
    let mut g = Graph::<Line>::builder("counted");
    let seen = probe.clone();
    let a = g.node("a", move |line: Arc<Line>| {
        seen.enter("a");
        async move { Ok(said("a").n(line.n + 1)) }
    });
    let out = probe.says(&mut g, "out");
    g.edge(START, a).edge(out, END);
    let side = |line: &Line| if line.n < 4 { Side::Low } else { Side::High };
    g.branch(a, side, |side| match side {
        Side::Low => to(a),
        Side::High => to(out),
    });
    g.build().unwrap()
}

const EIGHT: [&str; 8] = ["w0", "w1", "w2", "w3", "w4", "w5", "w6", "w7"];

fn eight_joined(probe: &Probe) -> Graph<Line> {
    let mut g = Graph::<Line>::builder("eight");
    let workers = probe.all_say(&mut g, EIGHT);
    let j = probe.says(&mut g, "j");
    for worker in workers {
        g.edge(START, worker);
    }
    g.join(workers, j).edge(j, END);
    g.build().unwrap()
}

fn eight_edges(probe: &Probe) -> Graph<Line> {
    let mut g = Graph::<Line>::builder("eight");
    let workers = probe.all_say(&mut g, EIGHT);
    let j = probe.says(&mut g, "j");
    for worker in workers {
        g.edge(START, worker).edge(worker, j);
    }
    g.edge(j, END);
    g.build().unwrap()
}

fn three_levels(probe: &Probe) -> Graph<Line> {
    let mut g = Graph::<Line>::builder("levels");
    let [a, b1, b2, c1, c2, c3, j] = probe.all_say(&mut g, ["a", "b1", "b2", "c1", "c2", "c3", "j"]);
    g.edge(START, a).edge(START, b1).edge(b1, b2);
    g.edge(START, c1).edge(c1, c2).edge(c2, c3);
    g.join([a, b2, c3], j).edge(j, END);
    g.build().unwrap()
}

fn deferred(probe: &Probe) -> Graph<Line> {
    let mut g = Graph::<Line>::builder("deferred");
    let [a, b, c, c2, d] = probe.all_say(&mut g, ["a", "b", "c", "c2", "d"]);
    g.edge(START, a).edge(START, b).edge(START, c).edge(c, c2).edge(c2, END);
    g.defer(d).join([a, b], d).edge(d, END);
    g.build().unwrap()
}

/// The state of the random cases, as far as this one uses it.
#[derive(State, Clone, Debug, Serialize, Deserialize)]
#[state(event = Value)]
struct Many {
    #[state(reducer = Append)]
    log: Vec<String>,
    last: Option<usize>,
    #[state(input, reducer = Sum)]
    sum: i64,
    #[state(reducer = Max)]
    top: usize,
    #[state(reducer = Union)]
    tags: BTreeSet<String>,
}

impl Scripted for Many {
    fn input(given: &Value) -> ManyInput {
        ManyInput::new(given["sum"].as_i64().unwrap())
    }
}

fn random(probe: &Probe) -> Graph<Many> {
    let mut g = Graph::<Many>::builder("random");
    let seen = probe.clone();
    let d = g.node("d_s", move |many: Arc<Many>| {
        seen.enter("d_s");
        async move {
            let long = many.log.len();
            let update = Many::update().log(["d_s".to_owned()]).top(long);
            Ok(if many.sum == 0 { update } else { update.last(long) })
        }
    });
    let seen = probe.clone();
    let m = g.node("m_l", move |_: Arc<Many>| {
        seen.enter("m_l");
        async {
            Ok(Many::update()
                .log(["m_l".to_owned()])
                .top(0_usize)
                .tags(["x", "m_l"].map(str::to_owned)))
        }
    });
    let seen = probe.clone();
    let j = g.node("j_b", move |_: Arc<Many>| {
        seen.enter("j_b");
        async { Ok(Many::update().log(["j_b".to_owned()]).tags(["j_b".to_owned()])) }
    });
    g.edge(START, j)
        .edge(START, d)
        .edge(START, m)
        .edge(j, m)
        .edge(d, m)
        .edge(m, END);
    g.defer(m);
    g.build().unwrap()
}
