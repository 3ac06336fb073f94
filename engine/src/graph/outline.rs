//! The nodes and ways of a graph as data, for those who show it.

use std::borrow::Cow;

use super::{
    Graph,
    topology::{Place, Way},
};
use crate::state::State;

/// What a graph consists of, by name. Its ends are called `START` and `END`.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use stepgraph::{Graph, START, END, State};
/// # #[derive(State, Clone, Serialize, Deserialize)]
/// # struct Count { #[state(input)] n: u64 }
/// # let mut g = Graph::<Count>::builder("count");
/// # let add = g.node("add", |count: Count| async move { Ok(Count::update().n(count.n + 1)) });
/// # g.edge(START, add).edge(add, END);
/// let outline = g.build()?.outline();
/// assert_eq!(outline.nodes, ["add"]);
/// assert_eq!((outline.ways[0].from.as_ref(), outline.ways[0].to.as_ref()), ("START", "add"));
/// # Ok::<(), stepgraph::BuildErrors>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outline {
    /// The nodes, sorted by name.
    pub nodes: Vec<Cow<'static, str>>,
    /// The ways between them, in the order of their declaration.
    pub ways: Vec<OutlineWay>,
}

/// A way from one node to another.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutlineWay {
    /// Where it begins.
    pub from: Cow<'static, str>,
    /// Where it leads.
    pub to: Cow<'static, str>,
    /// The route it belongs to, for a way of a branch or a router.
    pub route: Option<Cow<'static, str>>,
    /// Whether it depends on the state whether it is taken.
    pub is_conditional: bool,
}

impl<S: State> Graph<S> {
    /// The graph as data.
    #[must_use]
    pub fn outline(&self) -> Outline {
        let topology = &self.parts.topology;
        let name = |place: Place| match place {
            Place::Start => Cow::Borrowed("START"),
            Place::End => Cow::Borrowed("END"),
            Place::Node(node) => topology.name(node).clone(),
        };
        let ways = topology.ways.iter().map(|(from, to, way)| OutlineWay {
            from: name(*from),
            to: name(*to),
            route: match way {
                Way::Route(route) => Some(route.clone()),
                _ => None,
            },
            is_conditional: matches!(way, Way::Route(_) | Way::FanOut),
        });
        Outline {
            nodes: topology.names().to_vec(),
            ways: ways.collect(),
        }
    }
}
