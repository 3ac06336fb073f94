//! Help, usage, settings, and what needs no documents.

use super::support::{Home, Ran};

const COMMANDS: [&[&str]; 10] = [
    &["demo"],
    &["serve"],
    &["tenant", "add"],
    &["ingest"],
    &["chat"],
    &["search"],
    &["extract"],
    &["graph", "list"],
    &["graph", "draw"],
    &["doctor"],
];

#[test]
fn every_command_explains_itself_on_standard_output() {
    let home = Home::new();
    for command in COMMANDS {
        let help = home.run(command.iter().chain(&["--help"])).ok();

        assert!(
            help.stdout.contains("Usage: stepgraph") && help.stdout.contains("--json"),
            "{help:?}"
        );
        assert_eq!(help.stderr, "");
    }
}

#[test]
fn a_wrong_call_is_exit_code_2_and_says_so_on_standard_error() {
    let home = Home::new();
    let wrong: [&[&str]; 6] = [
        &[],
        &["no-such-command"],
        &["chat", "question without a tenant"],
        &["serve", "--port", "70000"],
        &["ingest", "--tenant", "acme"],
        &["ingest", ".", "--tenant", "acme", "--language", "klingon"],
    ];
    for call in wrong {
        let ran = home.run(call);

        assert_eq!(ran.code, Some(2), "{call:?} {ran:?}");
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{call:?} {ran:?}");
    }
    assert!(!home.data().exists());
}

#[test]
fn an_id_for_several_files_is_a_wrong_call() {
    let home = Home::with_tenant();
    let (one, two) = (home.write("one.txt", "one"), home.write("two.txt", "two"));

    let ran = home.run([
        "ingest".as_ref(),
        one.as_os_str(),
        two.as_os_str(),
        "--tenant".as_ref(),
        "acme".as_ref(),
        "--id".as_ref(),
        "x".as_ref(),
    ]);

    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("exactly one file"), "{ran:?}");
}

#[test]
fn all_wrong_settings_are_told_in_one_go() {
    let home = Home::new();
    let mut command = home.command(["serve"]);
    command
        .env("PORT", "many")
        .env("DATABASE_URL", "mysql://u:hush@host/db");

    let ran = Ran::of(&mut command).refused();

    assert!(ran.stderr.contains("PORT: `many` is not a port"), "{ran:?}");
    assert!(
        ran.stderr
            .contains("write it as postgres://user:password@host/database"),
        "{ran:?}"
    );
    assert!(!ran.stderr.contains("hush"), "{ran:?}");
}

#[test]
fn a_tenant_added_twice_keeps_its_key_and_what_is_not_said_again() {
    let home = Home::new();

    let first = home
        .run(["tenant", "add", "acme", "--tier", "paid", "--domain", "acme.example"])
        .ok();
    let second = home.run(["tenant", "add", "acme", "--model", "gpt-4o", "--json"]).ok();

    let key = first.stdout.trim();
    assert!(key.starts_with("pk_live_"), "{first:?}");
    let told = &second.json()[0];
    assert_eq!(told["key"], key);
    assert_eq!(
        (&told["tier"], &told["model"], &told["new"]),
        (&"paid".into(), &"gpt-4o".into(), &false.into())
    );
    assert_eq!(told["domains"], serde_json::json!(["acme.example"]));
}

#[test]
fn a_tenant_id_that_cannot_be_one_is_refused() {
    let ran = Home::new().run(["tenant", "add", "a/b"]).refused();

    assert!(ran.stderr.contains("not a valid tenant id"), "{ran:?}");
}

#[test]
fn the_graphs_are_listed_and_drawn() {
    let home = Home::new();

    let listed = home.run(["graph", "list", "--json"]).ok().json();
    let names: Vec<_> = listed.iter().filter_map(|graph| graph["name"].as_str()).collect();
    assert_eq!(names, ["widget_chat", "document_ingest"]);
    let drawn = home.run(["graph", "draw", "widget_chat"]).ok();
    assert!(
        drawn.stdout.contains("flowchart") && drawn.stdout.contains("retrieve") && drawn.stdout.contains("fallback"),
        "{drawn:?}"
    );
    let unknown = home.run(["graph", "draw", "nothing"]).refused();
    assert!(unknown.stderr.contains("widget_chat, document_ingest"), "{unknown:?}");
}

#[test]
fn doctor_finds_nothing_wrong_with_a_new_data_folder() {
    let home = Home::with_tenant();

    let report = home.run(["doctor", "--json"]).ok().json();

    let checks = report[0]["checks"].as_array().unwrap();
    for name in [
        "settings",
        "data folder",
        "disk space",
        "records",
        "vectors",
        "chat model",
        "PDF reader",
    ] {
        assert!(
            checks
                .iter()
                .any(|check| check["name"] == name && check["state"] == "ok"),
            "{name}: {checks:?}"
        );
    }
}

#[test]
fn doctor_says_what_is_wrong_with_settings_and_databases() {
    let home = Home::with_tenant();
    std::fs::write(
        home.data().join("vectors.db"),
        "this is no database, whatever its name says",
    )
    .unwrap();

    let damaged = home.run(["doctor"]);
    let unset = Ran::of(home.command(["doctor"]).env("REDIS_URL", "localhost"));

    assert_eq!((damaged.code, unset.code), (Some(1), Some(1)), "{damaged:?} {unset:?}");
    assert!(damaged.stdout.contains("failed"), "{damaged:?}");
    assert!(unset.stdout.contains("REDIS_URL"), "{unset:?}");
}

#[test]
fn with_json_the_error_is_json_too() {
    let ran = Home::with_tenant().run(["chat", "--tenant", "nobody", "hello?", "--json"]);

    assert_eq!(ran.code, Some(1), "{ran:?}");
    let error: serde_json::Value = serde_json::from_str(ran.stderr.trim()).unwrap();
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("stepgraph tenant add nobody"),
        "{ran:?}"
    );
}
