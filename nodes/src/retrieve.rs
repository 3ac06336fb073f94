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

/// Says that a run goes on with what an earlier process or try has left (`run.provide(GoneOn)`). Documents may have been
/// deleted since they were searched: what was found then is looked for again before an answer rests on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoneOn;

/// How much is retrieved, and what counts as support: of the node, or of one run that is provided with its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetrieveLimits {
    /// Most passages handed on.
    pub passages_max: u32,
    /// Least [`Hit::coverage`] of a passage that supports an answer by its words.
    pub coverage_min: f32,
    /// Least [`Hit::similarity`] of one that supports it by its meaning.
    pub similarity_min: f32,
    /// What a passage must reach in place of both, by its words or by its meaning, where the tenant sets it.
    pub relevance_min: Option<f32>,
    /// How long one search may take before the answer has to do without.
    pub search_time_max: Duration,
}

impl RetrieveLimits {
    /// Whether an answer may rest on this. What shares no word with the question may still mean the same, in another language
    /// for instance; whether it answers is then for the model to say.
    fn supports(&self, hit: &Hit) -> bool {
        let (coverage_min, similarity_min) = match self.relevance_min {
            Some(least) => (least, least),
            None => (self.coverage_min, self.similarity_min),
        };
        hit.coverage >= coverage_min || hit.similarity.is_some_and(|similarity| similarity >= similarity_min)
    }
}

impl Default for RetrieveLimits {
    fn default() -> Self {
        Self {
            passages_max: 6,
            coverage_min: 0.34,
            similarity_min: 0.3,
            relevance_min: None,
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

    /// Of what this query found before, what it finds now as it was. A search that fails leaves nothing: whether the rest is
    /// still there is not known.
    pub(crate) async fn still_found<E: Send + 'static>(
        &self,
        query: &Query,
        before: Vec<ScoredPassage>,
        ctx: &Context<E>,
    ) -> Vec<ScoredPassage> {
        let limits = ctx.provided::<RetrieveLimits>().copied().unwrap_or(self.limits);
        let search = || async {
            let search = self.search(ctx.tenant(), query.text.clone(), limits.passages_max);
            let searched = tokio::time::timeout(limits.search_time_max, search).await;
            searched.ok().and_then(Result::ok).ok_or_else(|| {
                tracing::warn!(tenant = %ctx.tenant(), run = %ctx.run_id(), "the search failed, the answer does without");
                NodeError::terminal("the search failed")
            })
        };
        let again = ctx.recorded("search again", &query.text, search);
        let found: Result<Vec<Hit>, NodeError> = trace::carried(ctx, again).await;
        let found = found.unwrap_or_default();
        let is_there = |passage: &Passage| {
            found.iter().any(|hit| {
                hit.document_id == passage.document_id
                    && hit.chunk_index == passage.chunk_index
                    && hit.text == passage.text
            })
        };
        before.into_iter().filter(|scored| is_there(&scored.passage)).collect()
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
    hits.into_iter()
        .filter(|hit| limits.supports(hit))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::DocumentId;

    #[test]
    fn a_passage_supports_an_answer_by_its_words_or_by_its_meaning() {
        let ours = RetrieveLimits::default();
        let own = RetrieveLimits {
            relevance_min: Some(0.6),
            ..ours
        };
        for (coverage, similarity, by_ours, by_own) in [
            (0.34, None, true, false),
            (0.33, None, false, false),
            (0.0, Some(0.3), true, false),
            (0.0, Some(0.29), false, false),
            (0.1, Some(-0.5), false, false),
            (0.0, Some(0.6), true, true),
            (0.6, Some(0.0), true, true),
            (0.59, Some(0.59), true, false),
        ] {
            let hit = Hit {
                document_id: DocumentId::new("a"),
                chunk_index: 0,
                title: String::new(),
                text: String::new(),
                score: 0.01,
                coverage,
                similarity,
            };
            let supports = (ours.supports(&hit), own.supports(&hit));
            assert_eq!(supports, (by_ours, by_own), "{coverage} {similarity:?}");
        }
    }
}
