//! Clocks and counters.

use std::{fs, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value, json};

use crate::settings::Counts;

/// What one part of a workload has cost.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Which part, if there are several.
    pub part: String,
    /// Steps, or whatever is counted, of one call.
    pub steps: u64,
    /// The engine's time for one call, if it was taken.
    pub time: Option<Spent>,
    /// The floor's time for the same, if there is one.
    pub floor: Option<Spent>,
    /// What one call of the engine has done, if that was counted.
    pub counts: Option<Counts>,
    /// Bytes left on disk.
    pub bytes: Option<u64>,
    /// The floor's bytes.
    pub floor_bytes: Option<u64>,
    /// Anything else worth knowing.
    pub more: Vec<(&'static str, Value)>,
}

/// Time spent, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    /// By the clock on the wall.
    pub wall: f64,
    /// By all threads of this process together.
    pub cpu: f64,
}

impl Spent {
    pub(crate) fn per(self, calls: f64) -> Self {
        Self {
            wall: self.wall / calls,
            cpu: self.cpu / calls,
        }
    }
}

impl Figures {
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let steps = as_f64(self.steps.max(1));
        let mut line = Map::new();
        let mut put = |name: &str, value: Value| {
            line.insert(name.to_owned(), value);
        };
        put("steps", self.steps.into());
        let nanoseconds = |seconds: f64| rounded(seconds * 1e9 / steps);
        let ratio = self
            .time
            .zip(self.floor)
            .map(|(time, floor)| rounded(time.cpu / floor.cpu));
        put("cpu_ns_per_step", json!(self.time.map(|time| nanoseconds(time.cpu))));
        put("ns_per_step", json!(self.time.map(|time| nanoseconds(time.wall))));
        put(
            "floor_cpu_ns_per_step",
            json!(self.floor.map(|floor| nanoseconds(floor.cpu))),
        );
        put("ratio", json!(ratio));
        put("peak_rss_mb", rounded(peak_rss_mb()));
        put("bytes_on_disk", json!(self.bytes));
        if let Some(floor) = self.floor_bytes {
            put("floor_bytes_on_disk", floor.into());
        }
        let allocations = self.counts.map(|counts| rounded(as_f64(counts.allocations) / steps));
        put("allocs_per_step", json!(allocations));
        put("state_clones", json!(self.counts.map(|counts| counts.clones)));
        for (name, value) in &self.more {
            put(name, value.clone());
        }
        line
    }
}

pub(crate) fn rounded(value: f64) -> Value {
    json!((value * 100.0).round() / 100.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(crate) const fn as_f64(count: u64) -> f64 {
    count as f64
}

/// A moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    wall: f64,
    cpu: f64,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self {
            wall: seconds(ClockId::Monotonic),
            cpu: seconds(ClockId::ProcessCPUTime),
        }
    }

    pub(crate) fn spent(self) -> Spent {
        let now = Self::now();
        Spent {
            wall: now.wall - self.wall,
            cpu: now.cpu - self.cpu,
        }
    }
}

fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    Duration::new(
        time.tv_sec.try_into().unwrap_or_default(),
        time.tv_nsec.try_into().unwrap_or_default(),
    )
    .as_secs_f64()
}

/// The time of one call.
pub(crate) async fn once(call: impl Future<Output = ()>) -> Spent {
    let begun = Moment::now();
    call.await;
    begun.spent()
}

pub(crate) fn median(mut times: Vec<Spent>) -> Option<Spent> {
    times.sort_by(|a, b| a.cpu.total_cmp(&b.cpu));
    times.get(times.len() / 2).copied()
}

/// Runs `count` jobs, `at_once` of them at a time.
pub(crate) async fn concurrent<F: Future<Output = ()> + Send + 'static>(
    count: usize,
    at_once: usize,
    job: impl Fn(usize) -> F + Clone + Send + 'static,
) {
    let next = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..at_once {
        let (next, job) = (std::sync::Arc::clone(&next), job.clone());
        set.spawn(async move {
            loop {
                let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if at >= count {
                    break;
                }
                job(at).await;
            }
        });
    }
    while let Some(ended) = set.join_next().await {
        ended.unwrap();
    }
}

/// The largest memory this process has held so far, in MB.
fn peak_rss_mb() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.unwrap_or_default() / 1024.0
}
