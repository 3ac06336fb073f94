//! What the benchmark says of a workload: the fields of each line, and that what is counted is right.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::process::{Command, Output};

use serde_json::Value;

const FIELDS: &[&str] = &[
    "workload",
    "steps",
    "cpu_ns_per_step",
    "ns_per_step",
    "floor_cpu_ns_per_step",
    "ratio",
    "peak_rss_mb",
    "bytes_on_disk",
    "allocs_per_step",
    "state_clones",
];

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(arguments)
        .args(["--json", "--calls", "1"])
        // The programs are there: nothing is to be built by a test.
        .env_remove("CARGO")
        .output()
        .unwrap()
}

fn lines(arguments: &[&str]) -> Vec<Value> {
    let output = bench(arguments);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn each_line_has_every_field_and_what_a_step_costs_without_a_store_is_counted() {
    let lines = lines(&["B1", "B2", "B3", "B4", "B5", "B12"]);
    assert_eq!(lines.len(), 3 + 1 + 1 + 1 + 1 + 3);
    for line in lines {
        for field in FIELDS {
            assert!(line.get(field).is_some(), "{field} is missing: {line}");
        }
        let number = |field: &str| line[field].as_f64().unwrap_or(-1.0);
        assert!(number("cpu_ns_per_step") > 0.0 && number("ns_per_step") > 0.0, "{line}");
        assert!(line["bytes_on_disk"].is_null(), "nothing is kept: {line}");
        assert_eq!(line["state_clones"], 0, "{line}");
        // The node's future is one, and a graph makes several for each of its nodes.
        let built = line["workload"] == "B12";
        assert!(number("allocs_per_step") >= 1.0, "{line}");
        assert!(built || number("allocs_per_step") < 8.0, "{line}");
        assert_eq!(line["ratio"].is_null(), built, "a build has no floor: {line}");
        assert_eq!(line["floor_cpu_ns_per_step"].is_null(), built, "{line}");
    }
}

#[test]
fn a_thread_on_disk_is_counted_as_well_and_more_where_it_is_longer() {
    let lines = lines(&["B9"]);
    let count = |part: &str| {
        let line = lines.iter().find(|line| line["part"] == part).unwrap();
        assert!(line["ratio"].is_null(), "{line}");
        line["allocs_per_step"].as_f64().unwrap()
    };
    // Three texts in each message.
    assert!(count("head") >= 3_000.0 && count("step 500") >= 1_500.0, "{lines:?}");
    assert!((30.0..1_000.0).contains(&count("step 10")), "{lines:?}");
}

#[test]
fn one_side_alone_is_run_and_nothing_is_counted() {
    for (side, there, not) in [
        ("engine", "cpu_ns_per_step", "floor_cpu_ns_per_step"),
        ("floor", "floor_cpu_ns_per_step", "cpu_ns_per_step"),
    ] {
        for line in lines(&["B2", "B3", "--only", side]) {
            assert!(line[there].as_f64().unwrap() > 0.0, "{side}: {line}");
            for field in [not, "ratio", "allocs_per_step", "state_clones"] {
                assert!(line[field].is_null(), "{side}, {field}: {line}");
            }
        }
    }
}

#[test]
fn a_workload_or_a_side_that_there_is_not_is_refused() {
    for (arguments, named) in [
        (&["B99"][..], "`B99`"),
        (&["B1", "--only", "roof"], "use engine or floor"),
    ] {
        let output = bench(arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(named), "{output:?}");
    }
}
