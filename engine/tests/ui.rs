//! Mistakes that must not compile, one a file in `tests/ui`, each with the message that its reader sees.
//!
//! After a change of a message: `TRYBUILD=overwrite cargo test -p stepgraph --test ui`, and read the difference.

use std::path::Path;

/// What the engine promises to find when a graph is compiled, and the files that hold it to that.
const PROMISED: [(&str, &[&str]); 10] = [
    ("misspelt field in an update", &["unknown_field"]),
    ("wrong type for a field", &["wrong_type"]),
    ("reducer that does not fit its field", &["wrong_reducer"]),
    ("required input missing", &["missing_input"]),
    ("a route not wired", &["missing_route"]),
    ("edge to a node that is not there", &["edge_to_name"]),
    (
        "edge out of END, into START, into a worker or a handler, out of a router",
        &[
            "edge_from_end",
            "edge_to_start",
            "edge_to_worker",
            "edge_to_handler",
            "static_edge_from_router",
            "edge_from_handler_router",
        ],
    ),
    (
        "fan-out payload of the wrong type",
        &["fan_out_type", "fan_out_to_node"],
    ),
    ("id of another state's graph", &["other_graph_id"]),
    ("answer of the wrong type to a question", &["wrong_answer"]),
];

#[test]
fn mistakes_do_not_compile_and_their_messages_say_the_remedy() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}

#[test]
fn every_mistake_that_is_promised_to_be_found_has_its_file_and_message() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
    for (mistake, files) in PROMISED {
        for file in files {
            for kind in ["rs", "stderr"] {
                let file = folder.join(file).with_extension(kind);
                assert!(file.is_file(), "{mistake}: {} is not there", file.display());
            }
        }
    }
}
