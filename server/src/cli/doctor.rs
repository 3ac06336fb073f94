//! `stepgraph doctor`: what would not work, and what to do about it.

use std::path::Path;

use clap::Args;
use serde::Serialize;
use serde_json::json;
use stepgraph::TenantId;
use stepgraph_nodes::{
    parse::parse_bytes,
    service::{CacheState, ChatModel as _, Purpose},
};

use super::{
    CliError, Ending, Session,
    knowledge::MANUAL,
    log::Verbosity,
    output::{Output, Style},
};
use crate::{
    app::{AppError, DataFolder, FREE_BYTES_MIN, Graphs, Installation, free_bytes, open_database, pdf_worker},
    config::{Flags, Settings},
};

/// What `doctor` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Checks settings, data folder, disk space, databases, models and the PDF reader, and says for each that fails what to do. It works while a server runs on the same data folder. Exit code 1 when something would not work.")]
pub(super) struct DoctorArgs {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// It works.
    Ok,
    /// It works, but is worth knowing.
    Note,
    /// It would not work.
    Failed,
}

/// What was found out about one thing.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    state: State,
    detail: String,
}

impl Check {
    fn new(name: &'static str, state: State, detail: impl Into<String>) -> Self {
        Self {
            name,
            state,
            detail: detail.into(),
        }
    }

    /// Errors say their remedy themselves.
    fn of<T, E: std::fmt::Display>(name: &'static str, result: Result<T, E>, ok: impl FnOnce(T) -> String) -> Self {
        match result {
            Ok(value) => Self::new(name, State::Ok, ok(value)),
            Err(error) => Self::new(name, State::Failed, error.to_string()),
        }
    }
}

pub(super) async fn run(_args: DoctorArgs, session: &Session) -> Result<Ending, CliError> {
    let checks = match session.settings(Flags::default(), Verbosity::Command) {
        Ok(settings) => examine(&settings).await,
        Err(CliError::App(AppError::Settings(wrong))) => wrong
            .problems
            .iter()
            .map(|problem| Check::new("settings", State::Failed, problem.to_string()))
            .collect(),
        Err(other) => return Err(other),
    };
    show(&checks, session.output)
}

async fn examine(settings: &Settings) -> Vec<Check> {
    let mut checks = vec![
        Check::new("settings", State::Ok, "all can be used"),
        internal_secret(settings),
    ];
    if settings.data.is_dir() {
        checks.push(data_folder(&settings.data));
        checks.push(disk(&settings.data));
        checks.extend(services(settings).await);
    } else {
        let detail = format!(
            "{} is not there yet: the first command that writes makes it",
            settings.data.display()
        );
        checks.push(Check::new("data folder", State::Note, detail));
    }
    checks.push(pdf_reader().await);
    checks
}

fn internal_secret(settings: &Settings) -> Check {
    /// Shorter ones can be guessed.
    const SECRET_BYTES_GOOD: usize = 16;
    let name = "internal secret";
    match &settings.internal_secret {
        None => Check::new(
            name,
            State::Note,
            "not set: uploads and all internal routes are refused; set INTERNAL_API_SECRET to open them",
        ),
        Some(secret) if secret.expose().len() < SECRET_BYTES_GOOD => Check::new(
            name,
            State::Note,
            "short enough to be guessed: take one of 16 characters or more",
        ),
        Some(_) => Check::new(name, State::Ok, "set"),
    }
}

fn data_folder(path: &Path) -> Check {
    let name = "data folder";
    let writable = tempfile_in(path);
    match (DataFolder::held_by(path), writable) {
        (Err(error), _) => Check::new(name, State::Failed, error.to_string()),
        (_, Err(error)) => {
            let detail = format!(
                "{} cannot be written ({error}): give this user the right to, or name another with --data",
                path.display()
            );
            Check::new(name, State::Failed, detail)
        }
        (Ok(None), Ok(())) => Check::new(name, State::Ok, path.display().to_string()),
        (Ok(Some(holder)), Ok(())) => Check::new(name, State::Note, format!("{}, in use by {holder}", path.display())),
    }
}

/// Writes a file of no length and removes it.
fn tempfile_in(path: &Path) -> std::io::Result<()> {
    let probe = path.join(format!("doctor-{}.probe", std::process::id()));
    std::fs::File::create_new(&probe)?;
    std::fs::remove_file(probe)
}

fn disk(path: &Path) -> Check {
    let name = "disk space";
    match free_bytes(path) {
        Ok(free) if free < FREE_BYTES_MIN => Check::new(
            name,
            State::Failed,
            AppError::DiskFull {
                path: path.to_owned(),
                free: Some(free),
            }
            .to_string(),
        ),
        Ok(free) => Check::new(name, State::Ok, format!("{} MB free", free / 1_000_000)),
        Err(error) => Check::new(name, State::Failed, format!("{error}: is the disk still there?")),
    }
}

async fn services(settings: &Settings) -> Vec<Check> {
    let opened = match DataFolder::look(&settings.data) {
        Ok(folder) => Installation::open(folder, settings).await,
        Err(error) => Err(error),
    };
    let installation = match opened {
        Ok(installation) => installation,
        Err(error) => return vec![Check::new("databases", State::Failed, error.to_string())],
    };
    let mut checks = vec![
        sound("records", &installation.folder.records()).await,
        match &settings.qdrant {
            Some(server) => Check::of("qdrant", installation.vectors.ping().await, |()| {
                format!("collection `{}`", server.collection)
            }),
            None => sound("vectors", &installation.folder.vectors()).await,
        },
        Check::of("chat model", installation.models.ping().await, |()| {
            installation.models.describe()
        }),
    ];
    checks.extend(installation.models.findings().into_iter().map(|finding| {
        let state = if finding.can_answer { State::Ok } else { State::Note };
        let detail = format!("{}: {}", finding.subject, finding.detail);
        Check::new("model", state, detail)
    }));
    checks.push(sealed(&installation));
    if installation.checkpoint_server.is_some() {
        let kept = Graphs::open(&installation).await;
        checks.push(Check::of("checkpoints", kept, |_| {
            "on the server of STEPGRAPH_CHECKPOINTS_URL".to_owned()
        }));
    }
    if settings.redis.is_some() {
        checks.push(match installation.cache.state().await {
            CacheState::Away => Check::new(
                "redis",
                State::Failed,
                "the server that REDIS_URL names does not answer: start it, or unset REDIS_URL; until then each process counts and caches by itself",
            ),
            CacheState::Answering | CacheState::Embedded => Check::new("redis", State::Ok, "answering"),
        });
    }
    if let Some(embedder) = &installation.embedder {
        checks.push(match TenantId::authenticated("doctor") {
            Ok(tenant) => {
                let vectors = embedder.embed(&tenant, Purpose::Query, &["warranty".to_owned()]).await;
                Check::of("embedding model", vectors, |_| {
                    format!("{}, {} numbers a vector", embedder.model(), embedder.dimension())
                })
            }
            Err(error) => Check::new("embedding model", State::Failed, error.to_string()),
        });
    }
    checks
}

/// Whether who reads the store reads the threads.
fn sealed(installation: &Installation) -> Check {
    let name = "seal of threads";
    let Some(keys) = &installation.checkpoints_key else {
        return Check::new(
            name,
            State::Note,
            "none: whoever reads the store reads every thread; set STEPGRAPH_CHECKPOINTS_KEY to seal new ones, and run `stepgraph threads seal` for the others",
        );
    };
    let ids: Vec<_> = keys.ids().map(|id| id.to_string()).collect();
    let detail = match ids.split_first() {
        Some((current, [])) => format!("sealed with key {current}"),
        Some((current, older)) => format!("sealed with key {current}; {} still open older rows", older.join(", ")),
        None => "no key".to_owned(),
    };
    Check::new(name, State::Ok, detail)
}

/// Has SQLite look through the whole file.
async fn sound(name: &'static str, path: &Path) -> Check {
    let found = async {
        let database = open_database(path).await?;
        let found: String = sqlx::query_scalar("PRAGMA quick_check(1)")
            .fetch_one(&database)
            .await
            .map_err(|error| AppError::from_database(path.to_owned(), &error))?;
        database.close().await;
        Ok::<_, AppError>(found)
    };
    match found.await {
        Ok(found) if found == "ok" => Check::new(name, State::Ok, path.display().to_string()),
        Ok(damage) => Check::new(
            name,
            State::Failed,
            format!("{} is damaged ({damage}): bring back a copy of it", path.display()),
        ),
        Err(error) => Check::new(name, State::Failed, error.to_string()),
    }
}

async fn pdf_reader() -> Check {
    let name = "PDF reader";
    let read = match pdf_worker() {
        Ok(worker) => parse_bytes(&worker, MANUAL.file_type, MANUAL.bytes.to_vec()).await,
        Err(error) => return Check::new(name, State::Failed, error.to_string()),
    };
    Check::of(name, read, |parsed| {
        format!("read the sample manual of {} pages", parsed.pages.len())
    })
}

fn show(checks: &[Check], output: Output) -> Result<Ending, CliError> {
    let failed = checks.iter().any(|check| check.state == State::Failed);
    if output.is_json() {
        output.json(&json!({ "ok": !failed, "checks": checks }))?;
    } else {
        let rows: Vec<_> = checks.iter().map(row).collect();
        output.table(&["check", "state", "what was found"], &rows)?;
    }
    Ok(if failed { Ending::SomeFailed } else { Ending::Done })
}

fn row(check: &Check) -> Vec<(Style, String)> {
    let (style, word) = match check.state {
        State::Ok => (Style::Good, "ok"),
        State::Note => (Style::Bold, "note"),
        State::Failed => (Style::Bad, "failed"),
    };
    vec![
        (Style::Plain, check.name.to_owned()),
        (style, word.to_owned()),
        (Style::Plain, check.detail.clone()),
    ]
}
