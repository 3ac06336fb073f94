//! The benchmark: what a step costs, as a ratio to the least that the same work can cost.
//!
//! Every workload runs beside its floor in the same process: the same node bodies through boxed futures and an index,
//! without a graph; for those on disk (the feature `disk`), the same bytes in raw prepared inserts, one transaction a step.
//! Processor time is what to compare, since wall time depends on who else uses the machine. `docs/performance.md` says what
//! was measured.
#![expect(clippy::unwrap_used, reason = "a benchmark stops at what it did not expect")]

mod chain;
mod chat;
pub mod command;
mod crowd;
#[cfg(feature = "disk")]
mod disk;
mod floor;
mod measure;
#[cfg(feature = "disk")]
mod raw;
mod settings;
#[cfg(feature = "disk")]
mod thread;
mod wide;

use serde_json::{Map, Value};

pub use self::{
    measure::Figures,
    settings::{Counter, Settings, Side},
};

/// A workload by its name.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// Its name, such as `B1`.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    run: fn(Settings) -> Running,
}

type Running = std::pin::Pin<Box<dyn Future<Output = Vec<Figures>>>>;

/// Every workload, in order.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "B1",
        about: "a chain of 1,000 nodes (and of 10 and 10,000), each adds 1 to one number",
        run: |settings| Box::pin(chain::chains(settings)),
    },
    Workload {
        name: "B2",
        about: "one node and a branch back to it, 10,000 times",
        run: |settings| Box::pin(chain::looped(settings)),
    },
    Workload {
        name: "B3",
        about: "1,000 tasks of a fan-out side by side, an append reducer, a join",
        run: |settings| Box::pin(crowd::crowd(settings)),
    },
    Workload {
        name: "B4",
        about: "50 fields of 2 KB, 100 steps that replace one each",
        run: |settings| Box::pin(wide::wide(settings)),
    },
    Workload {
        name: "B5",
        about: "retrieve, generate, log without work: 10,000 runs, 64 at a time, nothing kept",
        run: |settings| Box::pin(chat::unkept(settings)),
    },
    Workload {
        name: "B6",
        about: "the same, each on a thread of its own, checkpoints in memory",
        run: |settings| Box::pin(chat::in_memory(settings)),
    },
    #[cfg(feature = "disk")]
    Workload {
        name: "B7",
        about: "1,000 such runs one after another on SQLite, and 64 at a time",
        run: |settings| Box::pin(disk::on_sqlite(settings)),
    },
    #[cfg(feature = "disk")]
    Workload {
        name: "B8",
        about: "one thread, 1,000 steps that append a message of 108 bytes each, on SQLite",
        run: |settings| Box::pin(thread::appended(settings)),
    },
    #[cfg(feature = "disk")]
    Workload {
        name: "B9",
        about: "reading that thread at its head, and at older steps",
        run: |settings| Box::pin(thread::read(settings)),
    },
    #[cfg(feature = "disk")]
    Workload {
        name: "B11",
        about: "1,000 such runs one after another on a private PostgreSQL, and 64 at a time",
        run: |settings| Box::pin(disk::on_postgres(settings)),
    },
    Workload {
        name: "B12",
        about: "building graphs of 10, 1,000 and 10,000 nodes",
        run: |settings| Box::pin(chain::builds(settings)),
    },
];

/// The workloads of these names, all if there are none; or the name that is none.
pub fn chosen(names: &[String]) -> Result<Vec<&'static Workload>, &String> {
    let is = |workload: &&Workload, name: &String| workload.name == *name;
    if let Some(unknown) = names
        .iter()
        .find(|name| !WORKLOADS.iter().any(|workload| is(&workload, name)))
    {
        return Err(unknown);
    }
    let wanted = |workload: &&Workload| names.is_empty() || names.iter().any(|name| is(workload, name));
    Ok(WORKLOADS.iter().filter(wanted).collect())
}

impl Workload {
    /// Runs it and gives a line for each of its parts.
    pub async fn run(&self, settings: Settings) -> Vec<Value> {
        let figures = (self.run)(settings).await;
        figures.into_iter().map(|figures| self.line(&figures)).collect()
    }

    fn line(&self, figures: &Figures) -> Value {
        let mut line = Map::new();
        line.insert("workload".into(), self.name.into());
        if !figures.part.is_empty() {
            line.insert("part".into(), figures.part.clone().into());
        }
        line.extend(figures.to_json());
        line.into()
    }
}
