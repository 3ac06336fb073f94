//! `stepgraph chat`: one question on the terminal.

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::{Map, json};
use stepgraph::RunId;
use stepgraph_nodes::service::Source;
use tokio::sync::mpsc::Receiver;
use uuid::Uuid;

use super::{
    CliError, Ending, Session,
    log::Verbosity,
    output::{Output, Style},
    stop::Stop,
    tenant,
};
use crate::{
    app::{DataFolder, Graphs, Installation},
    backend::{Answer, ChatCommand, ChatEvent, ChatEvents},
    config::Flags,
};

/// How long an answer may take: a model on this machine is slow, and nobody's connection waits.
const ANSWER_BUDGET: Duration = Duration::from_mins(5);
/// Pieces of the answer that may wait for the terminal.
const EVENTS_WAITING_MAX: usize = 64;

/// What `chat` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stepgraph chat --tenant acme \"how long is the warranty?\"
  stepgraph chat --tenant acme --session 7f1c0f5e-4a39-4c0e-9f0e-0c7a2a1f3f10 \"and abroad?\"

The answer and its sources go to standard output as they come; with --json they come as one value at the end.")]
pub(super) struct ChatArgs {
    /// The question
    question: String,
    /// Whose documents answer
    #[arg(long, value_name = "ID")]
    tenant: String,
    /// Go on with a conversation: the session that --json shows [default: a new one]
    #[arg(long, value_name = "UUID")]
    session: Option<Uuid>,
    /// Model that answers: extractive, scripted, or one of the provider [default: the tenant's]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
}

pub(super) async fn run(args: ChatArgs, session: &Session) -> Result<Ending, CliError> {
    let settings = session.settings(
        Flags {
            model: args.model,
            ..Flags::default()
        },
        Verbosity::Command,
    )?;
    let installation = Installation::open(DataFolder::hold_known(&settings.data, "chat")?, &settings).await?;
    let client = tenant::known_client(&args.tenant, &installation).await?;
    let chat = Graphs::open(&installation).await?.chat;
    let command = ChatCommand {
        trace: None,
        run: RunId::random(),
        repeat: false,
        client,
        session: args.session.unwrap_or_else(Uuid::new_v4).to_string(),
        message: args.question,
        metadata: Map::new(),
        asked_at: now(),
        overage: false,
        budget: ANSWER_BUDGET,
    };
    let name = command.session.clone();
    let stop = Stop::on_signal()?;
    let (events, pieces) = ChatEvents::channel(EVENTS_WAITING_MAX);
    let asked = async {
        // The events end when the run does, and with them the reading.
        let events = events;
        chat.answer(command, &events, stop.token().clone()).await
    };
    let (ran, answer) = tokio::join!(asked, show(pieces, session.output));
    ran.map_err(CliError::NoAnswer)?;
    let Some(answer) = answer? else {
        return Ok(Ending::SomeFailed);
    };
    if session.output.is_json() {
        session.output.json(&json!({
            "answer": answer.text, "sources": answer.sources, "usage": answer.usage, "model": answer.model,
            "finish_reason": answer.finish_reason, "session": name,
        }))?;
    } else {
        sources(&answer.sources, session.output)?;
    }
    Ok(Ending::Done)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the question comes in here, at the outermost edge"
)]
fn now() -> DateTime<Utc> {
    Utc::now()
}

/// Prints the pieces as they come and gives back the whole answer, `None` when there was none.
async fn show(mut pieces: Receiver<ChatEvent>, output: Output) -> Result<Option<Answer>, CliError> {
    let mut whole = None;
    while let Some(event) = pieces.recv().await {
        match event {
            ChatEvent::Text(piece) if !output.is_json() => output.piece(&piece)?,
            ChatEvent::Text(_) => {}
            ChatEvent::Answered(answer) => {
                if !output.is_json() {
                    output.line("")?;
                }
                whole = Some(answer);
            }
        }
    }
    Ok(whole)
}

fn sources(sources: &[Source], output: Output) -> Result<(), CliError> {
    if sources.is_empty() {
        return Ok(());
    }
    output.line(&output.styled(Style::Bold, "\nSources"))?;
    for source in sources {
        let place = format!("{} (chunk {})", source.document_id, source.chunk_index);
        output.line(&format!("  {}  {}", source.title, output.styled(Style::Dim, &place)))?;
        output.line(&output.styled(
            Style::Dim,
            &format!(
                "    {}",
                source.excerpt.split_whitespace().collect::<Vec<_>>().join(" ")
            ),
        ))?;
    }
    Ok(())
}
