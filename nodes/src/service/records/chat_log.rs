//! What was said, and what readers thought of it.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stepgraph::{RunId, TenantId};

use super::Cost;
use crate::service::{ModelName, ServiceError, Usage};

/// What an answer rests on, as a reader sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The document.
    pub document_id: String,
    /// Its title.
    pub title: String,
    /// At most 200 characters of the text the answer rests on.
    pub excerpt: String,
    /// Higher is better.
    pub score: f32,
    /// Which chunk of the document.
    pub chunk_index: u32,
}

/// One question and its answer, as they are logged: two rows (user, assistant), and the usage of the day and the hour.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatTurn {
    /// The run that made the answer; a second write for the same run changes nothing.
    pub run: RunId,
    /// The chat session, as the caller sent it.
    pub session: String,
    /// What was asked.
    pub question: String,
    /// What was answered.
    pub answer: String,
    /// What the answer rests on.
    pub sources: Vec<Source>,
    /// The tokens it took.
    pub usage: Usage,
    /// What they cost the operator.
    pub cost: Cost,
    /// Whether the message came above the tenant's limit and was served all the same.
    pub overage: bool,
    /// The model that answered, by its real name.
    pub model: ModelName,
    /// From acceptance to the end of the answer.
    pub latency: Duration,
    /// Whether a service failed on the way and the answer was made without it.
    pub degraded: bool,
    /// When the question was accepted.
    pub asked_at: DateTime<Utc>,
}

/// Keeps what was said and what it cost.
#[async_trait]
pub trait ChatLog: Send + Sync + 'static {
    /// Writes both rows and books the usage of the day and the hour, all in one transaction and once per run. A message
    /// above the limit is booked as overage, and the day's billing event of the tenant follows it.
    async fn write(&self, tenant: &TenantId, turn: &ChatTurn) -> Result<(), ServiceError>;

    /// The latest `limit` turns of a session, oldest first.
    async fn session(&self, tenant: &TenantId, session: &str, limit: u32) -> Result<Vec<ChatTurn>, ServiceError>;

    /// Deletes at most `limit` turns that were asked before `time`, with what readers thought of them, and says how many.
    /// What was booked for them stays.
    async fn delete_before(&self, tenant: &TenantId, time: DateTime<Utc>, limit: u32) -> Result<u64, ServiceError>;
}

/// What a reader thought of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Rating {
    /// It helped.
    Up,
    /// It did not.
    Down,
}

/// A reader's rating of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feedback {
    /// The run that made the answer; readers know it as the trace.
    pub run: RunId,
    /// What they thought.
    pub rating: Rating,
    /// Their own words.
    pub comment: Option<String>,
    /// When they said so.
    pub rated_at: DateTime<Utc>,
}

/// Keeps what readers thought of answers.
#[async_trait]
pub trait Feedbacks: Send + Sync + 'static {
    /// Keeps a rating in place of an earlier one of the same run, and says whether the tenant's log has that run. An
    /// answer reaches the log a moment after its reader.
    async fn rate(
        &self,
        tenant: &TenantId,
        run: RunId,
        rating: Rating,
        comment: Option<&str>,
    ) -> Result<bool, ServiceError>;

    /// The rating that counts, or `None`.
    async fn rating(&self, tenant: &TenantId, run: RunId) -> Result<Option<Feedback>, ServiceError>;
}
