//! Writes what was said and what it cost, once per run.

use std::{fmt, sync::Arc};

use stepgraph::{Context, Node, NodeError};

use crate::{
    generate::{Answer, ChatSettings},
    prompt::visible,
    service::{ChatLog, ChatTurn, ServiceError},
};

/// A question and its answer, to be logged.
#[derive(Debug, Clone)]
pub struct Turn {
    /// The chat session, as the caller sent it.
    pub session: String,
    /// What was asked.
    pub question: String,
    /// When the question was accepted.
    pub asked_at: chrono::DateTime<chrono::Utc>,
    /// What was answered.
    pub answer: Option<Answer>,
    /// Whether the message is above the tenant's limit, and booked as such.
    pub overage: bool,
    /// Whether a service failed on the way.
    pub degraded: bool,
}

/// What a node emits that has nothing to say: nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silent {}

/// Writes the rows of the chat log and books usage. Keyed by the run's id, so that a second try changes nothing.
#[derive(Clone)]
pub struct Log {
    log: Arc<dyn ChatLog>,
}

impl Log {
    /// Writes to `log`.
    #[must_use]
    pub fn new(log: Arc<dyn ChatLog>) -> Self {
        Self { log }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

#[stepgraph::async_trait]
impl Node for Log {
    type Input = Turn;
    type Output = ();
    type Event = Silent;

    async fn run(&self, turn: Turn, ctx: Context<Silent>) -> Result<(), NodeError> {
        // This step began when the answer was kept, so its recorded time is the answer's end.
        let latency = (ctx.now() - turn.asked_at).to_std().unwrap_or_default();
        let Turn {
            session,
            question,
            asked_at,
            answer,
            overage,
            degraded,
        } = turn;
        let answer = answer
            .ok_or_else(|| NodeError::terminal("there is no answer to log: lead to this node from one that answers"))?;
        let Answer {
            text,
            sources,
            usage,
            model,
            finish_reason: _,
        } = answer;
        // Where nobody knows the price, nothing is booked but the tokens.
        let settings = ctx.provided::<ChatSettings>().ok();
        let cost = settings.and_then(|settings| settings.prices.cost(&model, &usage));
        let turn = ChatTurn {
            run: ctx.run_id(),
            session,
            // What cannot be seen would be read by the next program that takes the log for a prompt.
            question: visible(&question),
            answer: visible(&text),
            sources,
            usage,
            model,
            latency,
            cost: cost.unwrap_or_default(),
            overage,
            degraded,
            asked_at,
        };
        let write = || async {
            let written = self.log.write(ctx.tenant(), &turn).await;
            written.map_err(ServiceError::into_node_error)
        };
        ctx.recorded("chat log", &(&turn.question, &turn.answer), write).await
    }
}
