//! `stepgraph serve`: all tenants over HTTP.

use clap::Args;
use serde_json::json;

use super::{CliError, Ending, Session, listen, log::Verbosity, stop::Stop};
use crate::{
    app::{self, DataFolder, Installation},
    config::{Flags, PORT_DEFAULT},
};

/// Address and model, as `serve` and `demo` take them.
#[derive(Debug, Args)]
pub(super) struct ServerFlags {
    /// Address to listen on [default: 127.0.0.1, or HOST]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) host: Option<String>,
    /// Port to listen on, 0 for a free one
    #[arg(long, value_name = "N")]
    pub(super) port: Option<u16>,
    /// One model for every tenant: extractive, scripted (tests only), or one of the provider
    #[arg(long, value_name = "NAME")]
    pub(super) model: Option<String>,
}

impl ServerFlags {
    pub(super) fn flags(self, port_default: u16) -> Flags {
        Flags {
            host: self.host,
            port: self.port,
            model: self.model,
            port_default: Some(port_default),
            ..Flags::default()
        }
    }
}

/// What `serve` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stepgraph serve                                   on http://127.0.0.1:8000
  stepgraph serve --host 0.0.0.0 --port 80          for other machines
  OPENAI_API_KEY=sk-.. stepgraph serve              answers by OpenAI's models

The port is 8000 unless told otherwise. Ctrl-C lets open answers end, then stops; a second one stops at once.")]
pub(super) struct ServeArgs {
    #[command(flatten)]
    server: ServerFlags,
}

pub(super) async fn run(args: ServeArgs, session: &Session) -> Result<Ending, CliError> {
    let settings = session.settings(args.server.flags(PORT_DEFAULT), Verbosity::Server)?;
    let folder = DataFolder::hold(&settings.data, "serve")?;
    let listening = listen::listen(&settings).await?;
    let installation = Installation::open(folder, &settings).await?;
    let stop = Stop::on_signal()?;
    let graphs = app::Graphs::open(&installation).await?;
    let backend = graphs.backend(&installation).await?;
    let server = graphs
        .server(&installation, backend, app::http_settings(&settings))
        .build()?;
    tell(&listening.url, &installation, session)?;
    let shutdown = stop.token().clone();
    server.serve(listening.listener, shutdown.cancelled_owned()).await?;
    Ok(Ending::Done)
}

fn tell(url: &str, installation: &Installation, session: &Session) -> Result<(), CliError> {
    let (data, model) = (
        installation.folder.path().display().to_string(),
        installation.models.describe(),
    );
    if session.output.is_json() {
        return session
            .output
            .json(&json!({ "url": url, "data": data, "model": model }));
    }
    session
        .output
        .line(&format!("stepgraph serves at {url}\n  data   {data}\n  model  {model}"))
}
