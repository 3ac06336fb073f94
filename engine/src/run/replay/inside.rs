//! A graph inside a node that is replayed.

use std::sync::Arc;

use super::{REPLAY_CHECKPOINTS_DEFAULT, compare::shown, difference::Difference, notes::Notes, walk::Walk};
use crate::{
    checkpoint::{At, RecordKind, Seq},
    dynamic::Compat,
    graph::Graph,
    id::ThreadKey,
    node::{Context, NodeError},
    run::{Left, Outcome, RunEnd, frontier::Frontier, recording::Origin, version::kept_output},
    state::State,
    tree,
};

/// Replays the inner thread to its end, which is what the node is given.
pub(in crate::run) async fn inside<S: State>(
    graph: &Graph<S>,
    ctx: &Context<S::Event>,
    notes: &Arc<Notes>,
    thread: ThreadKey,
    input: S::Input,
) -> Result<RunEnd<S>, NodeError> {
    let task = ctx.task.id();
    let namespace = thread.namespace.as_str().to_owned();
    let given = crate::run::encode_record(&input).map_err(NodeError::terminal)?;
    let begun = notes.store.get(&thread, At::Seq(Seq(1))).await?;
    let origin = match &begun {
        Some(begun) => Frontier::decode(&begun.info.frontier)?.origin,
        None => None,
    };
    let recorded = match origin {
        Some(Origin::Input(input)) => Some(input),
        Some(Origin::Edit { .. }) | None => None,
    };
    let apart = graph.parts.compat == Compat::Recorded && begun.is_some();
    if !apart
        && recorded
            .as_ref()
            .is_none_or(|recorded| !tree::same(&recorded.0, &given))
    {
        let fields = S::fields(&graph.parts.shape);
        let difference = Difference::Entered {
            namespace,
            recorded: recorded.map(|recorded| shown(fields, &recorded.0)),
            replayed: shown(fields, &given),
        };
        return Err(notes.diverge(&task, difference));
    }
    let provided = ctx.task.run.provided.clone();
    let mut walk = Walk::new(graph, thread, Arc::clone(&notes.store), provided);
    walk.bodies = true;
    let going = walk.go(At::Head, REPLAY_CHECKPOINTS_DEFAULT);
    Box::pin(going).await.map_err(NodeError::terminal)?;
    notes.count_inside(walk.replayed.bodies);
    if let Some(divergence) = walk.replayed.divergence {
        let divergence = Box::new(divergence);
        return Err(notes.diverge(&task, Difference::Inside { namespace, divergence }));
    }
    let head = notes.store.get(&walk.key, At::Head).await?;
    let version = head.as_ref().map_or(0, |head| head.info.state_version);
    let left = head.iter().flat_map(|head| &head.records);
    for record in left.filter(|record| record.kind == RecordKind::Output) {
        let stored = kept_output::<S>(&graph.parts.shape, version, &record.body)?;
        if let Some(leave) = stored.leave {
            let graph = graph.parts.topology.graph.clone();
            return Ok(RunEnd::Left(Left { leave, graph }));
        }
    }
    match walk.last {
        Some(driver) if driver.tasks.is_empty() => Ok(RunEnd::Outcome(driver.end())),
        Some(_) | None => Ok(RunEnd::Outcome(Outcome::Asked(Vec::new()))),
    }
}
