//! Joins that wait for some of their sources only: who is cancelled within a step, when, and how that is kept.
//!
//! A decision is written down in one commit with the results it rests on, before anybody is told to stop. So a run that is
//! cut off in between goes on with the same winners.

use std::sync::Arc;

use chrono::{DateTime, SubsecRound, Utc};
use tokio::time::Instant;

use super::{
    driver::Driver,
    error::RunError,
    plan::Seed,
    step::{Crowd, End, Shared},
    waiting::OpenJoin,
};
use crate::{
    graph::{Output, Payload, Topology},
    node::Cut,
    state::State,
};

/// The joins that may cancel tasks of the step under way.
pub(super) struct Watch {
    topology: Arc<Topology>,
    joins: Vec<WatchedJoin>,
    /// For each task what cancels it, if a join may.
    cuts: Vec<Option<Arc<Cut>>>,
}

struct WatchedJoin {
    open: OpenJoin,
    /// When its time is up, by the clock that can be waited for.
    until: Option<Instant>,
    overdue: bool,
}

/// How a task stands for the joins that wait for it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// It runs or waits for an answer, and may be cancelled.
    Open,
    Finished,
    /// It failed or was cancelled.
    Over,
}

impl Stand {
    fn of<S: State>(end: Option<&End<S>>) -> Self {
        match end {
            None | Some(End::Asked(_) | End::Paused | End::Drained | End::OverBudget(_)) => Self::Open,
            Some(End::Output(output)) if output.cancelled.is_none() => Self::Finished,
            Some(
                End::Output(_) | End::Failed { .. } | End::Cancelled | End::CutOff | End::TimeLimit | End::Unsaved(_),
            ) => Self::Over,
        }
    }
}

impl Watch {
    /// What cancels a task.
    pub(super) fn cut(&self, task: usize) -> Option<Arc<Cut>> {
        self.cuts.get(task).cloned().flatten()
    }

    fn sources(&self, watched: &WatchedJoin) -> &[usize] {
        self.topology
            .joins
            .get(watched.open.join)
            .map_or(&[], |join| &join.sources)
    }

    /// The positions of the tasks that joins wait for no longer.
    fn dispensable<S: State>(&self, tasks: &[Seed<Payload>], ends: &[Option<End<S>>]) -> Vec<usize> {
        let stands: Vec<_> = ends.iter().map(|end| Stand::of(end.as_ref())).collect();
        let mut found = Vec::new();
        for watched in &self.joins {
            let sources = self.sources(watched);
            if !watched.overdue && !self.is_decided(watched, tasks, &stands) {
                continue;
            }
            let of_it = tasks
                .iter()
                .zip(&stands)
                .enumerate()
                .filter(|(_, (task, stand))| **stand == Stand::Open && sources.contains(&task.node));
            found.extend(of_it.map(|(at, _)| at));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Whether enough sources have arrived at a join that cancels the others.
    fn is_decided(&self, watched: &WatchedJoin, tasks: &[Seed<Payload>], stands: &[Stand]) -> bool {
        let Some(join) = self
            .topology
            .joins
            .get(watched.open.join)
            .filter(|join| join.cancel_others)
        else {
            return false;
        };
        let finished = |node: usize| {
            let mut own = tasks
                .iter()
                .zip(stands)
                .filter(|(task, _)| task.node == node)
                .peekable();
            own.peek().is_some() && own.all(|(_, stand)| *stand == Stand::Finished)
        };
        let arrived = join.sources.iter().zip(&watched.open.arrived);
        let arrived: Vec<bool> = arrived.map(|(source, before)| *before || finished(*source)).collect();
        join.holds(&arrived)
    }

    /// When the time of a join is up that has sources running.
    fn next_until<S: State>(&self, tasks: &[Seed<Payload>], ends: &[Option<End<S>>]) -> Option<Instant> {
        let runs = |watched: &&WatchedJoin| {
            let sources = self.sources(watched);
            let mut running = tasks.iter().zip(ends).filter(|(_, end)| end.is_none());
            running.any(|(task, _)| sources.contains(&task.node))
        };
        let waiting = self.joins.iter().filter(|watched| !watched.overdue).filter(runs);
        waiting.filter_map(|watched| watched.until).min()
    }

    /// Notes that so much time has passed.
    fn pass(&mut self, until: Instant) {
        for watched in &mut self.joins {
            watched.overdue |= watched.until.is_some_and(|own| own <= until);
        }
    }

    /// The newest time that a join waited for and that has passed.
    fn passed(&self) -> Option<DateTime<Utc>> {
        let overdue = self.joins.iter().filter(|watched| watched.overdue);
        overdue.filter_map(|watched| watched.open.due).max()
    }
}

/// Waits for the next tasks that end, or until the time of a join is up.
pub(super) async fn wait_for<S: State>(
    crowd: &mut Crowd<S>,
    watch: Option<&mut Watch>,
    tasks: &[Seed<Payload>],
    ends: &[Option<End<S>>],
) -> Result<Vec<(usize, End<S>)>, String> {
    let Some((watch, until)) = watch.and_then(|watch| {
        let until = watch.next_until(tasks, ends)?;
        Some((watch, until))
    }) else {
        return crowd.next().await;
    };
    tokio::select! {
        // Who has finished in time has, even if nobody had looked yet.
        biased;
        ended = crowd.next() => ended,
        () = tokio::time::sleep_until(until) => {
            watch.pass(until);
            Ok(Vec::new())
        }
    }
}

impl<S: State> Shared<S> {
    /// The time of a step's end, if joins wait for it: at least that which decisions of the step rest on.
    pub(super) fn time(&self, outputs: &[Output<S>]) -> Option<DateTime<Utc>> {
        if !self.parts.topology.times() {
            return None;
        }
        let decided = outputs.iter().filter_map(|output| output.cancelled).max();
        Some(decided.map_or_else(|| self.now(), |at| at.max(self.now())))
    }

    /// As exact as it is kept.
    fn now(&self) -> DateTime<Utc> {
        self.run.setting.clock.now().trunc_subsecs(6)
    }
}

impl<S: State> Driver<S> {
    /// The same, which becomes the time of the checkpoint: decisions about joins can be made again from it.
    pub(super) fn end_time(&mut self, outputs: &[Output<S>]) -> Option<DateTime<Utc>> {
        self.ended_at = self.shared.time(outputs);
        self.ended_at
    }

    /// Lets the tasks of the step know who has arrived at the joins that led to them.
    pub(super) fn note_arrivals(&mut self) {
        let topology = &self.shared.parts.topology;
        if topology.joins.is_empty() {
            return;
        }
        let arrivals = self.waiting.arrivals(topology);
        self.shared.arrived = (!arrivals.is_empty()).then(|| arrivals.into());
    }

    /// The joins that may cancel tasks of the step that begins, if there are any.
    pub(super) fn watch(&mut self) -> Option<Watch> {
        let topology = Arc::clone(&self.shared.parts.topology);
        if !topology.races() {
            return None;
        }
        let nodes = self.tasks.iter().map(|task| task.node);
        let now = self.shared.now();
        self.waiting
            .begin(&topology, &nodes, self.shared.recorded_at.unwrap_or(now));
        let open = self.waiting.open(&topology, &nodes);
        let alone = self.tasks.len() == 1 && !self.has_records;
        if open.is_empty() || (alone && open.iter().all(|open| open.due.is_none())) {
            return None;
        }
        let watched = |open: OpenJoin| {
            // What is left of its time, told by one clock and waited for by another.
            let left = open.due.map(|due| (due - now).to_std().unwrap_or_default());
            WatchedJoin {
                until: left.and_then(|left| Instant::now().checked_add(left)),
                overdue: left.is_some_and(|left| left.is_zero()),
                open,
            }
        };
        let mut watch = Watch {
            joins: open.into_iter().map(watched).collect(),
            cuts: Vec::new(),
            topology,
        };
        let waited_for = |node| watch.joins.iter().any(|watched| watch.sources(watched).contains(&node));
        let around = self.shared.cut.as_ref().or(self.shared.run.cancel.as_ref());
        let cuts = nodes.map(|node| waited_for(node).then(|| Arc::new(Cut::under(around))));
        watch.cuts = cuts.collect();
        Some(watch)
    }

    /// Ends the tasks that joins wait for no longer; gives their positions. Nobody is told to stop yet.
    pub(super) fn cancel_others(&self, watch: Option<&mut Watch>, ends: &mut [Option<End<S>>]) -> Vec<usize> {
        let Some(watch) = watch else { return Vec::new() };
        let cancelled = watch.dispensable(&self.tasks, ends);
        if cancelled.is_empty() {
            return cancelled;
        }
        let now = self.shared.now();
        let at = watch.passed().map_or(now, |passed| passed.max(now));
        for task in &cancelled {
            if let Some(end) = ends.get_mut(*task) {
                *end = Some(End::Output(Output::cancelled(at)));
            }
        }
        cancelled
    }

    /// Keeps how these tasks have ended, tells it, and stops those that were cancelled.
    pub(super) async fn keep_and_tell(
        &self,
        watch: Option<&Watch>,
        ends: &[Option<End<S>>],
        fresh: &[usize],
        keep: bool,
    ) -> Result<(), RunError> {
        let ended = || fresh.iter().filter_map(|at| Some((*at, ends.get(*at)?.as_ref()?)));
        if keep {
            self.keep_outputs(ended().filter_map(|(at, end)| {
                if let End::Output(output) = end {
                    Some((at, output))
                } else {
                    None
                }
            }))
            .await?;
        }
        for (at, end) in ended() {
            if let (End::Output(output), Some(cut)) = (end, watch.and_then(|w| w.cut(at)))
                && output.cancelled.is_some()
            {
                cut.token.cancel();
            }
            self.tell_end(at, end).await;
        }
        Ok(())
    }
}
