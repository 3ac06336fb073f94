//! Documents of our own, read through the whole path: each of `fixtures/manifest.json`, and each limit.
//!
//! PDFs are read by a worker, which is a run of the reading program itself; here that is this test. So it has a `main`
//! of its own that may turn into a worker, and speaks the test protocol through `libtest_mimic`.

#![expect(
    clippy::expect_used,
    reason = "a broken set-up is a failed test, and this test has no `#[test]` for clippy to see"
)]

use std::{
    fs,
    io::{Cursor, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use libtest_mimic::{Arguments, Failed, Trial};
use stepgraph_nodes::{
    parse::{Limit, ParseError, ParseLimits, Parsed, PdfWorker, parse_bytes, run_worker_if_asked},
    service::FileType,
};
use zip::{ZipWriter, write::SimpleFileOptions};

#[path = "support/manifest.rs"]
mod manifest;

fn main() -> ExitCode {
    run_worker_if_asked();
    let arguments = Arguments::from_args();
    let mut trials = fixtures();
    trials.extend([
        trial(
            "a_zip_bomb_is_stopped_while_it_unpacks",
            a_zip_bomb_is_stopped_while_it_unpacks,
        ),
        trial(
            "each_limit_of_a_word_document_is_kept",
            each_limit_of_a_word_document_is_kept,
        ),
        trial("each_count_of_a_pdf_is_kept", each_count_of_a_pdf_is_kept),
        trial(
            "a_worker_that_takes_too_much_dies_alone",
            a_worker_that_takes_too_much_dies_alone,
        ),
        trial(
            "a_missing_worker_is_not_the_documents_fault",
            a_missing_worker_is_not_the_documents_fault,
        ),
        trial("pages_know_where_they_lie", pages_know_where_they_lie),
        trial("what_is_read_survives_being_staged", what_is_read_survives_being_staged),
    ]);
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(name: &str, test: fn() -> Result<(), Failed>) -> Trial {
    Trial::test(name, test)
}

fn fixtures() -> Vec<Trial> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let manifest = manifest::Manifest::of_folder(&folder).expect("the manifest of the fixtures is readable");
    let read = |case: manifest::Case, folder: PathBuf| {
        let name = format!("fixture::{}", case.file);
        Trial::test(name, move || {
            let verdict = case.check(&parse(
                case.declared,
                fs::read(folder.join(&case.file))?,
                ParseLimits::default(),
            ));
            let complete = verdict.faults.is_empty()
                && verdict.code_right
                && verdict.found == case.sentences.len()
                && verdict.rows_exact != Some(false);
            if complete {
                Ok(())
            } else {
                Err(verdict.faults.join("\n").into())
            }
        })
    };
    manifest
        .files
        .into_iter()
        .map(|case| read(case, folder.clone()))
        .collect()
}

fn parse(declared: FileType, bytes: Vec<u8>, limits: ParseLimits) -> Result<Parsed, ParseError> {
    let worker = PdfWorker::own_program(limits).expect("this test is a program");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    runtime.block_on(parse_bytes(&worker, declared, bytes))
}

fn expect_limit(declared: FileType, bytes: Vec<u8>, limits: ParseLimits, limit: Limit) -> Result<(), Failed> {
    let answer = parse(declared, bytes, limits);
    if answer == Err(ParseError::LimitExceeded(limit)) {
        Ok(())
    } else {
        Err(format!("{answer:?} instead of {limit:?}").into())
    }
}

/// A Word document whose body is this XML, and as many more parts.
fn docx(body: &str, more_parts: usize) -> Vec<u8> {
    let relation = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument";
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut part = |name: &str, text: &str| {
        zip.start_file(name, SimpleFileOptions::default())
            .expect("a part starts");
        zip.write_all(text.as_bytes()).expect("a part is written");
    };
    part(
        "_rels/.rels",
        &format!(r#"<Relationships><Relationship Type="{relation}" Target="word/document.xml"/></Relationships>"#),
    );
    part(
        "word/document.xml",
        &format!("<w:document><w:body><w:p><w:r><w:t>{body}</w:t></w:r></w:p></w:body></w:document>"),
    );
    for extra in 0..more_parts {
        part(&format!("word/media/{extra}.bin"), "");
    }
    zip.finish().expect("the archive ends").into_inner()
}

/// A PDF of one page with this content, which can draw itself again as the form `X`.
fn pdf(content: &[u8], filter: &str) -> Vec<u8> {
    let mut out =
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[3 0 R 3 0 R]/Count 1>>endobj \
        3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Resources 5 0 R>>endobj \
        5 0 obj<</XObject<</X 6 0 R>>>>endobj 6 0 obj<</Subtype/Form/BBox[0 0 9 9]/Resources 5 0 R/Length 30>>stream\n\
        /X Do /X Do /X Do /X Do /X Do \nendstream endobj 4 0 obj<</Length "
            .to_vec();
    out.extend(format!("{}{filter}>>stream\n", content.len()).bytes());
    out.extend(content);
    out.extend(b"\nendstream endobj trailer<</Root 1 0 R>>");
    out
}

fn a_zip_bomb_is_stopped_while_it_unpacks() -> Result<(), Failed> {
    let limits = ParseLimits::default();
    let bomb = docx(&"A".repeat(80 << 20), 0);
    assert!(bomb.len() < 1 << 20);
    expect_limit(FileType::Docx, bomb, limits, Limit::PartBytes(limits.part_bytes_max))
}

fn each_limit_of_a_word_document_is_kept() -> Result<(), Failed> {
    let usual = ParseLimits::default();
    let document = || docx("Nine words stand in this document and no more.", 3);
    let check = |limits, limit| expect_limit(FileType::Docx, document(), limits, limit);
    check(
        ParseLimits {
            upload_bytes_max: 99,
            ..usual
        },
        Limit::UploadBytes(99),
    )?;
    check(
        ParseLimits {
            archive_entries_max: 4,
            ..usual
        },
        Limit::ArchiveEntries(4),
    )?;
    check(
        ParseLimits {
            archive_bytes_max: 200,
            ..usual
        },
        Limit::ArchiveBytes(200),
    )?;
    check(
        ParseLimits {
            xml_depth_max: 4,
            ..usual
        },
        Limit::Depth,
    )?;
    check(
        ParseLimits {
            text_bytes_max: 20,
            ..usual
        },
        Limit::TextBytes(20),
    )?;
    assert!(parse(FileType::Docx, document(), usual).is_ok());
    Ok(())
}

fn each_count_of_a_pdf_is_kept() -> Result<(), Failed> {
    let usual = ParseLimits::default();
    let page = || pdf(b"BT 72 700 Td (Twenty letters stand on this page) Tj ET", "");
    assert!(parse(FileType::Pdf, page(), usual).is_ok());
    let check = |bytes, limits, limit| expect_limit(FileType::Pdf, bytes, limits, limit);
    let two_pages = guide()?;
    check(
        two_pages.clone(),
        ParseLimits { pages_max: 1, ..usual },
        Limit::Pages(1),
    )?;
    check(
        two_pages,
        ParseLimits {
            text_bytes_max: 30,
            ..usual
        },
        Limit::TextBytes(30),
    )?;
    check(
        page(),
        ParseLimits {
            operations_max: 20,
            ..usual
        },
        Limit::Operations(20),
    )?;
    check(
        pdf(b"/X Do", ""),
        ParseLimits {
            forms_max: 100,
            ..usual
        },
        Limit::Operations(100),
    )
}

fn a_worker_that_takes_too_much_dies_alone() -> Result<(), Failed> {
    let usual = ParseLimits::default();
    let endless = ParseLimits {
        operations_max: u64::MAX,
        forms_max: u64::MAX,
        ..usual
    };
    let wall = Duration::from_millis(300);
    expect_limit(
        FileType::Pdf,
        pdf(b"/X Do", ""),
        ParseLimits { wall, ..endless },
        Limit::Time(wall),
    )?;
    let cpu = Duration::from_secs(1);
    expect_limit(
        FileType::Pdf,
        pdf(b"/X Do", ""),
        ParseLimits { cpu, ..endless },
        Limit::Time(cpu),
    )?;
    // Each pair of bytes stands for 128 spaces: half a gigabyte in all.
    let swelling = pdf(&[0x81, b' '].repeat(4 << 20), "/Filter/RunLengthDecode");
    let memory_bytes_max = 256 << 20;
    expect_limit(
        FileType::Pdf,
        swelling,
        ParseLimits {
            memory_bytes_max,
            ..usual
        },
        Limit::Memory(memory_bytes_max),
    )
}

fn a_missing_worker_is_not_the_documents_fault() -> Result<(), Failed> {
    let worker = PdfWorker::new(PathBuf::from("/nowhere/worker"), ParseLimits::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let error = runtime
        .block_on(parse_bytes(&worker, FileType::Pdf, guide()?))
        .expect_err("nothing can read it");
    assert!(error.may_pass() && error.code() == "worker_unavailable", "{error:?}");
    Ok(())
}

fn pages_know_where_they_lie() -> Result<(), Failed> {
    let parsed = parse(FileType::Pdf, guide()?, ParseLimits::default())?;
    let page = |of: &str| parsed.page_at(parsed.text.find(of).expect("it is there"));
    assert_eq!((page("Brightwick"), page("dry cloth")), (Some(1), Some(2)));
    Ok(())
}

fn what_is_read_survives_being_staged() -> Result<(), Failed> {
    let csv = parse(FileType::Csv, b"a,b\n1,2\n".to_vec(), ParseLimits::default())?;
    for parsed in [csv, parse(FileType::Pdf, guide()?, ParseLimits::default())?] {
        let staged = serde_json::to_string(&parsed)?;
        assert_eq!(serde_json::from_str::<Parsed>(&staged)?, parsed);
    }
    Ok(())
}

fn guide() -> Result<Vec<u8>, Failed> {
    Ok(fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/guide.pdf"),
    )?)
}
