//! `stepgraph tenant`: who may use the service, and how each is served.

mod add;
mod erase;
mod export;
mod settings;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use stepgraph::TenantId;
use stepgraph_nodes::service::{Client, ClientStatus, ModelName, Records, Tier, postgres::ClientWrites};

use super::{
    CliError, Ending, Session,
    log::Verbosity,
    output::{Style, say},
};
use crate::{
    app::{Installation, open_records},
    config::{Flags, Settings},
};

/// Clients read at once.
const PAGE: u32 = 100;

/// What `tenant` can do.
#[derive(Debug, Subcommand)]
pub(super) enum TenantCommand {
    /// Make a tenant, or change the one there is, and print its key
    Add(add::AddArgs),
    /// List all tenants
    List,
    /// Show a tenant: its key, how it is served, what it has used today
    Show(OneArgs),
    /// Change how a tenant is served
    Set(settings::SetArgs),
    /// Serve a tenant no more until it is resumed
    Pause(ChangeArgs),
    /// Serve a paused tenant again
    Resume(ChangeArgs),
    /// Give a tenant a new key; the old one is refused from then on
    RotateKey(ChangeArgs),
    /// Write all rows of a tenant as JSON lines to standard output
    Export(OneArgs),
    /// Delete all that is kept of a tenant: records, vectors, threads
    Erase(erase::EraseArgs),
    /// Delete the chats that are older than each tenant's retention; a running server does it daily
    Expire(ExpireArgs),
}

/// Whom it is about.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stepgraph tenant show acme --json
  stepgraph tenant export acme > acme.jsonl")]
pub(super) struct OneArgs {
    /// Name of the tenant
    id: String,
}

/// Whom it is about, where the table of clients is written.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stepgraph tenant pause acme
  stepgraph tenant rotate-key acme --write-clients    where DATABASE_URL names the Express service's database

A running server takes it over within seconds.")]
pub(super) struct ChangeArgs {
    /// Name of the tenant
    id: String,
    #[command(flatten)]
    writes: WriteFlag,
}

/// Leave to write what the Express service owns.
#[derive(Debug, Args)]
pub(super) struct WriteFlag {
    /// Write the table `clients` of a shared database, which the Express service owns
    #[arg(long)]
    write_clients: bool,
}

impl WriteFlag {
    const fn writes(&self) -> ClientWrites {
        if self.write_clients {
            ClientWrites::Allowed
        } else {
            ClientWrites::Refused
        }
    }
}

/// What `tenant expire` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stepgraph tenant expire            all tenants
  stepgraph tenant expire acme

How long chats are kept is the tenant's retention-days, else STEPGRAPH_RETENTION_DAYS.")]
pub(super) struct ExpireArgs {
    /// This tenant alone
    id: Option<String>,
}

pub(super) async fn run(command: TenantCommand, session: &Session) -> Result<Ending, CliError> {
    match command {
        TenantCommand::Add(args) => add::run(args, session).await,
        TenantCommand::List => list(session).await,
        TenantCommand::Show(args) => show(&args, session).await,
        TenantCommand::Set(args) => settings::run(args, session).await,
        TenantCommand::Pause(args) => change_status(&args, ClientStatus::Paused, session).await,
        TenantCommand::Resume(args) => change_status(&args, ClientStatus::Active, session).await,
        TenantCommand::RotateKey(args) => rotate_key(&args, session).await,
        TenantCommand::Export(args) => export::run(&args.id, session).await,
        TenantCommand::Erase(args) => erase::run(args, session).await,
        TenantCommand::Expire(args) => expire(args, session).await,
    }
}

/// The records that the settings name, beside a running server or without one.
pub(super) async fn open(session: &Session, writes: ClientWrites) -> Result<(Settings, Records), CliError> {
    let mut settings = session.settings(Flags::default(), Verbosity::Command)?;
    settings.client_writes = writes;
    let records = open_records(&settings).await?;
    Ok((settings, records))
}

/// The client of this id, who must be there.
pub(super) async fn found(id: &str, settings: &Settings, records: &Records) -> Result<Client, CliError> {
    let client = records.clients.by_id(id).await?;
    client.ok_or_else(|| unknown(id, settings))
}

fn unknown(id: &str, settings: &Settings) -> CliError {
    CliError::NoTenant {
        tenant: id.to_owned(),
        data: settings.data.clone(),
    }
}

/// The tenant of this id, who must be there.
pub(super) async fn known(id: &str, installation: &Installation) -> Result<TenantId, CliError> {
    Ok(known_client(id, installation).await?.tenant)
}

/// The record of a tenant, who must be there.
pub(super) async fn known_client(id: &str, installation: &Installation) -> Result<Client, CliError> {
    let client = installation.records.clients.by_id(id).await?;
    client.ok_or_else(|| CliError::NoTenant {
        tenant: id.to_owned(),
        data: installation.folder.path().to_owned(),
    })
}

const fn tier_word(tier: Tier) -> &'static str {
    match tier {
        Tier::Free => "free",
        Tier::Paid => "paid",
    }
}

const fn status_word(status: ClientStatus) -> &'static str {
    match status {
        ClientStatus::Active => "active",
        ClientStatus::Paused => "paused",
        ClientStatus::Disabled => "disabled",
    }
}

fn described(client: &Client) -> Value {
    json!({
        "tenant": client.tenant.as_str(), "tier": client.tier, "status": client.status,
        "unlimited": client.unlimited, "settings": client.settings,
    })
}

async fn list(session: &Session) -> Result<Ending, CliError> {
    let (_, records) = open(session, ClientWrites::Refused).await?;
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = records.clients.page(after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.tenant.clone());
        for client in page {
            if session.output.is_json() {
                session.output.json(&described(&client))?;
                continue;
            }
            let model = client.settings.model.as_ref().map_or("", ModelName::as_str);
            rows.push(vec![
                (Style::Plain, client.tenant.to_string()),
                (Style::Plain, tier_word(client.tier).to_owned()),
                (Style::Plain, status_word(client.status).to_owned()),
                (Style::Plain, model.to_owned()),
            ]);
        }
    }
    if !session.output.is_json() {
        session.output.table(&["tenant", "tier", "status", "model"], &rows)?;
    }
    Ok(Ending::Done)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a command is an outermost edge: what is today is asked here"
)]
async fn show(args: &OneArgs, session: &Session) -> Result<Ending, CliError> {
    let (settings, records) = open(session, ClientWrites::Refused).await?;
    let client = found(&args.id, &settings, &records).await?;
    let key = records.clients.key(&client.tenant).await?;
    let documents = records.documents.count(&client.tenant).await?;
    let today = records
        .usage
        .hours(&client.tenant, chrono::Utc::now().date_naive())
        .await?;
    let messages: u64 = today.iter().map(|hour| hour.request_count).sum();
    let mut told = described(&client);
    if let Value::Object(told) = &mut told {
        told.insert("key".to_owned(), json!(key));
        told.insert("documents".to_owned(), json!(documents));
        told.insert("messagesToday".to_owned(), json!(messages));
    }
    if session.output.is_json() {
        session.output.json(&told)?;
        return Ok(Ending::Done);
    }
    let line = |name: &str, value: String| session.output.line(&format!("{name:<28}{value}"));
    line("tenant", client.tenant.to_string())?;
    line("key", key.unwrap_or_default())?;
    line("tier", tier_word(client.tier).to_owned())?;
    line("status", status_word(client.status).to_owned())?;
    line("documents", documents.to_string())?;
    line("messages today", messages.to_string())?;
    for (name, value) in settings::named(&client.settings) {
        line(&name, value)?;
    }
    Ok(Ending::Done)
}

async fn change_status(args: &ChangeArgs, status: ClientStatus, session: &Session) -> Result<Ending, CliError> {
    let (settings, records) = open(session, args.writes.writes()).await?;
    let client = found(&args.id, &settings, &records).await?;
    records.clients.set_status(&client.tenant, status).await?;
    if session.output.is_json() {
        session
            .output
            .json(&json!({ "tenant": client.tenant.as_str(), "status": status }))?;
    } else {
        say(&format!("tenant `{}` is {}", client.tenant, status_word(status)));
    }
    Ok(Ending::Done)
}

async fn rotate_key(args: &ChangeArgs, session: &Session) -> Result<Ending, CliError> {
    let (settings, records) = open(session, args.writes.writes()).await?;
    let client = found(&args.id, &settings, &records).await?;
    let key = records.clients.rotate_key(&client.tenant).await?;
    let key = key.ok_or_else(|| unknown(&args.id, &settings))?;
    if session.output.is_json() {
        session
            .output
            .json(&json!({ "tenant": client.tenant.as_str(), "key": key }))?;
    } else {
        say(&format!(
            "tenant `{}` has a new key, the old one is refused:",
            client.tenant
        ));
        session.output.line(&key)?;
    }
    Ok(Ending::Done)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a command is an outermost edge: what is old is told from here"
)]
async fn expire(args: ExpireArgs, session: &Session) -> Result<Ending, CliError> {
    let (settings, records) = open(session, ClientWrites::Refused).await?;
    let expiry = crate::retention::Expiry {
        clients: records.clients.clone(),
        log: records.log.clone(),
        named: records.named.clone(),
        days: settings.retention_days,
    };
    let now = chrono::Utc::now();
    let deleted = match args.id {
        Some(id) => expiry.tenant(&found(&id, &settings, &records).await?, now).await?,
        None => expiry.all(now).await?,
    };
    if session.output.is_json() {
        session.output.json(&json!({ "deleted": deleted }))?;
    } else {
        say(&format!("{deleted} chats were older than they may be and are deleted"));
    }
    Ok(Ending::Done)
}
