//! How long chats are kept: each tenant's own number of days, else the operator's.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use stepgraph_nodes::service::{ChatLog, Client, Clients, NamedRequests, ServiceError};
use tokio_util::sync::CancellationToken;

/// How often a server looks for chats that are too old.
const EVERY: Duration = Duration::from_hours(24);
/// Clients read at once.
const PAGE: u32 = 100;
/// Turns deleted in one transaction.
const TURNS: u32 = 500;

/// Deletes chats that are older than they may be, and answers that are kept for repeats no more.
pub(crate) struct Expiry {
    pub(crate) clients: Arc<dyn Clients>,
    pub(crate) log: Arc<dyn ChatLog>,
    pub(crate) named: Arc<dyn NamedRequests>,
    /// Where the tenant says nothing; `None` keeps them.
    pub(crate) days: Option<u32>,
}

impl Expiry {
    /// At once and then daily, until it is told to stop.
    pub(crate) async fn daily(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "the age of chats is told by the clock on the wall"
            )]
            let now = Utc::now();
            tokio::select! {
                () = stop.cancelled() => return,
                expired = self.all(now) => match expired {
                    Ok(0) => {}
                    Ok(deleted) => tracing::info!(deleted, "chats were older than they may be and are deleted"),
                    Err(error) => tracing::error!(%error, "old chats cannot be deleted: tried again tomorrow"),
                },
            }
        }
    }

    /// Those of all tenants; says how many there were.
    pub(crate) async fn all(&self, now: DateTime<Utc>) -> Result<u64, ServiceError> {
        let (mut deleted, mut after) = (0_u64, None);
        loop {
            let page = self.clients.page(after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { return Ok(deleted) };
            after = Some(last.tenant.clone());
            for client in &page {
                self.named.forget_old(&client.tenant).await?;
                deleted = deleted.saturating_add(self.tenant(client, now).await?);
            }
        }
    }

    /// Those of one tenant.
    pub(crate) async fn tenant(&self, client: &Client, now: DateTime<Utc>) -> Result<u64, ServiceError> {
        let days = client.settings.retention_days.or(self.days);
        let Some(before) = days.and_then(|days| now.checked_sub_signed(TimeDelta::days(days.into()))) else {
            return Ok(0);
        };
        let mut deleted = 0_u64;
        loop {
            match self.log.delete_before(&client.tenant, before, TURNS).await? {
                0 => return Ok(deleted),
                some => deleted = deleted.saturating_add(some),
            }
        }
    }
}
