//! What became of each document, and the table at the end.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use stepgraph_nodes::service::DocumentId;

use super::super::{
    CliError,
    output::{Output, Style},
};

/// What became of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It can be searched now.
    Stored {
        /// Its chunks.
        chunks: u32,
    },
    /// An earlier ingest had finished it, and its bytes are the same.
    Unchanged {
        /// Its chunks.
        chunks: u32,
    },
    /// A line of a bulk file has an empty text, which is nobody's failure.
    WithoutText,
    /// It cannot be read or stored.
    Failed {
        /// Stable word for programs.
        code: String,
        /// For its owner.
        message: String,
    },
}

impl Outcome {
    const fn word(&self) -> &'static str {
        match self {
            Self::Stored { .. } => "stored",
            Self::Unchanged { .. } => "unchanged",
            Self::WithoutText => "without_text",
            Self::Failed { .. } => "failed",
        }
    }
}

/// A line of the table.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// The file.
    pub(super) path: PathBuf,
    /// The document.
    pub(super) id: DocumentId,
    /// What became of it.
    pub(super) outcome: Outcome,
}

/// How many of each outcome.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    stored: usize,
    unchanged: usize,
    without_text: usize,
    failed: usize,
}

impl Counts {
    fn of<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Self {
        let mut counts = Self::default();
        for row in rows {
            match row.outcome {
                Outcome::Stored { .. } => counts.stored += 1,
                Outcome::Unchanged { .. } => counts.unchanged += 1,
                Outcome::WithoutText => counts.without_text += 1,
                Outcome::Failed { .. } => counts.failed += 1,
            }
        }
        counts
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} stored, {} unchanged, {} failed",
            self.stored, self.unchanged, self.failed
        )?;
        match self.without_text {
            0 => Ok(()),
            documents => write!(f, ", {documents} without text"),
        }
    }
}

/// All outcomes of one ingest.
#[derive(Debug)]
pub(super) struct Tally {
    files: Vec<Row>,
    bulk: Vec<Row>,
    left_out: usize,
}

impl Tally {
    /// Nothing yet; `left_out` files in folders are of types that are not read.
    pub(super) fn new(left_out: usize) -> Self {
        Self {
            files: Vec::new(),
            bulk: Vec::new(),
            left_out,
        }
    }

    /// Adds the outcome of a file.
    pub(super) fn add(&mut self, row: Row) {
        self.files.push(row);
    }

    /// Adds the outcome of a document out of a file of many.
    pub(super) fn add_bulk(&mut self, row: Row) {
        self.bulk.push(row);
    }

    /// Whether nothing has come to an end yet.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.bulk.is_empty()
    }

    /// Whether any document failed.
    pub(super) fn has_failures(&self) -> bool {
        self.all().any(|row| matches!(row.outcome, Outcome::Failed { .. }))
    }

    fn all(&self) -> impl Iterator<Item = &Row> {
        self.files.iter().chain(&self.bulk)
    }

    /// Prints the table: a line for each file and for each document that did not go in, a line for all the rest of a file of many.
    pub(super) fn show(&self, output: Output) -> Result<(), CliError> {
        let mut sorted: Vec<&Row> = self.files.iter().collect();
        sorted.sort_by(|a, b| a.path.cmp(&b.path));
        if output.is_json() {
            return self.show_json(&sorted, output);
        }
        let odd_of_bulk = self
            .bulk
            .iter()
            .filter(|row| matches!(row.outcome, Outcome::Failed { .. } | Outcome::WithoutText));
        let mut lines: Vec<_> = sorted.into_iter().chain(odd_of_bulk).map(line).collect();
        lines.extend(self.bulk_files().into_iter().map(|path| self.bulk_line(path)));
        output.table(&["document", "outcome", "chunks", "file"], &lines)?;
        let left_out = match self.left_out {
            0 => String::new(),
            files => format!("; {files} files of other types left out"),
        };
        output.line(&format!("\n{}{left_out}", Counts::of(self.all())))
    }

    fn show_json(&self, sorted: &[&Row], output: Output) -> Result<(), CliError> {
        for row in sorted.iter().copied().chain(&self.bulk) {
            output.json(&value(row))?;
        }
        let Counts {
            stored,
            unchanged,
            without_text,
            failed,
        } = Counts::of(self.all());
        output.json(&json!({
            "summary": { "stored": stored, "unchanged": unchanged, "without_text": without_text, "failed": failed, "left_out": self.left_out }
        }))
    }

    fn bulk_files(&self) -> Vec<&Path> {
        let mut files: Vec<_> = self.bulk.iter().map(|row| row.path.as_path()).collect();
        files.dedup();
        files
    }

    fn bulk_line(&self, path: &Path) -> Vec<(Style, String)> {
        let rows = || self.bulk.iter().filter(|row| row.path == path);
        let chunks: u64 = rows().map(|row| u64::from(chunks(&row.outcome))).sum();
        vec![
            (Style::Plain, format!("{} documents", rows().count())),
            (Style::Plain, Counts::of(rows()).to_string()),
            (Style::Plain, chunks.to_string()),
            (Style::Dim, path.display().to_string()),
        ]
    }
}

const fn chunks(outcome: &Outcome) -> u32 {
    match outcome {
        Outcome::Stored { chunks } | Outcome::Unchanged { chunks } => *chunks,
        Outcome::WithoutText | Outcome::Failed { .. } => 0,
    }
}

fn line(row: &Row) -> Vec<(Style, String)> {
    let (style, outcome, last) = match &row.outcome {
        Outcome::Stored { .. } => (Style::Good, "stored".to_owned(), row.path.display().to_string()),
        Outcome::Unchanged { .. } => (Style::Dim, "unchanged".to_owned(), row.path.display().to_string()),
        Outcome::WithoutText => (Style::Dim, "without text".to_owned(), row.path.display().to_string()),
        Outcome::Failed { code, message } => (Style::Bad, code.clone(), format!("{}: {message}", row.path.display())),
    };
    vec![
        (Style::Plain, row.id.to_string()),
        (style, outcome),
        (Style::Plain, chunks(&row.outcome).to_string()),
        (Style::Dim, last),
    ]
}

fn value(row: &Row) -> Value {
    let mut value = json!({
        "document_id": row.id, "file": row.path.display().to_string(), "outcome": row.outcome.word(), "chunks": chunks(&row.outcome),
    });
    if let (Outcome::Failed { code, message }, Some(object)) = (&row.outcome, value.as_object_mut()) {
        object.insert("code".to_owned(), json!(code));
        object.insert("message".to_owned(), json!(message));
    }
    value
}
