//! The recorded cases of `tests/conformance`, run on both stores of one process.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use stepgraph::Durability;
use stepgraph_tests::conformance::{Ground, Report, Store, cases, folds, judge, run_directory};

/// How many cases of the other engine lie in the repository.
const RECORDED: usize = 271;

/// How many more were recorded where those left something open.
const EDGES: usize = 16;

/// How many were made of the recorded ones by small changes and recorded anew: `tools/oracle`.
const MORE: usize = 60;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// One line of outcome, after what differs.
fn tell(report: &Report) -> (usize, usize) {
    let told: Vec<_> = report
        .verdicts
        .iter()
        .filter(|verdict| !verdict.differences.is_empty())
        .map(|verdict| format!("FAILED {}\n  {}", verdict.name, verdict.differences.join("\n  ")))
        .collect();
    let (passed, failed) = report.counts();
    assert!(told.is_empty(), "{}\n{passed} passed, {failed} failed", told.join("\n"));
    (passed, failed)
}

#[tokio::test]
async fn every_recorded_case_is_repeated_in_memory() {
    let report = run_directory(&folder("conformance"), "", Store::Memory).await.unwrap();
    assert_eq!(tell(&report), (RECORDED, 0));
}

#[tokio::test]
async fn every_recorded_case_is_repeated_over_a_file() {
    let report = run_directory(&folder("conformance"), "", Store::Sqlite).await.unwrap();
    assert_eq!(tell(&report), (RECORDED, 0));
}

#[tokio::test]
async fn every_recorded_case_is_repeated_with_its_steps_saved_while_the_next_runs() {
    let ground = Ground {
        store: Store::Memory,
        durability: Durability::Async,
    };
    let report = run_directory(&folder("conformance"), "", ground).await.unwrap();
    assert_eq!(tell(&report), (RECORDED, 0));
}

#[tokio::test]
async fn every_recorded_case_that_needs_no_older_checkpoint_is_repeated_when_only_the_last_is_saved() {
    let ground = Ground {
        store: Store::Memory,
        durability: Durability::Exit,
    };
    let report = run_directory(&folder("conformance"), "", ground).await.unwrap();
    let (passed, _) = tell(&report);
    assert_eq!(passed + report.left_out.len(), RECORDED);
    assert!(passed > 200, "only {passed} cases");
}

#[tokio::test]
async fn cases_of_our_own_at_the_edges_of_the_recorded_ones_are_repeated() {
    for store in [Store::Memory, Store::Sqlite] {
        let report = run_directory(&folder("conformance/edges"), "", store).await.unwrap();
        assert_eq!(tell(&report), (EDGES, 0));
    }
}

#[tokio::test]
async fn cases_that_vary_the_recorded_ones_are_repeated_on_either_store_and_with_their_steps_saved_late() {
    for store in [Store::Memory, Store::Sqlite] {
        for durability in [Durability::Sync, Durability::Async] {
            let ground = Ground { store, durability };
            let report = run_directory(&folder("conformance/more"), "", ground).await.unwrap();
            assert_eq!(tell(&report), (MORE, 0));
        }
    }
}

#[tokio::test]
async fn a_run_that_is_listened_to_ends_as_one_that_is_not_and_folds_to_its_state_in_every_mode() {
    let mut run = 0;
    for file in cases(&folder("conformance")).unwrap() {
        let case: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        if case["build"] == "ok" && case["checkpointer"] != false {
            assert_eq!(folds(&case).await, Vec::<String>::new(), "{}", file.display());
            run += 1;
        }
    }
    assert!(run > 250, "{run} cases were run");
}

#[tokio::test]
async fn a_panic_inside_a_case_is_that_case_s_failure() {
    let case = json!({
        "name": "unknown-reducer",
        "graphs": {"main": {"channels": {"x": "no such reducer"}, "nodes": [], "edges": []}},
        "build": "ok",
        "script": [],
    });
    let differences = judge(&case, Store::Memory).await;
    assert_eq!(differences, ["panicked: unknown reducer `no such reducer`"]);
}

#[tokio::test]
async fn a_difference_names_the_step_the_place_and_both_values() {
    let case = json!({
        "name": "wrong",
        "graphs": {"main": {
            "channels": {"n": "add"},
            "nodes": [{"name": "a", "ops": [{"op": "set", "ch": "n", "value": 2}]}],
            "edges": [["START", "a"]],
        }},
        "build": "ok",
        "script": [{"do": "run", "input": {}, "expect": {"status": "done", "output": {"n": 3}}}],
    });
    let differences = judge(&case, Store::Memory).await;
    assert_eq!(
        differences,
        [
            r#"step 0: {"do":"run","input":{}}"#,
            "output.n:\n    expected 3\n    found    2"
        ]
    );
}

mod live {
    use super::*;

    #[tokio::test]
    async fn every_recorded_case_is_repeated_over_postgres() {
        let report = run_directory(&folder("conformance"), "", Store::Postgres)
            .await
            .unwrap();
        assert_eq!(tell(&report), (RECORDED, 0));
    }

    #[tokio::test]
    async fn every_recorded_case_is_repeated_over_redis() {
        let report = run_directory(&folder("conformance"), "", Store::Redis).await.unwrap();
        assert_eq!(tell(&report), (RECORDED, 0));
    }
}
