//! Makes the answer: prompt, model, tokens as they come, sources, usage.

use std::{fmt, sync::Arc};

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use stepgraph::{Context, Node, NodeError};
use tokio::time::Instant;

use crate::{
    prompt::{Nonce, Prompt, PromptLimits},
    retrieve::ScoredPassage,
    service::{
        ChatDelta, ChatModel, ChatRequest, FinishReason, Message, ModelName, Passage, ServiceError, Source, Usage,
    },
};

/// What the tenant's run is answered with: provided to each run, since it differs by tenant and is nobody's input.
#[derive(Clone)]
pub struct ChatSettings {
    /// The provider of the model.
    pub model: Arc<dyn ChatModel>,
    /// The model's name at its provider.
    pub name: ModelName,
    /// The tenant's own instructions.
    pub system_prompt: Option<String>,
    /// Most tokens of an answer.
    pub completion_tokens_max: u32,
    /// 0 to 2.
    pub temperature: f32,
    /// When the answer is ended with what there is. It counts from the question's acceptance, so that a wait for the
    /// session's turn is part of it.
    pub answer_by: Instant,
}

impl fmt::Debug for ChatSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatSettings")
            .field("provider", &self.model.provider())
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What to answer.
#[derive(Debug, Clone)]
pub struct Question {
    /// The question as typed.
    pub question: String,
    /// What the answer may rest on, best first.
    pub passages: Vec<ScoredPassage>,
    /// What was said before in this session.
    pub history: Vec<Message>,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// What it rests on, at most one source a document.
    pub sources: Vec<Source>,
    /// What it cost.
    pub usage: Usage,
    /// The model that gave it, by its real name.
    pub model: ModelName,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// A question with its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// The question as typed.
    pub question: String,
    /// Its answer.
    pub answer: Answer,
}

/// What the node emits.
#[derive(Debug, Clone, PartialEq)]
pub enum Answering {
    /// The next piece of the text.
    Text(String),
    /// The answer is whole. It is kept when the step that made it is saved.
    Whole(Answer),
}

/// Asks the chat model that the run was provided with ([`ChatSettings`]).
#[derive(Debug, Clone, Copy, Default)]
pub struct Generate;

#[stepgraph::async_trait]
impl Node for Generate {
    type Input = Question;
    type Output = Answered;
    type Event = Answering;

    async fn run(&self, ask: Question, ctx: Context<Answering>) -> Result<Answered, NodeError> {
        let settings = ctx.provided::<ChatSettings>()?.clone();
        let mut scored = ask.passages;
        let mut passages: Vec<Passage> = scored.iter().map(|scored| scored.passage.clone()).collect();
        let prompt = Prompt {
            instructions: settings.system_prompt.as_deref(),
            history: &ask.history,
            passages: &passages,
            question: &ask.question,
        };
        let rendered = prompt.render(Nonce::new(ctx.uuid("fence").as_u128()), PromptLimits::default());
        // What did not fit into the prompt is no source of the answer.
        passages.truncate(rendered.passages_used);
        scored.truncate(rendered.passages_used);
        let request = ChatRequest {
            model: settings.name.clone(),
            messages: rendered.messages,
            question: ask.question.clone(),
            passages,
            completion_tokens_max: settings.completion_tokens_max,
            temperature: settings.temperature,
        };
        let ask_model = || Draft::new(&settings, &scored).fill(&settings, request.clone(), &ctx);
        let answer: Answer = ctx.recorded("chat model", &request, ask_model).await?;
        ctx.emit(Answering::Whole(answer.clone())).await;
        Ok(Answered {
            question: ask.question,
            answer,
        })
    }
}

/// An answer that grows.
struct Draft {
    text: String,
    sources: Vec<Source>,
    usage: Usage,
    model: ModelName,
    finish_reason: FinishReason,
}

impl Draft {
    fn new(settings: &ChatSettings, passages: &[ScoredPassage]) -> Self {
        let sources = sources(passages.iter().map(|scored| (&scored.passage, scored.score)));
        Self {
            text: String::new(),
            sources,
            usage: Usage::default(),
            model: settings.name.clone(),
            finish_reason: FinishReason::Stop,
        }
    }

    async fn fill(
        mut self,
        settings: &ChatSettings,
        request: ChatRequest,
        ctx: &Context<Answering>,
    ) -> Result<Answer, NodeError> {
        let entered = Instant::now();
        let prompt_tokens = crate::tokens::count_prompt(&request.messages);
        let late = || ServiceError::Timeout {
            service: "chat model",
            limit: entered.elapsed(),
        };
        let budget = tokio::time::sleep_until(settings.answer_by);
        tokio::pin!(budget);
        let begun = tokio::select! {
            begun = settings.model.chat(ctx.tenant(), request) => begun,
            () = &mut budget => Err(late()),
        };
        let mut deltas = begun.map_err(ServiceError::into_node_error)?;
        loop {
            let delta = tokio::select! {
                biased;
                delta = deltas.next() => delta,
                () = &mut budget => {
                    if self.text.is_empty() {
                        return Err(NodeError::terminal(late()));
                    }
                    self.finish_reason = FinishReason::TimeBudget;
                    self.usage = Usage { prompt_tokens, completion_tokens: crate::tokens::count(&self.text), cached_tokens: 0 };
                    break;
                }
            };
            match delta {
                None => break,
                // What was read cannot be taken back, so nothing is tried again once there was text.
                Some(Err(error)) if !self.text.is_empty() => return Err(NodeError::terminal(error)),
                Some(Err(error)) => return Err(error.into_node_error()),
                Some(Ok(ChatDelta::Text(text))) => {
                    self.text.push_str(&text);
                    ctx.emit(Answering::Text(text)).await;
                }
                Some(Ok(ChatDelta::Cited(passages))) => self.cite(&passages),
                Some(Ok(ChatDelta::Unsupported)) => self.sources.clear(),
                Some(Ok(ChatDelta::Finish { reason, usage })) => {
                    self.finish_reason = reason;
                    self.usage = usage;
                }
            }
        }
        let Self {
            text,
            sources,
            usage,
            model,
            finish_reason,
        } = self;
        Ok(Answer {
            text,
            sources,
            usage,
            model,
            finish_reason,
        })
    }

    /// The sources become exactly these passages, with the scores they were found with.
    fn cite(&mut self, passages: &[Passage]) {
        let score = |passage: &Passage| {
            let known = self
                .sources
                .iter()
                .find(|source| source.document_id == passage.document_id.as_str());
            known.map_or(0.0, |source| source.score)
        };
        let cited: Vec<_> = passages.iter().map(|passage| (passage, score(passage))).collect();
        self.sources = sources(cited.into_iter());
    }
}

/// At most one source a document, with an excerpt that a reader can take in.
fn sources<'a>(passages: impl Iterator<Item = (&'a Passage, f32)>) -> Vec<Source> {
    let mut sources: Vec<Source> = Vec::new();
    for (passage, score) in passages {
        if sources
            .iter()
            .all(|source| source.document_id != passage.document_id.as_str())
        {
            sources.push(Source {
                document_id: passage.document_id.as_str().to_owned(),
                title: passage.title.clone(),
                excerpt: excerpt(&passage.text),
                score,
                chunk_index: passage.chunk_index,
            });
        }
    }
    sources
}

/// The first 200 characters, ended at a word.
fn excerpt(text: &str) -> String {
    const EXCERPT_CHARS_MAX: usize = 200;
    let text = text.trim();
    let Some((end, _)) = text.char_indices().nth(EXCERPT_CHARS_MAX) else {
        return text.to_owned();
    };
    let (head, _) = text.split_at(end);
    let words = head
        .rfind(char::is_whitespace)
        .map_or(head, |space| head.split_at(space).0);
    words.trim_end().to_owned()
}
