//! `stepgraph threads`: what runs have kept.

use clap::{Args, Subcommand};
use serde_json::json;
use stepgraph::TenantId;
use stepgraph_checkpoint::seal::SealedAnew;

use super::{CliError, Ending, Session, ingest::bar, log::Verbosity, output::say, stop::Stop, tenant::known};
use crate::{
    app::{AppError, DataFolder, Installation, SealAnew, sealing},
    config::{Flags, variable},
};

/// Threads between two looks whether to stop.
const AT_ONCE: u32 = 16;
/// Tenants read at once.
const PAGE: u32 = 100;

/// What `threads` can do.
#[derive(Debug, Subcommand)]
pub(super) enum ThreadsCommand {
    /// Seal the threads that were kept before there was a key, or with an older one
    Seal(SealArgs),
}

/// What `threads seal` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  STEPGRAPH_CHECKPOINTS_KEY=file:/etc/stepgraph.key stepgraph threads seal
  stepgraph threads seal --tenant acme

Stop every server on these threads first, and take a backup. Threads that are sealed with the tenant's current key are left
as they are. Stopped in the middle? Run the same command again before a server starts: it goes on.")]
pub(super) struct SealArgs {
    /// Name of the tenant; all unless named
    #[arg(long)]
    tenant: Option<String>,
}

pub(super) async fn run(command: ThreadsCommand, session: &Session) -> Result<Ending, CliError> {
    match command {
        ThreadsCommand::Seal(args) => seal(&args, session).await,
    }
}

async fn seal(args: &SealArgs, session: &Session) -> Result<Ending, CliError> {
    let settings = session.settings(Flags::default(), Verbosity::Command)?;
    if settings.checkpoints_key.is_none() {
        return Err(CliError::Usage(format!(
            "there is no key to seal with: set {} to the one that the server is to have",
            variable::CHECKPOINTS_KEY
        )));
    }
    let stop = Stop::on_signal()?;
    let folder = DataFolder::hold_known(&settings.data, "threads seal")?;
    let installation = Installation::open(folder, &settings).await?;
    let tenants = match &args.tenant {
        Some(id) => vec![known(id, &installation).await?],
        None => all(&installation).await?,
    };
    let Some(store) = sealing(&installation).await? else {
        return Err(CliError::Usage("the threads are not sealed".to_owned()));
    };
    let bar = bar(tenants.len());
    let (mut done, mut ended) = (SealedAnew::default(), true);
    for tenant in &tenants {
        bar.set_message(format!("{tenant}: {} threads sealed", done.sealed));
        ended = of_tenant(&*store, tenant, &stop, &mut done).await?;
        if !ended {
            break;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    told(session, done, ended)
}

async fn all(installation: &Installation) -> Result<Vec<TenantId>, CliError> {
    let (mut tenants, mut after) = (Vec::new(), None);
    loop {
        let page = installation.records.clients.page(after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { return Ok(tenants) };
        after = Some(last.tenant.clone());
        tenants.extend(page.into_iter().map(|client| client.tenant));
    }
}

/// Whether it came to the tenant's end.
async fn of_tenant(
    store: &dyn SealAnew,
    tenant: &TenantId,
    stop: &Stop,
    done: &mut SealedAnew,
) -> Result<bool, CliError> {
    let mut after = None;
    loop {
        if stop.is_asked() {
            return Ok(false);
        }
        let (some, last) = store
            .seal_anew(tenant, (after.as_ref(), AT_ONCE))
            .await
            .map_err(AppError::from)?;
        *done += some;
        after = last;
        if after.is_none() {
            return Ok(true);
        }
    }
}

fn told(session: &Session, done: SealedAnew, ended: bool) -> Result<Ending, CliError> {
    let SealedAnew {
        sealed, already, taken, ..
    } = done;
    if session.output.is_json() {
        let told = json!({ "done": ended, "sealed": sealed, "already": already, "taken": taken });
        session.output.json(&told)?;
    } else {
        let line = format!("{sealed} threads are sealed now, {already} were before");
        session.output.line(&line)?;
    }
    if taken > 0 {
        say(&format!(
            "{taken} threads were begun anew while their old ones were sealed: those are kept under names that begin with `sealing~`"
        ));
    }
    if !ended {
        say("stopped before the end: run the same command again to go on");
    }
    Ok(if ended && taken == 0 {
        Ending::Done
    } else {
        Ending::SomeFailed
    })
}
