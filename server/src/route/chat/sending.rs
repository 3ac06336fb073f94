//! A run on its way out as a stream of events: start, chunks, sources, usage, done; or error in place of the rest.

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    backend::{Answer, ChatFailure},
    runs::{Reader, Said},
    sse::{self, Dialect, TextCutter},
    state::App,
    wire::UsageReply,
};

/// The reader of a run, and what of it is not yet sent.
pub(super) struct Sending {
    reader: Reader,
    dialect: Dialect,
    cutter: TextCutter,
    ready: VecDeque<Bytes>,
    over: bool,
}

impl Sending {
    /// Begins with `start`, unless the client returns and has seen it.
    pub(super) fn new(reader: Reader, dialect: Dialect, session: &str, returning: bool) -> Self {
        let mut sending = Self {
            reader,
            dialect,
            cutter: TextCutter::default(),
            ready: VecDeque::new(),
            over: false,
        };
        if !returning {
            let start = json!({"traceId": sending.reader.run(), "sessionId": session});
            let frame = sse::json("start", sending.id().as_deref(), &start);
            sending.ready.push_back(frame);
        }
        sending
    }

    /// The next frame; a comment when nothing was said for a while.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            if self.over {
                self.reader.delivered();
                return None;
            }
            match timeout(App::KEEP_ALIVE, self.reader.next()).await {
                Err(_) => return Some(sse::keep_alive()),
                Ok(Some(Said::Text(text))) => self.text(&text),
                Ok(Some(Said::Answered(answer))) => self.answered(&answer),
                Ok(Some(Said::Failed(failure))) => self.failed(&failure),
                Ok(None) => self.over = true,
            }
        }
    }

    fn text(&mut self, text: &str) {
        let frame = match self.dialect {
            Dialect::Text => self.cutter.push(text),
            Dialect::Json => Some(sse::json("chunk", self.id().as_deref(), &json!({"text": text}))),
        };
        self.ready.extend(frame);
    }

    fn answered(&mut self, answer: &Answer) {
        self.ready.extend(self.cutter.finish());
        // Without an id: a reader that breaks off before `done` gets these once more.
        self.ready.push_back(sse::json("sources", None, &answer.sources));
        self.ready
            .push_back(sse::json("usage", None, &UsageReply::from(answer)));
        self.ready.push_back(sse::done(self.id().as_deref()));
        self.over = true;
    }

    fn failed(&mut self, failure: &ChatFailure) {
        self.ready.extend(self.cutter.finish());
        let error = json!({"code": failure.code, "message": failure.message});
        self.ready.push_back(sse::json("error", None, &error));
        self.over = true;
    }

    fn id(&self) -> Option<String> {
        match self.dialect {
            Dialect::Text => None,
            Dialect::Json => Some(format!("{}-{}", self.reader.run(), self.reader.position())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use stepgraph::RunId;
    use stepgraph_nodes::service::Client;
    use tokio::time::Instant;
    use tokio_util::{sync::CancellationToken, task::TaskTracker};

    use super::*;
    use crate::{
        backend::{ChatCommand, ChatEvents, ChatRunner},
        runs::{Audience, Entered, RequestKey, RunKey, Runs},
    };

    /// A run that says nothing until it is cancelled.
    struct Silent;

    #[async_trait]
    impl ChatRunner for Silent {
        async fn run(&self, _: ChatCommand, _: ChatEvents, cancel: CancellationToken) -> Result<(), ChatFailure> {
            cancel.cancelled().await;
            Ok(())
        }

        async fn answered(&self, _: &Client, _: &str, _: RunId) -> Result<Option<Answer>, ChatFailure> {
            Ok(None)
        }

        async fn finish_unfinished(&self, _: CancellationToken) -> Result<(), ChatFailure> {
            Ok(())
        }
    }

    fn silent_run() -> Reader {
        let tenant = stepgraph::TenantId::authenticated("acme").unwrap();
        let client = Client::new(tenant.clone());
        let runs = Runs::new(Arc::new(Silent), TaskTracker::new(), Arc::default());
        let key = RunKey {
            tenant,
            session: "s".to_owned(),
            request: RequestKey::Named("n".to_owned()),
        };
        let Entered::First(seat) = runs.enter(key, Audience::Direct, RunId::random(), Instant::now()) else {
            panic!("nothing ran before");
        };
        let command = ChatCommand {
            trace: None,
            run: seat.run(),
            repeat: false,
            client,
            session: "s".to_owned(),
            message: "hi".to_owned(),
            metadata: serde_json::Map::new(),
            asked_at: chrono::DateTime::UNIX_EPOCH,
            overage: false,
            budget: std::time::Duration::from_secs(28),
        };
        runs.start(seat, None, command)
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_stream_says_every_ten_seconds_that_it_lives_and_ends_at_its_budget() {
        let began = Instant::now();
        let mut sending = Sending::new(silent_run(), Dialect::Text, "s", false);

        let mut frames = Vec::new();
        while let Some(frame) = sending.next().await {
            frames.push((began.elapsed().as_secs(), String::from_utf8(frame.to_vec()).unwrap()));
        }

        let seconds: Vec<_> = frames.iter().map(|(second, _)| *second).collect();
        assert_eq!(seconds, [0, 10, 20, 29]);
        assert!(frames[0].1.starts_with("event: start\n"));
        assert_eq!(frames[1].1, ": keep-alive\n\n");
        assert!(frames[3].1.contains("\"TIMEOUT\""), "{}", frames[3].1);
    }
}
