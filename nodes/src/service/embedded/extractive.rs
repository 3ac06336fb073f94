//! Answers without a language model: the sentences of the passages that support an answer best, word for word.

mod score;
mod sentences;
mod terms;

use async_trait::async_trait;
use futures_util::stream;
use stepgraph::TenantId;
use unicode_segmentation::UnicodeSegmentation;

use crate::{
    service::{ChatDelta, ChatModel, ChatRequest, ChatStream, FinishReason, ModelName, Passage, ServiceError, Usage},
    tokens,
};

/// What is said when no passage supports an answer.
pub const NO_INFORMATION: &str = "I don't have that information.";

/// The chat model of a house without a provider: it quotes and never writes. From the passages of the request it
/// chooses one to three sentences that hold what is asked for, and says [`NO_INFORMATION`] when none do.
///
/// It honours `completion_tokens_max`; it has no use for the name of a model, nor for a temperature, since nothing in it is
/// left to chance.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extractive;

/// An answer and what it rests on.
pub(super) struct Extract {
    text: String,
    reason: FinishReason,
    support: Option<Vec<Passage>>,
    usage: Usage,
}

impl Extractive {
    /// The model; it holds nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// Chooses the sentences, off the runtime's threads: cutting and counting long passages takes a while.
    pub(super) async fn extract(request: ChatRequest, service: &'static str) -> Result<Extract, ServiceError> {
        tokio::task::spawn_blocking(move || extract(&request))
            .await
            .map_err(|error| ServiceError::Unavailable {
                service,
                message: "the passages could not be read to the end".to_owned(),
                source: Some(Box::new(error)),
            })
    }
}

#[async_trait]
impl ChatModel for Extractive {
    fn provider(&self) -> &'static str {
        "extractive"
    }

    async fn chat(&self, _tenant: &TenantId, request: ChatRequest) -> Result<ChatStream, ServiceError> {
        let extract = Self::extract(request, "extractive").await?;
        Ok(Box::pin(stream::iter(extract.deltas().into_iter().map(Ok))))
    }

    fn reads_prompts(&self, _model: &ModelName) -> bool {
        false
    }

    async fn ping(&self) -> Result<(), ServiceError> {
        Ok(())
    }
}

impl Extract {
    /// The answer as it is streamed: what it rests on, then word by word, then its cost.
    pub(super) fn deltas(self) -> Vec<ChatDelta> {
        let support = self.support.map_or(ChatDelta::Unsupported, ChatDelta::Cited);
        let words = words(&self.text).map(|word| ChatDelta::Text(word.to_owned()));
        let finish = ChatDelta::Finish {
            reason: self.reason,
            usage: self.usage,
        };
        std::iter::once(support)
            .chain(words)
            .chain(std::iter::once(finish))
            .collect()
    }
}

fn extract(request: &ChatRequest) -> Extract {
    let choice = score::choose(&request.question, &request.passages);
    let (whole, support) = if choice.is_empty() {
        (NO_INFORMATION.to_owned(), None)
    } else {
        let used = request
            .passages
            .iter()
            .enumerate()
            .filter(|(index, _)| choice.iter().any(|sentence| sentence.passage == *index));
        let text = choice
            .iter()
            .map(|sentence| sentence.text.as_str())
            .collect::<Vec<_>>()
            .join(" ");
        (text, Some(used.map(|(_, passage)| passage.clone()).collect()))
    };
    let text = tokens::beginning(&whole, u64::from(request.completion_tokens_max)).to_owned();
    let reason = if text.len() < whole.len() {
        FinishReason::Length
    } else {
        FinishReason::Stop
    };
    let usage = Usage {
        prompt_tokens: tokens::count_prompt(&request.messages),
        completion_tokens: tokens::count(&text),
        ..Usage::default()
    };
    Extract {
        text,
        reason,
        support,
        usage,
    }
}

/// The words of a text, each with what follows up to the next, so that they join to the same text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let starts: Vec<usize> = text
        .unicode_word_indices()
        .map(|(at, _)| at)
        .skip(1)
        .chain(std::iter::once(text.len()))
        .collect();
    let mut from = 0;
    starts.into_iter().filter_map(move |to| {
        let word = text.get(from..to).filter(|word| !word.is_empty());
        from = to;
        word
    })
}

#[cfg(test)]
mod tests;
