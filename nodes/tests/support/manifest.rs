//! A folder of documents with a manifest of what each must give, and the check of one answer against it.
//!
//! Shared by the test over our own documents and by the example `check_corpus`, which runs over any folder.

use std::{fs, io, path::Path};

use serde::Deserialize;
use serde_json::{Map, Value};
use stepgraph_nodes::{
    parse::{ParseError, Parsed},
    service::FileType,
};
use unicode_normalization::UnicodeNormalization;

/// The manifest of a folder.
#[derive(Debug, Deserialize)]
pub(crate) struct Manifest {
    /// Its documents.
    pub(crate) files: Vec<Case>,
}

/// A document and what it must give.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Case {
    /// Path below the manifest.
    pub(crate) file: String,
    /// The type it is uploaded as.
    #[serde(rename = "type")]
    pub(crate) declared: FileType,
    /// `ok`, `any_no_crash` or codes of errors, alternatives joined with a bar.
    pub(crate) expect: String,
    /// How many pages it has.
    pub(crate) pages: Option<usize>,
    /// Sentences that must be found, in this order.
    #[serde(default)]
    pub(crate) sentences: Vec<String>,
    /// Text that must not be found.
    #[serde(default)]
    pub(crate) forbidden: Vec<String>,
    /// Its rows as objects.
    pub(crate) records: Option<Vec<Map<String, Value>>>,
    /// How many rows it has, the header counted.
    pub(crate) rows_with_header: Option<usize>,
    /// Its header, or the first columns of it.
    pub(crate) header: Option<Vec<String>>,
}

/// How an answer compares to its case.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Sentences found in order.
    pub(crate) found: usize,
    /// Whether the outcome is one that was expected.
    pub(crate) code_right: bool,
    /// Whether the rows are exact, where rows were expected.
    pub(crate) rows_exact: Option<bool>,
    /// What was wrong, in words.
    pub(crate) faults: Vec<String>,
}

impl Manifest {
    /// The manifest in a folder; without one, all files with a known extension, of which nothing is expected.
    pub(crate) fn of_folder(folder: &Path) -> io::Result<Self> {
        let manifest = folder.join("manifest.json");
        if manifest.exists() {
            return serde_json::from_slice(&fs::read(manifest)?).map_err(io::Error::other);
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if let (Some(declared), Some(name)) = (
                stepgraph_nodes::parse::declared_type(&path),
                path.file_name().and_then(|name| name.to_str()),
            ) {
                files.push(Case::any(name, declared));
            }
        }
        files.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(Self { files })
    }
}

impl Case {
    fn any(file: &str, declared: FileType) -> Self {
        Self {
            file: file.to_owned(),
            declared,
            expect: "any_no_crash".to_owned(),
            pages: None,
            sentences: Vec::new(),
            forbidden: Vec::new(),
            records: None,
            rows_with_header: None,
            header: None,
        }
    }

    /// Compares an answer.
    pub(crate) fn check(&self, answer: &Result<Parsed, ParseError>) -> Verdict {
        let code = answer.as_ref().map_or_else(ParseError::code, |_| "ok");
        let mut verdict = Verdict {
            code_right: self.expect == "any_no_crash" || self.expect.split('|').any(|expected| expected == code),
            ..Verdict::default()
        };
        if !verdict.code_right {
            verdict.faults.push(format!(
                "{code} instead of {}: {:?}",
                self.expect,
                answer.as_ref().err()
            ));
        }
        if code == "worker_unavailable" {
            verdict.code_right = false;
            verdict.faults.push(format!("{:?}", answer.as_ref().err()));
        }
        let text = answer.as_ref().map(|parsed| flat(&parsed.text)).unwrap_or_default();
        let mut rest = text.as_str();
        for sentence in &self.sentences {
            let sentence = flat(sentence);
            match rest.split_once(&sentence) {
                Some((_, after)) => {
                    verdict.found += 1;
                    rest = after;
                }
                None if text.contains(&sentence) => verdict.faults.push(format!("out of order: {sentence}")),
                None => verdict.faults.push(format!("not found: {sentence}")),
            }
        }
        for forbidden in self
            .forbidden
            .iter()
            .filter(|forbidden| text.contains(&flat(forbidden)))
        {
            verdict.faults.push(format!("must not be found: {forbidden}"));
        }
        if let Ok(parsed) = answer {
            self.check_shape(parsed, &mut verdict);
        }
        verdict
    }

    fn check_shape(&self, parsed: &Parsed, verdict: &mut Verdict) {
        if let Some(pages) = self.pages.filter(|_| self.declared == FileType::Pdf)
            && pages != parsed.pages.len()
        {
            verdict
                .faults
                .push(format!("{} pages instead of {pages}", parsed.pages.len()));
        }
        let Some(table) = &parsed.records else { return };
        let mut exact = Vec::new();
        if let Some(records) = &self.records {
            let read: Vec<Map<String, Value>> = table
                .records()
                .map(|row| row.map(|(name, value)| (name.to_owned(), value.into())).collect())
                .collect();
            exact.push(&read == records);
        }
        exact.extend(self.header.as_ref().map(|header| table.header.starts_with(header)));
        exact.extend(self.rows_with_header.map(|rows| rows == table.rows.len() + 1));
        if !exact.is_empty() {
            verdict.rows_exact = Some(exact.iter().all(|exact| *exact));
        }
        if verdict.rows_exact == Some(false) {
            verdict.faults.push(format!(
                "rows differ: header {:?}, {} rows",
                table.header,
                table.rows.len()
            ));
        }
    }
}

/// A text as sentences are compared: compatibility forms folded, white space collapsed.
fn flat(text: &str) -> String {
    text.nfkc()
        .collect::<String>()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}
