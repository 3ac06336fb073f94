//! `stepgraph demo`: everything at work on sample documents, from nothing.

use std::sync::Arc;

use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;
use stepgraph::TenantId;
use stepgraph_nodes::service::{Client, ClientSettings, DocumentId};
use uuid::Uuid;

use super::{
    CliError, Ending, Session,
    ingest::{FileIngest, Outcome, Upload, bar},
    knowledge::{QUESTIONS, SAMPLES},
    listen,
    log::Verbosity,
    output::Style,
    serve::ServerFlags,
    stop::Stop,
};
use crate::{
    app::{self, DataFolder, Installation},
    backend::{Demo, HttpSettings},
};

/// The tenant the demo makes.
const TENANT: &str = "demo";
const TITLE: &str = "Ottermere kettles";

/// What `demo` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stepgraph demo
  stepgraph demo --port 8080 --data /tmp/try

Makes the data folder and a tenant `demo` without limits, reads sample documents about a made-up kettle, and serves on a
free port until Ctrl-C, with a chat page at /demo. A second start on the same folder keeps the key. Delete the folder to
be rid of it all.")]
pub(super) struct DemoArgs {
    #[command(flatten)]
    server: ServerFlags,
}

pub(super) async fn run(args: DemoArgs, session: &Session) -> Result<Ending, CliError> {
    let settings = session.settings(args.server.flags(0), Verbosity::Command)?;
    let folder = DataFolder::hold(&settings.data, "demo")?;
    let listening = listen::listen(&settings).await?;
    let installation = Installation::open(folder, &settings).await?;
    let stop = Stop::on_signal()?;
    let key = installation.records.clients.put(&demo_client()?).await?;
    let graphs = app::Graphs::open(&installation).await?;
    let backend = graphs.backend(&installation).await?;
    let files = FileIngest::new(
        &installation,
        Arc::clone(&backend.ingest),
        TenantId::authenticated(TENANT)?,
    );
    if !ingest(&files, &stop).await? {
        return Ok(Ending::SomeFailed);
    }
    let demo = Demo {
        public_key: key.clone(),
        title: TITLE.to_owned(),
        questions: QUESTIONS.map(str::to_owned).to_vec(),
    };
    let http = HttpSettings {
        demo: Some(demo),
        ..app::http_settings(&settings)
    };
    let server = graphs.server(&installation, backend, http).build()?;
    tell(&listening.url, &key, &installation, session)?;
    let shutdown = stop.token().clone();
    server.serve(listening.listener, shutdown.cancelled_owned()).await?;
    Ok(Ending::Done)
}

fn demo_client() -> Result<Client, CliError> {
    let settings = ClientSettings {
        allowed_domains: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
        ..ClientSettings::default()
    };
    Ok(Client {
        unlimited: true,
        settings,
        ..Client::new(TenantId::authenticated(TENANT)?)
    })
}

/// Whether all samples are in; not when the user stops before.
async fn ingest(files: &FileIngest, stop: &Stop) -> Result<bool, CliError> {
    let bar: ProgressBar = bar(SAMPLES.len());
    for sample in SAMPLES {
        bar.set_message(sample.name);
        let upload = Upload {
            id: &DocumentId::new(sample.id),
            name: sample.name,
            file_type: sample.file_type,
            bytes: sample.bytes.to_vec(),
        };
        match files.store(upload, stop.token()).await? {
            None => return Ok(false),
            Some(Outcome::Failed { code, message }) => {
                return Err(CliError::Sample {
                    name: sample.name,
                    message: format!("{code}: {message}"),
                });
            }
            Some(Outcome::Stored { .. } | Outcome::Unchanged { .. } | Outcome::WithoutText) => bar.inc(1),
        }
    }
    bar.finish_and_clear();
    Ok(true)
}

fn tell(url: &str, key: &str, installation: &Installation, session: &Session) -> Result<(), CliError> {
    let output = session.output;
    let curls = [
        ("a question", curl(url, key, "/api/widget/chat", QUESTIONS[0])),
        (
            "the same as a stream",
            curl(url, key, "/api/widget/chat/stream", QUESTIONS[0]),
        ),
        (
            "one that the documents do not answer",
            curl(url, key, "/api/widget/chat", QUESTIONS[2]),
        ),
    ];
    let (data, model) = (
        installation.folder.path().display().to_string(),
        installation.models.describe(),
    );
    if output.is_json() {
        let curls: Vec<_> = curls.iter().map(|(_, line)| line).collect();
        let page = format!("{url}/demo");
        return output.json(&json!({ "url": url, "page": page, "tenant": TENANT, "key": key, "data": data, "model": model, "curl": curls }));
    }
    output.line(&format!(
        "{} Open {url}/demo\n",
        output.styled(Style::Good, "The demo is ready.")
    ))?;
    output.line(&format!("  key    {key}\n  data   {data}\n  model  {model}"))?;
    for (what, line) in curls {
        output.line(&format!(
            "\n{}\n{line}",
            output.styled(Style::Dim, &format!("# {what}"))
        ))?;
    }
    output.line("\nCtrl-C stops it.")
}

/// A line to paste into a shell; the questions hold no quote.
fn curl(url: &str, key: &str, path: &str, question: &str) -> String {
    let session = Uuid::new_v4();
    format!(
        "curl -sN {url}{path} -H 'x-api-key: {key}' -H 'content-type: application/json' \\\n  \
         -d '{{\"sessionId\":\"{session}\",\"message\":\"{question}\"}}'"
    )
}
