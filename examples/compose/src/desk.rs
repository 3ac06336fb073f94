//! The graph: an answer is drafted from the documents, a person looks at it, and it is sent.
//!
//! ```text
//! START -> retrieve -> generate -> review -> send -> END
//! ```
//!
//! `retrieve` and `generate` are nodes of `stepgraph-nodes`; they know nothing of this graph. The rest is this file.

use std::{path::PathBuf, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stepgraph::{Ask, BuildErrors, Context, Effect, NodeError, prelude::*};
use stepgraph_nodes::{
    generate::{Answered, Answering, ChatSettings, Generate, Question},
    retrieve::{Found, Query, Retrieve, RetrieveLimits, Searched},
    service::{Usage, VectorStore},
};
use tokio::{fs::OpenOptions, io::AsyncWriteExt};

/// What flows through the graph. The tenant is not in it: it belongs to the run.
#[derive(State, Clone, Debug, Serialize, Deserialize)]
#[state(event = DeskEvent, input_derive(JsonSchema))]
pub struct Desk {
    #[state(input)]
    question: String,
    /// How long a reply is held back before it leaves.
    #[state(input, default = 0)]
    hold_seconds: u64,
    #[state(per_run)]
    found: Found,
    #[state(per_run)]
    draft: Option<String>,
    #[state(per_run)]
    reply: Option<String>,
    /// Every reply that has left, over all runs of the thread.
    #[state(reducer = Append)]
    sent: Vec<String>,
}

/// What a reader of the stream sees as it happens.
pub enum DeskEvent {
    Searched(usize),
    Token(String),
}

/// The question to a person, with the type of its answer.
#[derive(Serialize, Ask)]
#[ask(name = "approve", answer = Verdict)]
struct Approve {
    question: String,
    draft: String,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    approved: bool,
    /// What is sent instead of the draft.
    correction: Option<String>,
}

/// The graph over a knowledge base; replies go to a file.
pub fn desk(vectors: Arc<dyn VectorStore>, outbox: PathBuf) -> Result<Graph<Desk>, BuildErrors> {
    let mut g = Graph::<Desk>::builder("desk");
    g.requires::<ChatSettings>();
    let retrieve = g.node("retrieve", Retrieve::new(vectors, None, RetrieveLimits::default()));
    let generate = g.node("generate", Generate);
    let review = g.node("review", review);
    let send = g.node("send", move |desk, ctx| send(desk, ctx, outbox.clone()));
    g.edge(START, retrieve)
        .edge(retrieve, generate)
        .edge(generate, review)
        .edge(review, send)
        .edge(send, END);
    g.build()
}

/// The run ends at the question and holds nothing; an answer enters this node again.
async fn review(desk: Arc<Desk>, ctx: Context<DeskEvent>) -> Result<DeskUpdate, NodeError> {
    let draft = desk.draft.clone().unwrap_or_default();
    let verdict = ctx.ask(Approve {
        question: desk.question.clone(),
        draft: draft.clone(),
    })?;
    Ok(match verdict {
        Verdict {
            correction: Some(correction),
            ..
        } => Desk::update().reply(correction),
        Verdict { approved: true, .. } => Desk::update().reply(draft),
        Verdict { approved: false, .. } => Desk::update(),
    })
}

/// A reply leaves once, however often this node is entered: what was done is in the journal.
async fn send(desk: Arc<Desk>, ctx: Context<DeskEvent>, outbox: PathBuf) -> Result<DeskUpdate, NodeError> {
    let Some(reply) = desk.reply.clone() else {
        return Ok(Desk::update());
    };
    tokio::time::sleep(Duration::from_secs(desk.hold_seconds)).await;
    ctx.once("append", Effect::other(|| append(outbox.clone(), reply.clone())))
        .await?;
    Ok(Desk::update().sent([reply]))
}

async fn append(outbox: PathBuf, reply: String) -> Result<(), NodeError> {
    let mut file = OpenOptions::new().create(true).append(true).open(outbox).await?;
    file.write_all(format!("{reply}\n").as_bytes()).await?;
    file.sync_all().await?;
    Ok(())
}

// What the nodes of others read of this state, and how their outputs change it.

impl FromState<Desk> for Query {
    fn from_state(desk: &Arc<Desk>) -> Self {
        Self {
            text: desk.question.clone(),
        }
    }
}

impl From<Found> for DeskUpdate {
    fn from(found: Found) -> Self {
        Desk::update().found(found)
    }
}

impl FromState<Desk> for Question {
    fn from_state(desk: &Arc<Desk>) -> Self {
        Self {
            question: desk.question.clone(),
            passages: desk.found.passages.clone(),
            history: Vec::new(),
            used: Usage::default(),
        }
    }
}

impl From<Answered> for DeskUpdate {
    fn from(answered: Answered) -> Self {
        Desk::update().draft(answered.answer.text)
    }
}

impl From<Searched> for DeskEvent {
    fn from(searched: Searched) -> Self {
        Self::Searched(searched.passages)
    }
}

impl From<Answering> for DeskEvent {
    fn from(answering: Answering) -> Self {
        match answering {
            Answering::Text(text) => Self::Token(text),
            Answering::Whole(_) => Self::Token(String::new()),
        }
    }
}
