//! `stepgraph extract` on each type, and on what is none.

use serde_json::{Value, json};

use super::support::{Home, knowledge};

fn extract(path: &std::path::Path) -> (Option<i32>, Value) {
    let ran = Home::new().run(["extract".as_ref(), path.as_os_str(), "--json".as_ref()]);
    (ran.code, ran.json().remove(0))
}

#[test]
fn each_type_of_document_gives_its_text() {
    let words = [
        ("faq.txt", "kettle"),
        ("ottermere-kettle-manual.pdf", "descale"),
        ("spare-parts.csv", "OM-K02"),
        ("warranty-and-returns.docx", "36 months"),
    ];
    for (name, word) in words {
        let (code, read) = extract(&knowledge().join(name));

        assert_eq!((code, &read["status"]), (Some(0), &json!("ok")), "{name}");
        let text = read["text"].as_str().unwrap();
        assert!(text.to_lowercase().contains(&word.to_lowercase()), "{name}: {text}");
        assert!(read["pages"].as_u64().unwrap() >= 1, "{name}");
        assert_eq!(read.get("records").is_some(), name.ends_with("csv"), "{name}");
    }
}

#[test]
fn rows_of_a_table_are_objects_by_header() {
    let home = Home::new();
    let path = home.write("prices.csv", "part;price\nlid;4.50\n\"spout; long\";7\n");

    let (_, read) = extract(&path);

    assert_eq!(
        read["records"],
        json!([{"part": "lid", "price": "4.50"}, {"part": "spout; long", "price": "7"}])
    );
}

#[test]
fn without_json_the_text_alone_is_printed() {
    let home = Home::new();
    let path = home.write("note.txt", "Only this.\n");

    let ran = home.run(["extract".as_ref(), path.as_os_str()]).ok();

    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("Only this.\n", ""));
}

#[test]
fn a_file_that_cannot_be_read_gives_its_code_and_exit_code_1() {
    let home = Home::new();
    let cases = [
        (home.write("empty.txt", ""), "empty"),
        (home.write("not.pdf", "PK\u{3}\u{4} is no PDF"), "type_mismatch"),
        (home.write("cut.pdf", "%PDF-1.7\n1 0 obj\n"), "corrupt"),
        (home.write("notes.md", "# Notes"), "unsupported_type"),
    ];
    for (path, expected) in cases {
        let (code, read) = extract(&path);

        assert_eq!(
            (code, read["status"].as_str()),
            (Some(1), Some(expected)),
            "{}",
            path.display()
        );
        assert!(
            read["message"].as_str().unwrap().contains(':'),
            "it says what to do: {read}"
        );
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let ran = Home::new().run(["extract", "absent.pdf"]).refused();

    assert!(ran.stderr.contains("absent.pdf cannot be read"), "{ran:?}");
}
