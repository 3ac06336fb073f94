//! The benchmark: what a step costs, as a ratio to the least that the same work can cost.
//!
//! Every workload runs beside its floor in the same process: the same node bodies through boxed futures and an index,
//! without a graph; for those on disk, the same bytes in raw prepared inserts, one transaction a step. Processor time is
//! what to compare, since wall time depends on who else uses the machine. `docs/performance.md` says what was measured.

mod chain;
mod chat;
mod crowd;
mod floor;
mod measure;
mod thread;
mod wide;

use serde_json::{Map, Value};

pub use self::measure::Figures;

/// A workload by its name.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// Its name, such as `B1`.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    run: fn() -> Running,
}

type Running = std::pin::Pin<Box<dyn Future<Output = Vec<Figures>>>>;

/// Every workload, in order.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "B1",
        about: "a chain of 1,000 nodes (and of 10 and 10,000), each adds 1 to one number",
        run: || Box::pin(chain::chains()),
    },
    Workload {
        name: "B2",
        about: "one node and a branch back to it, 10,000 times",
        run: || Box::pin(chain::looped()),
    },
    Workload {
        name: "B3",
        about: "1,000 tasks of a fan-out side by side, an append reducer, a join",
        run: || Box::pin(crowd::crowd()),
    },
    Workload {
        name: "B4",
        about: "50 fields of 2 KB, 100 steps that replace one each",
        run: || Box::pin(wide::wide()),
    },
    Workload {
        name: "B5",
        about: "retrieve, generate, log without work: 10,000 runs, 64 at a time, nothing kept",
        run: || Box::pin(chat::unkept()),
    },
    Workload {
        name: "B6",
        about: "the same, each on a thread of its own, checkpoints in memory",
        run: || Box::pin(chat::in_memory()),
    },
    Workload {
        name: "B7",
        about: "1,000 such runs one after another on SQLite, and 64 at a time",
        run: || Box::pin(chat::on_sqlite()),
    },
    Workload {
        name: "B8",
        about: "one thread, 1,000 steps that append a message of 108 bytes each, on SQLite",
        run: || Box::pin(thread::appended()),
    },
    Workload {
        name: "B9",
        about: "reading that thread at its head, and at older steps",
        run: || Box::pin(thread::read()),
    },
    Workload {
        name: "B11",
        about: "1,000 such runs one after another on a private PostgreSQL, and 64 at a time",
        run: || Box::pin(chat::on_postgres()),
    },
    Workload {
        name: "B12",
        about: "building graphs of 10, 1,000 and 10,000 nodes",
        run: || Box::pin(std::future::ready(chain::builds())),
    },
];

impl Workload {
    /// Runs it and gives a line for each of its parts.
    pub async fn run(&self) -> Vec<Value> {
        let figures = (self.run)().await;
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
