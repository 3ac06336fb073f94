//! What a caller of the graph interface may send. Members that are not known are passed over; those that are known and
//! cannot be honoured are refused by name.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{StatusCode, header, request::Parts},
};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::error::ApiError;

/// Largest body of the graph interface.
pub(crate) const GRAPH_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most checkpoints in one answer.
pub(crate) const HISTORY_MAX: u32 = 1_000;

/// A JSON body; what is wrong with it is told with its place. Only a body that says that it is JSON is taken: a browser
/// then asks before a page of another site sends one.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let kind = request.headers().get(header::CONTENT_TYPE).cloned();
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                ApiError::too_large(format!("the body is larger than {GRAPH_BODY_BYTES_MAX} bytes"))
            } else {
                ApiError::unfit("body_unreadable", "the request body could not be read")
            }
        })?;
        let is_json = kind.is_some_and(|kind| kind.to_str().is_ok_and(|kind| kind.starts_with("application/json")));
        if !is_json {
            return Err(ApiError::unfit(
                "content_type",
                "send JSON with `content-type: application/json`",
            ));
        }
        read(&bytes).map(Self)
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." {
            "the body".to_owned()
        } else {
            format!("`{path}`")
        };
        ApiError::unfit("body", format!("{place} does not fit: {}", error.into_inner()))
    })?;
    json.end()
        .map_err(|error| ApiError::unfit("body", format!("the body does not end where its JSON does: {error}")))?;
    Ok(read)
}

/// A thread's id, or a thread's and something else's, in the path. Ids are UUIDs.
pub(crate) struct Ids<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Ids<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(ids)) => Ok(Self(ids)),
            Err(_) => Err(ApiError::unfit("id", "an id in the path is not a UUID")),
        }
    }
}

/// Body of `POST /threads`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct NewThread {
    pub(crate) thread_id: Option<Uuid>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) metadata: Map<String, Value>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) if_exists: IfExists,
    #[schemars(skip)]
    ttl: Option<Value>,
    #[schemars(skip)]
    supersteps: Option<Value>,
}

impl NewThread {
    pub(crate) fn refuse_unbuilt(&self) -> Result<(), ApiError> {
        unbuilt("ttl", self.ttl.is_some())?;
        unbuilt("supersteps", self.supersteps.is_some())
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum IfExists {
    #[default]
    Raise,
    DoNothing,
}

/// A checkpoint as a caller names it.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub(crate) struct CheckpointBody {
    #[serde(default)]
    pub(crate) checkpoint_id: Option<Uuid>,
    #[serde(default)]
    pub(crate) checkpoint_ns: Option<String>,
}

impl CheckpointBody {
    /// Its id. The checkpoints of graphs inside nodes are not served.
    pub(crate) fn id(&self) -> Result<Option<Uuid>, ApiError> {
        match self.checkpoint_ns.as_deref() {
            None | Some("") => Ok(self.checkpoint_id),
            Some(_) => Err(ApiError::unfit(
                "not_built",
                "`checkpoint_ns` of a graph inside a node is not served yet",
            )),
        }
    }
}

/// Body of `POST /threads/{id}/state/checkpoint`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct StateBody {
    pub(crate) checkpoint: CheckpointBody,
}

/// Body of `POST /threads/{id}/state`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct EditBody {
    #[serde(default)]
    pub(crate) values: Value,
    pub(crate) as_node: Option<String>,
    pub(crate) checkpoint: Option<CheckpointBody>,
    pub(crate) checkpoint_id: Option<Uuid>,
}

/// Body of `POST /threads/{id}/history`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct HistoryBody {
    #[serde(default = "one")]
    pub(crate) limit: u32,
    pub(crate) before: Option<Before>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) metadata: Map<String, Value>,
    pub(crate) checkpoint: Option<CheckpointBody>,
}

/// Query of `GET /threads/{id}/history`.
#[derive(Debug, Deserialize)]
pub(crate) struct HistoryQuery {
    #[serde(default = "one")]
    limit: u32,
    before: Option<Uuid>,
}

impl From<HistoryQuery> for HistoryBody {
    fn from(query: HistoryQuery) -> Self {
        Self {
            limit: query.limit,
            before: query.before.map(Before::Id),
            metadata: Map::new(),
            checkpoint: None,
        }
    }
}

const fn one() -> u32 {
    1
}

/// Before which checkpoint: by its id, bare, or as the configuration of a run.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a checkpoint, its id, or `{\"configurable\": checkpoint}`")]
pub(crate) enum Before {
    Id(Uuid),
    Configuration { configurable: CheckpointBody },
    Checkpoint(CheckpointBody),
}

impl Before {
    pub(crate) fn id(&self) -> Result<Option<Uuid>, ApiError> {
        match self {
            Self::Id(id) => Ok(Some(*id)),
            Self::Configuration {
                configurable: checkpoint,
            }
            | Self::Checkpoint(checkpoint) => checkpoint.id(),
        }
    }
}

/// Body of `POST /assistants/search` and `/assistants/count`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct AssistantQuery {
    pub(crate) graph_id: Option<String>,
    pub(crate) name: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) metadata: Map<String, Value>,
    #[serde(default = "ten")]
    pub(crate) limit: usize,
    #[serde(default)]
    pub(crate) offset: usize,
}

const fn ten() -> usize {
    10
}

/// One, or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a string or a list of strings")]
pub(crate) enum Several {
    One(String),
    Many(Vec<String>),
}

impl Several {
    pub(crate) fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// Body of `POST /threads/{id}/runs/wait` and `/runs/stream`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct RunBody {
    pub(crate) assistant_id: String,
    pub(crate) input: Option<Value>,
    pub(crate) command: Option<CommandBody>,
    pub(crate) checkpoint: Option<CheckpointBody>,
    pub(crate) checkpoint_id: Option<Uuid>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) metadata: Map<String, Value>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) config: ConfigBody,
    pub(crate) stream_mode: Option<Several>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) stream_subgraphs: bool,
    pub(crate) interrupt_before: Option<Several>,
    pub(crate) interrupt_after: Option<Several>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) multitask_strategy: Multitask,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) if_not_exists: IfNotExists,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) on_disconnect: OnDisconnect,
    /// Ours: what new input does on a thread that waits for an answer.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) on_pending: Pending,
    #[serde(flatten)]
    #[schemars(skip)]
    unbuilt: Unbuilt,
}

impl RunBody {
    pub(crate) fn refuse_unbuilt(&self) -> Result<(), ApiError> {
        let Unbuilt {
            webhook,
            after_seconds,
            durability,
            stream_resumable,
            checkpoint_during,
            context,
            feedback_keys,
        } = &self.unbuilt;
        unbuilt("webhook", webhook.is_some())?;
        unbuilt("after_seconds", after_seconds.is_some_and(|seconds| seconds > 0.0))?;
        unbuilt(
            "durability",
            durability.as_deref().is_some_and(|durability| durability != "sync"),
        )?;
        unbuilt("stream_resumable", *stream_resumable == Some(true))?;
        unbuilt("checkpoint_during", *checkpoint_during == Some(false))?;
        unbuilt("context", context.as_ref().is_some_and(|context| !context.is_empty()))?;
        unbuilt(
            "feedback_keys",
            feedback_keys.as_ref().is_some_and(|keys| !keys.is_empty()),
        )?;
        match self.multitask_strategy {
            Multitask::Enqueue | Multitask::Reject => Ok(()),
            Multitask::Interrupt => unbuilt("multitask_strategy: interrupt", true),
            Multitask::Rollback => unbuilt("multitask_strategy: rollback", true),
        }
    }

    /// The checkpoint to begin from.
    pub(crate) fn checkpoint(&self) -> Result<Option<Uuid>, ApiError> {
        match &self.checkpoint {
            Some(checkpoint) => Ok(checkpoint.id()?.or(self.checkpoint_id)),
            None => Ok(self.checkpoint_id),
        }
    }
}

/// What is known but not built: its default does what the server does anyway, anything else is refused.
#[derive(Debug, Default, Deserialize)]
struct Unbuilt {
    webhook: Option<String>,
    after_seconds: Option<f64>,
    durability: Option<String>,
    stream_resumable: Option<bool>,
    checkpoint_during: Option<bool>,
    context: Option<Map<String, Value>>,
    feedback_keys: Option<Vec<String>>,
}

fn unbuilt(name: &str, is_asked: bool) -> Result<(), ApiError> {
    if is_asked {
        return Err(ApiError::unfit(
            "not_built",
            format!("`{name}` is not served yet: leave it out"),
        ));
    }
    Ok(())
}

/// What a run goes on with.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct CommandBody {
    /// `null` is an answer too.
    #[serde(default, deserialize_with = "present")]
    pub(crate) resume: Option<Value>,
    pub(crate) update: Option<Writes>,
    pub(crate) goto: Option<Destinations>,
}

/// Fields with values, as an object or as pairs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "an object or a list of pairs")]
pub(crate) enum Writes {
    Object(Map<String, Value>),
    Pairs(Vec<(String, Value)>),
}

impl Writes {
    pub(crate) fn into_value(self) -> Value {
        match self {
            Self::Object(fields) => Value::Object(fields),
            Self::Pairs(pairs) => Value::Object(pairs.into_iter().collect()),
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a node, or a list of nodes")]
pub(crate) enum Destinations {
    One(Destination),
    Many(Vec<Destination>),
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a node's name, or `{\"node\", \"input\"}`")]
pub(crate) enum Destination {
    Node(String),
    Send { node: String, input: Value },
}

impl Destinations {
    pub(crate) fn nodes(self) -> Result<Vec<String>, ApiError> {
        let destinations = match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        };
        let nodes = destinations.into_iter().map(|destination| match destination {
            Destination::Node(node) => Ok(node),
            Destination::Send { node, input } => {
                let what =
                    format!("`goto` of `{node}` with an input of its own ({input}) is not served yet: name the node");
                Err(ApiError::unfit("not_built", what))
            }
        });
        nodes.collect()
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct ConfigBody {
    pub(crate) recursion_limit: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Multitask {
    #[default]
    Enqueue,
    Reject,
    Interrupt,
    Rollback,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum IfNotExists {
    #[default]
    Reject,
    Create,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnDisconnect {
    #[default]
    Continue,
    Cancel,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pending {
    #[default]
    Reject,
    Discard,
}

/// A member that is there, whatever its value.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// `null` is the same as nothing: SDKs send it for what was not given.
fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
