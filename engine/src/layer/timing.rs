//! How long nodes take.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Layer, Next, Ran, TaskInfo};
use crate::node::NodeError;

/// A layer that measures the attempts of each node. Clones measure into the same table, so keep one to read it.
///
/// ```
/// use stepgraph::Timing;
///
/// let timing = Timing::new();
/// // let graph = graph.layer(timing.clone());
/// assert!(timing.all().is_empty());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Timing(Arc<Mutex<BTreeMap<Key, Times>>>);

/// Graph and node.
type Key = (Cow<'static, str>, Cow<'static, str>);

/// What the attempts of a node have taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Times {
    /// How many there were, those that failed or were cut off among them.
    pub count: u64,
    /// How many gave nothing back: they failed, asked, or were cut off.
    pub without_output: u64,
    /// How long they took, taken together.
    pub total: Duration,
    /// The longest.
    pub max: Duration,
}

impl Timing {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the attempts of one node have taken, nothing if there were none.
    #[must_use]
    pub fn of(&self, graph: &str, node: &str) -> Times {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.iter().find(|((g, n), _)| g == graph && n == node);
        found.map(|(_, times)| *times).unwrap_or_default()
    }

    /// The whole table, by graph and node.
    #[must_use]
    pub fn all(&self) -> Vec<(Cow<'static, str>, Cow<'static, str>, Times)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .map(|((graph, node), times)| (graph.clone(), node.clone(), *times))
            .collect()
    }
}

/// Counts an attempt when it ends, however it ends.
struct Watch<'a> {
    table: &'a Timing,
    task: &'a TaskInfo,
    begun: Instant,
    gave: bool,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        let mut all = self.table.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (self.task.run.graph.clone(), self.task.node.clone());
        let times = all.entry(key).or_default();
        times.count += 1;
        times.without_output += u64::from(!self.gave);
        times.total += took;
        times.max = times.max.max(took);
    }
}

#[async_trait]
impl Layer for Timing {
    async fn around(&self, task: &TaskInfo, next: Next<'_>) -> Result<Ran, NodeError> {
        let mut watch = Watch {
            table: self,
            task,
            begun: Instant::now(),
            gave: false,
        };
        let result = next.run().await;
        watch.gave = result.is_ok();
        result
    }
}
