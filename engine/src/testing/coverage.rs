//! Which nodes have run and which ways were taken.

use std::{fmt, sync::Arc};

use crate::{
    graph::{Graph, Topology},
    run::Ways,
    state::State,
};

/// What the runs of a graph have covered: its nodes, the routes of its branches and routers, its fan-outs.
///
/// ```text
/// 5 of 7 nodes and ways were covered; never:
/// - node `fallback`
/// - the route `none` from `retrieve`
/// ```
#[derive(Clone)]
pub struct Coverage {
    topology: Arc<Topology>,
    ways: Arc<Ways>,
}

impl Coverage {
    /// The graph, watched from now on, and what watches it. Every clone of that graph is watched; graphs inside its nodes are
    /// watched only if they are made so themselves.
    #[must_use]
    pub fn of<S: State>(mut graph: Graph<S>) -> (Graph<S>, Self) {
        let topology = Arc::clone(&graph.parts.topology);
        let ways = Arc::new(Ways::new(&topology));
        Arc::make_mut(&mut graph.setting).ways = Some(Arc::clone(&ways));
        (graph, Self { topology, ways })
    }

    /// What was never covered, in words. A node counts when it has given its output to the state, a fan-out when it has
    /// started a worker.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.all()
            .into_iter()
            .filter(|(_, taken)| !taken)
            .map(|(what, _)| what)
            .collect()
    }

    fn all(&self) -> Vec<(String, bool)> {
        let topology = &self.topology;
        let mut all = Vec::new();
        for (node, name) in topology.names().iter().enumerate() {
            all.push((format!("node `{name}`"), self.ways.has_run(node)));
        }
        for place in 0..=topology.names().len() {
            let name = topology.name(place);
            let exits = topology.exits(place);
            for branch in &exits.branches {
                for (route, label) in topology.labels(*branch).iter().enumerate() {
                    let taken = self.ways.has_taken(*branch, route);
                    all.push((format!("the route `{label}` from `{name}`"), taken));
                }
            }
            for (route, label) in exits.labels.iter().enumerate() {
                let taken = self.ways.has_routed(place, route);
                all.push((format!("the route `{label}` of router `{name}`"), taken));
            }
            for fan_out in &exits.fan_outs {
                let worker = topology
                    .fan_outs
                    .get(*fan_out)
                    .map_or("", |worker| topology.name(*worker).as_ref());
                let taken = self.ways.has_sent(*fan_out);
                all.push((format!("the fan-out from `{name}` to `{worker}`"), taken));
            }
        }
        all
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.all();
        let taken = all.iter().filter(|(_, taken)| *taken).count();
        write!(f, "{taken} of {} nodes and ways were covered", all.len())?;
        if taken < all.len() {
            f.write_str("; never:")?;
        }
        for (what, _) in all.iter().filter(|(_, taken)| !taken) {
            write!(f, "\n- {what}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coverage").field("missing", &self.missing()).finish()
    }
}
