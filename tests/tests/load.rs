//! The load bench itself: it must see every answer, and tell what it saw.

use std::process::Command;

use serde_json::Value;

#[test]
fn a_small_load_loses_and_reorders_nothing() {
    let output = Command::new(env!("CARGO_BIN_EXE_load"))
        .args(["chat", "--json", "--chunks", "500", "--streams", "20"])
        .args(["--drops", "10", "--drop-ms", "20", "--alone", "3", "--crowd", "70"])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let lines: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();

    let parts: Vec<_> = lines.iter().map(|line| line["part"].as_str().unwrap()).collect();
    assert_eq!(parts, ["one at a time", "beside 20 streams", "64 at a time"]);
    assert_eq!((&lines[0]["answers"], &lines[2]["answers"]), (&3.into(), &70.into()));
    assert_eq!((&lines[1]["lost"], &lines[1]["reordered"]), (&0.into(), &0.into()));
    for line in &lines {
        for name in ["p50_ms", "p95_ms", "p99_ms", "answers_per_second", "idle_mb", "peak_mb"] {
            assert!(line[name].as_f64().is_some_and(|figure| figure > 0.0), "{name}: {line}");
        }
    }
}
