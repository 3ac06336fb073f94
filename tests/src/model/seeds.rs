//! Seeds: run one or many, tell one, keep those that have failed.

use std::{
    io::Write as _,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::FutureExt;

use super::{
    case::Case,
    generate,
    mutation::Mutation,
    run::OUTGROWN,
    shrink::{parts, shrink},
    trial::{self, Told},
};

/// A seed whose case does not come out as the model says.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// Where they part, with the line that shows it again.
    pub what: String,
}

fn failed(seed: u64, what: &str) -> Failure {
    Failure {
        seed,
        what: format!("seed {seed}: {what}\n  cargo run --release -p stepgraph-tests --bin model -- --seed {seed}"),
    }
}

/// Runs one case to its first difference, a panic being one as well.
async fn attempt(case: &Case, mutation: Option<Mutation>, told: Option<&mut Told>) -> Result<(), String> {
    let ran = AssertUnwindSafe(trial::run(case, mutation, told)).catch_unwind().await;
    match ran {
        Ok(ended) => ended.map_err(|difference| difference.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(format!("panicked: {}", text.unwrap_or_default()))
        }
    }
}

/// The case of a seed, and how it ended. One that outgrows what a step may have is replaced by the seed's next.
async fn attempted(seed: u64, mutation: Option<Mutation>) -> (Case, Result<(), String>) {
    const VARIANTS: u64 = 16;
    let mut last = None;
    for variant in 0..VARIANTS {
        let case = generate::case(seed ^ (variant << 48));
        let ended = attempt(&case, mutation, None).await;
        let outgrown = ended.as_ref().is_err_and(|what| what.contains(OUTGROWN));
        if !outgrown {
            return (case, ended);
        }
        last = Some((case, ended));
    }
    last.expect("a variant was tried")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Runs the case of one seed on the engine and on the model.
///
/// # Errors
/// Where they part.
pub fn run_seed(seed: u64) -> Result<(), Failure> {
    let (_, ended) = runtime().block_on(attempted(seed, None));
    ended.map_err(|what| failed(seed, &what))
}

/// Runs many seeds on several threads; gives those that fail, in order.
///
/// # Panics
/// If a thread cannot be joined.
#[must_use]
pub fn run_seeds(seeds: &[u64], threads: usize) -> Vec<Failure> {
    let (next, failures) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let at = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).expect("a position");
                    let Some(seed) = seeds.get(at) else { break };
                    if let Err(failure) = run_seed(*seed) {
                        failures.lock().unwrap().push(failure);
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort_by_key(|failure| failure.seed);
    failures
}

/// How many of these seeds it takes until a wrong model is told from the engine; `None` if they do not do it.
#[must_use]
pub fn finds(mutation: Mutation, seeds: impl IntoIterator<Item = u64>) -> Option<usize> {
    let runtime = runtime();
    seeds.into_iter().position(|seed| {
        let (_, ended) = runtime.block_on(attempted(seed, Some(mutation)));
        ended.is_err()
    })
}

/// Everything about one seed: its graph, what is done, both sides, and where they part, if they do, with a smaller case that
/// still fails.
///
/// # Panics
/// If a case is not JSON.
pub fn tell_seed(seed: u64) -> (String, Result<(), Failure>) {
    let runtime = runtime();
    let (case, _) = runtime.block_on(attempted(seed, None));
    let mut told = Told::default();
    let ended = runtime.block_on(attempt(&case, None, Some(&mut told)));
    let mut text = format!(
        "{}\n{}\n\n{}\n",
        told.mermaid,
        serde_json::to_string(&case).expect("a case is JSON"),
        told.lines.join("\n")
    );
    if ended.is_err() {
        let fails = async |case: &Case| AssertUnwindSafe(parts(case)).catch_unwind().await.unwrap_or(true);
        let small = runtime.block_on(shrink(case, fails));
        let mut told = Told::default();
        let ended = runtime.block_on(attempt(&small, None, Some(&mut told)));
        let smaller = format!(
            "\nsmaller:\n{}\n{}\n{}\n{}\n",
            told.mermaid,
            serde_json::to_string(&small).expect("a case is JSON"),
            told.lines.join("\n"),
            ended.err().unwrap_or_default()
        );
        text.push_str(&smaller);
    }
    (text, ended.map_err(|what| failed(seed, &what)))
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("model/failing-seeds")
}

/// The seeds that have failed once.
///
/// # Panics
/// If their file cannot be read, or holds a line that begins with no number.
#[must_use]
pub fn kept_seeds() -> Vec<u64> {
    let text = std::fs::read_to_string(file()).expect("the file of seeds that have failed");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let seed = |line: &str| line.split_whitespace().next().and_then(|seed| seed.parse().ok());
    lines
        .map(|line| seed(line).expect("a line that begins with a seed"))
        .collect()
}

/// Adds a seed to those that have failed once.
///
/// # Errors
/// If the file cannot be written.
pub fn keep_seed(seed: u64) -> std::io::Result<()> {
    if kept_seeds().contains(&seed) {
        return Ok(());
    }
    let mut file = std::fs::OpenOptions::new().append(true).open(file())?;
    writeln!(file, "{seed}")
}
