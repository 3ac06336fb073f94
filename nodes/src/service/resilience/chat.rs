//! The layer around a chat model.

use std::{collections::VecDeque, fmt, sync::Arc};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use stepgraph::TenantId;
use tokio::time::timeout;

use super::{Breakers, CallLimits, tries::Tries};
use crate::service::{Catalogue, ChatDelta, ChatModel, ChatRequest, ChatStream, FinishReason, ModelName, ServiceError};

/// A chat model that is asked within limits: see the [module](super).
///
/// An option that the model cannot honour is refused before the call, where the [`Catalogue`] knows the model. An answer
/// without a word is an error, since nobody can be shown it.
///
/// ```
/// # use std::sync::Arc;
/// # use stepgraph_nodes::service::{Catalogue, ChatModel, ProviderOptions, openai::OpenAi, resilience::{CallLimits, Resilient}};
/// let model = OpenAi::new(&ProviderOptions::new("http://127.0.0.1:8080/v1", None))?;
/// let model = Resilient::new(Arc::new(model), CallLimits::default(), Arc::new(Catalogue::builtin()?));
/// assert_eq!((model.provider(), model.held_back().len()), ("openai", 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Resilient {
    model: Arc<dyn ChatModel>,
    limits: CallLimits,
    breakers: Breakers,
    catalogue: Arc<Catalogue>,
}

impl Resilient {
    /// `model` within `limits`.
    pub fn new(model: Arc<dyn ChatModel>, limits: CallLimits, catalogue: Arc<Catalogue>) -> Self {
        Self {
            breakers: Breakers::new(model.provider(), limits),
            model,
            limits,
            catalogue,
        }
    }

    /// One attempt, up to the first thing that the model says or does.
    async fn begin(&self, tenant: &TenantId, request: ChatRequest) -> Result<Running, ServiceError> {
        let mut rest = self.model.chat(tenant, request).await?;
        let mut head = VecDeque::new();
        while let Some(delta) = rest.next().await {
            let delta = delta?;
            let is_begun = matches!(
                delta,
                ChatDelta::Text(_) | ChatDelta::Working | ChatDelta::Finish { .. }
            );
            if let ChatDelta::Finish { reason, .. } = delta {
                self.worded(reason)?;
            }
            head.push_back(delta);
            if is_begun {
                break;
            }
        }
        Ok(Running {
            layer: self.clone(),
            head,
            rest,
            has_text: false,
        })
    }

    /// An end before the first word. Only what the provider withholds is an answer all the same.
    fn worded(&self, reason: FinishReason) -> Result<(), ServiceError> {
        let service = self.model.provider();
        match reason {
            FinishReason::Filtered => Ok(()),
            FinishReason::Length => Err(ServiceError::Refused {
                service,
                message: "the model used all its tokens before the first word: raise the limit of tokens of an answer"
                    .to_owned(),
            }),
            FinishReason::Stop | FinishReason::TimeBudget => Err(ServiceError::Corrupt {
                service,
                message: "the model ended its answer without a word: ask again, or choose another model".to_owned(),
            }),
        }
    }
}

impl fmt::Debug for Resilient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resilient")
            .field("provider", &self.model.provider())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl ChatModel for Resilient {
    fn provider(&self) -> &'static str {
        self.model.provider()
    }

    /// Ends with the first token, or with an error that is worth no further try.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call or its stream drops the model's.
    async fn chat(&self, tenant: &TenantId, request: ChatRequest) -> Result<ChatStream, ServiceError> {
        self.catalogue.check(self.model.provider(), &request)?;
        let tries = Tries {
            service: self.model.provider(),
            model: &request.model,
            limits: self.limits,
            breakers: &self.breakers,
            answer_by: request.answer_by,
        };
        let running = tries.until_answered(|| self.begin(tenant, request.clone())).await?;
        Ok(Box::pin(stream::unfold(Some(running), Running::step)))
    }

    fn reads_prompts(&self, model: &ModelName) -> bool {
        self.model.reads_prompts(model)
    }

    async fn ping(&self) -> Result<(), ServiceError> {
        self.model.ping().await
    }

    fn held_back(&self) -> Vec<ModelName> {
        self.breakers.held_back()
    }
}

/// An answer that has begun.
struct Running {
    layer: Resilient,
    head: VecDeque<ChatDelta>,
    rest: ChatStream,
    has_text: bool,
}

impl Running {
    async fn step(running: Option<Self>) -> Option<(Result<ChatDelta, ServiceError>, Option<Self>)> {
        let mut running = running?;
        let delta = running.next().await?;
        let goes_on = delta.is_ok();
        Some((delta, goes_on.then_some(running)))
    }

    async fn next(&mut self) -> Option<Result<ChatDelta, ServiceError>> {
        let delta = match self.head.pop_front() {
            Some(delta) => delta,
            None => match timeout(self.layer.limits.idle_timeout, self.rest.next()).await {
                Ok(delta) => match delta? {
                    Ok(delta) => delta,
                    Err(error) => return Some(Err(error)),
                },
                Err(_) => {
                    return Some(Err(ServiceError::Timeout {
                        service: self.layer.model.provider(),
                        limit: self.layer.limits.idle_timeout,
                    }));
                }
            },
        };
        match delta {
            ChatDelta::Text(_) => self.has_text = true,
            ChatDelta::Finish { reason, .. } if !self.has_text => {
                if let Err(error) = self.layer.worded(reason) {
                    return Some(Err(error));
                }
            }
            _ => {}
        }
        Some(Ok(delta))
    }
}

/// `answer` with the name of the model that gives it at its beginning, for one that answers in another's place.
#[must_use]
pub fn told_who_answers(model: ModelName, answer: ChatStream) -> ChatStream {
    let told = stream::iter([Ok(ChatDelta::AnsweredBy(model))]);
    Box::pin(told.chain(answer))
}
