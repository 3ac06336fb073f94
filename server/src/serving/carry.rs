//! Runs, owned by the server: a request reads a run, it does not carry it. What becomes of a run whose reader leaves is
//! the caller's choice.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::Value;
use stepgraph::{Cancel, InsideKind, Question, RunError, RunId, ThreadKey, checkpoint::At, scrubbed};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::task::TaskTracker;

use super::{
    body::OnDisconnect,
    plan::Plan,
    served::{Begin, Ended, Events, ServedGraph, Told, Unserved, What},
    telling::Teller,
};
use crate::{
    error::{ApiError, ErrorCode},
    sse,
    state::App,
};

/// Events between a run and its reader; more slow the run down.
const EVENTS_WAITING_MAX: usize = 64;
/// How long a reader may leave them unread before it counts as gone.
const READER_STALLED_MAX: Duration = Duration::from_secs(30);

/// A run about to begin.
pub(crate) struct Launch {
    pub(crate) graph: Arc<dyn ServedGraph>,
    pub(crate) key: ThreadKey,
    pub(crate) plan: Plan,
    pub(crate) teller: Teller,
    pub(crate) on_disconnect: OnDisconnect,
    pub(crate) reader: ReaderWants,
}

/// How a run is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReaderWants {
    /// Events, as they happen: errors are events too, once the first has left.
    Events,
    /// The end alone: whatever refuses the run becomes the response.
    End,
}

/// What a run's reader gets.
#[derive(Debug)]
pub(crate) enum Message {
    Frame(Bytes),
    Over(Result<Finish, ApiError>),
}

/// What a run has come to, for who has waited for it.
#[derive(Debug)]
pub(crate) struct Finish {
    pub(crate) values: Value,
    pub(crate) questions: Vec<Question>,
    /// Code and words of what failed.
    pub(crate) failure: Option<(String, String)>,
}

/// The reading end of a run.
pub(crate) struct Reading {
    pub(crate) run: RunId,
    messages: mpsc::Receiver<Message>,
    /// Read before the response began.
    first: Option<Message>,
    _leave: Leave,
}

/// Cancels the run when its reader leaves, if that was asked for. After the run's end it does nothing.
struct Leave(Option<Cancel>);

impl Drop for Leave {
    fn drop(&mut self) {
        if let Some(cancel) = &self.0 {
            cancel.cancel();
        }
    }
}

impl Launch {
    /// Begins the run on a task of the server's.
    pub(crate) async fn start(self, permit: OwnedSemaphorePermit, tracker: &TaskTracker) -> Result<Reading, ApiError> {
        let Self {
            graph,
            key,
            plan,
            teller,
            on_disconnect,
            reader,
        } = self;
        let (sender, messages) = mpsc::channel(EVENTS_WAITING_MAX);
        let leave = match on_disconnect {
            OnDisconnect::Cancel => Some(plan.begin.cancel.clone()),
            OnDisconnect::Continue => None,
        };
        let run = teller.run();
        let then = plan.then.map(|answers| Begin {
            what: What::GoOn(answers),
            at: None,
            ..plan.begin.clone()
        });
        let events = graph.begin(&key, plan.begin).await?;
        let carried = Carried {
            graph,
            key,
            then,
            answered: plan.answered,
            teller,
            wants: reader,
            reader: Some(sender),
            held: Some(Vec::new()),
            cancel_stalled: leave.clone(),
        };
        tracker.spawn(async move {
            let _room = permit;
            carried.carry(events).await;
        });
        Ok(Reading {
            run,
            messages,
            first: None,
            _leave: Leave(leave),
        })
    }
}

impl Reading {
    /// Waits until the run has begun to speak, and says how it was refused if it was.
    pub(crate) async fn begun(mut self) -> Result<Self, ApiError> {
        match self.messages.recv().await {
            Some(Message::Over(Err(refused))) => Err(refused),
            first => {
                self.first = first;
                Ok(self)
            }
        }
    }

    /// The next frame; a comment when nothing was said for a while.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let message = match self.first.take() {
            Some(first) => Some(first),
            None => match timeout(App::KEEP_ALIVE, self.messages.recv()).await {
                Ok(message) => message,
                Err(_) => return Some(sse::keep_alive()),
            },
        };
        match message {
            Some(Message::Frame(frame)) => Some(frame),
            Some(Message::Over(_)) | None => None,
        }
    }

    /// Waits for the end.
    pub(crate) async fn finish(mut self) -> Result<Finish, ApiError> {
        while let Some(message) = self.messages.recv().await {
            if let Message::Over(finish) = message {
                return finish;
            }
        }
        Err(ApiError::new(
            ErrorCode::ProcessingError,
            "the run was given up: go on with its thread",
        ))
    }
}

/// A run under way, with what its reader is owed.
struct Carried {
    graph: Arc<dyn ServedGraph>,
    key: ThreadKey,
    then: Option<Begin>,
    answered: Vec<String>,
    teller: Teller,
    wants: ReaderWants,
    /// `None` once the reader has gone.
    reader: Option<mpsc::Sender<Message>>,
    /// Frames that wait until it is clear that the run is not refused; `None` from then on.
    held: Option<Vec<Bytes>>,
    cancel_stalled: Option<Cancel>,
}

impl Carried {
    async fn carry(mut self, mut events: Events) {
        let hold_until = Instant::now() + App::START_AFTER;
        loop {
            let event = tokio::select! {
                biased;
                event = events.next() => event,
                () = sleep_until(hold_until), if self.held.is_some() && self.wants == ReaderWants::Events => {
                    self.release().await;
                    continue;
                }
            };
            let over = match event {
                Some(Ok(Told::Ended(Ended::Asked(questions)))) if self.then.is_some() => {
                    let Some(begin) = self.then.take() else { return };
                    self.answered = questions.into_iter().map(|question| question.id).collect();
                    match self.graph.begin(&self.key, begin).await {
                        Ok(next) => {
                            events = next;
                            continue;
                        }
                        Err(unserved) => self.refused(unserved).await,
                    }
                }
                Some(Ok(Told::Ended(ended))) => self.ended(ended).await,
                Some(Ok(told)) => {
                    self.told(told).await;
                    continue;
                }
                Some(Err(error)) => self.failed(&error).await,
                None => return,
            };
            self.say(Message::Over(over)).await;
            return;
        }
    }

    async fn told(&mut self, told: Told) {
        let (is_step, is_question) = match &told {
            Told::Happened { kind, .. } => (
                matches!(**kind, InsideKind::Step { .. }),
                matches!(**kind, InsideKind::Asked { .. }),
            ),
            Told::Said { .. } | Told::Ended(_) => (false, false),
        };
        // What is asked again only to be answered at once is nothing to the reader.
        if is_question && self.then.is_some() {
            return;
        }
        let frames = self.teller.tell(told);
        // A step begins before an answer is looked at: neither it nor a question shows that the answer was taken.
        let may_be_refused = (is_step || is_question) && !self.answered.is_empty();
        if self.wants == ReaderWants::Events && !may_be_refused {
            self.release().await;
        }
        self.send(frames).await;
    }

    async fn ended(&mut self, ended: Ended) -> Result<Finish, ApiError> {
        let failure = match &ended {
            Ended::Cancelled => Some((
                "run::cancelled",
                "the run was cancelled: go on with its thread to finish it",
            )),
            Ended::Stalled(_) => Some((
                "run::stalled",
                "nothing is left to do, but joins wait for nodes that were never started",
            )),
            Ended::Done(_) | Ended::Asked(_) | Ended::Paused => None,
        };
        let (values, questions) = match ended {
            Ended::Done(values) | Ended::Stalled(values) => (values, Vec::new()),
            Ended::Asked(questions) => (self.newest().await?, questions),
            Ended::Paused | Ended::Cancelled => (self.newest().await?, Vec::new()),
        };
        if self.held.is_some()
            && let Some(problem) = self.problem(&questions)
        {
            return Err(ApiError::unfit("answer_unfit", problem));
        }
        let frames = match failure {
            Some((code, message)) => self.teller.fail(code, message),
            None => self.teller.end(&values, &questions),
        };
        self.release().await;
        self.send(frames).await;
        Ok(Finish {
            values,
            questions,
            failure: failure.map(|(code, message)| (code.to_owned(), message.to_owned())),
        })
    }

    /// Why an answer was not taken.
    fn problem(&self, questions: &[Question]) -> Option<String> {
        let mut answered = questions.iter().filter(|question| self.answered.contains(&question.id));
        answered.find_map(|question| {
            let problem = question.problem.as_ref()?;
            Some(format!("question `{}` still waits: {problem}", question.id))
        })
    }

    async fn failed(&mut self, error: &RunError) -> Result<Finish, ApiError> {
        if self.held.is_some()
            && let Some(refused) = ApiError::refused_run(error)
        {
            return Err(refused);
        }
        tracing::warn!(thread = %self.key, run = %self.teller.run(), code = error.code(), %error, "a run failed");
        let message = scrubbed(&self.graph.words().of(error)).into_owned();
        let frames = self.teller.fail(error.code(), &message);
        self.release().await;
        self.send(frames).await;
        Ok(Finish {
            values: Value::Null,
            questions: Vec::new(),
            failure: Some((error.code().to_owned(), message)),
        })
    }

    async fn refused(&mut self, unserved: Unserved) -> Result<Finish, ApiError> {
        match unserved {
            Unserved::Run(error) => self.failed(&error).await,
            other => Err(other.into()),
        }
    }

    /// The thread's values as they are now.
    async fn newest(&self) -> Result<Value, ApiError> {
        let head = self.graph.state(&self.key, At::Head).await;
        let head = head.map_err(|error| ApiError::of_thread(&error))?;
        Ok(head.map_or(Value::Null, |head| head.values))
    }

    /// The response begins: from here on errors are events.
    async fn release(&mut self) {
        if self.wants == ReaderWants::End {
            return;
        }
        if let Some(held) = self.held.take() {
            let begin = self.teller.begin();
            self.say(Message::Frame(begin)).await;
            self.send(held).await;
        }
    }

    async fn send(&mut self, frames: Vec<Bytes>) {
        if let Some(held) = &mut self.held {
            held.extend(frames);
            return;
        }
        for frame in frames {
            self.say(Message::Frame(frame)).await;
        }
    }

    async fn say(&mut self, message: Message) {
        let Some(reader) = &self.reader else { return };
        match timeout(READER_STALLED_MAX, reader.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_gone)) => self.reader = None,
            Err(_stalled) => {
                self.reader = None;
                if let Some(cancel) = &self.cancel_stalled {
                    cancel.cancel();
                }
            }
        }
    }
}

/// Carries a run to its end without a reader.
pub(super) async fn to_the_end(graph: &Arc<dyn ServedGraph>, key: &ThreadKey, begin: Begin) -> Result<(), String> {
    let mut events = graph.begin(key, begin).await.map_err(|unserved| match unserved {
        Unserved::Unfit(message) => message,
        Unserved::Refused(refusal) => format!("{refusal:?}"),
        Unserved::Run(error) => error.to_string(),
    })?;
    while let Some(event) = events.next().await {
        event.map_err(|error| error.to_string())?;
    }
    Ok(())
}
