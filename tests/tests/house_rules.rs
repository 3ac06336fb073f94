//! The rules of the house that a compiler does not know: which crate may depend on which, how long a file may be,
//! and what must not stand in the repository. ARCHITECTURE.md says them in words.

#![expect(clippy::expect_used, reason = "a house rule that cannot read its facts must fail")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

const LINES_MAX: usize = 600;
const ENGINE_PACKAGES_MAX: usize = 60;

/// Our crates that each of our crates may depend on; macros and tests apart, an arrow not listed here is forbidden.
const ARROWS: &[(&str, &[&str])] = &[
    ("stepgraph", &["stepgraph-macros"]),
    ("stepgraph-macros", &[]),
    ("stepgraph-checkpoint", &["stepgraph"]),
    ("stepgraph-nodes", &["stepgraph"]),
    ("stepgraph-graphs", &["stepgraph", "stepgraph-nodes"]),
    (
        "stepgraph-server",
        &[
            "stepgraph",
            "stepgraph-checkpoint",
            "stepgraph-graphs",
            "stepgraph-nodes",
        ],
    ),
    ("stepgraph-examples", &["stepgraph", "stepgraph-checkpoint"]),
    ("stepgraph-live", &[]),
    (
        "stepgraph-bench",
        &["stepgraph", "stepgraph-checkpoint", "stepgraph-live"],
    ),
    (
        "stepgraph-tests",
        &[
            "stepgraph",
            "stepgraph-bench",
            "stepgraph-checkpoint",
            "stepgraph-graphs",
            "stepgraph-live",
            "stepgraph-nodes",
            "stepgraph-server",
        ],
    ),
];

/// Drivers and frameworks, by the start of their name: none of them may be anywhere below the engine.
const DRIVERS: &[&str] = &[
    "aide",
    "apalis",
    "async-openai",
    "axum",
    "clap",
    "deadpool",
    "figment",
    "fred",
    "h2",
    "hyper",
    "libsqlite3-sys",
    "moka",
    "native-tls",
    "openssl",
    "qdrant",
    "redis",
    "reqwest",
    "ring",
    "rusqlite",
    "rustls",
    "sqlx",
    "tonic",
    "tower",
    "ureq",
    "utoipa",
    "warp",
];

/// `cargo metadata`, with the packages of this platform only, so that it needs no network after a build.
fn metadata() -> Value {
    let version = run("rustc", &["-vV"]);
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .expect("rustc names its host");
    let arguments = [
        "metadata",
        "--locked",
        "--format-version",
        "1",
        "--filter-platform",
        host,
    ];
    serde_json::from_str(&run(&cargo(), &arguments)).expect("cargo metadata is JSON")
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("the program starts");
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("the output is UTF-8")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the repository")
        .to_owned()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().expect("a text")
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().expect("a list")
}

/// Our packages by name.
fn members(metadata: &Value) -> BTreeMap<&str, &Value> {
    let ids: BTreeSet<&str> = list(metadata, "workspace_members")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    list(metadata, "packages")
        .iter()
        .filter(|package| ids.contains(text(package, "id")))
        .map(|package| (text(package, "name"), package))
        .collect()
}

/// What a package depends on directly when it is built for use, not for its tests.
fn dependencies(package: &Value) -> BTreeSet<&str> {
    list(package, "dependencies")
        .iter()
        .filter(|dependency| dependency["kind"] != "dev")
        .map(|dependency| text(dependency, "name"))
        .collect()
}

/// Every package that is built when this one alone is, by normal dependencies, itself included.
fn tree(package: &str) -> BTreeSet<String> {
    let arguments = [
        "tree",
        "--locked",
        "--package",
        package,
        "--edges",
        "normal",
        "--prefix",
        "none",
    ];
    run(&cargo(), &arguments)
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// Files under version control, as paths from the root.
fn tracked() -> Vec<String> {
    run("git", &["ls-files", "-z"])
        .split('\0')
        .filter(|path| !path.is_empty() && root().join(path).is_file())
        .map(str::to_owned)
        .collect()
}

fn has_extension(path: &str, wanted: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == wanted)
}

/// Rust files of the product: everything under a `src` that is not a file of unit tests.
fn product_files() -> Vec<(String, String)> {
    tracked()
        .into_iter()
        .filter(|path| has_extension(path, "rs") && path.contains("src/") && !path.starts_with("tests/"))
        .filter(|path| !path.ends_with("/tests.rs") && !path.ends_with("_tests.rs") && !path.contains("/tests/"))
        .map(|path| {
            let content = std::fs::read_to_string(root().join(&path)).expect("a Rust file is UTF-8");
            (path, content)
        })
        .collect()
}

/// The part of a file that ships: what stands before its unit tests.
fn shipped(content: &str) -> &str {
    content.split("\n#[cfg(test)]\nmod ").next().unwrap_or(content)
}

#[test]
fn our_crates_depend_on_each_other_in_one_direction_only() {
    let metadata = metadata();
    let members = members(&metadata);
    let ruled: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        members.keys().copied().collect::<BTreeSet<_>>(),
        ruled,
        "give every crate of the workspace a line in ARROWS"
    );
    for (name, allowed) in ARROWS {
        let ours: Vec<&str> = dependencies(members[name])
            .into_iter()
            .filter(|to| members.contains_key(to))
            .collect();
        let forbidden: Vec<&&str> = ours.iter().filter(|to| !allowed.contains(to)).collect();
        assert!(
            forbidden.is_empty(),
            "{name} must not depend on {forbidden:?}: see the arrows in ARCHITECTURE.md"
        );
    }
}

#[test]
fn the_engine_stays_small_and_knows_no_driver() {
    let tree = tree("stepgraph");
    let drivers: Vec<&String> = tree.iter().filter(|name| is_driver(name)).collect();
    assert!(
        drivers.is_empty(),
        "below the engine there must be no driver and no framework, but there is {drivers:?}"
    );
    assert!(
        tree.len() <= ENGINE_PACKAGES_MAX,
        "the engine may have {ENGINE_PACKAGES_MAX} packages in all, it has {}: {tree:?}",
        tree.len()
    );
}

fn is_driver(package: &str) -> bool {
    DRIVERS.iter().any(|driver| {
        package
            .strip_prefix(driver)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
    })
}

#[test]
fn a_driver_is_recognised_by_its_name_and_a_likeness_is_not() {
    assert!(is_driver("sqlx") && is_driver("sqlx-core") && is_driver("tower_http"));
    assert!(!is_driver("ringbuffer") && !is_driver("stepgraph"));
}

#[test]
fn graphs_hold_no_input_and_output() {
    let metadata = metadata();
    let allowed = BTreeSet::from(["schemars", "serde", "stepgraph", "stepgraph-nodes"]);
    let actual = dependencies(members(&metadata)["stepgraph-graphs"]);
    let more: Vec<&&str> = actual.difference(&allowed).collect();
    assert!(
        more.is_empty(),
        "graphs declare and wire; a client, SQL or a clock belongs into nodes: {more:?}"
    );
}

#[test]
fn only_the_server_knows_http_frameworks() {
    let metadata = metadata();
    for (name, package) in members(&metadata) {
        let web: Vec<&str> = dependencies(package)
            .into_iter()
            .filter(|to| to.starts_with("axum") || to.starts_with("tower-http") || *to == "hyper")
            .collect();
        let may = matches!(name, "stepgraph-server" | "stepgraph-tests");
        assert!(
            may || web.is_empty(),
            "{name} depends on {web:?}: HTTP belongs into stepgraph-server"
        );
    }
}

#[test]
fn every_crate_inherits_the_lints_and_the_shared_versions() {
    let metadata = metadata();
    for (name, package) in members(&metadata) {
        let manifest = std::fs::read_to_string(text(package, "manifest_path")).expect("the manifest is there");
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{name} does not inherit the lints: add `[lints]` with `workspace = true`"
        );
        let own: Vec<&str> = dependency_lines(&manifest)
            // A crate may depend on itself, to switch on features for its own tests.
            .filter(|line| !line.contains("workspace = true") && !line.contains("path = \".\""))
            .collect();
        assert!(
            own.is_empty(),
            "{name} names versions of its own, they stand in the root manifest: {own:?}"
        );
    }
}

/// The lines of a manifest that name a dependency.
fn dependency_lines(manifest: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    manifest.lines().filter(move |line| {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        }
        inside && line.starts_with(|c: char| c.is_ascii_alphabetic())
    })
}

#[test]
fn a_version_of_its_own_is_seen() {
    let manifest = "[package]\nversion = \"1\"\n\n[dev-dependencies]\nserde.workspace = true\nlibc = \"0.2\"\n";
    assert_eq!(
        dependency_lines(manifest).collect::<Vec<_>>(),
        ["serde.workspace = true", "libc = \"0.2\""]
    );
}

#[test]
fn no_file_has_more_than_one_room_s_worth_of_lines() {
    let long: Vec<String> = product_files()
        .into_iter()
        .map(|(path, content)| (path, content.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| format!("{path} ({lines} lines)"))
        .collect();
    assert!(
        long.is_empty(),
        "no file over {LINES_MAX} lines; find its second subject: {long:?}"
    );
}

#[test]
fn no_module_hides_in_a_mod_rs() {
    let found: Vec<String> = tracked()
        .into_iter()
        .filter(|path| path.ends_with("/mod.rs") && path.contains("src/"))
        .collect();
    assert!(
        found.is_empty(),
        "name the file after its module (`graph.rs` beside `graph/`): {found:?}"
    );
}

#[test]
fn nothing_in_the_product_is_left_for_later() {
    // Put together here so that this file does not find itself.
    let marks = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["XX", "X"].concat(),
        ["todo", "!("].concat(),
        ["unimplemented", "!("].concat(),
    ];
    let left: Vec<String> = product_files()
        .iter()
        .flat_map(|(path, content)| {
            shipped(content)
                .lines()
                .enumerate()
                .map(move |(number, line)| (path, number, line))
        })
        .filter(|(_, _, line)| marks.iter().any(|mark| line.contains(mark.as_str())))
        .map(|(path, number, line)| format!("{path}:{}: {}", number + 1, line.trim()))
        .collect();
    assert!(left.is_empty(), "finish it or open an issue: {left:#?}");
}

/// The line of a text that holds a byte.
fn line_at(content: &str, at: usize) -> &str {
    let rest = content.get(at..).unwrap_or_default();
    rest.lines().next().unwrap_or_default()
}

#[test]
fn lints_are_switched_off_only_with_a_reason() {
    let bare: Vec<String> = product_files()
        .iter()
        .flat_map(|(path, content)| content.match_indices("[allow(").map(move |(at, _)| (path, content, at)))
        // What a derive writes into a user's crate cannot expect a lint that may not fire there.
        .filter(|(path, content, at)| {
            !(path.starts_with("engine/macros") && line_at(content, *at).contains("reason = "))
        })
        .map(|(path, content, at)| {
            format!(
                "{path}:{}",
                content
                    .as_bytes()
                    .iter()
                    .take(at)
                    .filter(|byte| **byte == b'\n')
                    .count()
                    + 1
            )
        })
        .collect();
    assert!(
        bare.is_empty(),
        "use `#[expect(.., reason = \"..\")]`, which tells when it is no longer needed: {bare:?}"
    );
}

#[test]
fn no_place_of_one_machine_stands_in_the_repository() {
    // Home folders, work folders and mirrors of package registries: right on one machine, wrong on the next.
    let places: Vec<String> = [
        ["/ro", "ot/"],
        ["/ho", "me/"],
        ["/Us", "ers/"],
        ["/wo", "rk/"],
        ["/tmp/", "bash"],
    ]
    .map(|halves| halves.concat())
    .to_vec();
    let hosts: Vec<String> = [["art", "ifactory"], ["nex", "us."], ["dev", "pi"], ["index-", "url"]]
        .map(|halves| halves.concat())
        .to_vec();
    let mut found = Vec::new();
    for path in tracked().into_iter().filter(|path| path != "Cargo.lock") {
        let Ok(content) = std::fs::read_to_string(root().join(&path)) else {
            continue;
        };
        for (number, line) in content.lines().enumerate() {
            if let Some(place) = places.iter().chain(&hosts).find(|place| stands_alone(line, place)) {
                found.push(format!("{path}:{}: {place}", number + 1));
            }
        }
    }
    assert!(found.is_empty(), "take these out: {found:#?}");
}

/// Whether `place` begins a path or a word in the line, so that `src/work/` is not taken for a folder of the machine.
fn stands_alone(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        !line
            .get(..at)
            .and_then(|before| before.chars().next_back())
            .is_some_and(|c| c.is_alphanumeric() || c == '.' || c == '}' || c == '_')
    })
}

#[test]
fn a_place_is_found_at_the_start_of_a_path_only() {
    let place = ["/wo", "rk/"].concat();
    assert!(stands_alone(&format!("see {place}main"), &place));
    assert!(!stands_alone(&format!("see src{place}main"), &place));
}

#[test]
fn every_link_between_our_pages_leads_somewhere() {
    let mut broken = Vec::new();
    for page in tracked().into_iter().filter(|path| has_extension(path, "md")) {
        let content = std::fs::read_to_string(root().join(&page)).expect("a page is UTF-8");
        let folder = root().join(&page).parent().expect("a file lies in a folder").to_owned();
        for target in content
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split([')', '#', ' ']).next())
        {
            let elsewhere = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !folder.join(target).exists() {
                broken.push(format!("{page}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// What a newcomer looks for first; `./test` runs every example.
const EXAMPLES: [&str; 16] = [
    "hello",
    "conditional_loop",
    "fan_out",
    "join",
    "interrupt",
    "subgraph",
    "time_travel",
    "streaming_tokens",
    "error_handler",
    "retries",
    "journal",
    "custom_reducer",
    "custom_checkpointer",
    "replay_test",
    "dynamic_graph",
    "testing",
];

#[test]
fn each_idea_has_an_example_that_says_in_its_first_line_what_it_shows() {
    for name in EXAMPLES {
        let path = root().join("examples/examples").join(name).with_extension("rs");
        let content = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(content.starts_with("//! "), "{}: no such example", path.display());
    }
}
