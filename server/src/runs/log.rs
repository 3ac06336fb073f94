//! What a run has said so far, for any number of readers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::backend::{Answer, ChatFailure};

/// Most bytes of text one run may say.
const TEXT_BYTES_MAX: usize = 1024 * 1024;
/// Most pieces it may say them in: each is kept as it came, and takes room of its own.
const PIECES_MAX: usize = 64 * 1024;

/// One thing a run has said.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    /// A piece of the answer.
    Text(Arc<str>),
    /// The whole answer; nothing follows.
    Answered(Arc<Answer>),
    /// There is none; nothing follows.
    Failed(Arc<ChatFailure>),
}

/// Grows until its last entry, an answer or a failure. Readers wait for it, it waits for no reader: one that does not read
/// holds up nobody, and what is kept for it is bounded by the limits above. A run that says more is ended.
#[derive(Debug)]
pub(super) struct RunLog {
    entries: Mutex<Entries>,
    length: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Entries {
    said: Vec<Said>,
    text_bytes: usize,
}

impl Default for RunLog {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
            length: watch::Sender::new(0),
        }
    }
}

impl RunLog {
    /// Adds a piece; says whether there was room for it.
    pub(super) fn say(&self, text: String) -> bool {
        {
            let mut entries = self.locked();
            let bytes = entries.text_bytes.saturating_add(text.len());
            if bytes > TEXT_BYTES_MAX || entries.said.len() >= PIECES_MAX {
                return false;
            }
            entries.text_bytes = bytes;
        }
        if !text.is_empty() {
            self.push(Said::Text(text.into()));
        }
        true
    }

    /// Ends the log, unless it has ended. An answer that came in one piece is said first, so that readers of the
    /// pieces miss nothing.
    pub(super) fn answer(&self, answer: Answer) {
        let unsaid = self.locked().said.is_empty() && !answer.text.is_empty();
        if unsaid {
            self.push(Said::Text(answer.text.as_str().into()));
        }
        self.push(Said::Answered(Arc::new(answer)));
    }

    /// Ends the log, unless it has ended.
    pub(super) fn fail(&self, failure: ChatFailure) {
        self.push(Said::Failed(Arc::new(failure)));
    }

    /// How it ended, if it has.
    pub(super) fn outcome(&self) -> Option<Result<Arc<Answer>, Arc<ChatFailure>>> {
        match self.locked().said.last()? {
            Said::Text(_) => None,
            Said::Answered(answer) => Some(Ok(Arc::clone(answer))),
            Said::Failed(failure) => Some(Err(Arc::clone(failure))),
        }
    }

    /// How much was said so far.
    pub(super) fn length(&self) -> usize {
        self.locked().said.len()
    }

    /// The entry at this place, waiting for it; `None` past the end of an ended log.
    pub(super) async fn at(&self, index: usize) -> Option<Said> {
        let mut length = self.length.subscribe();
        loop {
            let seen = *length.borrow_and_update();
            if let Some(said) = self.locked().said.get(index) {
                return Some(said.clone());
            }
            if self.outcome().is_some() {
                return None;
            }
            if seen <= index && length.changed().await.is_err() {
                return None;
            }
        }
    }

    fn push(&self, said: Said) {
        let length = {
            let mut entries = self.locked();
            if matches!(entries.said.last(), Some(Said::Answered(_) | Said::Failed(_))) {
                return;
            }
            entries.said.push(said);
            entries.said.len()
        };
        self.length.send_replace(length);
    }

    fn locked(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    #[tokio::test]
    async fn a_late_reader_gets_all_from_the_beginning_and_then_the_end() {
        let log = RunLog::default();
        assert!(log.say("a".to_owned()));
        log.fail(ChatFailure::new(ErrorCode::LlmError, "gone"));
        assert!(log.say("too late".to_owned()));

        assert!(matches!(log.at(0).await, Some(Said::Text(text)) if &*text == "a"));
        assert!(matches!(log.at(1).await, Some(Said::Failed(_))));
        assert!(log.at(2).await.is_none());
    }

    #[tokio::test]
    async fn a_waiting_reader_wakes_for_the_next_entry() {
        let log = Arc::new(RunLog::default());
        let reader = tokio::spawn({
            let log = Arc::clone(&log);
            async move { log.at(0).await }
        });
        tokio::task::yield_now().await;
        log.say("a".to_owned());

        assert!(matches!(reader.await.unwrap(), Some(Said::Text(_))));
    }

    #[test]
    fn a_run_may_not_say_more_than_its_limit() {
        let log = RunLog::default();

        assert!(log.say("x".repeat(TEXT_BYTES_MAX)));
        assert!(!log.say("x".to_owned()));
    }

    #[test]
    fn a_run_may_not_say_it_in_more_pieces_than_its_limit() {
        let log = RunLog::default();

        for _ in 0..PIECES_MAX {
            assert!(log.say("x".to_owned()));
        }
        assert!(!log.say("x".to_owned()));
    }
}
