//! Every named crash point on every store in every durability, in its short form; `cargo run -p stepgraph-tests --bin crash
//! -- --rounds 20` is the long one.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a test may panic and print")]

use stepgraph_tests::crash::{Matrix, POINTS, Place, UNREACHED, matrix};

async fn holds_on(place: Place) {
    let report = matrix(&Matrix {
        program: env!("CARGO_BIN_EXE_crash").into(),
        places: vec![place],
        rounds: 1,
        seed: 1,
    })
    .await
    .unwrap();
    println!("{report}");
    assert!(report.passed(), "{report}");
    assert_eq!(report.left_out.len(), UNREACHED.len());
    let grid = POINTS.len() * 3;
    assert_eq!(
        report.killed as usize,
        grid - UNREACHED.len(),
        "the grid without what is left out by name"
    );
}

#[tokio::test]
async fn a_run_on_sqlite_that_is_killed_anywhere_ends_as_if_it_had_not_been() {
    holds_on(Place::Sqlite).await;
}

mod live {
    use super::*;

    #[tokio::test]
    async fn a_run_on_postgres_that_is_killed_anywhere_ends_as_if_it_had_not_been() {
        holds_on(Place::Postgres).await;
    }

    #[tokio::test]
    async fn a_run_on_redis_that_is_killed_anywhere_ends_as_if_it_had_not_been() {
        holds_on(Place::Redis).await;
    }
}
