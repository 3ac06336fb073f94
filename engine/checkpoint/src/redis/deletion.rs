//! Deleting a thread in calls of bounded work. The first hides it: from then on every reader finds nothing and every writer is
//! fenced. Whoever comes upon a thread whose deletion was cut off ends it: the next deletion of it or of its tenant, the next
//! claim of its name, the next opening of the store.

use stepgraph::{CheckpointError, Checkpointer as _, TenantId, ThreadId, ThreadKey};

use super::{
    Redis, failure,
    script::{self, about},
    steady,
};
use crate::row::unavailable;

/// How many names are read at a time, and how many deletions that were cut off an opening of the store ends.
const NAMES_AT_ONCE: u32 = 256;

/// Whether a thread that is there is to be deleted, or only what is left of one that is being deleted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Deletion {
    Bury,
    Clear,
}

impl Redis {
    /// Takes a thread out. Each call takes out at least one thing of those that are there, and nothing is added meanwhile.
    pub(super) async fn take_out(&self, key: &ThreadKey, deletion: Deletion) -> Result<(), CheckpointError> {
        let (mut how, mut cursor) = (deletion, "0".to_owned());
        loop {
            let word = match how {
                Deletion::Bury => "bury",
                Deletion::Clear => "clear",
            };
            let mut call = about(&script::DELETE, &self.prefix, key);
            call.arg(word).arg(self.at_once_max).arg(&cursor);
            let (said, next): (String, String) = self.call(&call).await?;
            if said == "done" {
                return Ok(());
            }
            // Another may have ended it, and a third begun a thread of this name, which is not to go.
            (how, cursor) = (Deletion::Clear, next);
        }
    }

    /// Ends deletions that were cut off, as many as an opening may take.
    pub(super) async fn clear_graves(&self) -> Result<(), CheckpointError> {
        for key in self.graves("-", "+").await? {
            self.take_out(&key, Deletion::Clear).await?;
        }
        Ok(())
    }

    pub(super) async fn erase_all(&self, tenant: &TenantId) -> Result<(), CheckpointError> {
        // A slash follows the tenant's name, and `0` the slash.
        let (from, to) = (format!("[{}/", tenant.as_str()), format!("({}0", tenant.as_str()));
        loop {
            let graves = self.graves(&from, &to).await?;
            if graves.is_empty() {
                break;
            }
            for key in graves {
                self.take_out(&key, Deletion::Clear).await?;
            }
        }
        let mut after: Option<ThreadId> = None;
        loop {
            let threads = self.threads(tenant, after.as_ref(), NAMES_AT_ONCE).await?;
            let Some(last) = threads.last().cloned() else {
                return Ok(());
            };
            for thread in threads {
                self.delete(&ThreadKey::new(tenant.clone(), thread)).await?;
            }
            after = Some(last);
        }
    }

    /// Threads that are being deleted, by name.
    async fn graves(&self, from: &str, to: &str) -> Result<Vec<ThreadKey>, CheckpointError> {
        let graves = format!("{}graves", self.prefix);
        let mut call = redis::cmd("ZRANGEBYLEX");
        call.arg(&graves).arg(from).arg(to);
        call.arg("LIMIT").arg(0).arg(NAMES_AT_ONCE);
        let names: Vec<String> = steady!(connection = self => call.query_async(&mut connection))?;
        let key = |name: String| {
            let (tenant, thread) = name.split_once('/')?;
            let tenant = TenantId::authenticated(tenant).ok()?;
            Some(ThreadKey::new(tenant, ThreadId::new(thread).ok()?))
        };
        let unreadable = || unavailable("a list of the store names no thread; restore a backup".to_owned(), None);
        names.into_iter().map(|name| key(name).ok_or_else(unreadable)).collect()
    }
}
