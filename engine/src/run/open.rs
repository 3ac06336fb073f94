//! How a run begins: takes its thread, loads what there is, writes its admission, before any node runs.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::AtomicU64, atomic::AtomicUsize},
};

use tokio::{sync::Notify, time::Instant};

use super::{
    Beginning, Journal, OnPending, Options, Outcome, Run,
    barrier::Sizes,
    busy::Hold,
    driver::Driver,
    error::RunError,
    event::Sink,
    frontier::{Frontier, Lost},
    plan::{Departure, Joins, plan},
    step::{Shared, panic_message},
};
use crate::{
    ask::{Answers, Question},
    checkpoint::{At, Checkpoint, CheckpointSource, Commit, RecordKind, RunStatus, TaskRecord},
    graph::Graph,
    id::{RunId, ThreadKey},
    node::{RunContext, StoreHandle},
    state::{Changes, State},
};

/// A run that has begun, or that had nothing left to do.
pub(crate) enum Opened<S: State> {
    Open(Box<Driver<S>>),
    Ended(Outcome<S>),
}

/// Opens a run as its options say.
pub(crate) async fn open<S: State>(mut run: Run<S>) -> Result<Opened<S>, RunError> {
    let sender = run.options.events.take();
    run.options.reader_gone = sender.as_ref().and_then(|sender| sender.reader_gone.clone());
    let sink = Sink::of(sender, &run.graph.parts.topology);
    open_with(run, sink).await
}

/// Opens a run whose events go to `sink`.
pub(crate) async fn open_with<S: State>(run: Run<S>, sink: Sink<S>) -> Result<Opened<S>, RunError> {
    let Run {
        graph,
        key,
        beginning,
        options,
    } = run;
    // A deadline is of the running process, never of the record.
    let deadline = options.time_limit.map(|limit| Instant::now() + limit);
    let mut opening = Opening {
        graph,
        key,
        options,
        sink,
        deadline,
        hold: None,
        handle: None,
    };
    let mut found = None;
    if let Some(store) = opening.graph.store.clone() {
        let Some(hold) = opening.turn().await? else {
            return Ok(Opened::Ended(Outcome::Cancelled));
        };
        opening.hold = Some(hold);
        found = store.get(&opening.key, At::Head).await?;
        // Before the claim: a call that is refused must not take the thread away from a run under way.
        opening.refuse(&beginning, found.as_ref())?;
        let epoch = store.claim(&opening.key).await?;
        if found.is_some() {
            // Whoever had the thread may have written until now. A new thread's first commit would conflict.
            found = store.get(&opening.key, At::Head).await?;
        }
        opening.handle = Some(StoreHandle {
            store,
            epoch,
            head: AtomicU64::new(found.as_ref().map_or(0, |checkpoint| checkpoint.info.seq.0)),
        });
    }
    match beginning {
        Beginning::Input(input) => opening
            .admit(input, found)
            .await
            .map(|driver| Opened::Open(Box::new(driver))),
        Beginning::Resume(answers) => opening.resume(answers, found).await,
    }
}

/// Everything a driver is made of, before the state is known.
struct Opening<S: State> {
    graph: Graph<S>,
    key: ThreadKey,
    options: Options<S>,
    sink: Sink<S>,
    deadline: Option<Instant>,
    hold: Option<Hold>,
    handle: Option<StoreHandle>,
}

impl<S: State> Opening<S> {
    /// Waits for the thread's turn, or `None` if the run is cancelled meanwhile.
    async fn turn(&self) -> Result<Option<Hold>, RunError> {
        let limit = self.options.time_limit.unwrap_or_default();
        let timed_out = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            hold = self.graph.busy.hold(&self.key, self.options.on_busy) => {
                let busy = || RunError::Busy { thread: self.key.clone() };
                hold.ok_or_else(busy).map(Some)
            }
            () = self.options.cancel.0.cancelled() => Ok(None),
            () = timed_out => Err(RunError::TimeLimit { limit }),
        }
    }

    /// What is wrong with the call itself.
    fn refuse(&self, beginning: &Beginning<S>, found: Option<&Checkpoint>) -> Result<(), RunError> {
        match (beginning, found) {
            (Beginning::Input(_), None) => Ok(()),
            (Beginning::Input(_), Some(found)) => self.refuse_pending(found),
            (Beginning::Resume(answers), Some(found)) => {
                answer_records(&found.records, answers.clone()).map(|_fitting| ())
            }
            (Beginning::Resume(_), None) => Err(self.unknown()),
        }
    }

    fn unknown(&self) -> RunError {
        RunError::UnknownThread {
            thread: self.key.clone(),
        }
    }

    /// New input: the admission is durable before any node runs.
    async fn admit(self, input: S::Input, found: Option<Checkpoint>) -> Result<Driver<S>, RunError> {
        let parts = Arc::clone(&self.graph.parts);
        let mut changes = Changes::default();
        let (state, step, sizes) = match found {
            None => (guarded(0, || S::start(&parts.shape, input))?, 0, Sizes::default()),
            Some(checkpoint) => {
                self.refuse_pending(&checkpoint)?;
                // The input itself counts as a step, and so does its merge.
                let step = checkpoint.info.step + 2;
                let mut state = decode::<S>(&parts.shape, &checkpoint)?;
                guarded(step, || state.restart(input, &mut changes))?;
                (state, step, sizes(&checkpoint))
            }
        };
        let run = self.options.run.unwrap_or_else(|| RunId::from(self.graph.clock.id()));
        let outbox = self.options.outbox.clone();
        let mut driver = self.driver(state, step, run, Journal::default());
        driver.sizes = sizes;
        driver.changes = changes;
        let mut start = Departure {
            node: parts.topology.start(),
            chosen: Vec::new(),
            sends: Vec::new(),
        };
        guarded(step, || driver.route(&driver.shared.state, &mut start))?;
        driver.tasks = plan(&parts.topology, vec![start], &mut driver.joins);
        let status = if driver.tasks.is_empty() {
            RunStatus::Done
        } else {
            RunStatus::Running
        };
        let mark = driver.mark(status, None);
        driver.save(CheckpointSource::Input, Some(mark), outbox).await?;
        Ok(driver)
    }

    fn refuse_pending(&self, found: &Checkpoint) -> Result<(), RunError> {
        let names = Frontier::decode(&found.info.frontier)?.names();
        if names.is_empty() || self.options.on_pending == OnPending::Discard {
            return Ok(());
        }
        Err(RunError::Pending {
            thread: self.key.clone(),
            tasks: names.join(", "),
        })
    }

    /// Goes on from the thread's head.
    async fn resume(self, answers: Answers, found: Option<Checkpoint>) -> Result<Opened<S>, RunError> {
        if self.handle.is_none() {
            return Err(RunError::NoCheckpointer {
                graph: self.graph.name().to_owned(),
            });
        }
        let Some(found) = found else {
            return Err(self.unknown());
        };
        let parts = Arc::clone(&self.graph.parts);
        let lost = |lost| match lost {
            Lost::Place(place) => RunError::Incompatible {
                thread: self.key.clone(),
                graph: self.graph.name().to_owned(),
                place,
            },
            Lost::State(error) => error.into(),
        };
        let (tasks, joins) = Frontier::decode(&found.info.frontier)?
            .load(&parts.topology, &parts.nodes)
            .map_err(lost)?;
        let state = decode::<S>(&parts.shape, &found)?;
        let (step, sizes, recorded_at) = (found.info.step, sizes(&found), found.info.created_at);
        let run = found
            .run
            .map_or_else(|| RunId::from(self.graph.clock.id()), |mark| mark.run);
        let mut records = found.records;
        let given = answer_records(&records, answers)?;
        records.extend(given.iter().cloned());
        let mut driver = self.driver(state, step, run, Journal::of(records));
        driver.joins = joins;
        if tasks.is_empty() {
            return Ok(Opened::Ended(driver.end()));
        }
        driver.tasks = tasks;
        driver.sizes = sizes;
        driver.has_records = true;
        driver.shared.recorded_at = Some(recorded_at);
        let mark = driver.mark(RunStatus::Running, None);
        driver
            .commit(Commit {
                records: given,
                run: Some(mark),
                ..Commit::default()
            })
            .await?;
        Ok(Opened::Open(Box::new(driver)))
    }

    fn driver(self, state: S, step: i64, run: RunId, journal: Journal) -> Driver<S> {
        let Self {
            graph,
            key,
            options,
            sink,
            deadline,
            hold,
            handle,
        } = self;
        let topology = Arc::clone(&graph.parts.topology);
        let context = RunContext {
            key,
            run,
            topology: Arc::clone(&topology),
            clock: graph.clock,
            cancel: options.cancel.0,
            reader_gone: options.reader_gone,
            deadline,
            step_limit: options.step_limit,
            provided: options.provided,
            store: handle,
            journal,
            in_flight: AtomicUsize::new(0),
            landed: Notify::new(),
        };
        Driver {
            shared: Shared {
                parts: graph.parts,
                run: Arc::new(context),
                state: Arc::new(state),
                emitter: sink.emitter(),
                sink: Arc::new(sink),
                step,
                recorded_at: None,
            },
            tasks: Vec::new(),
            joins: Joins::new(&topology),
            steps_left: options.step_limit,
            step_limit: options.step_limit,
            time_limit: options.time_limit,
            sizes: Sizes::default(),
            changes: Changes::default(),
            has_records: false,
            _hold: hold,
        }
    }
}

/// Calls what users have written: reducers, branches, fan-outs. Nothing of a panic's step is kept.
pub(super) fn guarded<T>(step: i64, call: impl FnOnce() -> T) -> Result<T, RunError> {
    std::panic::catch_unwind(AssertUnwindSafe(call)).map_err(|panic| RunError::Panic {
        step,
        message: panic_message(panic.as_ref()),
    })
}

pub(crate) fn decode<S: State>(shape: &S::Shape, checkpoint: &Checkpoint) -> Result<S, RunError> {
    let parts: Vec<&[u8]> = checkpoint.parts.iter().map(AsRef::as_ref).collect();
    Ok(S::decode(shape, &parts)?)
}

fn sizes(checkpoint: &Checkpoint) -> Sizes {
    let mut parts = checkpoint.parts.iter().map(|part| part.len());
    Sizes {
        snapshot: parts.next().unwrap_or_default(),
        deltas: parts.sum(),
    }
}

/// The open questions among a step's records, by id, each with its task.
pub(crate) fn open_questions(records: &[TaskRecord]) -> Vec<(String, Question)> {
    let answered: HashMap<(&str, &str), bool> = records
        .iter()
        .filter(|record| record.kind == RecordKind::Answer)
        .map(|record| ((record.task.as_str(), record.key.as_str()), !record.body.is_empty()))
        .collect();
    let questions = records.iter().filter(|record| record.kind == RecordKind::Question);
    let open = questions.filter(|record| answered.get(&(record.task.as_str(), record.key.as_str())) != Some(&true));
    open.filter_map(|record| Some((record.task.clone(), serde_json::from_slice(&record.body).ok()?)))
        .collect()
}

/// Answers as records; nothing is written when one of them refers to no open question.
fn answer_records(records: &[TaskRecord], answers: Answers) -> Result<Vec<TaskRecord>, RunError> {
    let open = open_questions(records);
    let ids = || open.iter().map(|(_, question)| question.id.clone()).collect::<Vec<_>>();
    let given = match answers {
        Answers::None => return Ok(Vec::new()),
        Answers::Many(given) => given,
        Answers::One(value) => match open.as_slice() {
            [(_, question)] => vec![(question.id.clone(), value)],
            [] => {
                return Err(RunError::UnknownQuestion {
                    id: String::new(),
                    open: ids(),
                });
            }
            _ => return Err(RunError::AmbiguousAnswer { open: ids() }),
        },
    };
    let record = |(id, value): (String, serde_json::Value)| {
        let Some((task, question)) = open.iter().find(|(_, question)| question.id == id) else {
            return Err(RunError::UnknownQuestion { id, open: ids() });
        };
        let body = value.to_string().into_bytes().into();
        Ok(TaskRecord {
            task: task.clone(),
            kind: RecordKind::Answer,
            key: question.name.clone(),
            body,
        })
    };
    given.into_iter().map(record).collect()
}
