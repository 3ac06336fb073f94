//! Directories of cases, run and told of.

use std::{
    any::Any,
    fs, io,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::FutureExt;
use serde_json::{Value, json};
use stepgraph::Durability;

use super::{
    differences,
    late::{Ground, but_for_checkpoints, needs_every_checkpoint},
    run_case,
};

/// What came of a case.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Its name.
    pub name: String,
    /// Where it differs from what was recorded; empty if it passed.
    pub differences: Vec<String>,
}

/// What came of all cases.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Each case, by name.
    pub verdicts: Vec<Verdict>,
    /// Cases that were left out: they go back to checkpoints that are never written at [`Durability::Exit`].
    pub left_out: Vec<String>,
}

impl Report {
    /// How many passed and how many did not.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let failed = self
            .verdicts
            .iter()
            .filter(|verdict| !verdict.differences.is_empty())
            .count();
        (self.verdicts.len() - failed, failed)
    }
}

impl Verdict {
    /// As one line of JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({"name": self.name, "passed": self.differences.is_empty(), "differences": self.differences})
    }
}

/// The files of cases in a directory: `DIR/cases/*.json`, or `DIR/*.json`.
///
/// # Errors
/// The directory cannot be read.
pub fn cases(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let nested = directory.join("cases");
    let directory = if nested.is_dir() { nested } else { directory.to_owned() };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Runs every case of a directory whose name contains `filter`.
///
/// # Errors
/// A file cannot be read, or is no case.
pub async fn run_directory(directory: &Path, filter: &str, ground: impl Into<Ground>) -> io::Result<Report> {
    let ground = ground.into();
    let mut report = Report::default();
    for file in cases(directory)? {
        let case: Value = serde_json::from_slice(&fs::read(&file)?)
            .map_err(|error| io::Error::other(format!("{}: {error}", file.display())))?;
        let name = case["name"].as_str().unwrap_or_default().to_owned();
        if !name.contains(filter) {
            continue;
        }
        let mut script = case["script"].as_array().into_iter().flatten();
        if ground.durability == Durability::Exit && script.any(needs_every_checkpoint) {
            report.left_out.push(name);
            continue;
        }
        let differences = judge(&case, ground).await;
        report.verdicts.push(Verdict { name, differences });
    }
    Ok(report)
}

/// A case that takes longer has lost its way: no recorded one takes a second.
const CASE_TIME_MAX: Duration = Duration::from_secs(20);

/// Where a case differs from what was recorded. A panic is a failure of its case, not the end of the others.
pub async fn judge(case: &Value, ground: impl Into<Ground>) -> Vec<String> {
    let judged = AssertUnwindSafe(compared(case, ground.into())).catch_unwind();
    let Ok(judged) = tokio::time::timeout(CASE_TIME_MAX, judged).await else {
        return vec![format!("did not come to an end within {} s", CASE_TIME_MAX.as_secs())];
    };
    judged.unwrap_or_else(|panic| vec![format!("panicked: {}", message(panic.as_ref()))])
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}

async fn compared(case: &Value, ground: Ground) -> Vec<String> {
    let (build, found) = run_case(case, ground).await;
    if build != case["build"] {
        return vec![format!("build: expected {}, found {build}", case["build"])];
    }
    let steps = case["script"].as_array().map(Vec::as_slice).unwrap_or_default();
    if build == "ok" && steps.len() != found.len() {
        return vec![format!("{} steps of {} were run", found.len(), steps.len())];
    }
    for (at, (step, found)) in steps.iter().zip(&found).enumerate() {
        let differences = match ground.durability {
            Durability::Sync | Durability::Async => differences(&step["expect"], found),
            Durability::Exit => differences(&but_for_checkpoints(step), found),
        };
        if !differences.is_empty() {
            let call = step
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(key, _)| *key != "expect");
            let call: Value = call.map(|(key, value)| (key.clone(), value.clone())).collect();
            let head = format!("step {at}: {call}");
            return std::iter::once(head).chain(differences).collect();
        }
    }
    Vec::new()
}
