//! Reads every document of a folder and compares with its `manifest.json`: `check_corpus DIR`.
//!
//! Without a manifest it prints what came of each file. Exit code 1 if anything is not as the manifest says.

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use stepgraph_nodes::{
    chunk::{self, ChunkLimits},
    parse::{ParseLimits, PdfWorker, parse_bytes, run_worker_if_asked},
    service::FileType,
};
use tokio::time::Instant;

#[path = "../tests/support/manifest.rs"]
mod manifest;

#[derive(Default)]
struct Figures {
    files: usize,
    sentences: usize,
    found: usize,
    codes_right: usize,
    tables: usize,
    tables_exact: usize,
    pieces: usize,
}

fn main() -> ExitCode {
    run_worker_if_asked();
    let Some(folder) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: check_corpus DIR");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(check(&folder)))
    {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn check(folder: &Path) -> Result<bool, Box<dyn std::error::Error>> {
    let manifest = manifest::Manifest::of_folder(folder)?;
    let worker = PdfWorker::own_program(ParseLimits::default())?;
    let mut figures: BTreeMap<&str, Figures> = BTreeMap::new();
    let (mut slowest, mut faults) = ((Duration::ZERO, String::new()), 0);
    for case in &manifest.files {
        let bytes = fs::read(folder.join(&case.file))?;
        let start = Instant::now();
        let answer = parse_bytes(&worker, case.declared, bytes).await;
        let took = start.elapsed();
        if took > slowest.0 {
            slowest = (took, case.file.clone());
        }
        let verdict = case.check(&answer);
        let figures = figures.entry(case.declared.as_str()).or_default();
        figures.files += 1;
        figures.sentences += case.sentences.len();
        figures.found += verdict.found;
        figures.codes_right += usize::from(verdict.code_right);
        figures.tables += usize::from(verdict.rows_exact.is_some());
        figures.tables_exact += usize::from(verdict.rows_exact == Some(true));
        let outcome = match &answer {
            Ok(parsed) => {
                let parsed = parsed.clone();
                let pages = parsed.pages.len();
                let pieces = tokio::task::spawn_blocking(move || chunk::chunk(&parsed, &ChunkLimits::default()))
                    .await?
                    .len();
                figures.pieces += pieces;
                format!("ok, {pages} pages, {pieces} chunks")
            }
            Err(error) => format!("{}: {error}", error.code()),
        };
        println!("{:6.2} s  {}  {outcome}", took.as_secs_f64(), case.file);
        for fault in &verdict.faults {
            println!("          ! {fault}");
        }
        faults += verdict.faults.len();
    }
    report(&figures, &slowest);
    println!("{faults} faults");
    Ok(faults == 0)
}

fn report(figures: &BTreeMap<&str, Figures>, (took, slowest): &(Duration, String)) {
    for kind in [FileType::Pdf, FileType::Docx, FileType::Txt, FileType::Csv] {
        let Some(f) = figures.get(kind.as_str()) else { continue };
        println!(
            "{:4}  {} files, sentences in order {}/{}, outcomes right {}, tables exact {}/{}, {} chunks",
            kind.as_str(),
            f.files,
            f.found,
            f.sentences,
            f.codes_right,
            f.tables_exact,
            f.tables,
            f.pieces
        );
    }
    println!("slowest {:.2} s: {slowest}", took.as_secs_f64());
}
