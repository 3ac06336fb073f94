//! The product's graphs as threads and runs.

use std::{sync::Arc, time::Duration};

use stepgraph_graphs::{ChatEvent, ChatState, IngestState};
use stepgraph_nodes::service::{Client, Clients};

use super::{
    GraphChat, GraphIngest,
    chat::{ChatError, RECOVERY_BUDGET},
};
use crate::{
    error::ApiError,
    limit::Limiter,
    serving::{Heard, Occasion, Refusal, RunFor, Serve},
    trace,
};

impl GraphChat {
    /// The chat graph for `/threads`. A run counts against the tenant's hourly limit as a message does.
    pub(super) fn served(&self, limiter: Limiter, budget: Duration) -> Serve<ChatState> {
        let (chat, limiter) = (self.clone(), Arc::new(limiter));
        let serve = Serve::with_events(self.graph.clone(), heard);
        serve.prepare(move |run, whom| {
            let (chat, limiter) = (chat.clone(), Arc::clone(&limiter));
            async move {
                let client = client(&*chat.clients, &whom).await?;
                let budget = match whom.occasion {
                    Occasion::Asked => {
                        let now = trace::now();
                        let quota = limiter.take(&client, now).await.map_err(Refusal)?;
                        // What such a run books is its own input's business: above the limit there is none here.
                        if let Some(quota) = quota.filter(|quota| quota.is_overage()) {
                            return Err(Refusal(quota.refusal(now)));
                        }
                        budget
                    }
                    Occasion::Recovered => RECOVERY_BUDGET,
                };
                let settings = chat.settings(&client, budget).map_err(|error| match error {
                    ChatError::Model(error) => Refusal(ApiError::service(&error)),
                    other => Refusal::unavailable(other.to_string()),
                })?;
                Ok(run.provide(settings).provide(Self::search_limits(&client)))
            }
        })
    }
}

impl GraphIngest {
    /// The ingestion graph for `/threads`: brings in what was uploaded before.
    pub(super) fn served(&self) -> Serve<IngestState> {
        Serve::with_events(self.graph.clone(), |_progress| Heard::Nothing)
    }
}

async fn client(clients: &dyn Clients, whom: &RunFor) -> Result<Client, Refusal> {
    let found = clients.by_id(whom.tenant.as_str()).await;
    let found = found.map_err(|error| Refusal(ApiError::service(&error)))?;
    found.ok_or_else(|| Refusal::unknown_caller("this client is no longer served"))
}

/// The answer is told piece by piece; whole it stands in the state.
fn heard(event: ChatEvent) -> Heard {
    match event {
        ChatEvent::Found(passages) => Heard::Custom(serde_json::json!({"found": passages})),
        ChatEvent::Text(text) => Heard::Token(text),
        ChatEvent::Answered(_) => Heard::Nothing,
    }
}
