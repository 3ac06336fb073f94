//! Finds the passages that an answer may rest on.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use stepgraph::{Context, Node, NodeError, TenantId};

use crate::{
    service::{Embedder, Hit, Passage, Purpose, SearchQuery, ServiceError, VectorStore},
    trace,
};

/// What to look for.
#[derive(Debug, Clone)]
pub struct Query {
    /// The question as typed.
    pub text: String,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Passages that support an answer, best first.
    pub passages: Vec<ScoredPassage>,
    /// Whether the search failed; there are no passages then, and the answer has to do without.
    pub degraded: bool,
}

/// A passage and how well it fits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoredPassage {
    /// The passage.
    pub passage: Passage,
    /// Higher is better; comparable inside one search only.
    pub score: f32,
}

/// What the node emits: how many passages it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Searched {
    /// How many passages support an answer.
    pub passages: usize,
}

/// How much is retrieved, and what counts as support: of the node, or of one run that is provided with its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetrieveLimits {
    /// Most passages handed on.
    pub passages_max: u32,
    /// Least [`Hit::coverage`] of a passage that supports an answer.
    pub coverage_min: f32,
    /// Least [`Hit::score`] of such a passage, where the tenant sets one.
    pub score_min: Option<f32>,
    /// How long one search may take before the answer has to do without.
    pub search_time_max: Duration,
}

impl Default for RetrieveLimits {
    fn default() -> Self {
        Self {
            passages_max: 6,
            coverage_min: 0.34,
            score_min: None,
            search_time_max: Duration::from_secs(5),
        }
    }
}

/// Searches the tenant's chunks. A search that fails does not fail the run: the passages are empty and `degraded` says why.
#[derive(Clone)]
pub struct Retrieve {
    vectors: Arc<dyn VectorStore>,
    embedder: Option<Arc<dyn Embedder>>,
    limits: RetrieveLimits,
}

impl Retrieve {
    /// Searches `vectors`, by words alone, or by words and meaning where there is an embedder.
    #[must_use]
    pub fn new(vectors: Arc<dyn VectorStore>, embedder: Option<Arc<dyn Embedder>>, limits: RetrieveLimits) -> Self {
        Self {
            vectors,
            embedder,
            limits,
        }
    }

    async fn search(&self, tenant: &TenantId, text: String, limit: u32) -> Result<Vec<Hit>, ServiceError> {
        let dense = match &self.embedder {
            None => None,
            Some(embedder) => embedder
                .embed(tenant, Purpose::Query, std::slice::from_ref(&text))
                .await?
                .pop(),
        };
        self.vectors.search(tenant, &SearchQuery { text, dense, limit }).await
    }
}

impl fmt::Debug for Retrieve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retrieve")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[stepgraph::async_trait]
impl Node for Retrieve {
    type Input = Query;
    type Output = Found;
    type Event = Searched;

    async fn run(&self, query: Query, ctx: Context<Searched>) -> Result<Found, NodeError> {
        let limits = ctx.provided::<RetrieveLimits>().copied().unwrap_or(self.limits);
        let limit = limits.search_time_max;
        // As one call: a failure and a passed time limit are replies, which a replay gives again.
        let search = || async {
            let searched = tokio::time::timeout(
                limit,
                self.search(ctx.tenant(), query.text.clone(), limits.passages_max),
            )
            .await;
            let timeout = ServiceError::Timeout {
                service: "vector store",
                limit,
            };
            searched.unwrap_or(Err(timeout)).map_err(|error| {
                tracing::warn!(tenant = %ctx.tenant(), run = %ctx.run_id(), code = error.code(), %error, "the search failed, the answer does without");
                error.into_node_error()
            })
        };
        let searched: Result<Vec<Hit>, NodeError> =
            trace::carried(&ctx, ctx.recorded("search", &query.text, search)).await;
        let found = match searched {
            Ok(hits) => Found {
                passages: supporting(limits, hits),
                degraded: false,
            },
            Err(_told) => Found {
                passages: Vec::new(),
                degraded: true,
            },
        };
        ctx.emit(Searched {
            passages: found.passages.len(),
        })
        .await;
        Ok(found)
    }
}

fn supporting(limits: RetrieveLimits, hits: Vec<Hit>) -> Vec<ScoredPassage> {
    let supporting = hits
        .into_iter()
        .filter(|hit| hit.coverage >= limits.coverage_min && limits.score_min.is_none_or(|least| hit.score >= least));
    supporting
        .map(|hit| ScoredPassage {
            score: hit.score,
            passage: Passage {
                document_id: hit.document_id,
                chunk_index: hit.chunk_index,
                title: hit.title,
                text: hit.text,
            },
        })
        .collect()
}
