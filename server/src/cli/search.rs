//! `stepgraph search`: many queries over one tenant's chunks, to measure the search.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};
use stepgraph_nodes::service::{Hit, Purpose, SearchQuery};

use super::{CliError, Ending, Session, jsonl, log::Verbosity, tenant};
use crate::{
    app::{DataFolder, Installation},
    config::Flags,
};

/// What `search` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  stepgraph search --tenant acme --queries queries.jsonl --top 10

Each line of the file is {\"id\": \"q1\", \"text\": \"how long is the warranty?\"}. The answer is one line a query:
  {\"id\": \"q1\", \"hits\": [{\"document_id\": \"faq\", \"chunk_index\": 3, \"score\": 7.1}, ..]}
It works while a server runs on the same data folder.")]
pub(super) struct SearchArgs {
    /// Whose documents are searched
    #[arg(long, value_name = "ID")]
    tenant: String,
    /// The queries, one JSON object a line
    #[arg(long, value_name = "FILE.jsonl")]
    queries: PathBuf,
    /// Most chunks a query
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    top: u32,
}

#[derive(Debug, Deserialize)]
struct Query {
    id: String,
    text: String,
}

#[derive(Debug, Serialize)]
struct Answer<'a> {
    id: &'a str,
    hits: Vec<Found<'a>>,
}

#[derive(Debug, Serialize)]
struct Found<'a> {
    document_id: &'a str,
    chunk_index: u32,
    score: f32,
}

impl<'a> From<&'a Hit> for Found<'a> {
    fn from(hit: &'a Hit) -> Self {
        Self {
            document_id: hit.document_id.as_str(),
            chunk_index: hit.chunk_index,
            score: hit.score,
        }
    }
}

pub(super) async fn run(args: SearchArgs, session: &Session) -> Result<Ending, CliError> {
    let settings = session.settings(Flags::default(), Verbosity::Command)?;
    let installation = Installation::open(DataFolder::look(&settings.data)?, &settings).await?;
    let tenant = tenant::known(&args.tenant, &installation).await?;
    let mut queries = jsonl::Lines::<Query>::open(&args.queries, "a query {\"id\", \"text\"}")?;
    while let Some((_, query)) = queries.next()? {
        let dense = match &installation.embedder {
            Some(embedder) => embedder
                .embed(&tenant, Purpose::Query, std::slice::from_ref(&query.text))
                .await?
                .pop(),
            None => None,
        };
        let asked = SearchQuery {
            text: query.text,
            dense,
            limit: args.top,
        };
        let hits = installation.vectors.search(&tenant, &asked).await?;
        session.output.json(&Answer {
            id: &query.id,
            hits: hits.iter().map(Found::from).collect(),
        })?;
    }
    Ok(Ending::Done)
}
