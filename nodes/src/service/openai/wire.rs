//! The parts of the protocol that are read and written here. Providers leave out what they do not know, so that every
//! field of an answer may be absent.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};

use crate::service::{FinishReason, Message, Role, Usage};

#[derive(Serialize)]
pub(super) struct ChatBody<'a> {
    pub(super) model: &'a str,
    pub(super) messages: &'a [Message],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) temperature: Option<f32>,
    /// What `OpenAI` calls the limit now, and the only name its newer models accept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_completion_tokens: Option<u32>,
    /// What everyone else calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_tokens: Option<u32>,
    pub(super) stream: bool,
    pub(super) stream_options: StreamOptions,
}

#[derive(Serialize)]
pub(super) struct StreamOptions {
    pub(super) include_usage: bool,
}

/// Many local models know one system message only, at the beginning: several become one.
pub(super) fn one_system(messages: &[Message]) -> Cow<'_, [Message]> {
    let is_system = |message: &&Message| message.role == Role::System;
    if messages.iter().filter(is_system).count() < 2 {
        return Cow::Borrowed(messages);
    }
    let parts: Vec<&str> = messages
        .iter()
        .filter(is_system)
        .map(|message| message.content.as_str())
        .collect();
    let system = Message {
        role: Role::System,
        content: parts.join("\n\n"),
    };
    let others = messages.iter().filter(|message| !is_system(message)).cloned();
    Cow::Owned(std::iter::once(system).chain(others).collect())
}

#[derive(Deserialize)]
pub(super) struct Chunk {
    #[serde(default, deserialize_with = "null_as_nothing")]
    pub(super) choices: Vec<Choice>,
    pub(super) usage: Option<WireUsage>,
    /// Some providers report a failure in the place of a chunk.
    pub(super) error: Option<serde_json::Value>,
}

fn null_as_nothing<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[derive(Deserialize)]
pub(super) struct Choice {
    #[serde(default)]
    pub(super) index: u32,
    pub(super) delta: Option<Delta>,
    finish_reason: Option<String>,
}

/// How an answer ends.
pub(super) enum End {
    Reason(FinishReason),
    /// The provider gives up.
    Failed(&'static str),
    /// It waits for a tool.
    Tools,
}

impl Choice {
    pub(super) fn end(&self) -> Option<End> {
        self.finish_reason.as_deref().map(|reason| match reason {
            "length" | "max_tokens" | "model_length" => End::Reason(FinishReason::Length),
            "content_filter" => End::Reason(FinishReason::Filtered),
            "tool_calls" | "function_call" => End::Tools,
            "error" => End::Failed("the model failed"),
            "abort" => End::Failed("the call was aborted"),
            _ => End::Reason(FinishReason::Stop),
        })
    }
}

#[derive(Deserialize, Default)]
pub(super) struct Delta {
    pub(super) content: Option<String>,
    /// What a model says when it declines.
    pub(super) refusal: Option<String>,
    /// What a model says to itself; vLLM, llama.cpp and others.
    reasoning_content: Option<String>,
    /// The same, as Ollama and gateways call it.
    reasoning: Option<String>,
}

impl Delta {
    pub(super) fn is_reasoning(&self) -> bool {
        let says = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        says(&self.reasoning_content) || says(&self.reasoning)
    }
}

#[derive(Deserialize)]
pub(super) struct WireUsage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    prompt_tokens_details: Option<PromptTokens>,
}

#[derive(Deserialize)]
struct PromptTokens {
    cached_tokens: Option<u64>,
}

impl From<WireUsage> for Usage {
    fn from(wire: WireUsage) -> Self {
        let details = wire.prompt_tokens_details;
        Self {
            prompt_tokens: wire.prompt_tokens,
            completion_tokens: wire.completion_tokens,
            cached_tokens: details.and_then(|details| details.cached_tokens).unwrap_or_default(),
            ..Self::default()
        }
    }
}

#[derive(Serialize)]
pub(super) struct EmbeddingBody<'a> {
    pub(super) model: &'a str,
    pub(super) input: &'a [String],
    pub(super) encoding_format: &'static str,
}

#[derive(Deserialize)]
pub(super) struct Embeddings {
    pub(super) data: Vec<Embedding>,
}

#[derive(Deserialize)]
pub(super) struct Embedding {
    pub(super) index: usize,
    pub(super) embedding: Vec<f32>,
}
