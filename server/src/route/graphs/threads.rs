//! Threads: made, read, edited.

use axum::{Json, extract::State};
use serde_json::{Value, json};
use std::sync::Arc;
use stepgraph::{
    AsNode, HistoryEntry, ThreadKey,
    checkpoint::{At, Page, Seq},
};
use stepgraph_nodes::service::{ThreadChange, ThreadRecord};
use uuid::Uuid;

use super::Tenant;
use crate::{
    error::ApiError,
    route::Params,
    serving::{
        ServedGraph, Serving, StateView,
        body::{
            Before, Body, CheckpointBody, EditBody, HISTORY_MAX, HistoryBody, HistoryQuery, Ids, IfExists, NewThread,
            StateBody,
        },
        fresh_thread, shape, thread_key,
    },
};

/// Checkpoints that a search by metadata looks at.
const SEARCHED_MAX: u32 = 10_000;

/// `POST /threads`.
pub(super) async fn create(
    State(serving): State<Arc<Serving>>,
    Tenant(tenant): Tenant,
    Body(body): Body<NewThread>,
) -> Result<Json<Value>, ApiError> {
    body.refuse_unbuilt()?;
    let id = body.thread_id.unwrap_or_else(fresh_thread);
    let graph = body.metadata.get("graph_id").and_then(Value::as_str);
    let first = ThreadChange {
        graph: graph.filter(|name| serving.graph(name).is_some()).map(str::to_owned),
        metadata: body.metadata.clone(),
    };
    let record = match (serving.threads.create(&tenant, id, &first).await?, body.if_exists) {
        (Some(made), _) => made,
        (None, IfExists::DoNothing) => serving.thread(&tenant, id).await?,
        (None, IfExists::Raise) => {
            return Err(ApiError::conflict(
                "thread_exists",
                format!("there is a thread {id} already"),
            ));
        }
    };
    let head = serving.head(&thread_key(&tenant, id)?, &record).await?;
    Ok(Json(shape::thread(&record, head.as_ref())))
}

/// `GET /threads/{id}`.
pub(super) async fn one(
    State(serving): State<Arc<Serving>>,
    Tenant(tenant): Tenant,
    Ids(id): Ids<Uuid>,
) -> Result<Json<Value>, ApiError> {
    let record = serving.thread(&tenant, id).await?;
    let head = serving.head(&thread_key(&tenant, id)?, &record).await?;
    Ok(Json(shape::thread(&record, head.as_ref())))
}

/// A thread with the graph that runs on it, if one has.
struct Found<'a> {
    id: Uuid,
    key: ThreadKey,
    graph: Option<&'a Arc<dyn ServedGraph>>,
}

impl<'a> Found<'a> {
    async fn of(serving: &'a Serving, Tenant(tenant): Tenant, id: Uuid) -> Result<Self, ApiError> {
        let record = serving.thread(&tenant, id).await?;
        Ok(Self {
            id,
            key: thread_key(&tenant, id)?,
            graph: graph_of(serving, &record)?,
        })
    }

    async fn state(&self, at: At) -> Result<Json<Value>, ApiError> {
        let nothing = || ApiError::not_found("unknown_checkpoint", format!("the thread has no checkpoint {at}"));
        let view = match self.graph {
            None => None,
            Some(graph) => graph
                .state(&self.key, at)
                .await
                .map_err(|error| ApiError::of_thread(&error))?,
        };
        match (view, self.graph) {
            (Some(view), Some(graph)) => {
                let parent = match view.entry.parent {
                    None => None,
                    Some(parent) => entry_of(&**graph, &self.key, parent).await?.map(|entry| entry.id),
                };
                Ok(Json(shape::state(self.id, graph.name(), &view, parent)))
            }
            _ if at == At::Head => Ok(Json(shape::empty_state(self.id))),
            _ => Err(nothing()),
        }
    }
}

fn graph_of<'a>(serving: &'a Serving, record: &ThreadRecord) -> Result<Option<&'a Arc<dyn ServedGraph>>, ApiError> {
    let Some(name) = record.graph.as_deref() else {
        return Ok(None);
    };
    let unserved = || {
        ApiError::conflict(
            "graph_not_served",
            format!("the thread's graph `{name}` is not served here"),
        )
    };
    serving.graph(name).ok_or_else(unserved).map(Some)
}

async fn entry_of(graph: &dyn ServedGraph, key: &ThreadKey, seq: Seq) -> Result<Option<HistoryEntry>, ApiError> {
    let page = Page {
        before: Some(Seq(seq.0.saturating_add(1))),
        limit: 1,
    };
    let entries = graph
        .history(key, page)
        .await
        .map_err(|error| ApiError::of_thread(&error))?;
    Ok(entries.into_iter().find(|entry| entry.seq == seq))
}

/// `GET /threads/{id}/state`.
pub(super) async fn state(
    State(serving): State<Arc<Serving>>,
    tenant: Tenant,
    Ids(id): Ids<Uuid>,
) -> Result<Json<Value>, ApiError> {
    Found::of(&serving, tenant, id).await?.state(At::Head).await
}

/// `GET /threads/{id}/state/{checkpoint}`.
pub(super) async fn state_at(
    State(serving): State<Arc<Serving>>,
    tenant: Tenant,
    Ids((id, checkpoint)): Ids<(Uuid, Uuid)>,
) -> Result<Json<Value>, ApiError> {
    Found::of(&serving, tenant, id).await?.state(At::Id(checkpoint)).await
}

/// `POST /threads/{id}/state/checkpoint`.
pub(super) async fn state_of(
    State(serving): State<Arc<Serving>>,
    tenant: Tenant,
    Ids(id): Ids<Uuid>,
    Body(body): Body<StateBody>,
) -> Result<Json<Value>, ApiError> {
    let at = body.checkpoint.id()?.map_or(At::Head, At::Id);
    Found::of(&serving, tenant, id).await?.state(at).await
}

/// `POST /threads/{id}/state`: writes as one of the graph's nodes.
pub(super) async fn edit(
    State(serving): State<Arc<Serving>>,
    tenant: Tenant,
    Ids(id): Ids<Uuid>,
    Body(body): Body<EditBody>,
) -> Result<Json<Value>, ApiError> {
    let found = Found::of(&serving, tenant, id).await?;
    let Some(graph) = found.graph else {
        return Err(ApiError::conflict(
            "no_graph",
            "no graph has run on this thread yet: name one by `metadata.graph_id` when you make it, or run one",
        ));
    };
    let checkpoint = match &body.checkpoint {
        Some(checkpoint) => checkpoint.id()?.or(body.checkpoint_id),
        None => body.checkpoint_id,
    };
    let as_node = match body.as_node.as_deref() {
        None => AsNode::Last,
        Some("__start__") => AsNode::Start,
        Some(name) => AsNode::Named(name.to_owned()),
    };
    let at = checkpoint.map_or(At::Head, At::Id);
    let seq = graph.update(&found.key, at, body.values, as_node).await?;
    let entry = entry_of(&**graph, &found.key, seq).await?;
    let checkpoint_id = entry.map(|entry| entry.id);
    let made = checkpoint_id.map(|checkpoint_id| shape::checkpoint(id, checkpoint_id));
    Ok(Json(
        json!({"checkpoint": made, "configurable": made, "checkpoint_id": checkpoint_id}),
    ))
}

/// `GET /threads/{id}/history`.
pub(super) async fn history_by_query(
    state: State<Arc<Serving>>,
    tenant: Tenant,
    ids: Ids<Uuid>,
    Params(query): Params<HistoryQuery>,
) -> Result<Json<Value>, ApiError> {
    history(state, tenant, ids, Body(query.into())).await
}

/// `POST /threads/{id}/history`: newest first.
pub(super) async fn history(
    State(serving): State<Arc<Serving>>,
    tenant: Tenant,
    Ids(id): Ids<Uuid>,
    Body(body): Body<HistoryBody>,
) -> Result<Json<Value>, ApiError> {
    if body.limit == 0 || body.limit > HISTORY_MAX {
        return Err(ApiError::unfit("limit", format!("`limit` must be 1 to {HISTORY_MAX}")));
    }
    let found = Found::of(&serving, tenant, id).await?;
    let Some(graph) = found.graph else {
        return Ok(Json(json!([])));
    };
    let failed = |error| ApiError::of_thread(&error);
    let entries = if let Some(one) = body.checkpoint.as_ref().map(CheckpointBody::id).transpose()?.flatten() {
        let view = graph.state(&found.key, At::Id(one)).await.map_err(failed)?;
        view.into_iter().map(|view| view.entry).collect()
    } else {
        entries(&**graph, &found.key, &body).await?
    };
    let mut states = Vec::with_capacity(entries.len());
    for entry in entries {
        let at = At::Seq(entry.seq);
        let Some(mut view) = graph.state(&found.key, at).await.map_err(failed)? else {
            continue;
        };
        view = newest(&**graph, &found.key, view).await?;
        let parent = match view.entry.parent {
            None => None,
            Some(parent) => entry_of(&**graph, &found.key, parent).await?.map(|entry| entry.id),
        };
        states.push(shape::state(id, graph.name(), &view, parent));
    }
    Ok(Json(Value::Array(states)))
}

/// The newest checkpoint is shown as the thread stands, with the questions that wait.
async fn newest(graph: &dyn ServedGraph, key: &ThreadKey, view: StateView) -> Result<StateView, ApiError> {
    if view.entry.next.is_empty() {
        return Ok(view);
    }
    let head = graph
        .state(key, At::Head)
        .await
        .map_err(|error| ApiError::of_thread(&error))?;
    Ok(match head {
        Some(head) if head.entry.seq == view.entry.seq => head,
        _ => view,
    })
}

/// The checkpoints that a request wants, newest first.
async fn entries(graph: &dyn ServedGraph, key: &ThreadKey, body: &HistoryBody) -> Result<Vec<HistoryEntry>, ApiError> {
    let failed = |error| ApiError::of_thread(&error);
    let before = match body.before.as_ref().map(Before::id).transpose()?.flatten() {
        None => None,
        Some(id) => {
            let view = graph.state(key, At::Id(id)).await.map_err(failed)?;
            let gone = || ApiError::not_found("unknown_checkpoint", format!("the thread has no checkpoint {id}"));
            Some(view.ok_or_else(gone)?.entry.seq)
        }
    };
    let limit = if body.metadata.is_empty() {
        body.limit
    } else {
        SEARCHED_MAX
    };
    let entries = graph.history(key, Page { before, limit }).await.map_err(failed)?;
    let fits = |entry: &HistoryEntry| {
        let metadata = shape::metadata(entry, graph.name());
        body.metadata
            .iter()
            .all(|(name, value)| metadata.get(name) == Some(value))
    };
    let wanted = usize::try_from(body.limit).unwrap_or(usize::MAX);
    Ok(entries.into_iter().filter(fits).take(wanted).collect())
}
