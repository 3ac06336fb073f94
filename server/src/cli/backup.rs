//! `stepgraph backup` and `stepgraph restore`: the data folder copied while it is whole.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;

use super::{CliError, Ending, Session, log::Verbosity, output::say};
use crate::{
    app::{AppError, DataFolder, open_database},
    config::Flags,
};

/// What `backup` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stepgraph backup /backups/monday

Works beside a running server. Settings are not copied, nor what is on servers of its own: DATABASE_URL and the like.
Nor are the keys of tenants (keys.db): copy them apart, and keep the newest copy alone, so that who is erased stays so.")]
pub(super) struct BackupArgs {
    /// Folder of the copy, new or empty
    to: PathBuf,
}

/// What `restore` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stepgraph restore /backups/monday --data ./stepgraph-data

The data folder must not hold databases yet: put the old ones aside first.")]
pub(super) struct RestoreArgs {
    /// Folder of a copy that `stepgraph backup` has made
    from: PathBuf,
}

fn unwritable(path: &Path) -> impl FnOnce(std::io::Error) -> CliError {
    let path = path.to_owned();
    move |source| CliError::App(AppError::Folder { path, source })
}

/// Records first: a document that is finished between the two copies is then ingested again rather than missed.
pub(super) async fn backup(args: BackupArgs, session: &Session) -> Result<Ending, CliError> {
    let settings = session.settings(Flags::default(), Verbosity::Command)?;
    let folder = DataFolder::look(&settings.data)?;
    let copy = DataFolder::hold(&args.to, "backup")?;
    let pairs = [(folder.records(), copy.records()), (folder.vectors(), copy.vectors())];
    refuse_present(&pairs)?;
    let mut bytes = 0_u64;
    for (from, to) in pairs.iter().filter(|(from, _)| from.is_file()) {
        let database = open_database(from).await?;
        sqlx::query("VACUUM INTO ?")
            .bind(to.to_string_lossy())
            .execute(&database)
            .await
            .map_err(|error| AppError::from_database(to.clone(), &error))?;
        bytes = bytes.saturating_add(fs::metadata(to).map_err(unwritable(to))?.len());
    }
    tell(&args.to, bytes, session)
}

pub(super) async fn restore(args: RestoreArgs, session: &Session) -> Result<Ending, CliError> {
    let settings = session.settings(Flags::default(), Verbosity::Command)?;
    let copy = DataFolder::look(&args.from)?;
    if !copy.records().is_file() {
        return Err(CliError::Usage(format!(
            "{} holds no copy: name a folder that `stepgraph backup` has made",
            args.from.display()
        )));
    }
    let folder = DataFolder::hold(&settings.data, "restore")?;
    let pairs = [(copy.records(), folder.records()), (copy.vectors(), folder.vectors())];
    refuse_present(&pairs)?;
    let mut bytes = 0_u64;
    for (from, to) in pairs.iter().filter(|(from, _)| from.is_file()) {
        sound(from).await?;
        // Under another name until it is whole: a cut off copy must not look like a database.
        let part = to.with_extension("part");
        bytes = bytes.saturating_add(fs::copy(from, &part).map_err(unwritable(to))?);
        fs::File::open(&part)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&part, to))
            .map_err(unwritable(to))?;
    }
    tell(folder.path(), bytes, session)
}

fn refuse_present(pairs: &[(PathBuf, PathBuf)]) -> Result<(), CliError> {
    match pairs.iter().find(|(_, to)| to.exists()) {
        Some((_, to)) => Err(CliError::Usage(format!(
            "{} is there already: put it aside, or name another folder",
            to.display()
        ))),
        None => Ok(()),
    }
}

/// A damaged copy is better refused than restored.
async fn sound(path: &Path) -> Result<(), CliError> {
    let failed = |error: &sqlx::Error| AppError::from_database(path.to_owned(), error);
    let database = open_database(path).await?;
    let found: String = sqlx::query_scalar("PRAGMA quick_check")
        .fetch_one(&database)
        .await
        .map_err(|error| failed(&error))?;
    database.close().await;
    if found == "ok" {
        Ok(())
    } else {
        Err(CliError::App(AppError::Database {
            path: path.to_owned(),
            message: found,
            remedy: "the copy is damaged; take an older one",
        }))
    }
}

fn tell(path: &Path, bytes: u64, session: &Session) -> Result<Ending, CliError> {
    if session.output.is_json() {
        session
            .output
            .json(&json!({ "path": path.display().to_string(), "bytes": bytes }))?;
    } else {
        say(&format!("{bytes} bytes are in {}", path.display()));
    }
    Ok(Ending::Done)
}
