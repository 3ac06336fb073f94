//! `stepgraph ingest`: outcomes, repeats, and what a kill leaves behind.

use std::{collections::BTreeMap, ffi::OsStr, fmt::Write as _, path::Path};

use serde_json::Value;
use stepgraph::TenantId;
use stepgraph_nodes::service::{VectorStore as _, embedded::SqliteVectors};

use super::support::{Home, Ran, Running, knowledge};

fn arguments(path: &Path) -> [&OsStr; 5] {
    [
        "ingest".as_ref(),
        path.as_os_str(),
        "--tenant".as_ref(),
        "acme".as_ref(),
        "--json".as_ref(),
    ]
}

/// Documents by their outcome.
fn outcomes(ran: &Ran) -> BTreeMap<String, Value> {
    let rows = ran.json().into_iter().filter(|row| row.get("document_id").is_some());
    rows.map(|row| (row["document_id"].as_str().unwrap().to_owned(), row))
        .collect()
}

fn summary(ran: &Ran) -> Value {
    ran.json().pop().unwrap()["summary"].clone()
}

/// Chunks that the vector store holds of the tenant.
fn chunks_stored(home: &Home) -> u64 {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let vectors = SqliteVectors::open(home.data().join("vectors.db")).await.unwrap();
        vectors.count(&TenantId::authenticated("acme").unwrap()).await.unwrap()
    })
}

fn paragraphs(count: u32) -> String {
    (0..count).fold(String::new(), |mut text, n| {
        writeln!(
            text,
            "Paragraph {n} tells of lock number {}, of its gates, its sluices and of the keeper who minds them.\n",
            n * 7919 % 10_007
        )
        .unwrap();
        text
    })
}

#[test]
fn a_folder_is_ingested_once_and_passed_over_when_nothing_has_changed() {
    let home = Home::with_tenant();

    let first = home.run(arguments(&knowledge())).ok();
    let stored = chunks_stored(&home);
    let second = home.run(arguments(&knowledge())).ok();

    assert_eq!(
        outcomes(&first).keys().collect::<Vec<_>>(),
        [
            "faq",
            "ottermere-kettle-manual",
            "spare-parts",
            "support-and-shipping",
            "warranty-and-returns"
        ]
    );
    assert_eq!(
        (&summary(&first)["stored"], &summary(&second)["unchanged"]),
        (&5.into(), &5.into())
    );
    assert!(stored >= 5 && chunks_stored(&home) == stored);
}

#[test]
fn changed_bytes_replace_the_document() {
    let home = Home::with_tenant();
    let path = home.write(
        "hours.txt",
        "The shop opens at nine in the morning on every day of the week.",
    );
    home.run(arguments(&path)).ok();
    home.write(
        "hours.txt",
        "The shop opens at ten in the morning on every day of the week.",
    );

    let again = home.run(arguments(&path)).ok();

    assert_eq!(summary(&again)["stored"], 1);
    assert_eq!(chunks_stored(&home), 1);
}

#[test]
fn each_bad_file_gets_its_code_and_the_good_ones_go_in() {
    let home = Home::with_tenant();
    home.write(
        "in/good.txt",
        "The warranty lasts for two years from the day of the purchase.",
    );
    home.write("in/empty.txt", "");
    home.write("in/cut.pdf", "%PDF-1.7\n1 0 obj\n");

    let notes = home.write("in/notes.md", "left out");

    let ran = home.run(arguments(notes.parent().unwrap()));

    assert_eq!(ran.code, Some(1), "{ran:?}");
    let outcomes = outcomes(&ran);
    assert_eq!(outcomes["good"]["outcome"], "stored");
    assert_eq!(outcomes["empty"]["code"], "empty");
    assert_eq!(outcomes["cut"]["code"], "corrupt");
    assert_eq!(summary(&ran)["left_out"], 1);
}

#[test]
fn the_table_for_people_names_each_file_and_counts_the_outcomes() {
    let home = Home::with_tenant();
    let path = home.write(
        "in/good.txt",
        "The warranty lasts for two years from the day of the purchase.",
    );
    home.write("in/empty.txt", "");

    let ran = home.run([
        "ingest".as_ref(),
        path.parent().unwrap().as_os_str(),
        "--tenant".as_ref(),
        "acme".as_ref(),
    ]);

    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("1 stored, 0 unchanged, 1 failed"), "{ran:?}");
    assert!(ran.stdout.contains("empty.txt: the file is empty"), "{ran:?}");
    assert!(!ran.stdout.contains('\x1b'), "no colours outside a terminal: {ran:?}");
}

#[test]
fn many_documents_come_out_of_one_file_and_are_passed_over_next_time() {
    let home = Home::with_tenant();
    let lines = (0..300).fold(String::new(), |mut lines, n| {
        writeln!(
            lines,
            "{{\"id\": \"d{n}\", \"title\": \"Lock {n}\", \"text\": \"Lock number {n} is kept by its keeper.\"}}"
        )
        .unwrap();
        lines
    });
    let path = home.write("docs.jsonl", lines + "{\"id\": \"blank\", \"text\": \" \"}\n");

    let first = home.run(arguments(&path)).ok();
    let second = home.run(arguments(&path)).ok();

    assert_eq!(
        (&summary(&first)["stored"], &summary(&first)["without_text"]),
        (&300.into(), &1.into())
    );
    assert_eq!(outcomes(&first)["blank"]["outcome"], "without_text");
    assert_eq!(summary(&second)["unchanged"], 300);
    assert_eq!(chunks_stored(&home), 300);
}

#[test]
fn a_wrong_line_is_named_before_anything_is_stored() {
    let home = Home::with_tenant();
    let path = home.write("docs.jsonl", "{\"id\": \"a\", \"text\": \"good\"}\n\n{\"id\": \"b\"}\n");

    let ran = home
        .run([
            "ingest".as_ref(),
            path.as_os_str(),
            "--tenant".as_ref(),
            "acme".as_ref(),
        ])
        .refused();

    assert!(ran.stderr.contains("docs.jsonl line 3 is not a document"), "{ran:?}");
    assert_eq!(chunks_stored(&home), 0);
}

#[test]
fn the_language_is_fixed_at_the_first_ingest() {
    let home = Home::with_tenant();
    let path = home.write(
        "garantia.txt",
        "La garantía dura treinta y seis meses desde la fecha de la compra. Si el hervidor deja de funcionar durante ese \
         tiempo, lo reparamos o lo cambiamos sin coste. Para ello necesitamos el recibo y una breve descripción de lo ocurrido.",
    );

    let told = home.run(arguments(&path)).ok();
    let same = home.run([
        "ingest".as_ref(),
        path.as_os_str(),
        "--tenant".as_ref(),
        "acme".as_ref(),
        "--language".as_ref(),
        "es".as_ref(),
    ]);
    let other = home.run([
        "ingest".as_ref(),
        path.as_os_str(),
        "--tenant".as_ref(),
        "acme".as_ref(),
        "--language".as_ref(),
        "de".as_ref(),
    ]);

    assert!(told.stderr.contains("language of `acme`'s documents: es"), "{told:?}");
    same.ok();
    assert!(other.refused().stderr.contains("kept in language `es`"));
}

#[test]
fn an_unknown_tenant_is_told_how_it_is_made() {
    let home = Home::with_tenant();
    let path = home.write("a.txt", "text");

    let ran = home
        .run([
            "ingest".as_ref(),
            path.as_os_str(),
            "--tenant".as_ref(),
            "nobody".as_ref(),
        ])
        .refused();

    assert!(ran.stderr.contains("stepgraph tenant add nobody"), "{ran:?}");
}

fn ingesting(home: &Home, path: &Path) -> Running {
    Running::of(home.command(arguments(path)).env("RUST_LOG", "stepgraph_server=debug"))
}

#[test]
fn a_document_that_was_killed_in_the_middle_goes_on_where_it_was() {
    let home = Home::with_tenant();
    let path = home.write("locks.txt", paragraphs(1_000));
    let mut running = ingesting(&home, &path);
    running.logged("Storing");
    running.kill();

    let again = Ran::of(home.command(arguments(&path)).env("RUST_LOG", "stepgraph_server=debug")).ok();

    let chunks = outcomes(&again)["locks"]["chunks"].as_u64().unwrap();
    assert_eq!(summary(&again)["stored"], 1);
    assert!(
        !again.stderr.contains("Parsing"),
        "its text is not read again: {again:?}"
    );
    assert_eq!(chunks_stored(&home), chunks, "no chunk twice");
}

#[test]
fn documents_that_were_done_before_a_kill_are_not_done_again() {
    let home = Home::with_tenant();
    for n in 0..12 {
        home.write(&format!("in/{n:02}.txt"), format!("Book {n}.\n\n{}", paragraphs(60)));
    }
    let folder = home
        .write("in/12.txt", "The last book is a short one.")
        .parent()
        .unwrap()
        .to_owned();
    let mut running = ingesting(&home, &folder);
    running.logged("is in the knowledge base");
    running.logged("is in the knowledge base");
    running.kill();

    let again = home.run(arguments(&folder)).ok();

    assert!(summary(&again)["unchanged"].as_u64().unwrap() >= 2, "{again:?}");
    assert_eq!(outcomes(&again).len(), 13);
    let chunks: u64 = outcomes(&again).values().filter_map(|row| row["chunks"].as_u64()).sum();
    assert_eq!(chunks_stored(&home), chunks);
}

#[test]
fn ctrl_c_stops_in_a_safe_place_and_says_how_to_go_on() {
    let home = Home::with_tenant();
    for n in 0..12 {
        home.write(&format!("in/{n:02}.txt"), format!("Book {n}.\n\n{}", paragraphs(120)));
    }
    let folder = home
        .write("in/12.txt", "The last book is a short one.")
        .parent()
        .unwrap()
        .to_owned();
    let mut running = ingesting(&home, &folder);
    running.logged("is in the knowledge base");

    let stopped = running.signal("INT");
    let again = home.run(arguments(&folder)).ok();

    assert_eq!(stopped.code, Some(1), "{stopped:?}");
    assert!(stopped.stderr.contains("run the same command again"), "{stopped:?}");
    assert!(
        summary(&stopped)["stored"].as_u64().unwrap() >= 1,
        "the table stands all the same: {stopped:?}"
    );
    assert!(summary(&again)["unchanged"].as_u64().unwrap() >= 1, "{again:?}");
}
