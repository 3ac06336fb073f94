//! The widget's chat: understand a follow-up, retrieve, answer from what was found or say that there is nothing, log.
//!
//! ```mermaid
#![doc = include_str!("../drawings/widget_chat.mmd")]
//! ```

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use stepgraph::prelude::*;
use stepgraph::{BuildErrors, Retry};
use stepgraph_nodes::{
    Services,
    generate::{Answer, Answered, Answering, ChatSettings, GenerateAnew, Question, Searching},
    log::{Log, Silent, Turn},
    retrieve::{Found, Query, Retrieve, RetrieveLimits, Searched},
    rewrite::{FollowUp, Rewrite, Standalone},
    service::{FinishReason, Message, Role, Timestamp, Usage, embedded::NO_INFORMATION},
    trace::TraceParent,
};

use crate::recent::Recent;

/// What is said when nothing supports an answer.
pub const FALLBACK: &str = NO_INFORMATION;

/// A chat session. The tenant is not in it: it belongs to the run.
#[derive(State, Clone, Debug, Serialize, Deserialize)]
#[state(event = ChatEvent)]
pub struct ChatState {
    /// What is asked in this turn.
    #[state(input)]
    question: String,
    /// The session as its caller writes it.
    #[state(input)]
    session: String,
    /// When the question was accepted.
    #[state(input)]
    asked_at: Timestamp,
    /// Whether the message is above the tenant's limit, and booked as such.
    #[state(input, default = false)]
    overage: bool,
    /// Whether the model may answer although nothing was found.
    #[state(input, default = false)]
    open_ended: bool,
    /// Whether the model can put a follow-up question into words that stand alone.
    #[state(input, default = false)]
    rewrites: bool,
    /// The trace of the request that brought the question, under which the run also goes on in a later process.
    #[state(input, default = None)]
    trace: Option<TraceParent>,
    /// The question as it stands alone, where it was rewritten.
    #[state(per_run)]
    standalone: Option<Standalone>,
    /// What this turn's answer may rest on.
    #[state(per_run)]
    found: Found,
    /// This turn's answer.
    #[state(per_run)]
    answer: Option<Answer>,
    /// What was said so far; of a long session the latest turns.
    #[state(reducer = Recent)]
    messages: Vec<Message>,
}

impl ChatState {
    /// This turn's answer, once there is one.
    #[must_use]
    pub const fn answer(&self) -> Option<&Answer> {
        self.answer.as_ref()
    }

    /// The trace that this turn is part of.
    #[must_use]
    pub const fn trace(&self) -> Option<TraceParent> {
        self.trace
    }

    /// What this turn has used before its answer.
    fn used(&self) -> Usage {
        self.standalone
            .as_ref()
            .map(|standalone| standalone.usage)
            .unwrap_or_default()
    }

    /// What was said so far, oldest first; of a long session the latest turns.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }
}

/// What a reader of the run sees as it happens.
#[derive(Debug, Clone, PartialEq)]
pub enum ChatEvent {
    /// So many passages support an answer.
    Found(usize),
    /// The next piece of the answer.
    Text(String),
    /// The whole answer; kept when its step is saved.
    Answered(Answer),
}

#[derive(Route, Clone, Copy)]
enum Asked {
    First,
    FollowUp,
}

#[derive(Route, Clone, Copy)]
enum Support {
    Found,
    Nothing,
}

/// The chat graph over `services`.
///
/// # Errors
/// None in practice: the wiring below is tested.
pub fn widget_chat(services: &Services) -> Result<Graph<ChatState>, BuildErrors> {
    let mut g = Graph::<ChatState>::builder("widget_chat");
    g.requires::<ChatSettings>();

    let rewrite = g.node("rewrite", Rewrite);
    let search = Retrieve::new(
        services.vectors.clone(),
        services.embedder.clone(),
        RetrieveLimits::default(),
    );
    let retrieve = g.node("retrieve", search.clone());
    let generate = g.node("generate", GenerateAnew::new(search));
    let fallback = g.node("fallback", fallback);
    let log = g.node("log", Log::new(services.log.clone()));

    g.branch(START, asked, |asked| match asked {
        Asked::First => to(retrieve),
        Asked::FollowUp => to(rewrite),
    });
    g.edge(rewrite, retrieve);
    g.branch(retrieve, support, |support| match support {
        Support::Found => to(generate),
        Support::Nothing => to(fallback),
    });
    g.edge(generate, log).edge(fallback, log).edge(log, END);
    g.policy(
        log,
        Policy::new()
            .timeout(Duration::from_secs(10))
            .retry(Retry::attempts(LOG_ATTEMPTS).delay_max(LOG_WAIT_MAX)),
    );
    g.build()
}

/// An answer that was given is logged and booked once the records are back, if that is within a day. A process that ends
/// before leaves it to the next.
const LOG_ATTEMPTS: NonZeroU32 = NonZeroU32::new(9_000).unwrap();
const LOG_WAIT_MAX: Duration = Duration::from_secs(10);

fn asked(state: &ChatState) -> Asked {
    if state.rewrites && !state.messages.is_empty() {
        Asked::FollowUp
    } else {
        Asked::First
    }
}

fn support(state: &ChatState) -> Support {
    // A search that failed must not cost the visitor the answer: the model is asked without passages.
    let ask = state.open_ended || state.found.degraded || !state.found.passages.is_empty();
    if ask { Support::Found } else { Support::Nothing }
}

async fn fallback(state: Arc<ChatState>, ctx: Context<ChatEvent>) -> Result<Answered, NodeError> {
    let settings = ctx.provided::<ChatSettings>()?;
    // The model that would have answered, by which what was used before is priced.
    let model = settings.name.clone();
    let answer = Answer {
        text: FALLBACK.to_owned(),
        sources: Vec::new(),
        usage: state.used(),
        model,
        finish_reason: FinishReason::Stop,
    };
    ctx.emit(ChatEvent::Text(answer.text.clone())).await;
    ctx.emit(ChatEvent::Answered(answer.clone())).await;
    Ok(Answered {
        question: state.question.clone(),
        answer,
    })
}

// What the nodes read of this state, and how their outputs change it.

impl FromState<ChatState> for Query {
    fn from_state(state: &Arc<ChatState>) -> Self {
        let standalone = state.standalone.as_ref().map(|standalone| &standalone.question);
        Self {
            text: standalone.unwrap_or(&state.question).clone(),
        }
    }
}

impl FromState<ChatState> for FollowUp {
    fn from_state(state: &Arc<ChatState>) -> Self {
        Self {
            question: state.question.clone(),
            history: state.messages.clone(),
        }
    }
}

impl From<Standalone> for ChatStateUpdate {
    fn from(standalone: Standalone) -> Self {
        ChatState::update().standalone(standalone)
    }
}

impl From<Found> for ChatStateUpdate {
    fn from(found: Found) -> Self {
        ChatState::update().found(found)
    }
}

impl FromState<ChatState> for Searching {
    fn from_state(state: &Arc<ChatState>) -> Self {
        Self {
            query: Query::from_state(state),
            question: Question {
                question: state.question.clone(),
                passages: state.found.passages.clone(),
                history: state.messages.clone(),
                used: state.used(),
            },
        }
    }
}

impl From<Answered> for ChatStateUpdate {
    fn from(Answered { question, answer }: Answered) -> Self {
        let said = [
            Message {
                role: Role::User,
                content: question,
            },
            Message {
                role: Role::Assistant,
                content: answer.text.clone(),
            },
        ];
        ChatState::update().answer(answer).messages(said)
    }
}

impl FromState<ChatState> for Turn {
    fn from_state(state: &Arc<ChatState>) -> Self {
        Self {
            session: state.session.clone(),
            question: state.question.clone(),
            asked_at: state.asked_at,
            answer: state.answer.clone(),
            overage: state.overage,
            degraded: state.found.degraded,
        }
    }
}

impl From<Searched> for ChatEvent {
    fn from(searched: Searched) -> Self {
        Self::Found(searched.passages)
    }
}

impl From<Answering> for ChatEvent {
    fn from(answering: Answering) -> Self {
        match answering {
            Answering::Text(text) => Self::Text(text),
            Answering::Whole(answer) => Self::Answered(answer),
        }
    }
}

impl From<Silent> for ChatEvent {
    fn from(silent: Silent) -> Self {
        match silent {}
    }
}
