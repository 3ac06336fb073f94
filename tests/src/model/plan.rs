//! The model's planner: which tasks follow from those that have ended.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    body::To,
    case::{Graph, Rule, Way},
    mutation::Mutation,
};

/// A task of a step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Task {
    pub(super) node: String,
    pub(super) sent: Option<(u32, Value)>,
}

impl Task {
    pub(super) fn id(&self) -> String {
        match &self.sent {
            None => self.node.clone(),
            Some((number, _)) => format!("{}#{number}", self.node),
        }
    }
}

/// What has begun and waits for others: for each join of the graph who has arrived and whether it has led on, and the
/// deferred nodes that were triggered.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Waiting {
    joins: Vec<(BTreeSet<String>, bool)>,
    deferred: BTreeSet<String>,
}

/// A task that has ended, or an edit, and where it leads besides its edges and joins.
#[derive(Debug, Clone)]
pub(super) struct Departure {
    pub(super) node: String,
    pub(super) to: Vec<To>,
}

pub(super) fn joins(graph: &Graph) -> impl Iterator<Item = (Rule, &Vec<String>, &String)> {
    graph.ways.iter().filter_map(|way| match way {
        Way::Join(rule, from, to) => Some((*rule, from, to)),
        Way::Edge(..) | Way::Branch { .. } => None,
    })
}

impl Waiting {
    /// Joins whose target has run, or will not, begin anew.
    pub(super) fn rearm(&mut self, graph: &Graph, over: &[String], mutation: Option<Mutation>) {
        self.fit(graph);
        if mutation == Some(Mutation::JoinsOnce) {
            return;
        }
        for ((arrived, led_on), (_, _, to)) in self.joins.iter_mut().zip(joins(graph)) {
            if *led_on && (to == "END" || over.contains(to)) {
                *led_on = false;
                arrived.clear();
            }
        }
    }

    fn fit(&mut self, graph: &Graph) {
        self.joins.resize_with(joins(graph).count(), Default::default);
    }

    fn arrive(&mut self, graph: &Graph, node: &str) {
        for ((arrived, led_on), (_, from, _)) in self.joins.iter_mut().zip(joins(graph)) {
            if !*led_on && from.iter().any(|source| source == node) {
                arrived.insert(node.to_owned());
            }
        }
    }

    fn fire(&mut self, graph: &Graph, mutation: Option<Mutation>) -> Vec<String> {
        let mut targets = Vec::new();
        for ((arrived, led_on), (rule, from, to)) in self.joins.iter_mut().zip(joins(graph)) {
            let sources: BTreeSet<&String> = from.iter().collect();
            let mut needed = match rule {
                Rule::All => sources.len(),
                Rule::Any => 1,
                Rule::Quorum(needed) => needed,
            };
            if mutation == Some(Mutation::JoinsEarly) && needed > 1 {
                needed -= 1;
            }
            if !*led_on && !arrived.is_empty() && arrived.len() >= needed {
                *led_on = true;
                targets.push(to.clone());
            }
        }
        targets
    }

    /// What joins lead to that some sources have reached and others have not, with those others.
    pub(super) fn stalled(&self, graph: &Graph) -> Vec<(Vec<String>, Vec<String>)> {
        let begun = self.joins.iter().zip(joins(graph));
        begun
            .filter(|((arrived, led_on), _)| !led_on && !arrived.is_empty())
            .map(|((arrived, _), (_, from, to))| {
                let mut missing: Vec<String> = Vec::new();
                for source in from {
                    if !arrived.contains(source) && !missing.contains(source) {
                        missing.push(source.clone());
                    }
                }
                let to = if to == "END" { Vec::new() } else { vec![to.clone()] };
                (to, missing)
            })
            .collect()
    }
}

/// The tasks that follow, nodes by name and then what was sent, in the order in which it was sent.
pub(super) fn plan(
    graph: &Graph,
    departures: Vec<Departure>,
    waiting: &mut Waiting,
    mutation: Option<Mutation>,
) -> Vec<Task> {
    let over: Vec<String> = departures.iter().map(|departure| departure.node.clone()).collect();
    waiting.rearm(graph, &over, mutation);
    let (mut triggered, mut sends) = (Vec::new(), Vec::new());
    for Departure { node, to } in departures {
        let instead = mutation == Some(Mutation::GoesInstead) && !to.is_empty();
        let edges = graph.ways.iter().filter_map(|way| match way {
            Way::Edge(from, to) if *from == node && !instead => Some(to.clone()),
            Way::Edge(..) | Way::Join(..) | Way::Branch { .. } => None,
        });
        triggered.extend(edges);
        for to in to {
            match to {
                To::Node(name) => triggered.push(name),
                To::Send(name, value) => sends.push((name, value)),
            }
        }
        waiting.arrive(graph, &node);
    }
    triggered.extend(waiting.fire(graph, mutation));
    triggered.retain(|node| node != "END");
    let is_deferred = |node: &String| {
        mutation != Some(Mutation::DefersNothing) && graph.nodes.get(node).is_some_and(|node| node.deferred)
    };
    let (later, mut now): (Vec<_>, Vec<_>) = triggered.into_iter().partition(is_deferred);
    waiting.deferred.extend(later);
    if now.is_empty() && sends.is_empty() {
        now.extend(std::mem::take(&mut waiting.deferred));
    }
    now.sort();
    if mutation != Some(Mutation::RunsTwice) {
        now.dedup();
    }
    let nodes = now.into_iter().map(|node| Task { node, sent: None });
    let sends = sends.into_iter().zip(0..).map(|((node, value), number)| Task {
        node,
        sent: Some((number, value)),
    });
    nodes.chain(sends).collect()
}
