//! Runs on a thread: waited for, or streamed.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde_json::{Value, json};
use stepgraph::{RunId, TenantId};
use stepgraph_nodes::{
    service::ThreadChange,
    trace::{self, TRACEPARENT, TraceParent},
};
use uuid::Uuid;

use super::Tenant;
use crate::{
    error::ApiError,
    serving::{
        Finish, Launch, Modes, Plan, ReaderWants, Reading, Serving, Teller,
        body::{Body, Ids, IfNotExists, RunBody},
        kept_trace, shape, thread_key,
    },
    sse,
};

/// `POST /threads/{id}/runs/wait`: the values at the end.
pub(super) async fn wait(
    State(serving): State<Arc<Serving>>,
    Tenant(tenant): Tenant,
    Ids(id): Ids<Uuid>,
    Body(body): Body<RunBody>,
) -> Result<Response, ApiError> {
    let reading = start(&serving, &tenant, id, body, ReaderWants::End).await?;
    let (run, headers) = (reading.run, locations(id, reading.run));
    let Finish {
        values,
        questions,
        failure,
    } = reading.finish().await?;
    let values = match failure {
        Some((code, message)) => json!({"__error__": {"error": code, "message": message, "trace_id": run}}),
        None if questions.is_empty() => values,
        None => shape::with_interrupts(&values, &questions),
    };
    Ok((headers, Json(values)).into_response())
}

/// `POST /threads/{id}/runs/stream`: what happens, as it happens.
pub(super) async fn stream(
    State(serving): State<Arc<Serving>>,
    Tenant(tenant): Tenant,
    Ids(id): Ids<Uuid>,
    Body(body): Body<RunBody>,
) -> Result<Response, ApiError> {
    let reading = start(&serving, &tenant, id, body, ReaderWants::Events).await?;
    let reading = reading.begun().await?;
    let headers = locations(id, reading.run);
    let frames = stream::unfold(reading, |mut reading| async {
        let frame = reading.next().await?;
        Some((frame, reading))
    });
    let mut response = sse::response(frames);
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().extend(headers);
    Ok(response)
}

/// Where the run is found, and its events.
fn locations(thread: Uuid, run: RunId) -> HeaderMap {
    let run = format!("/threads/{thread}/runs/{run}");
    let events = format!("{run}/stream");
    let named = [(header::CONTENT_LOCATION, run), (header::LOCATION, events)];
    named
        .into_iter()
        .filter_map(|(name, path)| Some((name, HeaderValue::try_from(path).ok()?)))
        .collect()
}

async fn start(
    serving: &Arc<Serving>,
    tenant: &TenantId,
    id: Uuid,
    mut body: RunBody,
    reader: ReaderWants,
) -> Result<Reading, ApiError> {
    body.refuse_unbuilt()?;
    let modes = match reader {
        ReaderWants::Events => Modes::of(body.stream_mode.as_ref(), body.stream_subgraphs)?,
        ReaderWants::End => Modes::none(),
    };
    let graph = Arc::clone(serving.assistant(&body.assistant_id)?);
    let key = thread_key(tenant, id)?;
    let trace = enter(serving, tenant, id, graph.name(), &body).await?;
    let head = graph
        .state(&key, stepgraph::checkpoint::At::Head)
        .await
        .map_err(|error| ApiError::of_thread(&error))?;
    let nodes: Vec<String> = graph.outline().nodes.iter().map(ToString::to_string).collect();
    let mut plan = Plan::of(&mut body, head.as_ref(), &nodes, modes)?;
    plan.begin.trace = trace;
    let teller = Teller::new(modes, plan.begin.run, id, graph.name(), head.as_ref());
    let launch = Launch {
        graph,
        key,
        plan,
        teller,
        on_disconnect: body.on_disconnect,
        reader,
    };
    serving.start(launch).await
}

/// Finds the thread, or makes it where that is asked for, and notes which graph runs on it and under which trace, which is
/// given back. A request that goes on with a run and has no trace of its own is part of the run's. A thread keeps its graph.
async fn enter(
    serving: &Serving,
    tenant: &TenantId,
    id: Uuid,
    graph: &str,
    body: &RunBody,
) -> Result<Option<TraceParent>, ApiError> {
    let found = serving.threads.get(tenant, id).await?;
    let kept = found.as_ref().and_then(kept_trace);
    let trace = trace::current().or_else(|| kept.filter(|_| body.input.is_none()));
    let mut metadata = body.metadata.clone();
    match trace {
        Some(trace) => drop(metadata.insert(TRACEPARENT.to_owned(), json!(trace.to_string()))),
        None if kept.is_some() => drop(metadata.insert(TRACEPARENT.to_owned(), Value::Null)),
        None => {}
    }
    metadata.insert("graph_id".to_owned(), json!(graph));
    metadata.insert("assistant_id".to_owned(), json!(shape::assistant_id(graph)));
    let change = ThreadChange {
        graph: Some(graph.to_owned()),
        metadata,
    };
    let record = match (found, body.if_not_exists) {
        (Some(record), _) => record,
        (None, IfNotExists::Reject) => serving.thread(tenant, id).await?,
        (None, IfNotExists::Create) => match serving.threads.create(tenant, id, &change).await? {
            Some(made) => made,
            None => serving.thread(tenant, id).await?,
        },
    };
    let known = |(name, value): (&String, &Value)| record.metadata.get(name) == Some(value);
    let graph_then = if record.graph.is_none() {
        // Another run may have been first meanwhile: what counts is what then stands there.
        let changed = serving.threads.change(tenant, id, &change).await?;
        changed.and_then(|record| record.graph)
    } else {
        if record.graph.as_deref() == Some(graph) && !change.metadata.iter().all(known) {
            serving.threads.change(tenant, id, &change).await?;
        }
        record.graph
    };
    match graph_then {
        Some(other) if other != graph => Err(ApiError::conflict(
            "other_graph",
            format!("graph `{other}` runs on this thread: take another thread"),
        )),
        _ => Ok(trace),
    }
}
