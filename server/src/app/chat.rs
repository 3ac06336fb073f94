//! Chat messages through the chat graph: a thread per session, kept, resumed, logged once.

use std::{
    convert::Infallible,
    fmt,
    future::IntoFuture as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use stepgraph::{
    Cancel, CheckpointError, EventKind, EventReader, Graph, InvalidId, OnBusy, OnPending, Outcome, ReaderGone, Run,
    RunError, RunId, ThreadId, ThreadKey, checkpoint::At,
};
use stepgraph_graphs::{ChatEvent as GraphEvent, ChatState, ChatStateInput};
use stepgraph_nodes::{
    domains::Domains,
    generate::{self, ChatSettings},
    prompt::{PromptLimits, Scope},
    retrieve::{GoneOn, RetrieveLimits},
    service::{ChatModel as _, Client, Clients, ServiceError},
    trace::{self, TraceParent},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Models;
use crate::{
    backend::{Answer, COMPLETION_TOKENS_MAX, ChatCommand, ChatEvent, ChatEvents, ChatFailure, ChatRunner},
    error::ErrorCode,
};

/// How long the answer of a run that is finished after a crash may take.
pub(super) const RECOVERY_BUDGET: Duration = Duration::from_mins(1);
/// Events between the graph and the reader; more slow the graph down.
const EVENTS_WAITING_MAX: usize = 64;
/// How often it is tried to end a run whose answer was given, and the waits between: a day in all.
const SETTLE_TRIES_MAX: u32 = 3_000;
const SETTLE_WAIT_FIRST: Duration = Duration::from_millis(500);
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(30);
/// Unfinished runs looked for at once.
const UNFINISHED_PAGE: u32 = 100;

/// Why a message got no answer, with its cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The tenant's model cannot be asked.
    #[error(transparent)]
    Model(ServiceError),
    /// The session cannot name a thread.
    #[error(transparent)]
    Session(#[from] InvalidId),
    /// The run failed.
    #[error("{}", cause(.0))]
    Run(#[from] RunError),
    /// It was cancelled before there was an answer.
    #[error("the answer was given up")]
    Cancelled,
    /// The graph waits for something that this graph never asks for.
    #[error("the chat graph stopped without an answer: report this, with its log")]
    Stuck,
}

impl ChatError {
    /// Whether a store was away, so that the same may succeed later.
    fn is_passing(&self) -> bool {
        match self {
            Self::Model(error) => error.is_retryable(),
            Self::Run(RunError::Checkpoint(error)) => is_passing(error),
            Self::Run(error) => error
                .node_error::<ServiceError>()
                .is_some_and(ServiceError::is_retryable),
            Self::Session(_) | Self::Cancelled | Self::Stuck => false,
        }
    }
}

/// The words of the service that failed inside a node; the run's own otherwise.
fn cause(error: &RunError) -> String {
    error
        .node_error::<ServiceError>()
        .map_or_else(|| error.to_string(), ToString::to_string)
}

/// Answers through the chat graph.
#[derive(Clone)]
pub struct GraphChat {
    pub(super) graph: Graph<ChatState>,
    models: Arc<Models>,
    pub(super) clients: Arc<dyn Clients>,
}

impl fmt::Debug for GraphChat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphChat")
            .field("graph", &self.graph.name())
            .field("models", &self.models)
            .finish_non_exhaustive()
    }
}

impl GraphChat {
    /// Over a graph that has its checkpointer.
    #[must_use]
    pub fn new(graph: Graph<ChatState>, models: Arc<Models>, clients: Arc<dyn Clients>) -> Self {
        Self { graph, models, clients }
    }

    /// Runs a message to its end, as [`ChatRunner::run`] does, and says the cause of a failure whole.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn answer(
        &self,
        command: ChatCommand,
        events: &ChatEvents,
        cancel: CancellationToken,
    ) -> Result<(), ChatError> {
        self.ask(command, events, cancel, &AtomicBool::new(false)).await
    }

    /// The same; `answered` becomes true once the answer is given, after which nobody asks for the rest again.
    async fn ask(
        &self,
        command: ChatCommand,
        events: &ChatEvents,
        cancel: CancellationToken,
        answered: &AtomicBool,
    ) -> Result<(), ChatError> {
        let trace = command.trace;
        let thread = thread(&command.client, &command.session)?;
        let left = if command.repeat {
            self.left_by(&thread, command.run).await?
        } else {
            Left::Nothing
        };
        let is_work = matches!(left, Left::Work);
        let work = async {
            match left {
                Left::Nothing => {
                    let begun = self.begin(&thread, &command, OnPending::Reject)?;
                    match finish(begun, events, &cancel, answered).await {
                        Err(ChatError::Run(RunError::Pending { .. })) => {
                            self.log_what_was_answered(&thread).await?;
                            let begun = self.begin(&thread, &command, OnPending::Discard)?;
                            finish(begun, events, &cancel, answered).await
                        }
                        ended => ended,
                    }
                }
                Left::Work => finish(self.go_on(&thread, &command)?, events, &cancel, answered).await,
                Left::Answer(answer) => {
                    answered.store(true, Ordering::SeqCst);
                    events.send(ChatEvent::Answered(answer)).await;
                    finish(self.go_on(&thread, &command)?, events, &cancel, answered).await
                }
            }
        };
        trace::within(trace, work).await?;
        if is_work && !answered.load(Ordering::SeqCst) {
            // Somebody else has finished it while this one waited for its turn.
            let Left::Answer(answer) = self.left_by(&thread, command.run).await? else {
                return Err(ChatError::Stuck);
            };
            answered.store(true, Ordering::SeqCst);
            events.send(ChatEvent::Answered(answer)).await;
        }
        Ok(())
    }

    fn begin(
        &self,
        thread: &ThreadKey,
        command: &ChatCommand,
        pending: OnPending,
    ) -> Result<Run<ChatState>, ChatError> {
        let settings = self.settings(&command.client, command.budget)?;
        let run = self.graph.run(thread, self.input(command, &settings)).id(command.run);
        Ok(Self::provided(run, &command.client, command.trace, settings).on_pending(pending))
    }

    fn go_on(&self, thread: &ThreadKey, command: &ChatCommand) -> Result<Run<ChatState>, ChatError> {
        let settings = self.settings(&command.client, command.budget)?;
        let left = self.graph.resume(thread).provide(GoneOn);
        let run = Self::provided(left, &command.client, command.trace, settings);
        Ok(run.on_pending(OnPending::Discard))
    }

    fn provided(
        run: Run<ChatState>,
        client: &Client,
        trace: Option<TraceParent>,
        settings: ChatSettings,
    ) -> Run<ChatState> {
        let run = run
            .provide(settings)
            .provide(Self::search_limits(client))
            .on_busy(OnBusy::Wait);
        match trace {
            Some(trace) => run.provide(trace),
            None => run,
        }
    }

    /// A run before this message was cut off. If its answer was given, it is logged before it is given up.
    async fn log_what_was_answered(&self, thread: &ThreadKey) -> Result<(), ChatError> {
        let snapshot = self.graph.state(thread, At::Head).await?;
        if snapshot.is_some_and(|snapshot| snapshot.state.answer().is_some()) {
            self.finish(thread).await?;
        }
        Ok(())
    }

    /// Ends a run whose answer was given, once the stores that were away are back.
    async fn settle(&self, thread: &ThreadKey) -> Result<(), ChatError> {
        let mut wait = SETTLE_WAIT_FIRST;
        for _ in 1..SETTLE_TRIES_MAX {
            tokio::time::sleep(wait).await;
            match self.finish(thread).await {
                Err(error) if error.is_passing() => wait = wait.saturating_mul(2).min(SETTLE_WAIT_MAX),
                ended => return ended,
            }
        }
        self.finish(thread).await
    }

    /// The graph as a Mermaid flow chart.
    #[must_use]
    pub fn drawing(&self) -> String {
        self.graph.mermaid()
    }

    fn input(&self, command: &ChatCommand, settings: &ChatSettings) -> ChatStateInput {
        ChatStateInput {
            question: command.message.clone(),
            session: command.session.clone(),
            asked_at: command.asked_at,
            overage: command.overage,
            open_ended: self.models.is_scripted(),
            rewrites: self.models.reads_prompts(&settings.name),
            trace: command.trace,
        }
    }

    pub(super) fn settings(&self, client: &Client, budget: Duration) -> Result<ChatSettings, ChatError> {
        let own = &client.settings;
        let limits = PromptLimits::default();
        let name = self.models.of(client).map_err(ChatError::Model)?;
        let fallback = self.models.fallback_of(client);
        let models: Vec<_> = [&name].into_iter().chain(&fallback).collect();
        Ok(ChatSettings {
            temperature: self.models.temperature(client, &models),
            prices: Arc::clone(self.models.catalogue()),
            name,
            fallback,
            model: Arc::clone(&self.models) as _,
            system_prompt: own.system_prompt.clone(),
            scope: if own.answer_only_from_documents {
                Scope::Documents
            } else {
                Scope::Open
            },
            prompt: PromptLimits {
                history_tokens_max: own.memory_tokens.map_or(limits.history_tokens_max, u64::from),
                ..limits
            },
            link_hosts: Domains::new(&own.allowed_domains),
            completion_tokens_max: own.max_tokens.unwrap_or(COMPLETION_TOKENS_MAX),
            answer_by: Instant::now() + budget,
        })
    }

    /// How much is looked for, and what counts as found, as the tenant has it.
    pub(super) fn search_limits(client: &Client) -> RetrieveLimits {
        let limits = RetrieveLimits::default();
        RetrieveLimits {
            passages_max: client.settings.search_limit.unwrap_or(limits.passages_max),
            relevance_min: client.settings.score_threshold,
            ..limits
        }
    }

    /// What an earlier run of the same id has left on the thread.
    async fn left_by(&self, thread: &ThreadKey, run: RunId) -> Result<Left, ChatError> {
        let Some(snapshot) = self.graph.state(thread, At::Head).await? else {
            return Ok(Left::Nothing);
        };
        let same = snapshot.run.is_some_and(|mark| mark.run == run);
        Ok(match (same, snapshot.state.answer()) {
            (false, _) => Left::Nothing,
            (true, None) => Left::Work,
            (true, Some(answer)) => Left::Answer(shown(answer.clone())),
        })
    }

    /// Ends what an earlier process, or an earlier try, has left, under the trace of the message that began it.
    async fn finish(&self, thread: &ThreadKey) -> Result<(), ChatError> {
        let client = self
            .clients
            .by_id(thread.tenant.as_str())
            .await
            .map_err(ChatError::Model)?;
        let Some(client) = client else { return Ok(()) };
        let settings = self.settings(&client, RECOVERY_BUDGET)?;
        let left = self.graph.state(thread, At::Head).await?;
        let trace = left.and_then(|snapshot| snapshot.state.trace());
        let run = Self::provided(self.graph.resume(thread).provide(GoneOn), &client, trace, settings);
        trace::within(trace, run.into_future()).await?;
        Ok(())
    }
}

#[async_trait]
impl ChatRunner for GraphChat {
    async fn run(
        &self,
        command: ChatCommand,
        events: ChatEvents,
        cancel: CancellationToken,
    ) -> Result<(), ChatFailure> {
        let (run, tenant) = (command.run, command.client.tenant.clone());
        let (thread, answered) = (thread(&command.client, &command.session), AtomicBool::new(false));
        let mut ended = self.ask(command, &events, cancel, &answered).await;
        if let (Err(error), Ok(thread)) = (&ended, &thread)
            && answered.load(Ordering::SeqCst)
            && error.is_passing()
        {
            tracing::warn!(%run, %tenant, %error, "what was answered is not logged yet: it is tried again");
            ended = self.settle(thread).await;
        }
        ended.map_err(|error| {
            tracing::warn!(%run, %tenant, %error, "a message got no answer");
            failure(&error)
        })
    }

    async fn answered(&self, client: &Client, session: &str, run: RunId) -> Result<Option<Answer>, ChatFailure> {
        let left = match thread(client, session) {
            Ok(thread) => self.left_by(&thread, run).await,
            Err(error) => Err(error),
        };
        match left.map_err(|error| failure(&error))? {
            Left::Answer(answer) => Ok(Some(answer)),
            Left::Nothing | Left::Work => Ok(None),
        }
    }

    async fn finish_unfinished(&self, stop: CancellationToken) -> Result<(), ChatFailure> {
        let unfinished = self
            .graph
            .unfinished(UNFINISHED_PAGE)
            .await
            .map_err(|error| failure(&error.into()))?;
        for thread in unfinished {
            let finished = tokio::select! {
                finished = self.finish(&thread) => finished,
                () = stop.cancelled() => return Ok(()),
            };
            match finished {
                Ok(()) => tracing::info!(%thread, "a run of an earlier process was finished"),
                Err(error) => tracing::error!(%thread, %error, "a run of an earlier process cannot be finished"),
            }
        }
        Ok(())
    }
}

/// What a repeat finds.
enum Left {
    Nothing,
    Work,
    Answer(Answer),
}

/// One thread a session; the tenant is part of the key.
fn thread(client: &Client, session: &str) -> Result<ThreadKey, ChatError> {
    Ok(ThreadKey::new(
        client.tenant.clone(),
        ThreadId::new(format!("chat:{session}"))?,
    ))
}

/// Drives a run and passes its events on. `cancel` stops it only while there is no answer.
async fn finish(
    run: Run<ChatState>,
    events: &ChatEvents,
    cancel: &CancellationToken,
    answered: &AtomicBool,
) -> Result<(), ChatError> {
    let (sender, reader) = stepgraph::events(EVENTS_WAITING_MAX, ReaderGone::Finish);
    let stop = Cancel::new();
    let run = run.cancel(&stop).events(sender).into_future();
    let work = async { tokio::join!(run, relay(reader, events, answered)).0 };
    let watch = async {
        cancel.cancelled().await;
        if !answered.load(Ordering::SeqCst) {
            stop.cancel();
        }
        std::future::pending::<Infallible>().await
    };
    let outcome = tokio::select! {
        outcome = work => outcome?,
        never = watch => match never {},
    };
    match outcome {
        Outcome::Done(_) => Ok(()),
        Outcome::Cancelled => Err(ChatError::Cancelled),
        _ => Err(ChatError::Stuck),
    }
}

/// Passes on what is said. The answer is passed on when the step that made it is saved, not before.
async fn relay(mut reader: EventReader<ChatState>, events: &ChatEvents, answered: &AtomicBool) {
    let mut whole = None;
    while let Some(event) = reader.next().await {
        match event.kind {
            EventKind::Custom {
                event: GraphEvent::Text(text),
                ..
            } => events.send(ChatEvent::Text(text)).await,
            EventKind::Custom {
                event: GraphEvent::Answered(answer),
                ..
            } => whole = Some(shown(answer)),
            EventKind::Saved { .. } => {
                if let Some(answer) = whole.take() {
                    answered.store(true, Ordering::SeqCst);
                    events.send(ChatEvent::Answered(answer)).await;
                }
            }
            _ => {}
        }
    }
}

fn shown(answer: generate::Answer) -> Answer {
    let generate::Answer {
        text,
        sources,
        usage,
        model,
        finish_reason,
    } = answer;
    Answer {
        text,
        sources,
        usage,
        model,
        finish_reason,
    }
}

/// What a visitor may read of a failure. The log has it whole.
fn failure(error: &ChatError) -> ChatFailure {
    const LATER: &str = "the service is not available at the moment, please try again shortly";
    let service = match error {
        ChatError::Model(_) => return ChatFailure::new(ErrorCode::ServiceUnavailable, LATER),
        ChatError::Cancelled => {
            return ChatFailure::new(
                ErrorCode::ServiceUnavailable,
                "the answer was given up, please try again",
            );
        }
        ChatError::Session(_) => {
            return ChatFailure::new(
                ErrorCode::InvalidRequest,
                "the session cannot be used: send another `sessionId`",
            );
        }
        ChatError::Run(RunError::TimeLimit { .. }) => return late(),
        ChatError::Run(RunError::Checkpoint(error)) if is_passing(error) => {
            return ChatFailure::new(ErrorCode::ServiceUnavailable, LATER);
        }
        ChatError::Run(error) => error.node_error::<ServiceError>(),
        ChatError::Stuck => None,
    };
    match service {
        Some(ServiceError::Timeout { .. }) => late(),
        Some(ServiceError::RateLimited { retry_after, .. }) => ChatFailure {
            retry_after: *retry_after,
            ..ChatFailure::new(ErrorCode::ServiceUnavailable, LATER)
        },
        Some(ServiceError::Scripted { code }) => ChatFailure::new(
            ErrorCode::parse(code).unwrap_or(ErrorCode::LlmError),
            "the scripted model was told to fail",
        ),
        Some(_) => ChatFailure::new(ErrorCode::LlmError, "the answer could not be written, please try again"),
        None => ChatFailure::new(
            ErrorCode::ProcessingError,
            "something went wrong on our side, please try again",
        ),
    }
}

fn late() -> ChatFailure {
    ChatFailure::new(ErrorCode::Timeout, "the answer took too long, please try again")
}

const fn is_passing(error: &CheckpointError) -> bool {
    error.is_retryable()
}
