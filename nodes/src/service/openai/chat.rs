//! Streamed answers.

use std::pin::Pin;

use async_openai::error::OpenAIError;
use async_trait::async_trait;
use futures_util::{Stream, StreamExt, stream};
use stepgraph::TenantId;
use tokio::time::timeout;

use super::{
    Endpoint, SERVICE,
    transport::explain,
    wire::{ChatBody, Chunk, End, StreamOptions, one_system},
};
use crate::service::{
    ChatDelta, ChatModel, ChatRequest, ChatStream, FinishReason, Message, ServiceError, Usage,
    provider::{Http, PING_TIMEOUT, Problem, ProviderOptions, grow},
};

/// [`ChatModel`] over any provider that speaks the protocol of `OpenAI`.
///
/// ```no_run
/// # use stepgraph_nodes::service::{ProviderOptions, Secret, openai::OpenAi};
/// let local = OpenAi::new(&ProviderOptions::new("http://127.0.0.1:8080/v1", None))?;
/// let hosted = OpenAi::new(&ProviderOptions::new("https://api.openai.com/v1", Some(Secret::new("sk-..."))))?;
/// # Ok::<(), stepgraph_nodes::service::ServiceError>(())
/// ```
#[derive(Debug, Clone)]
pub struct OpenAi {
    endpoint: Endpoint,
}

impl OpenAi {
    /// A model at the provider that `options` name. Connects on first use.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Refused`] when the base URL or the key cannot work.
    pub fn new(options: &ProviderOptions) -> Result<Self, ServiceError> {
        Endpoint::new(options).map(|endpoint| Self { endpoint })
    }
}

#[async_trait]
impl ChatModel for OpenAi {
    fn provider(&self) -> &'static str {
        SERVICE
    }

    /// # Cancel safety
    ///
    /// Dropping the call or its stream closes the connection; the provider sees it and stops.
    async fn chat(&self, _tenant: &TenantId, request: ChatRequest) -> Result<ChatStream, ServiceError> {
        let Endpoint {
            client,
            http,
            is_limit_renamed,
            ..
        } = &self.endpoint;
        let limit = request.completion_tokens_max;
        let body = ChatBody {
            model: request.model.as_str(),
            messages: &one_system(&request.messages),
            temperature: request.temperature,
            max_completion_tokens: is_limit_renamed.then_some(limit),
            max_tokens: (!is_limit_renamed).then_some(limit),
            stream: true,
            stream_options: StreamOptions { include_usage: true },
        };
        let chat = client.chat();
        let opened = chat.create_stream_byot::<_, Chunk>(body).await;
        let answer = Answer {
            chunks: opened.map_err(|error| explain(http, error))?,
            http: http.clone(),
            text: String::new(),
            prompt: request.messages,
            reason: None,
            usage: None,
        };
        Ok(Box::pin(stream::unfold(Some(answer), Answer::step)))
    }

    async fn ping(&self) -> Result<(), ServiceError> {
        let models = format!("{}/models", self.endpoint.base_url);
        let late = ServiceError::Timeout {
            service: SERVICE,
            limit: PING_TIMEOUT,
        };
        timeout(PING_TIMEOUT, self.endpoint.http.get(&models))
            .await
            .unwrap_or(Err(late))
    }
}

type Chunks = Pin<Box<dyn Stream<Item = Result<Chunk, OpenAIError>> + Send>>;

/// An answer that is being read.
struct Answer {
    chunks: Chunks,
    http: Http,
    text: String,
    prompt: Vec<Message>,
    reason: Option<FinishReason>,
    usage: Option<Usage>,
}

impl Answer {
    /// What errors are put in words by: without the texts of this conversation.
    fn http(&self) -> Http {
        self.http.about(&self.prompt, &self.text)
    }

    /// The next delta; nothing comes after the last one or after an error.
    async fn step(answer: Option<Self>) -> Option<(Result<ChatDelta, ServiceError>, Option<Self>)> {
        let mut answer = answer?;
        let delta = answer.next().await;
        let goes_on = !matches!(delta, Ok(ChatDelta::Finish { .. }) | Err(_));
        Some((delta, goes_on.then_some(answer)))
    }

    async fn next(&mut self) -> Result<ChatDelta, ServiceError> {
        while let Some(chunk) = self.next_chunk().await? {
            if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
                return Err(self.http().midway(&Problem::of(&serde_json::json!({"error": error}))));
            }
            self.usage = chunk.usage.map(Usage::from).or(self.usage);
            // Only one answer is asked for.
            let Some(choice) = chunk.choices.into_iter().find(|choice| choice.index == 0) else {
                continue;
            };
            match choice.end() {
                None => {}
                Some(End::Reason(reason)) => self.reason = Some(reason),
                Some(End::Failed(how)) => return Err(self.http().midway(&Problem::saying(how))),
                Some(End::Tools) => return Err(self.http().unreadable(&"it calls a tool, and none was offered")),
            }
            let delta = choice.delta.unwrap_or_default();
            let is_reasoning = delta.is_reasoning();
            let text = delta.content.or(delta.refusal).unwrap_or_default();
            if !text.is_empty() {
                grow(SERVICE, &mut self.text, &text)?;
                return Ok(ChatDelta::Text(text));
            }
            if is_reasoning {
                return Ok(ChatDelta::Working);
            }
        }
        self.finish()
    }

    /// The next piece; a stream that breaks once the reason of its end is known has ended.
    async fn next_chunk(&mut self) -> Result<Option<Chunk>, ServiceError> {
        match self.chunks.next().await.transpose() {
            Err(OpenAIError::StreamError(_)) if self.reason.is_some() => Ok(None),
            chunk => chunk.map_err(|error| explain(&self.http(), error)),
        }
    }

    fn finish(&self) -> Result<ChatDelta, ServiceError> {
        let reason = self
            .reason
            .ok_or_else(|| self.http().cut_off("the stream ended without a reason"))?;
        // A provider that knows no usage leaves it to us to count.
        let usage = self.usage.unwrap_or_else(|| Usage::estimated(&self.prompt, &self.text));
        Ok(ChatDelta::Finish { reason, usage })
    }
}
