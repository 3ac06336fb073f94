//! Makes the answer: prompt, model, tokens as they come, sources, usage.

mod draft;

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use stepgraph::{Context, Node, NodeError};
use tokio::time::Instant;

use crate::{
    domains::Domains,
    prompt::{Nonce, Prompt, PromptLimits, Scope},
    retrieve::{GoneOn, Query, Retrieve, ScoredPassage},
    screen::Screen,
    service::{
        Catalogue, ChatModel, ChatRequest, FinishReason, Message, ModelName, Passage, Source, Usage,
        embedded::NO_INFORMATION,
    },
    trace,
};
use draft::Draft;

/// What the tenant's run is answered with: provided to each run, since it differs by tenant and is nobody's input.
#[derive(Clone)]
pub struct ChatSettings {
    /// The provider of the model.
    pub model: Arc<dyn ChatModel>,
    /// The model's name at its provider.
    pub name: ModelName,
    /// The tenant's own instructions.
    pub system_prompt: Option<String>,
    /// What an answer may rest on.
    pub scope: Scope,
    /// How much of the session and of the passages a prompt holds.
    pub prompt: PromptLimits,
    /// Where the links of an answer may lead.
    pub link_hosts: Domains,
    /// Most tokens of an answer.
    pub completion_tokens_max: u32,
    /// 0 to 2; `None` leaves it to the model.
    pub temperature: Option<f32>,
    /// The model that answers while the first one cannot.
    pub fallback: Option<ModelName>,
    /// What models cost.
    pub prices: Arc<Catalogue>,
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
    /// What this turn has used so far; the answer's usage holds it too.
    pub used: Usage,
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
            scope: settings.scope,
            history: &ask.history,
            passages: &passages,
            question: &ask.question,
        };
        let rendered = prompt.render(Nonce::new(ctx.uuid("fence").as_u128()), settings.prompt);
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
            answer_by: Some(settings.answer_by),
            fallback: settings.fallback.clone(),
        };
        let ask_model = || {
            let screen = screen(&request, &settings.link_hosts);
            Draft::new(&settings, &scored, screen, ask.used).fill(&settings, request.clone(), &ctx)
        };
        let asked = ctx.recorded("chat model", &request, ask_model);
        let answer: Answer = trace::carried(&ctx, asked).await?;
        ctx.emit(Answering::Whole(answer.clone())).await;
        Ok(Answered {
            question: ask.question,
            answer,
        })
    }
}

/// A question with the search that its passages come from.
#[derive(Debug, Clone)]
pub struct Searching {
    /// What was looked for.
    pub query: Query,
    /// What to answer.
    pub question: Question,
}

/// [`Generate`] for runs that may go on after a pause: one that does ([`GoneOn`]) rests its answer on such passages alone as
/// are still there.
#[derive(Debug, Clone)]
pub struct GenerateAnew {
    retrieve: Retrieve,
}

impl GenerateAnew {
    /// Looks again with what has searched.
    #[must_use]
    pub const fn new(retrieve: Retrieve) -> Self {
        Self { retrieve }
    }
}

#[stepgraph::async_trait]
impl Node for GenerateAnew {
    type Input = Searching;
    type Output = Answered;
    type Event = Answering;

    async fn run(&self, searching: Searching, ctx: Context<Answering>) -> Result<Answered, NodeError> {
        let Searching { query, mut question } = searching;
        if !question.passages.is_empty() && ctx.provided::<GoneOn>().is_ok() {
            question.passages = self.retrieve.still_found(&query, question.passages, &ctx).await;
        }
        Generate.run(question, ctx).await
    }
}

/// What stands between the model and the reader: the system message stays inside, but for words that documents, visitor or
/// the template's own phrase for "no answer" say as well.
fn screen(request: &ChatRequest, hosts: &Domains) -> Screen {
    let system = request.messages.first().map_or("", |message| message.content.as_str());
    let texts = request.passages.iter().map(|passage| passage.text.as_str());
    let open: Vec<&str> = texts.chain([request.question.as_str(), NO_INFORMATION]).collect();
    Screen::new(system, &open, hosts.clone(), request.passages.len())
}
