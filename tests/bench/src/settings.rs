//! What of a workload is done, how often, and whether it is timed or counted.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize};

use crate::measure::{Moment, Spent, median};

/// Does the work and says how many allocations this thread has made meanwhile.
pub type Counter = fn(&mut dyn FnMut()) -> u64;

/// The two that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The engine.
    Engine,
    /// The least that the same work can cost.
    Floor,
}

/// How workloads are run.
#[derive(Clone, Copy, Default)]
pub struct Settings {
    /// One side alone.
    pub only: Option<Side>,
    /// How often the workload is done, instead of once to warm up and then for half a second, five times over. Without
    /// effect on those that are done once (B6, B7, B8, B11).
    pub calls: Option<u32>,
    /// Count instead of taking the time: the engine alone is run, on one thread.
    pub counter: Option<Counter>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { only, calls, counter } = self;
        f.debug_struct("Settings")
            .field("only", only)
            .field("calls", calls)
            .field("counts", &counter.is_some())
            .finish()
    }
}

/// What one call of a workload has done, counted.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    /// Allocations of the thread that ran the engine; a driver's own threads are not seen.
    pub allocations: u64,
    /// Copies of a state.
    pub clones: u64,
}

/// How often a state was copied.
static COPIES: AtomicU64 = AtomicU64::new(0);

/// A field that counts the copies of its state.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counted;

impl Clone for Counted {
    fn clone(&self) -> Self {
        COPIES.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

/// How long a repeated measurement goes on, in seconds.
const LONG_ENOUGH: f64 = 0.5;

impl Settings {
    /// Whether the time of this side is wanted.
    pub(crate) fn times(self, side: Side) -> bool {
        self.counter.is_none() && self.only.is_none_or(|only| only == side)
    }

    /// The time of this side, if it is wanted; nothing is done otherwise.
    pub(crate) async fn time(self, side: Side, work: impl Future<Output = Spent>) -> Option<Spent> {
        if self.times(side) { Some(work.await) } else { None }
    }

    /// One call to warm up, then calls until half a second has passed, or as many as were asked for: the time of one.
    pub(crate) async fn repeat<F: Future<Output = ()>>(self, mut call: impl FnMut() -> F) -> Spent {
        if self.calls.is_none() {
            call().await;
        }
        let begun = Moment::now();
        let (mut calls, mut batch) = (0, 1);
        loop {
            let spent = begun.spent();
            if self.calls.map_or(spent.wall >= LONG_ENOUGH, |enough| calls >= enough) {
                return spent.per(f64::from(calls.max(1)));
            }
            // To read the processor's clock costs as much as a run of ten steps: it is read between batches of calls.
            let left = self.calls.map_or(batch, |enough| enough - calls);
            for _ in 0..batch.min(left) {
                call().await;
            }
            calls += batch.min(left);
            if spent.wall < LONG_ENOUGH / 64.0 {
                batch *= 2;
            }
        }
    }

    /// The engine's and the floor's times, measured in turns so that both see the same machine; of each the median.
    pub(crate) async fn beside<E: Future<Output = Spent>, F: Future<Output = Spent>>(
        self,
        mut engine: impl FnMut() -> E,
        mut floor: impl FnMut() -> F,
    ) -> (Option<Spent>, Option<Spent>) {
        const TURNS: usize = 5;
        let turns = if self.calls.is_some() { 1 } else { TURNS };
        let (mut engines, mut floors) = (Vec::new(), Vec::new());
        for _ in 0..turns {
            floors.extend(self.time(Side::Floor, floor()).await);
            engines.extend(self.time(Side::Engine, engine()).await);
        }
        (median(engines), median(floors))
    }

    /// What one call does, if that is asked for: the second of two, so that what is made once is there. Runs on a thread of
    /// its own, since only one thread's allocations are counted; what it runs on is set up for each call and not counted.
    pub(crate) fn count<T, S: Future<Output = T>, C: Future<Output = ()>>(
        self,
        set_up: impl Fn() -> S + Sync,
        call: impl Fn(T) -> C + Sync,
    ) -> Option<Counts> {
        let counter = self.counter?;
        let work_counted = || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            let mut counts = None;
            for _ in 0..2 {
                let mut work = Some(call(runtime.block_on(set_up())));
                let before = COPIES.load(Ordering::Relaxed);
                let allocations = counter(&mut || {
                    if let Some(work) = work.take() {
                        runtime.block_on(work);
                    }
                });
                let clones = COPIES.load(Ordering::Relaxed) - before;
                counts = Some(Counts { allocations, clones });
            }
            counts
        };
        std::thread::scope(|scope| scope.spawn(work_counted).join().unwrap())
    }
}
