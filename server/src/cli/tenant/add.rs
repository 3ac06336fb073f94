//! `stepgraph tenant add`.

use clap::{Args, ValueEnum};
use serde_json::json;
use stepgraph::TenantId;
use stepgraph_nodes::service::{Client, ModelName, Tier};

use super::WriteFlag;
use crate::{
    app::{DataFolder, open_records},
    cli::{CliError, Ending, Session, log::Verbosity, output::say},
    config::Flags,
};

/// What `tenant add` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stepgraph tenant add acme
  stepgraph tenant add acme --write-clients           where DATABASE_URL names the Express service's database
  stepgraph tenant add acme --tier paid --model gpt-4o --domain acme.example --domain *.acme.example

The key stays the same when a tenant is added again; what the flags say of it is changed, the rest stays as it is.
The key is public: it stands in the page that carries the widget.")]
pub(in crate::cli) struct AddArgs {
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
    #[command(flatten)]
    writes: WriteFlag,
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

pub(super) async fn run(args: AddArgs, session: &Session) -> Result<Ending, CliError> {
    let mut settings = session.settings(Flags::default(), Verbosity::Command)?;
    settings.client_writes = args.writes.writes();
    let tenant = TenantId::authenticated(args.id.as_str())?;
    let folder = DataFolder::hold(&settings.data, "tenant add")?;
    let records = open_records(&settings).await?;
    let known = records.clients.by_id(tenant.as_str()).await?;
    let is_new = known.is_none();
    let client = changed(known.unwrap_or_else(|| Client::new(tenant)), args);
    let key = records.clients.put(&client).await?;
    let place = if settings.database.is_some() {
        "the database of DATABASE_URL".to_owned()
    } else {
        folder.path().display().to_string()
    };
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
            place
        ));
        session.output.line(&key)?;
    }
    Ok(Ending::Done)
}

fn changed(mut client: Client, args: AddArgs) -> Client {
    client.tier = args.tier.map_or(client.tier, Tier::from);
    client.settings.model = args.model.map(ModelName::new).or(client.settings.model);
    if !args.domains.is_empty() {
        client.settings.allowed_domains = args.domains;
    }
    client
}
