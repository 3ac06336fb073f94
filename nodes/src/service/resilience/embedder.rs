//! The layer around an embedder.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use stepgraph::TenantId;

use super::{Breakers, CallLimits, tries::Tries};
use crate::{
    service::{Embedder, ModelName, Purpose, ServiceError},
    tokens,
};

/// Most texts in one call.
const BATCH_TEXTS_MAX: usize = 256;

/// Most tokens of all texts in one call; the strictest provider known takes 300,000, and others count otherwise.
const BATCH_TOKENS_MAX: u64 = 100_000;

/// An [`Embedder`] that is asked within limits: see the [module](super). Many texts are sent in batches, each tried on its own.
#[derive(Clone)]
pub struct ResilientEmbedder {
    embedder: Arc<dyn Embedder>,
    limits: CallLimits,
    breakers: Breakers,
}

impl ResilientEmbedder {
    /// `embedder` within `limits`. `service` is what errors call it.
    pub fn new(service: &'static str, embedder: Arc<dyn Embedder>, limits: CallLimits) -> Self {
        Self {
            embedder,
            limits,
            breakers: Breakers::new(service, limits),
        }
    }
}

impl fmt::Debug for ResilientEmbedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResilientEmbedder")
            .field("model", self.embedder.model())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Embedder for ResilientEmbedder {
    fn model(&self) -> &ModelName {
        self.embedder.model()
    }

    fn dimension(&self) -> u32 {
        self.embedder.dimension()
    }

    async fn embed(
        &self,
        tenant: &TenantId,
        purpose: Purpose,
        texts: &[String],
    ) -> Result<Vec<Vec<f32>>, ServiceError> {
        let tries = Tries {
            service: self.breakers.service(),
            model: self.embedder.model(),
            limits: self.limits,
            breakers: &self.breakers,
            answer_by: None,
        };
        let mut vectors = Vec::with_capacity(texts.len());
        for batch in batches(texts) {
            let embedded = tries
                .until_answered(|| self.embedder.embed(tenant, purpose, batch))
                .await?;
            vectors.extend(embedded);
        }
        Ok(vectors)
    }
}

/// The texts in their order, cut where a call would hold too many or too long ones. A text that is too long by itself stands
/// alone, for the provider to judge.
pub(in crate::service) fn batches(texts: &[String]) -> Vec<&[String]> {
    let mut batches = Vec::new();
    let mut rest = texts;
    while !rest.is_empty() {
        let mut sum = 0_u64;
        let fitting = rest
            .iter()
            .take(BATCH_TEXTS_MAX)
            .take_while(|text| {
                sum = sum.saturating_add(tokens_at_most(text));
                sum <= BATCH_TOKENS_MAX
            })
            .count();
        let (batch, later) = rest.split_at(fitting.max(1).min(rest.len()));
        batches.push(batch);
        rest = later;
    }
    batches
}

/// A token is a byte at least; only of long texts it is worth to count them.
fn tokens_at_most(text: &str) -> u64 {
    const SHORT_BYTES: usize = 380;
    let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
    if text.len() <= SHORT_BYTES {
        bytes
    } else {
        tokens::count(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_keep_order_and_stay_within_both_limits() {
        let long = "word ".repeat(30_000);
        let texts: Vec<String> = (0..600)
            .map(|at| if at % 100 == 7 { long.clone() } else { at.to_string() })
            .collect();

        let batches = batches(&texts);

        assert_eq!(batches.concat(), texts);
        for batch in &batches {
            let tokens: u64 = batch.iter().map(|text| tokens::count(text)).sum();
            assert!(batch.len() <= BATCH_TEXTS_MAX && tokens <= BATCH_TOKENS_MAX);
        }
        assert!(batches.len() <= 4, "{}", batches.len());
    }

    #[test]
    fn a_text_that_fits_into_no_batch_stands_alone() {
        let huge = "word ".repeat(120_000);
        let texts = ["a".to_owned(), huge, "b".to_owned()];

        let sizes: Vec<usize> = batches(&texts).iter().map(|batch| batch.len()).collect();

        assert_eq!(sizes, [1, 1, 1]);
        assert!(batches(&[]).is_empty());
    }
}
