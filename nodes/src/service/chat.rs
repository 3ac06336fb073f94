//! Chat models: a request in, a stream of deltas out.

use std::{fmt, ops::Add, pin::Pin};

use async_trait::async_trait;
use futures_core::Stream;
use serde::{Deserialize, Serialize};
use stepgraph::TenantId;
use tokio::time::Instant;

use super::{DocumentId, ServiceError};
use crate::tokens;

/// Name of a chat or embedding model.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelName(String);

impl ModelName {
    /// A model by the name its provider knows.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The operator's instructions.
    System,
    /// The visitor.
    User,
    /// The model.
    Assistant,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// A retrieved text that an answer may rest on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Passage {
    /// The document it is part of.
    pub document_id: DocumentId,
    /// Position in its document.
    pub chunk_index: u32,
    /// Title of the document.
    pub title: String,
    /// The text itself.
    pub text: String,
}

/// What is asked of a chat model. `messages` is the whole rendered prompt, system part first and the question last;
/// `question` and `passages` are the same things before rendering, for models that do not read prompts.
#[derive(Debug, Clone, Serialize)]
pub struct ChatRequest {
    /// The model to use, where the implementation serves several.
    pub model: ModelName,
    /// The rendered prompt.
    pub messages: Vec<Message>,
    /// The visitor's question alone.
    pub question: String,
    /// The retrieved passages, best first.
    pub passages: Vec<Passage>,
    /// Most tokens the answer may have.
    pub completion_tokens_max: u32,
    /// 0 to 2; `None` leaves it to the model, for those that take none.
    pub temperature: Option<f32>,
    /// When the caller gives up. No try begins that could not end before, so that there is time for what comes instead.
    #[serde(skip)]
    pub answer_by: Option<Instant>,
    /// The model that answers while the first one cannot, by the tenant's own choice.
    #[serde(skip)]
    pub fallback: Option<ModelName>,
}

/// Tokens that a call used, as the model counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    pub completion_tokens: u64,
    /// Tokens of the prompt that came from the provider's cache.
    pub cached_tokens: u64,
    /// Tokens of the prompt that the provider has put into its cache, where it wants to be paid for that.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_write_tokens: u64,
    /// Whether the numbers were counted here, since the provider sent none.
    #[serde(default, skip_serializing_if = "is_no")]
    pub is_estimated: bool,
}

impl Usage {
    /// What the prompt and the answer hold by our own count.
    pub(crate) fn estimated(prompt: &[Message], answer: &str) -> Self {
        Self {
            prompt_tokens: tokens::count_prompt(prompt),
            completion_tokens: tokens::count(answer),
            is_estimated: true,
            ..Self::default()
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_no(flag: &bool) -> bool {
    !*flag
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            prompt_tokens: self.prompt_tokens.saturating_add(other.prompt_tokens),
            completion_tokens: self.completion_tokens.saturating_add(other.completion_tokens),
            cached_tokens: self.cached_tokens.saturating_add(other.cached_tokens),
            cache_write_tokens: self.cache_write_tokens.saturating_add(other.cache_write_tokens),
            is_estimated: self.is_estimated || other.is_estimated,
        }
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model had nothing more to say.
    Stop,
    /// The limit of completion tokens was reached.
    Length,
    /// The provider withheld the rest.
    Filtered,
    /// The time budget of the request ran out.
    TimeBudget,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ChatDelta {
    /// The next piece of text.
    Text(String),
    /// The passages the answer rests on, where the model knows them; replaces the request's passages as sources.
    Cited(Vec<Passage>),
    /// The model has found no support for an answer in the passages: the caller should show no sources.
    Unsupported,
    /// A sign of life without text: the model reasons, or its provider says that it is still at work.
    Working,
    /// Another model than the one asked for gives the answer.
    AnsweredBy(ModelName),
    /// The last delta.
    Finish {
        /// Why the answer ended.
        reason: FinishReason,
        /// What it cost.
        usage: Usage,
    },
}

/// The deltas of one answer. Dropping it cancels the call.
pub type ChatStream = Pin<Box<dyn Stream<Item = Result<ChatDelta, ServiceError>> + Send>>;

/// A chat model, or a family of them under one provider.
#[async_trait]
pub trait ChatModel: Send + Sync + 'static {
    /// What stands in logs, usage and health: `extractive`, `scripted`, `openai`.
    fn provider(&self) -> &'static str;

    /// Begins an answer. An error here, or before the first text, means that nothing was said yet.
    async fn chat(&self, tenant: &TenantId, request: ChatRequest) -> Result<ChatStream, ServiceError>;

    /// Whether this model writes by the prompt. One that does not (it quotes, or does what the message says) is never asked
    /// for anything but answers.
    fn reads_prompts(&self, _model: &ModelName) -> bool {
        true
    }

    /// Whether the provider answers; cheap, makes no completion.
    async fn ping(&self) -> Result<(), ServiceError>;

    /// The models that are not asked for a while, since they have failed too often: for health.
    fn held_back(&self) -> Vec<ModelName> {
        Vec::new()
    }
}
