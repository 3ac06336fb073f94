//! Streamed answers.

use std::{pin::Pin, time::Duration};

use async_openai::error::OpenAIError;
use async_trait::async_trait;
use futures_util::{Stream, StreamExt, stream};
use stepgraph::TenantId;
use tokio::time::{Sleep, sleep, timeout};

use super::{
    Endpoint, OpenAiOptions, SERVICE,
    http::{Http, corrupt},
    wire::{ChatBody, Chunk, StreamOptions},
};
use crate::{
    service::{ChatDelta, ChatModel, ChatRequest, ChatStream, FinishReason, Message, ServiceError, Usage},
    tokens,
};

/// The one provider that has renamed the limit of tokens.
const RENAMED_LIMIT_HOST: &str = "api.openai.com";

/// No answer is longer: a provider that does not keep to its limit of tokens is stopped.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Longest wait for a sign of life.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// [`ChatModel`] over any provider that speaks the protocol of `OpenAI`.
///
/// ```no_run
/// # use stepgraph_nodes::service::{Secret, openai::{OpenAi, OpenAiOptions}};
/// let local = OpenAi::new(&OpenAiOptions::new("http://127.0.0.1:8080/v1", None))?;
/// let hosted = OpenAi::new(&OpenAiOptions::new("https://api.openai.com/v1", Some(Secret::new("sk-..."))))?;
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
    pub fn new(options: &OpenAiOptions) -> Result<Self, ServiceError> {
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
        let limit = request.completion_tokens_max;
        let is_renamed = self.endpoint.host == RENAMED_LIMIT_HOST;
        let body = ChatBody {
            model: request.model.as_str(),
            messages: &request.messages,
            temperature: request.temperature,
            max_completion_tokens: is_renamed.then_some(limit),
            max_tokens: (!is_renamed).then_some(limit),
            stream: true,
            stream_options: StreamOptions { include_usage: true },
        };
        let Endpoint {
            client,
            http,
            first_token_timeout,
            idle_timeout,
            ..
        } = &self.endpoint;
        let mut first_token = Box::pin(sleep(*first_token_timeout));
        let chat = client.chat();
        let chunks = tokio::select! {
            opened = chat.create_stream_byot::<_, Chunk>(body) => opened.map_err(|error| http.explain(error))?,
            () = &mut first_token => return Err(late(*first_token_timeout)),
        };
        let answer = Answer {
            chunks,
            http: http.clone(),
            first_token: Some(first_token),
            first_token_timeout: *first_token_timeout,
            idle_timeout: *idle_timeout,
            text: String::new(),
            prompt: request.messages,
            reason: None,
            usage: None,
        };
        Ok(Box::pin(stream::unfold(Some(answer), Answer::step)))
    }

    async fn ping(&self) -> Result<(), ServiceError> {
        let models = format!("{}/models", self.endpoint.base_url);
        timeout(PING_TIMEOUT, self.endpoint.http.get_once(models))
            .await
            .unwrap_or_else(|_| Err(late(PING_TIMEOUT)))
    }
}

type Chunks = Pin<Box<dyn Stream<Item = Result<Chunk, OpenAIError>> + Send>>;

/// An answer that is being read.
struct Answer {
    chunks: Chunks,
    http: Http,
    /// Runs until the first token has come.
    first_token: Option<Pin<Box<Sleep>>>,
    first_token_timeout: Duration,
    idle_timeout: Duration,
    text: String,
    prompt: Vec<Message>,
    reason: Option<FinishReason>,
    usage: Option<Usage>,
}

impl Answer {
    /// The next delta; nothing comes after the last one or after an error.
    async fn step(answer: Option<Self>) -> Option<(Result<ChatDelta, ServiceError>, Option<Self>)> {
        let mut answer = answer?;
        let delta = answer.next().await;
        let goes_on = matches!(delta, Ok(ChatDelta::Text(_)));
        Some((delta, goes_on.then_some(answer)))
    }

    async fn next(&mut self) -> Result<ChatDelta, ServiceError> {
        while let Some(chunk) = self.next_chunk().await? {
            if let Some(failure) = chunk.failure() {
                return Err(self.http.midway(&failure));
            }
            self.usage = chunk.usage.map(Usage::from).or(self.usage);
            let Some(choice) = chunk.choices.into_iter().next() else {
                continue;
            };
            self.reason = choice.reason().or(self.reason);
            let text = choice.delta.content.or(choice.delta.refusal).unwrap_or_default();
            if !text.is_empty() {
                return self.text(text);
            }
        }
        self.finish()
    }

    async fn next_chunk(&mut self) -> Result<Option<Chunk>, ServiceError> {
        let chunk = match &mut self.first_token {
            Some(first_token) => tokio::select! {
                chunk = self.chunks.next() => chunk,
                () = first_token => return Err(late(self.first_token_timeout)),
            },
            None => timeout(self.idle_timeout, self.chunks.next())
                .await
                .map_err(|_| late(self.idle_timeout))?,
        };
        chunk.transpose().map_err(|error| self.http.explain(error))
    }

    fn text(&mut self, text: String) -> Result<ChatDelta, ServiceError> {
        self.first_token = None;
        self.text.push_str(&text);
        if self.text.len() > ANSWER_BYTES_MAX {
            return Err(corrupt(format!(
                "the answer is longer than {ANSWER_BYTES_MAX} bytes: the model ignores its limit of tokens"
            )));
        }
        Ok(ChatDelta::Text(text))
    }

    fn finish(&self) -> Result<ChatDelta, ServiceError> {
        let reason = self
            .reason
            .ok_or_else(|| self.http.midway("the stream ended without a reason"))?;
        // A provider that knows no usage leaves it to us to count.
        let usage = self.usage.unwrap_or_else(|| Usage {
            prompt_tokens: tokens::count_prompt(&self.prompt),
            completion_tokens: tokens::count(&self.text),
            cached_tokens: 0,
        });
        Ok(ChatDelta::Finish { reason, usage })
    }
}

const fn late(limit: Duration) -> ServiceError {
    ServiceError::Timeout {
        service: SERVICE,
        limit,
    }
}
