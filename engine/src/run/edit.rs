//! Editing a thread from outside, as if one of its nodes had written.

use std::sync::Arc;

use super::{
    Beginning, Journal, Options, Run,
    driver::Driver,
    error::RunError,
    event::Sink,
    frontier::Frontier,
    guard::guarded,
    open::{Opening, decode, sizes},
    plan::{Departure, Waiting, plan},
    read::tasks_of,
    recorded,
    recording::Origin,
};
use crate::{
    checkpoint::{At, Checkpoint, CheckpointSource, Checkpointer, Page, RunStatus, Seq},
    dynamic::Compat,
    graph::Graph,
    id::{RunId, ThreadKey},
    state::State,
};

/// As which node an edit is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AsNode {
    /// As the only node of the thread's newest step.
    #[default]
    Last,
    /// As START: what follows from it runs next.
    Start,
    /// As this node.
    Named(String),
}

impl From<&str> for AsNode {
    fn from(name: &str) -> Self {
        Self::Named(name.to_owned())
    }
}

/// How many checkpoints back the newest step is looked for.
const STEPS_BACK_MAX: u32 = 1000;

impl<S: State> Graph<S> {
    /// Writes to a thread as if a step had run in which only one node ran and gave this update: it merges by the fields'
    /// reducers, the node's ways on are followed, and what was to run before is dropped. Nothing runs until the thread is
    /// resumed. At an older checkpoint it begins a branch of its own.
    ///
    /// # Errors
    /// [`RunError::AmbiguousUpdate`] if the edit does not say as which node it is made and the newest step ran several;
    /// [`RunError::UnknownNode`], [`RunError::NoCheckpoint`], or what the store says.
    pub async fn update(
        &self,
        thread: &ThreadKey,
        at: At,
        update: S::Update,
        as_node: impl Into<AsNode> + Send,
    ) -> Result<Seq, RunError> {
        let as_node = as_node.into();
        let options = Options {
            at: (at != At::Head).then_some(at),
            ..Options::default()
        };
        let run = Run {
            graph: self.clone(),
            key: thread.clone(),
            beginning: Beginning::Resume(crate::Answers::None),
            step_limit: None,
            options: Some(Box::new(options)),
        };
        super::open::edit(run, Sink::Nobody, update, as_node).await
    }

    /// The place an edit is made as.
    pub(super) async fn editor(
        &self,
        thread: &ThreadKey,
        at: Option<&Checkpoint>,
        as_node: AsNode,
    ) -> Result<usize, RunError> {
        let topology = &self.parts.topology;
        match as_node {
            AsNode::Start => Ok(topology.start()),
            AsNode::Named(name) => topology.find(&name).ok_or_else(|| RunError::UnknownNode {
                graph: self.name().to_owned(),
                node: name,
            }),
            AsNode::Last => {
                let ran = match at {
                    Some(at) => self.newest_step(thread, at).await?,
                    None => Vec::new(),
                };
                match ran.as_slice() {
                    [] if self.parts.compat == Compat::Recorded => Ok(topology.start()),
                    [name] => topology.place(name).ok_or_else(|| RunError::UnknownNode {
                        graph: self.name().to_owned(),
                        node: name.clone(),
                    }),
                    _ => Err(RunError::AmbiguousUpdate {
                        thread: Box::new(thread.clone()),
                        candidates: ran,
                    }),
                }
            }
        }
    }

    /// The nodes of the tasks of the newest step at or before a checkpoint.
    async fn newest_step(&self, thread: &ThreadKey, at: &Checkpoint) -> Result<Vec<String>, RunError> {
        let store = self.kept()?;
        let mut next = Some(at.info.clone());
        for _ in 0..STEPS_BACK_MAX {
            let Some(info) = next else { break };
            match (info.source, info.parent) {
                (CheckpointSource::Step, Some(parent)) => {
                    let Some(before) = store.get(thread, At::Seq(parent)).await? else {
                        break;
                    };
                    // Between two checkpoints of a run that is saved at its end alone, others have run.
                    if before.info.step + 1 != info.step {
                        break;
                    }
                    let tasks = tasks_of(&before, &self.parts.topology, self.parts.compat)?;
                    let mut ran: Vec<String> = tasks.into_iter().map(|task| task.node).collect();
                    if self.parts.compat == Compat::Recorded {
                        ran = recorded::triggered(&before)?;
                        if ran.is_empty() {
                            next = Some(before.info);
                            continue;
                        }
                    }
                    ran.sort();
                    ran.dedup();
                    if let [name] = ran.as_slice()
                        && self.parts.compat == Compat::Recorded
                    {
                        let earlier = match before.info.parent {
                            Some(earlier) => store.get(thread, At::Seq(earlier)).await?,
                            None => None,
                        };
                        if recorded::seen_twice(self, name, &before, earlier.as_ref())? {
                            ran.push(name.clone());
                        }
                    }
                    return Ok(ran);
                }
                (CheckpointSource::Input, _) if info.step >= 0 => return Ok(vec!["START".to_owned()]),
                (_, None) => break,
                (_, Some(parent)) => next = info_of(store, thread, parent).await?,
            }
        }
        Ok(Vec::new())
    }
}

async fn info_of(
    store: &dyn Checkpointer,
    thread: &ThreadKey,
    seq: Seq,
) -> Result<Option<crate::checkpoint::CheckpointInfo>, RunError> {
    let page = Page {
        before: Some(Seq(seq.0 + 1)),
        limit: 1,
    };
    Ok(store.list(thread, page).await?.into_iter().find(|info| info.seq == seq))
}

impl<S: State> Opening<S> {
    /// Writes the edit as the thread's new head.
    pub(super) async fn write_edit(
        self: Box<Self>,
        found: Option<Box<Checkpoint>>,
        update: S::Update,
        as_node: AsNode,
    ) -> Result<Seq, RunError> {
        let node = self.graph.editor(&self.key, found.as_deref(), as_node).await?;
        let parts = Arc::clone(&self.graph.parts);
        let origin = self.records().then(|| Origin::edit(parts.topology.name(node), &update));
        let origin = origin.transpose()?;
        let mut left = Vec::new();
        let (state, waiting, step, sizes, parent) = match found {
            Some(found) => {
                let waiting = match parts.compat {
                    Compat::Strict => self.graph.dropped(&found)?,
                    Compat::Recorded => {
                        let waiting;
                        (waiting, left) = recorded::left_by_an_edit(&self.graph, &found)?;
                        waiting
                    }
                };
                let parent = self.options.at.map(|_| found.info.seq);
                let state = decode::<S>(&parts.shape, &found)?;
                (
                    state,
                    waiting,
                    found.info.step + 1,
                    sizes::<S>(&parts.shape, &found),
                    parent,
                )
            }
            None => match S::empty(&parts.shape) {
                Some(state) => (
                    state,
                    Waiting::new(&parts.topology),
                    0,
                    super::barrier::Sizes::default(),
                    None,
                ),
                None => return Err(self.unknown()),
            },
        };
        let run = self
            .options
            .run
            .unwrap_or_else(|| RunId::from(self.graph.setting.clock.id()));
        let mut driver = self.driver(state, step, Some(run), Journal::default());
        (driver.sizes, driver.parent, driver.waiting, driver.origin) = (sizes, parent, waiting, origin);
        let before = (parts.compat == Compat::Recorded).then(|| driver.waiting.clone());
        driver.write_as(node, update)?;
        if let Some(before) = before {
            driver.waiting.keep_fired(&before);
            // A node that is triggered anew waits anew.
            left.retain(|node| !driver.waiting.is_held(*node));
            recorded::add_nodes(&mut driver.tasks, left);
        }
        let status = if driver.tasks.is_empty() {
            RunStatus::Done
        } else {
            RunStatus::Stopped
        };
        let mark = driver.mark(status, None);
        driver.save(CheckpointSource::Update, Some(mark), Vec::new()).await?;
        let head = driver.shared.run.store.as_ref().and_then(super::StoreHandle::head);
        Ok(head.unwrap_or(Seq(0)))
    }
}

impl<S: State> Graph<S> {
    /// What waits once the tasks that follow a checkpoint are dropped: joins that led there begin anew. Places that the
    /// graph does not have any more are dropped with them.
    pub(super) fn dropped(&self, found: &Checkpoint) -> Result<Waiting, RunError> {
        let topology = &self.parts.topology;
        let frontier = Frontier::decode(&found.info.frontier)?;
        Ok(match frontier.load(topology, &self.parts.nodes) {
            Ok((dropped, mut waiting)) => {
                waiting.rearm(topology, &dropped.iter().map(|task| task.node));
                waiting
            }
            Err(_gone) => Waiting::new(topology),
        })
    }
}

impl<S: State> Driver<S> {
    /// Writes to the state as one node, and follows the ways on from there.
    pub(super) fn write_as(&mut self, node: usize, update: S::Update) -> Result<(), RunError> {
        let as_node = self.shared.parts.topology.name(node).clone();
        let panicked = |driver: &Self, doing: &str, panic| {
            driver.panicked(format!("{doing} `{as_node}`"), Some(as_node.to_string()), panic)
        };
        guarded(|| {
            Arc::make_mut(&mut self.shared.state).apply(update, &mut self.changes);
        })
        .map_err(|panic| panicked(self, "merging the edit as", panic))?;
        let mut departure = Departure::of(node);
        guarded(|| self.route(&self.shared.state, &mut departure))
            .map_err(|panic| panicked(self, "leading on from", panic))?
            .map_err(|unmerged| self.unmerged(&unmerged))?;
        let now = self.end_time(&[]);
        self.tasks = plan(&self.shared.parts.topology, vec![departure], &mut self.waiting, now).into();
        Ok(())
    }
}
