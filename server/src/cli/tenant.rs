//! `stepgraph tenant`: who may use the service.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use stepgraph::TenantId;
use stepgraph_nodes::service::{Client, Clients as _, ModelName, Tier, embedded::SqliteRecords};

use super::{CliError, Ending, Session, log::Verbosity, output::say};
use crate::{
    app::{DataFolder, Installation, open_database},
    config::Flags,
};

/// What `tenant` can do.
#[derive(Debug, Subcommand)]
pub(super) enum TenantCommand {
    /// Make a tenant, or change the one there is, and print its key
    Add(AddArgs),
}

/// What `tenant add` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stepgraph tenant add acme
  stepgraph tenant add acme --tier paid --model gpt-4o --domain acme.example --domain *.acme.example

The key stays the same when a tenant is added again; what the flags say of it is changed, the rest stays as it is.
The key is public: it stands in the page that carries the widget.")]
pub(super) struct AddArgs {
    /// Name of the tenant: 1 to 200 visible characters without `/`
    id: String,
    /// What the tenant pays for [default: free]
    #[arg(long)]
    tier: Option<TierFlag>,
    /// Chat model of this tenant [default: the tier's]
    #[arg(long)]
    model: Option<String>,
    /// Host whose pages may carry the widget; can be given again, `*.` stands for any name before it
    #[arg(long = "domain", value_name = "HOST")]
    domains: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TierFlag {
    /// 100 messages an hour, 10 documents
    Free,
    /// 1,000 messages an hour, 100 documents
    Paid,
}

impl From<TierFlag> for Tier {
    fn from(flag: TierFlag) -> Self {
        match flag {
            TierFlag::Free => Self::Free,
            TierFlag::Paid => Self::Paid,
        }
    }
}

pub(super) async fn run(command: TenantCommand, session: &Session) -> Result<Ending, CliError> {
    match command {
        TenantCommand::Add(args) => add(args, session).await,
    }
}

async fn add(args: AddArgs, session: &Session) -> Result<Ending, CliError> {
    let settings = session.settings(Flags::default(), Verbosity::Command)?;
    let tenant = TenantId::authenticated(args.id.as_str())?;
    let folder = DataFolder::hold(&settings.data, "tenant add")?;
    let records = SqliteRecords::open(open_database(&folder.records()).await?).await?;
    let known = records.by_id(tenant.as_str()).await?;
    let is_new = known.is_none();
    let client = changed(known.unwrap_or_else(|| Client::new(tenant)), args);
    let key = records.put(&client).await?;
    if session.output.is_json() {
        let model = client.settings.model.as_ref().map(ModelName::as_str);
        session.output.json(&json!({
            "tenant": client.tenant.as_str(), "key": key, "tier": client.tier, "model": model,
            "domains": client.settings.allowed_domains, "new": is_new,
        }))?;
    } else {
        say(&format!(
            "tenant `{}` is {} in {}; its key:",
            client.tenant,
            if is_new { "made" } else { "kept" },
            folder.path().display()
        ));
        session.output.line(&key)?;
    }
    Ok(Ending::Done)
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

fn changed(mut client: Client, args: AddArgs) -> Client {
    client.tier = args.tier.map_or(client.tier, Tier::from);
    client.settings.model = args.model.map(ModelName::new).or(client.settings.model);
    if !args.domains.is_empty() {
        client.settings.allowed_domains = args.domains;
    }
    client
}
