//! How a run begins that need not wait for anything: new input, on a thread that is not kept or that its store, which never
//! waits, does not have yet. Every other takes the long way of [`open`](super::open).

use std::sync::Arc;

use super::{
    Beginning, Journal, Options, Run, STEP_LIMIT_DEFAULT,
    behind::{Durability, StoreHandle},
    driver::Driver,
    error::RunError,
    event::Sink,
    guard::guarded,
    open::{Ground, driver_of},
    recording::Recording,
};
use crate::{
    checkpoint::{CheckpointSource, RunStatus},
    dynamic::Compat,
    graph::Graph,
    id::{RunId, ThreadKey},
    state::State,
};

/// How far a run has come at once.
pub(super) enum Begun<S: State> {
    Open(Box<Driver<S>>),
    /// Nothing has happened yet: it takes the long way.
    Not(Run<S>),
}

/// Begins a run as far as that goes without waiting.
pub(super) fn begin<S: State>(run: Run<S>) -> Result<Begun<S>, RunError> {
    if let Some(error) = run.missing() {
        return Err(error);
    }
    if run.options.is_some() || !is_plain(&run.graph) || !matches!(run.beginning, Beginning::Input(_)) {
        return Ok(Begun::Not(run));
    }
    let (mut hold, mut handle, mut id) = (None, None, None);
    if let Some(store) = &run.graph.store {
        hold = store.at_once().and_then(|_| run.graph.setting.busy.hold_free(&run.key));
        let claimed = match store.at_once().filter(|_| hold.is_some()) {
            Some(quick) => quick.claim_new(&run.key)?,
            None => None,
        };
        let Some((epoch, line)) = claimed else {
            drop(hold);
            return Ok(Begun::Not(run));
        };
        // Its first checkpoint names it.
        id = Some(RunId::from(run.graph.setting.clock.id()));
        handle = Some(StoreHandle::new(Arc::clone(store), epoch, None, Durability::Sync).with_line(Some(line)));
    }
    let Run {
        graph,
        key,
        beginning,
        step_limit,
        ..
    } = run;
    let Beginning::Input(input) = beginning else {
        // It was looked at above.
        return Err(RunError::UnknownThread { thread: key });
    };
    let state = started(&graph.parts.shape, input, &key)?;
    let ground = Ground {
        graph,
        key,
        sink: Sink::Nobody,
        deadline: None,
        hold,
        handle,
    };
    let options = Options {
        step_limit: step_limit.unwrap_or(STEP_LIMIT_DEFAULT),
        ..Options::default()
    };
    let mut driver = driver_of(ground, options, state, 0, id, Journal::default());
    driver.admitted()?;
    if driver.shared.run.store.is_none() {
        driver.forget_step();
    } else {
        let mark = driver.mark(driver.admission(), None);
        driver.save_at_once(CheckpointSource::Input, Some(mark), Vec::new())?;
    }
    Ok(Begun::Open(driver))
}

/// The state that a new thread begins with, put where it stays before it is given on: states may be large.
pub(super) fn started<S: State>(shape: &S::Shape, input: S::Input, key: &ThreadKey) -> Result<Arc<S>, RunError> {
    guarded(|| Arc::new(S::start(shape, input))).map_err(|panic| RunError::Panic {
        doing: "merging the input".to_owned(),
        task: None,
        step: 0,
        thread: Box::new(key.clone()),
        checkpoint: None,
        message: panic.message,
    })
}

/// Whether the runs of a graph begin by their input alone, and with nothing to look out for.
fn is_plain<S: State>(graph: &Graph<S>) -> bool {
    let parts = &graph.parts;
    let apart = parts.compat == Compat::Recorded;
    !apart && parts.rules.deadline.is_none() && graph.recording == Recording::Off
}

impl<S: State> Driver<S> {
    /// The tasks that follow from the input that was merged.
    pub(super) fn admitted(&mut self) -> Result<(), RunError> {
        self.may_pause = true;
        guarded(|| self.follow_start())
            .map_err(|panic| self.panicked("leading on from `START`", None, panic))?
            .map_err(|unmerged| self.unmerged(&unmerged))
    }

    /// How far the run is once its input is saved.
    pub(super) fn admission(&self) -> RunStatus {
        if self.tasks.is_empty() {
            RunStatus::Done
        } else {
            RunStatus::Running
        }
    }
}
