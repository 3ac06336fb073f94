//! The way of a replay: from checkpoint to checkpoint, comparing what comes out.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    Replayed,
    compare::{failed, of_frontiers, of_states, output_of},
    difference::{Difference, Divergence},
    notes::Notes,
};
use crate::{
    checkpoint::{At, Checkpoint, CheckpointError, CheckpointSource, Checkpointer, Epoch, Page, RecordKind, Seq},
    clock::Clock,
    dynamic::Compat,
    graph::{Graph, Output, Payload},
    id::{RunId, ThreadKey},
    node::TypeMap,
    run::{
        Journal, Options,
        barrier::Outputs,
        behind::{Durability, StoreHandle},
        budget::Account,
        driver::Driver,
        error::{NodePanic, RunError},
        event::Sink,
        frontier::{Frontier, Lost},
        guard::guarded,
        open::{Opening, decode},
        plan::{Seed, Waiting},
        recording::Origin,
        step::StoredOutput,
        version::{Inherited, kept_output, migrate_inputs},
    },
    scrub::told,
    state::{State, StateError},
};

/// How many checkpoints one read of the history gives.
const PAGE: u32 = 500;

/// Number of the checkpoint that every thread begins with.
const FIRST: Seq = Seq(1);

/// Why a replay goes no further.
pub(super) enum Halt {
    /// It came out otherwise.
    Difference(Box<Difference>),
    /// It could not be compared.
    Error(Box<RunError>),
}

impl From<RunError> for Halt {
    fn from(error: RunError) -> Self {
        Self::Error(Box::new(error))
    }
}

impl From<StateError> for Halt {
    fn from(error: StateError) -> Self {
        Self::Error(Box::new(error.into()))
    }
}

impl From<CheckpointError> for Halt {
    fn from(error: CheckpointError) -> Self {
        Self::Error(Box::new(error.into()))
    }
}

impl From<Difference> for Halt {
    fn from(difference: Difference) -> Self {
        Self::Difference(Box::new(difference))
    }
}

/// Whether a checkpoint came out as recorded.
pub(super) type Compared = Result<(), Halt>;

/// The tasks that run next, and what waits.
type Next = (Vec<Seed<Payload>>, Waiting);

/// The time at which a checkpoint was written.
#[derive(Debug)]
struct Stopped(DateTime<Utc>);

impl Clock for Stopped {
    fn now(&self) -> DateTime<Utc> {
        self.0
    }

    fn id(&self) -> Uuid {
        Uuid::nil()
    }
}

/// A replay under way.
pub(super) struct Walk<S: State> {
    pub(super) graph: Graph<S>,
    pub(super) key: ThreadKey,
    pub(super) store: Arc<dyn Checkpointer>,
    pub(super) bodies: bool,
    pub(super) provided: TypeMap,
    pub(super) replayed: Replayed,
    /// The state as it came out at the checkpoint before. It has fields that are not stored; a run that was resumed in
    /// between has loaded its state, and so does the replay.
    state: Option<Arc<S>>,
    /// The newest driver, with what is to run next.
    pub(super) last: Option<Box<Driver<S>>>,
}

impl<S: State> Walk<S> {
    pub(super) fn new(graph: &Graph<S>, key: ThreadKey, store: Arc<dyn Checkpointer>, provided: TypeMap) -> Self {
        let mut graph = graph.clone();
        (graph.store, graph.cache) = (None, None);
        // What a layer counts and tells is of runs, and this is none.
        Arc::make_mut(&mut graph.setting).layers = Arc::default();
        Self {
            graph,
            key,
            store,
            bodies: false,
            provided,
            replayed: Replayed::default(),
            state: None,
            last: None,
        }
    }

    /// Goes from the oldest checkpoint of the branch to the addressed one, or to the first that comes out otherwise.
    pub(super) async fn go(&mut self, at: At, checkpoints_max: u32) -> Result<(), RunError> {
        let found = self.store.get(&self.key, at).await?;
        let end = found.ok_or_else(|| match at {
            At::Head => RunError::UnknownThread {
                thread: self.key.clone(),
            },
            At::Seq(_) | At::Id(_) => RunError::NoCheckpoint {
                thread: Box::new(self.key.clone()),
                at: at.to_string(),
            },
        })?;
        let (line, mut before) = self.line(end.info.seq, checkpoints_max).await?;
        for seq in line.into_iter().rev() {
            let after = self.read(seq).await?;
            let compared = self.compare(before.as_ref(), &after).await;
            if self.halted(compared, &after, after.info.step)? {
                return Ok(());
            }
            self.replayed.checkpoints += 1;
            before = Some(after);
        }
        if let Some(end) = before.filter(|_| self.bodies && at == At::Head) {
            let compared = self.unfinished(&end).await;
            self.halted(compared, &end, end.info.step + 1)?;
        }
        Ok(())
    }

    /// Whether the replay has diverged at a checkpoint, which is noted.
    fn halted(&mut self, compared: Compared, at: &Checkpoint, step: i64) -> Result<bool, RunError> {
        let difference = match compared {
            Ok(()) => return Ok(false),
            Err(Halt::Error(error)) => return Err(*error),
            Err(Halt::Difference(difference)) => *difference,
        };
        self.replayed.divergence = Some(Divergence {
            step,
            seq: at.info.seq,
            checkpoint: at.info.id,
            difference,
        });
        Ok(true)
    }

    async fn read(&self, seq: Seq) -> Result<Checkpoint, RunError> {
        let found = self.store.get(&self.key, At::Seq(seq)).await?;
        found.ok_or_else(|| RunError::NoCheckpoint {
            thread: Box::new(self.key.clone()),
            at: At::Seq(seq).to_string(),
        })
    }

    /// The checkpoints that lead to one, newest first, and the one before the oldest of them.
    async fn line(&self, end: Seq, checkpoints_max: u32) -> Result<(Vec<Seq>, Option<Checkpoint>), RunError> {
        let mut line = Vec::new();
        let mut wanted = Some(end);
        let mut before = Seq(end.0.saturating_add(1));
        while let Some(next) = wanted {
            if line.len() >= usize::try_from(checkpoints_max).unwrap_or(usize::MAX) {
                return Ok((line, Some(self.read(next).await?)));
            }
            let page = Page {
                before: Some(before),
                limit: PAGE,
            };
            // A parent is always older than its child.
            let page = self.store.list(&self.key, page).await?;
            let Some(oldest) = page.last() else { break };
            before = oldest.seq;
            for info in page {
                let room = line.len() < usize::try_from(checkpoints_max).unwrap_or(usize::MAX);
                if Some(info.seq) == wanted && room {
                    if info.parent.is_none() && info.seq > FIRST {
                        // What came before was taken out: this one is where the record begins.
                        return Ok((line, Some(self.read(info.seq).await?)));
                    }
                    line.push(info.seq);
                    wanted = info.parent;
                }
            }
        }
        Ok((line, None))
    }

    /// A driver that writes nothing, at a checkpoint about to come out.
    fn stage(
        &self,
        state: Arc<S>,
        before: Option<&Checkpoint>,
        after: &Checkpoint,
        options: Options<S>,
    ) -> Box<Driver<S>> {
        let run = after.info.run.unwrap_or_else(|| RunId::from(Uuid::nil()));
        let graph = self.graph.clone().clock(Stopped(after.info.created_at));
        let opening = Opening::of(graph, self.key.clone(), Box::new(options), Sink::Nobody);
        let mut opening = Box::new(opening);
        if opening.options.replay.is_some()
            && let Some(before) = before
        {
            let sealed = Arc::new(super::notes::Sealed(Arc::clone(&self.store)));
            let handle = StoreHandle::new(sealed, Epoch(0), Some(before.info.seq), Durability::Sync);
            opening.handle = Some(handle);
        }
        let mut driver = opening.driver_at(state, after.info.step, Some(run), Journal::default());
        driver.shared.recorded_at = before.map(|before| before.info.created_at);
        driver.shared.begins_at = before.map_or(Uuid::nil(), |before| before.info.id);
        driver
    }

    /// What a task or an edit gave, of whichever version.
    fn kept(&self, at: &Checkpoint, body: &[u8]) -> Result<StoredOutput<S::Update>, Halt> {
        let kept = kept_output::<S>(&self.graph.parts.shape, at.info.state_version, body);
        kept.map_err(|error| failed(&error.into()))
    }

    fn not_recorded(&self, at: &Checkpoint, what: &'static str) -> RunError {
        RunError::NotRecorded {
            thread: Box::new(self.key.clone()),
            checkpoint: at.info.seq,
            what,
        }
    }

    /// Makes one checkpoint again out of the one before it.
    async fn compare(&mut self, before: Option<&Checkpoint>, after: &Checkpoint) -> Compared {
        let origin = Frontier::decode(&after.info.frontier)?.origin;
        match (after.info.source, before, origin) {
            (CheckpointSource::Input, before, Some(Origin::Input(input))) => {
                let input = crate::run::decode_record::<S::Input>(&input.0)
                    .and_then(|input| S::migrate_input(&self.graph.parts.shape, after.info.state_version, input));
                let input = input.map_err(|error| failed(&error.into()))?;
                self.input(before, after, input)
            }
            (CheckpointSource::Input, before, _) if self.graph.parts.compat == Compat::Recorded => {
                self.input_apart(before, after)
            }
            (CheckpointSource::Step, Some(before), _) => self.step(before, after).await,
            (CheckpointSource::Update, before, Some(Origin::Edit { node, update })) => {
                let update = self.kept(after, &update.0)?.update;
                self.edit(before, after, &node, update)
            }
            (CheckpointSource::Update, Some(before), None)
                if before.records.iter().any(|record| record.kind == RecordKind::Command)
                    || self.went_over_budget(before, after)? =>
            {
                self.command(before, after)
            }
            (CheckpointSource::Fork, Some(before), _) => self.fork(before, after),
            (CheckpointSource::Input, ..) => Err(self.not_recorded(after, "its input").into()),
            (CheckpointSource::Update, ..) => Err(self.not_recorded(after, "its edit").into()),
            (CheckpointSource::Step | CheckpointSource::Fork, None, _) => {
                Err(self.not_recorded(after, "the checkpoint before").into())
            }
        }
    }

    fn decoded(&self, at: &Checkpoint) -> Result<Arc<S>, RunError> {
        decode::<S>(&self.graph.parts.shape, at).map(Arc::new)
    }

    fn options(&self) -> Options<S> {
        Options {
            provided: self.provided.clone(),
            ..Options::default()
        }
    }

    fn input(&mut self, before: Option<&Checkpoint>, after: &Checkpoint, input: S::Input) -> Compared {
        let shape = &self.graph.parts.shape;
        let state = match before {
            None => guarded(|| S::start(shape, input)),
            Some(before) => {
                let mut state = decode::<S>(shape, before)?;
                guarded(|| state.restart(input, &mut crate::Changes::default())).map(|()| state)
            }
        };
        let panicked = |panic: NodePanic| RunError::Panic {
            doing: "merging the input".to_owned(),
            task: None,
            step: after.info.step,
            thread: Box::new(self.key.clone()),
            checkpoint: before.map(|before| before.info.seq),
            message: panic.message,
        };
        let state = Arc::new(state.map_err(|panic| failed(&panicked(panic)))?);
        let mut driver = self.stage(state, before, after, self.options());
        let followed = guarded(|| driver.follow_start());
        let followed = followed.map_err(|panic| driver.panicked("leading on from `START`", None, panic));
        let followed = followed.and_then(|led| led.map_err(|unmerged| driver.unmerged(&unmerged)));
        followed.map_err(|error| failed(&error))?;
        self.settle(driver, after)
    }

    /// Input that has a checkpoint of its own stands there as what START is fed with, and changes nothing yet.
    fn input_apart(&mut self, before: Option<&Checkpoint>, after: &Checkpoint) -> Compared {
        let topology = &self.graph.parts.topology;
        let (state, waiting) = match before {
            Some(before) => (self.decoded(before)?, self.graph.dropped(before)?),
            None => match S::empty(&self.graph.parts.shape) {
                Some(state) => (Arc::new(state), Waiting::new(topology)),
                None => return Err(self.not_recorded(after, "its input").into()),
            },
        };
        let (tasks, _) = self.load(after)?;
        let mut driver = self.stage(state, before, after, self.options());
        driver.stand_at((tasks, waiting));
        self.settle(driver, after)
    }

    fn edit(&mut self, before: Option<&Checkpoint>, after: &Checkpoint, node: &str, update: S::Update) -> Compared {
        let topology = Arc::clone(&self.graph.parts.topology);
        let Some(node) = topology.place(node) else {
            return Err(Difference::Gone { place: node.to_owned() }.into());
        };
        let (state, waiting) = match before {
            Some(before) => (self.decoded(before)?, self.graph.dropped(before)?),
            None => match S::empty(&self.graph.parts.shape) {
                Some(state) => (Arc::new(state), Waiting::new(&topology)),
                None => return Err(self.not_recorded(after, "the checkpoint before").into()),
            },
        };
        let mut driver = self.stage(state, before, after, self.options());
        driver.waiting = waiting;
        driver.write_as(node, update).map_err(|error| failed(&error))?;
        self.settle(driver, after)
    }

    /// A run that had nothing left to do was told to write, or one that goes on has a smaller budget than it has spent.
    fn command(&mut self, before: &Checkpoint, after: &Checkpoint) -> Compared {
        let state = self.decoded(before)?;
        let mut driver = self.stage(state, Some(before), after, self.options());
        driver.shared.inherited = Inherited::of::<S>(&self.graph.parts, before)?;
        driver.stand_at(self.load(before)?);
        driver.obey_all(&before.records, None).map_err(|error| failed(&error))?;
        if self.went_over_budget(before, after)? {
            driver.go_to_budget_node();
        }
        self.settle(driver, after)
    }

    fn fork(&mut self, before: &Checkpoint, after: &Checkpoint) -> Compared {
        let state = self.decoded(before)?;
        let mut driver = self.stage(state, Some(before), after, self.options());
        driver.shared.inherited = Inherited::of::<S>(&self.graph.parts, before)?;
        driver.stand_at(self.load(before)?);
        self.settle(driver, after)
    }

    async fn step(&mut self, before: &Checkpoint, after: &Checkpoint) -> Compared {
        let resumed = |kind| matches!(kind, RecordKind::Answer | RecordKind::Command);
        let state = match self.state.take() {
            Some(state) if !before.records.iter().any(|record| resumed(record.kind)) => state,
            _ => self.decoded(before)?,
        };
        let mut driver = self.stage(state, Some(before), after, self.options());
        driver.shared.inherited = Inherited::of::<S>(&self.graph.parts, before)?;
        driver.stand_at(self.load(before)?);
        driver.obey_all(&before.records, None).map_err(|error| failed(&error))?;
        if driver.is_start() {
            driver.shared.step -= 1;
            driver.start().await.map_err(|error| failed(&error))?;
            return self.settle(driver, after);
        }
        driver.note_arrivals();
        // Joins begin to count their time.
        drop(driver.watch());
        let outputs = self.outputs(&driver, before)?;
        if self.bodies {
            let ended = outputs
                .iter()
                .enumerate()
                .filter(|(_, output)| output.cancelled.is_none());
            let ended: Vec<_> = ended.map(|(at, _)| at).collect();
            self.enter(&driver, before, after, &ended).await?;
        }
        driver
            .barrier(Outputs::Crowd(outputs))
            .await
            .map_err(|error| failed(&error))?;
        if self.went_over_budget(before, after)? {
            driver.go_to_budget_node();
        }
        self.settle(driver, after)
    }

    /// Whether a spent budget has led the run elsewhere between two checkpoints: a replay spends nothing, the record says it.
    fn went_over_budget(&self, before: &Checkpoint, after: &Checkpoint) -> Result<bool, Halt> {
        if self.graph.parts.on_budget.is_none() {
            return Ok(false);
        }
        let routed = |at: &Checkpoint| Frontier::decode(&at.info.frontier).map(|frontier| frontier.account.is_routed());
        Ok(routed(after)? && !routed(before)?)
    }

    /// What the tasks of a step gave back.
    fn outputs(&self, driver: &Driver<S>, before: &Checkpoint) -> Result<Vec<Output<S>>, Halt> {
        let mut outputs = Vec::with_capacity(driver.tasks.len());
        for task in driver.tasks.iter() {
            let id = driver.task_id(task);
            let body = output_of(before, &id);
            let body = body.ok_or_else(|| self.not_recorded(before, "what its tasks gave back"))?;
            let stored = driver.kept_output(body).map_err(RunError::from);
            let output = stored.and_then(|stored| driver.output(task.node, stored));
            outputs.push(output.map_err(|error| Difference::Failed {
                task: Some(id),
                error: told(&error),
            })?);
        }
        Ok(outputs)
    }

    /// Of a step that has not ended, the bodies of those tasks that have.
    async fn unfinished(&mut self, end: &Checkpoint) -> Compared {
        let state = self.decoded(end)?;
        let mut driver = self.stage(state, Some(end), end, self.options());
        driver.shared.inherited = Inherited::of::<S>(&self.graph.parts, end)?;
        driver.stand_at(self.load(end)?);
        if driver.is_start() {
            return Ok(());
        }
        driver.obey_all(&end.records, None).map_err(|error| failed(&error))?;
        driver.shared.step = end.info.step + 1;
        driver.note_arrivals();
        let mut ended = Vec::new();
        for (at, task) in driver.tasks.iter().enumerate() {
            if let Some(body) = output_of(end, &driver.task_id(task))
                && self.kept(end, body)?.cancelled.is_none()
            {
                ended.push(at);
            }
        }
        self.enter(&driver, end, end, &ended).await
    }

    /// Reads what a checkpoint says is to run next.
    fn load(&self, at: &Checkpoint) -> Result<Next, Halt> {
        let frontier = Frontier::decode(&at.info.frontier)?;
        let loaded = frontier.load(&self.graph.parts.topology, &self.graph.parts.nodes);
        let (tasks, waiting) = loaded.map_err(|lost| match lost {
            Lost::Place(place) => Difference::Gone { place }.into(),
            Lost::State(error) => failed(&error.into()),
        })?;
        let tasks = migrate_inputs::<S>(&self.graph.parts, at.info.state_version, tasks);
        Ok((tasks.map_err(|error| failed(&error.into()))?, waiting))
    }

    /// Compares what has come out with the checkpoint, and goes on from there.
    fn settle(&mut self, driver: Box<Driver<S>>, after: &Checkpoint) -> Compared {
        let recorded = self.decoded(after)?.encode()?;
        of_states(
            S::fields(&self.graph.parts.shape),
            &recorded,
            &driver.shared.state.encode()?,
        )?;
        let parts = Arc::clone(&self.graph.parts);
        // What was spent is not compared: a replay spends nothing.
        let account = Account::default();
        let frontier = Frontier::store(&parts, &driver.tasks, &driver.waiting, account)?;
        // As today's graph names it.
        let (tasks, waiting) = self.load(after)?;
        let recorded = Frontier::store(&parts, &tasks, &waiting, account)?;
        of_frontiers(&Frontier::decode(&recorded)?, &Frontier::decode(&frontier)?)?;
        self.state = Some(Arc::clone(&driver.shared.state));
        self.last = Some(driver);
        Ok(())
    }

    /// Enters the nodes of some tasks of a step with what the record says they were given.
    async fn enter(
        &mut self,
        driver: &Driver<S>,
        before: &Checkpoint,
        after: &Checkpoint,
        tasks: &[usize],
    ) -> Compared {
        let notes = Arc::new(Notes::of(Arc::clone(&self.store), &before.records)?);
        let seeds = tasks.iter().filter_map(|at| Some((*at, driver.tasks.get(*at)?)));
        let seeds: Vec<_> = seeds.collect();
        if seeds.iter().any(|(_, task)| !notes.knows(&driver.task_id(task))) {
            return Err(self.not_recorded(before, "what its tasks asked of services").into());
        }
        let seeds = seeds
            .into_iter()
            .filter(|(_, task)| !notes.is_cached(&driver.task_id(task)));
        let seeds: Vec<_> = seeds.collect();
        let options = Options {
            replay: Some(Arc::clone(&notes)),
            ..self.options()
        };
        let mut stage = self.stage(Arc::clone(&driver.shared.state), Some(before), after, options);
        stage.shared.step = driver.shared.step;
        stage.shared.arrived.clone_from(&driver.shared.arrived);
        stage.shared.inherited.clone_from(&driver.shared.inherited);
        stage.shared.run.journal.keep(before.records.clone());
        let ends = super::bodies::run(&stage.shared, seeds.iter().copied()).await?;
        self.replayed.bodies += u64::try_from(seeds.len()).unwrap_or(u64::MAX);
        self.replayed.bodies += notes.inner_bodies();
        for ((_, task), end) in seeds.iter().zip(ends) {
            let id = driver.task_id(task);
            let recorded = output_of(before, &id).unwrap_or_default();
            if let Some(first) = notes.first(&id) {
                return Err(first.into());
            }
            super::bodies::compare(driver, task.node, &id, recorded, end)?;
        }
        Ok(())
    }
}
