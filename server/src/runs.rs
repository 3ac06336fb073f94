//! Chat runs, owned by the server: a request reads a run, it does not carry it. So a run goes on when its reader
//! leaves, two equal requests read one run, and a repeat finds what the first has left.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use stepgraph::{RunId, TenantId};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    backend::{Answer, ChatCommand, ChatEvent, ChatEvents, ChatFailure, ChatRunner},
    error::ErrorCode,
    limit::Quota,
    metrics::Metrics,
};

mod log;

use log::RunLog;
pub(crate) use log::Said;

/// How long a repeat goes on with a failed run.
const REPEAT_AFTER_FAILURE: Duration = Duration::from_secs(10);
/// How long an answer that may not have arrived is kept for a repeat, and a finished one for a reader that returns.
const KEPT: Duration = Duration::from_mins(1);
/// Beyond the budget, for the runner to end the answer by itself.
pub(crate) const BUDGET_GRACE: Duration = Duration::from_secs(1);
/// Events that wait for the log at most; the log never waits for readers.
const EVENTS_WAITING_MAX: usize = 64;

/// What makes two requests the same one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RunKey {
    pub(crate) tenant: TenantId,
    pub(crate) session: String,
    pub(crate) request: RequestKey,
}

/// What the request is known by inside its session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum RequestKey {
    /// SHA-256 of the message.
    Message([u8; 32]),
    /// The caller's own `Idempotency-Key`.
    Named(String),
}

/// Who reads a run, which decides what happens when they leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// A browser or program: the run stops when nobody reads it any more.
    Direct,
    /// The internal service, which does not tell when its own reader leaves: the run goes on.
    Internal,
}

/// All runs of this process that are going on or were over a moment ago.
pub(crate) struct Runs {
    runner: Arc<dyn ChatRunner>,
    tracker: TaskTracker,
    metrics: Arc<Metrics>,
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    runs: HashMap<RunKey, Arc<Run>>,
    /// Finished runs in the order they are forgotten; each is kept equally long.
    forgotten_at: VecDeque<(Instant, RunKey, Arc<Run>)>,
}

/// One run and what it has said.
pub(crate) struct Run {
    id: RunId,
    audience: Audience,
    quota: Mutex<Option<Quota>>,
    log: RunLog,
    readers: AtomicUsize,
    delivered: AtomicBool,
    abandoned: AtomicBool,
    cancel: CancellationToken,
    over_at: Mutex<Option<Instant>>,
}

/// What a request finds when it comes in.
pub(crate) enum Entered {
    /// It is the first of its kind: it must start the run, or refuse it.
    First(Seat),
    /// It repeats a run that failed a moment ago, and goes on with it.
    Repeat(Seat),
    /// It is the same as a run that goes on, or whose answer may not have arrived.
    Joined(Reader),
}

/// The right and duty to start a run. Dropped unused, it fails those who have joined meanwhile.
pub(crate) struct Seat {
    key: RunKey,
    run: Arc<Run>,
    table: Arc<Mutex<Table>>,
    used: bool,
}

impl Runs {
    pub(crate) fn new(runner: Arc<dyn ChatRunner>, tracker: TaskTracker, metrics: Arc<Metrics>) -> Self {
        Self {
            runner,
            tracker,
            metrics,
            table: Arc::default(),
        }
    }

    /// Finds the run a request belongs to, or makes room for a new one of this id.
    pub(crate) fn enter(&self, key: RunKey, audience: Audience, id: RunId, now: Instant) -> Entered {
        let mut table = locked(&self.table);
        table.forget(now);
        let found = table.runs.get(&key).map(|run| (run.standing(now), Arc::clone(run)));
        let failed = match found {
            Some((Standing::Open, run)) => return Entered::Joined(Reader::new(&run, 0)),
            Some((Standing::Failed, run)) => Some(run),
            Some((Standing::Over, _)) | None => None,
        };
        let id = failed.as_ref().map_or(id, |run| run.id);
        let run = Arc::new(Run::new(id, audience));
        table.runs.insert(key.clone(), Arc::clone(&run));
        let seat = Seat {
            key,
            run,
            table: Arc::clone(&self.table),
            used: false,
        };
        match failed {
            Some(failed) => {
                *locked(&seat.run.quota) = *locked(&failed.quota);
                Entered::Repeat(seat)
            }
            None => Entered::First(seat),
        }
    }

    /// Reads the run of this key that goes on, or whose answer may not have arrived.
    pub(crate) fn join(&self, key: &RunKey, now: Instant) -> Option<Reader> {
        let mut table = locked(&self.table);
        table.forget(now);
        let run = table.runs.get(key)?;
        matches!(run.standing(now), Standing::Open).then(|| Reader::new(run, 0))
    }

    /// A run of this key whose reader comes back after it has read `after` events, if it has said as many.
    pub(crate) fn resume(&self, key: &RunKey, run: RunId, after: usize, now: Instant) -> Option<Reader> {
        let mut table = locked(&self.table);
        table.forget(now);
        let mut runs = table.runs.get(key).into_iter();
        let found = runs.find(|found| found.id == run && after <= found.log.length())?;
        Some(Reader::new(found, after))
    }

    /// Whether this run of the tenant is kept here: it goes on, or was over a moment ago.
    pub(crate) fn has(&self, tenant: &TenantId, run: RunId) -> bool {
        let table = locked(&self.table);
        let mut runs = table.runs.iter();
        runs.any(|(key, kept)| kept.id == run && key.tenant == *tenant)
    }

    /// A run that is over, as a reader sees it: for an answer kept elsewhere.
    pub(crate) fn replay(id: RunId, answer: Answer, quota: Option<Quota>) -> Reader {
        let run = Arc::new(Run::new(id, Audience::Internal));
        *locked(&run.quota) = quota;
        run.log.answer(answer);
        Reader::new(&run, 0)
    }

    /// Starts a run on the server's own tasks.
    pub(crate) fn start(&self, mut seat: Seat, quota: Option<Quota>, command: ChatCommand) -> Reader {
        seat.used = true;
        *locked(&seat.run.quota) = quota;
        let reader = Reader::new(&seat.run, 0);
        let work = drive(Arc::clone(&self.runner), command, Arc::clone(&seat.run));
        let (table, key, run) = (Arc::clone(&seat.table), seat.key.clone(), Arc::clone(&seat.run));
        let metrics = Arc::clone(&self.metrics);
        let began = Instant::now();
        self.tracker.spawn(async move {
            work.await;
            if let Some(outcome) = run.log.outcome() {
                metrics.chat(&key.tenant, outcome.as_deref().map_err(AsRef::as_ref), began.elapsed());
            }
            locked(&table).forgotten_at.push_back((Instant::now() + KEPT, key, run));
        });
        reader
    }
}

impl Table {
    fn forget(&mut self, now: Instant) {
        while let Some((at, _, _)) = self.forgotten_at.front()
            && *at <= now
            && let Some((_, key, run)) = self.forgotten_at.pop_front()
        {
            if self.runs.get(&key).is_some_and(|current| Arc::ptr_eq(current, &run)) {
                self.runs.remove(&key);
            }
        }
    }
}

impl Seat {
    pub(crate) fn run(&self) -> RunId {
        self.run.id
    }

    pub(crate) fn quota(&self) -> Option<Quota> {
        *locked(&self.run.quota)
    }

    /// Gives the seat up: whoever has joined meanwhile gets the same refusal.
    pub(crate) fn refuse(mut self, failure: ChatFailure) {
        self.leave(failure);
    }

    fn leave(&mut self, failure: ChatFailure) {
        self.used = true;
        self.run.abandoned.store(true, Ordering::SeqCst);
        self.run.log.fail(failure);
        let mut table = locked(&self.table);
        if table
            .runs
            .get(&self.key)
            .is_some_and(|current| Arc::ptr_eq(current, &self.run))
        {
            table.runs.remove(&self.key);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.used {
            self.leave(ChatFailure::new(
                ErrorCode::ServiceUnavailable,
                "the request was given up, please try again",
            ));
        }
    }
}

/// What a finished or unfinished run means to an equal request.
enum Standing {
    Open,
    Failed,
    Over,
}

impl Run {
    fn new(id: RunId, audience: Audience) -> Self {
        Self {
            id,
            audience,
            quota: Mutex::default(),
            log: RunLog::default(),
            readers: AtomicUsize::new(0),
            delivered: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            cancel: CancellationToken::new(),
            over_at: Mutex::default(),
        }
    }

    fn standing(&self, now: Instant) -> Standing {
        let Some(outcome) = self.log.outcome() else {
            return Standing::Open;
        };
        let since = locked(&self.over_at).map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        match outcome {
            Ok(_) if self.delivered.load(Ordering::SeqCst) || since >= KEPT => Standing::Over,
            Ok(_) => Standing::Open,
            Err(_) if self.abandoned.load(Ordering::SeqCst) => Standing::Over,
            Err(failure) if failure.code.is_retryable() && since < REPEAT_AFTER_FAILURE => Standing::Failed,
            Err(_) => Standing::Over,
        }
    }

    /// Ends the run with a failure, unless it has ended.
    fn end(&self, failure: ChatFailure) {
        self.log.fail(failure);
        self.mark_over();
    }

    fn mark_over(&self) {
        locked(&self.over_at).get_or_insert_with(Instant::now);
    }
}

/// Reads a run from its first event on, at its own pace.
pub(crate) struct Reader {
    run: Arc<Run>,
    next: usize,
    /// Whether the run goes on for it.
    counts: bool,
}

impl Reader {
    fn new(run: &Arc<Run>, next: usize) -> Self {
        run.readers.fetch_add(1, Ordering::SeqCst);
        Self {
            run: Arc::clone(run),
            next,
            counts: true,
        }
    }

    pub(crate) fn run(&self) -> RunId {
        self.run.id
    }

    pub(crate) fn quota(&self) -> Option<Quota> {
        *locked(&self.run.quota)
    }

    /// A second reader of the same run, from its first event on, for whom alone it does not go on.
    pub(crate) fn watch(&self) -> Self {
        Self {
            run: Arc::clone(&self.run),
            next: 0,
            counts: false,
        }
    }

    /// How many events were read, which numbers the last one.
    pub(crate) fn position(&self) -> usize {
        self.next
    }

    /// The next event; `None` after the one that ended the run.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Option<Said> {
        let said = self.run.log.at(self.next).await?;
        self.next = self.next.saturating_add(1);
        Some(said)
    }

    /// Waits until there is something to read.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn peek(&self) -> Option<Said> {
        self.run.log.at(self.next).await
    }

    /// Reads on to the end.
    pub(crate) async fn outcome(&mut self) -> Result<Arc<Answer>, Arc<ChatFailure>> {
        loop {
            match self.next().await {
                Some(Said::Text(_)) => {}
                Some(Said::Answered(answer)) => return Ok(answer),
                Some(Said::Failed(failure)) => return Err(failure),
                None => return Err(Arc::new(broken())),
            }
        }
    }

    /// The answer has left: an equal message from now on is a new one.
    pub(crate) fn delivered(&self) {
        self.run.delivered.store(true, Ordering::SeqCst);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !self.counts {
            return;
        }
        let last = self.run.readers.fetch_sub(1, Ordering::SeqCst) == 1;
        if last && self.run.audience == Audience::Direct && self.run.log.outcome().is_none() {
            self.run.abandoned.store(true, Ordering::SeqCst);
            self.run.cancel.cancel();
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("run", &self.run.id)
            .field("next", &self.next)
            .field("counts", &self.counts)
            .finish()
    }
}

/// Runs one message to its end, whatever the runner does: fail, panic, hang or fall silent.
async fn drive(runner: Arc<dyn ChatRunner>, command: ChatCommand, run: Arc<Run>) {
    let backstop = tokio::time::sleep(command.budget + BUDGET_GRACE);
    let (events, mut heard) = ChatEvents::channel(EVENTS_WAITING_MAX);
    let work = AssertUnwindSafe(runner.run(command, events, run.cancel.clone())).catch_unwind();
    tokio::pin!(work, backstop);
    let result = loop {
        tokio::select! {
            biased;
            Some(event) = heard.recv() => hear(&run, event),
            () = &mut backstop, if run.log.outcome().is_none() => {
                run.cancel.cancel();
                run.end(ChatFailure::new(ErrorCode::Timeout, "the answer took too long, please try again"));
            }
            result = &mut work => break result,
        }
    };
    while let Ok(event) = heard.try_recv() {
        hear(&run, event);
    }
    match result {
        Ok(Ok(())) => run.end(broken()),
        Ok(Err(failure)) => {
            if run.log.outcome().is_some() {
                tracing::error!(run = %run.id, %failure, "a run failed after its reader had been answered");
            }
            run.end(failure);
        }
        Err(_) => {
            tracing::error!(run = %run.id, "a chat run panicked");
            run.end(broken());
        }
    }
}

fn hear(run: &Run, event: ChatEvent) {
    match event {
        ChatEvent::Text(text) => {
            if !run.log.say(text) {
                run.cancel.cancel();
                run.end(ChatFailure::new(ErrorCode::LlmError, "the answer became too long"));
            }
        }
        ChatEvent::Answered(answer) => {
            run.log.answer(answer);
            run.mark_over();
        }
    }
}

fn broken() -> ChatFailure {
    ChatFailure::new(
        ErrorCode::ProcessingError,
        "something went wrong on our side, please try again",
    )
}

/// A lock here guards plain values that are whole after every statement: a panic elsewhere leaves nothing half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
