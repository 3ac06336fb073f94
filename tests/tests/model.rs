//! The engine against a model of it, on random graphs under random schedules; see `docs/guide/contribute-tests.md`.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use stepgraph_tests::model::{Failure, Mutation, finds, keep_seed, kept_seeds, run_seeds};

/// How many seeds a run of the tests goes through; `cargo run --release -p stepgraph-tests --bin model` takes any number.
const SEEDS: u64 = 2_000;

/// How many seeds may pass before a wrong model is told from the engine.
const PATIENCE: u64 = 1_500;

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn all_agree(seeds: &[u64]) {
    let failures = run_seeds(seeds, threads());
    for failure in &failures {
        keep_seed(failure.seed).unwrap();
    }
    let told: Vec<_> = failures.into_iter().map(|Failure { what, .. }| what).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}

#[test]
fn what_failed_once_agrees_with_the_model() {
    all_agree(&kept_seeds());
}

#[test]
fn two_thousand_seeds_agree_with_the_model() {
    all_agree(&(0..SEEDS).collect::<Vec<_>>());
}

#[test]
fn every_wrong_model_is_told_from_the_engine() {
    let missed: Vec<_> = std::thread::scope(|scope| {
        let halves = Mutation::ALL.chunks(Mutation::ALL.len().div_ceil(threads()));
        let running: Vec<_> = halves
            .map(|half| {
                scope.spawn(move || {
                    let missed = half.iter().filter(|mutation| finds(**mutation, 0..PATIENCE).is_none());
                    missed.copied().collect::<Vec<_>>()
                })
            })
            .collect();
        running.into_iter().flat_map(|half| half.join().unwrap()).collect()
    });
    assert!(
        missed.is_empty(),
        "{missed:?} agree with the engine, so nothing is proved of what they change"
    );
}
