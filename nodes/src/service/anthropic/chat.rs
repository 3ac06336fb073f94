//! Streamed answers.

use std::pin::Pin;

use async_trait::async_trait;
use eventsource_stream::{Event as SseEvent, EventStreamError, Eventsource};
use futures_util::{Stream, StreamExt, stream};
use stepgraph::TenantId;
use tokio::time::timeout;

use super::{
    Endpoint, SERVICE,
    wire::{Block, Body, End, Event, WireUsage},
};
use crate::service::{
    ChatDelta, ChatModel, ChatRequest, ChatStream, FinishReason, Message, ServiceError, Usage,
    provider::{Http, PING_TIMEOUT, Problem, ProviderOptions, grow, place_of, refused},
};

/// The provider's own limit, half of what others take.
const TEMPERATURE_MAX: f32 = 1.0;

/// [`ChatModel`] over Anthropic's Messages API.
///
/// ```no_run
/// # use stepgraph_nodes::service::{ProviderOptions, Secret, anthropic::{Anthropic, BASE_URL}};
/// let model = Anthropic::new(&ProviderOptions::new(BASE_URL, Some(Secret::new("sk-ant-..."))))?;
/// # Ok::<(), stepgraph_nodes::service::ServiceError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Anthropic {
    endpoint: Endpoint,
}

impl Anthropic {
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
impl ChatModel for Anthropic {
    fn provider(&self) -> &'static str {
        SERVICE
    }

    /// # Cancel safety
    ///
    /// Dropping the call or its stream closes the connection; the provider sees it and stops.
    async fn chat(&self, _tenant: &TenantId, request: ChatRequest) -> Result<ChatStream, ServiceError> {
        if let Some(temperature) = request.temperature.filter(|&temperature| temperature > TEMPERATURE_MAX) {
            return Err(refused(
                SERVICE,
                format!(
                    "`{}` takes a temperature up to {TEMPERATURE_MAX}, not {temperature}: lower the tenant's",
                    request.model
                ),
            ));
        }
        let Endpoint { http, base_url } = &self.endpoint;
        let call = http
            .client()
            .post(format!("{base_url}/v1/messages"))
            .json(&Body::of(&request))
            .build()
            .map_err(|error| http.unsent(error))?;
        let response = http.send(call).await?;
        let answer = Answer {
            events: Box::pin(response.bytes_stream().eventsource()),
            http: http.clone(),
            text: String::new(),
            prompt: request.messages,
            reason: None,
            usage: WireUsage::default(),
        };
        Ok(Box::pin(stream::unfold(Some(answer), Answer::step)))
    }

    async fn ping(&self) -> Result<(), ServiceError> {
        let models = format!("{}/v1/models?limit=1", self.endpoint.base_url);
        let late = ServiceError::Timeout {
            service: SERVICE,
            limit: PING_TIMEOUT,
        };
        timeout(PING_TIMEOUT, self.endpoint.http.get(&models))
            .await
            .unwrap_or(Err(late))
    }
}

type Events = Pin<Box<dyn Stream<Item = Result<SseEvent, EventStreamError<reqwest::Error>>> + Send>>;

/// An answer that is being read.
struct Answer {
    events: Events,
    http: Http,
    text: String,
    prompt: Vec<Message>,
    reason: Option<FinishReason>,
    usage: WireUsage,
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
        while let Some(event) = self.next_event().await? {
            match event {
                Event::MessageStart { message } => self.usage = message.usage.or(self.usage),
                Event::ContentBlockStart { content_block: block } | Event::ContentBlockDelta { delta: block } => {
                    if let Some(delta) = self.block(block)? {
                        return Ok(delta);
                    }
                }
                Event::MessageDelta { delta, usage } => {
                    self.usage = usage.or(self.usage);
                    match delta.end() {
                        Some(End::Reason(reason)) => self.reason = Some(reason),
                        Some(End::Tools) => return Err(self.tools()),
                        None => {}
                    }
                }
                Event::MessageStop => break,
                // A sign of life once there was text; before it, the first token is still awaited.
                Event::Ping if !self.text.is_empty() => return Ok(ChatDelta::Working),
                Event::Ping | Event::Unknown => {}
                Event::Error { error } => {
                    return Err(self.http().midway(&Problem::of(&serde_json::json!({"error": error}))));
                }
            }
        }
        self.finish()
    }

    fn block(&mut self, block: Block) -> Result<Option<ChatDelta>, ServiceError> {
        match block {
            Block::Text { text } if text.is_empty() => Ok(None),
            Block::Text { text } => {
                grow(SERVICE, &mut self.text, &text)?;
                Ok(Some(ChatDelta::Text(text)))
            }
            Block::Thinking => Ok(Some(ChatDelta::Working)),
            Block::ToolUse => Err(self.tools()),
            Block::Unknown => Ok(None),
        }
    }

    /// The next event; a stream that breaks once the reason of its end is known has ended.
    async fn next_event(&mut self) -> Result<Option<Event>, ServiceError> {
        match self.events.next().await {
            None => Ok(None),
            Some(Ok(event)) => serde_json::from_str(&event.data)
                .map(Some)
                .map_err(|error| self.http().unreadable(&place_of(&error))),
            Some(Err(_)) if self.reason.is_some() => Ok(None),
            Some(Err(EventStreamError::Transport(error))) => Err(self.http().cut_off(&error.without_url().to_string())),
            Some(Err(error)) => Err(self.http().unreadable(&error)),
        }
    }

    fn tools(&self) -> ServiceError {
        self.http().unreadable(&"it calls a tool, and none was offered")
    }

    fn finish(&self) -> Result<ChatDelta, ServiceError> {
        let reason = self
            .reason
            .ok_or_else(|| self.http().cut_off("the stream ended without a reason"))?;
        let usage = self.usage.whole();
        let usage = usage.unwrap_or_else(|| Usage::estimated(&self.prompt, &self.text));
        Ok(ChatDelta::Finish { reason, usage })
    }
}
