//! What a thread was, and what it becomes when it is changed: histories, edits, forks.

use std::sync::Arc;

use stepgraph::{END, Graph, Route, START, to};

use super::{
    flow::three,
    script::{Line, Probe, cases, said},
};

cases! {
    a_history_of_parallel_nodes_in_a_loop: "history-of-parallel-and-loop" => rounds;
    a_fork_with_an_edit_goes_on_from_there: "timetravel-fork-with-update" => three;
    an_edit_counts_as_that_of_whoever_ran_last: "update-as-last-node" => three;
    an_edit_of_a_thread_that_has_ended: "update-on-finished-thread" => three;
}

#[derive(Route, Clone, Copy)]
enum Round {
    Again,
    Over,
}

fn rounds(probe: &Probe) -> Graph<Line> {
    let mut g = Graph::<Line>::builder("rounds");
    let seen = probe.clone();
    let s = g.node("s", move |line: Arc<Line>| {
        seen.enter("s");
        async move { Ok(said("s").n(line.n + 1)) }
    });
    let [a, b, j] = probe.all_say(&mut g, ["a", "b", "j"]);
    g.edge(START, s).edge(s, a).edge(s, b).join([a, b], j);
    let round = |line: &Line| if line.n < 2 { Round::Again } else { Round::Over };
    g.branch(j, round, |round| match round {
        Round::Again => to(s),
        Round::Over => to(END),
    });
    g.build().unwrap()
}
