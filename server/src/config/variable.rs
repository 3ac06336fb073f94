//! The table of all settings: what `.env.example`, the settings file and the error messages are made of.

use std::fmt::Write as _;

/// One setting, by the name of its environment variable. In `stepgraph.toml` the same name in lower case is its key.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Variable {
    /// Name of the environment variable.
    pub name: &'static str,
    /// The heading it stands under in `.env.example`.
    pub group: &'static str,
    /// What it does, one line.
    pub doc: &'static str,
    /// The default, or an example where there is none.
    pub example: &'static str,
    /// Whether it must never be printed.
    pub secret: bool,
}

const fn plain(group: &'static str, name: &'static str, example: &'static str, doc: &'static str) -> Variable {
    Variable {
        name,
        group,
        doc,
        example,
        secret: false,
    }
}

const fn secret(group: &'static str, name: &'static str, example: &'static str, doc: &'static str) -> Variable {
    Variable {
        secret: true,
        ..plain(group, name, example, doc)
    }
}

const PLACE: &str = "Where it runs";
const MODELS: &str = "Chat models";
const CALLERS: &str = "Who may call, and who is told";
const KEEPING: &str = "Keeping and logging";

/// Where the data folder is.
pub const DATA: &str = "STEPGRAPH_DATA";
/// The address to listen on.
pub const HOST: &str = "HOST";
/// The port to listen on.
pub const PORT: &str = "PORT";
/// The shared database of records.
pub const DATABASE_URL: &str = "DATABASE_URL";
/// How long chats are kept.
pub const RETENTION_DAYS: &str = "STEPGRAPH_RETENTION_DAYS";
/// Where threads are kept.
pub const CHECKPOINTS_URL: &str = "STEPGRAPH_CHECKPOINTS_URL";
/// The shared cache.
pub const REDIS_URL: &str = "REDIS_URL";
/// The server of chunks.
pub const QDRANT_URL: &str = "QDRANT_URL";
/// Its key.
pub const QDRANT_API_KEY: &str = "QDRANT_API_KEY";
/// Its collection.
pub const QDRANT_COLLECTION: &str = "QDRANT_COLLECTION";
/// What threads are sealed with.
pub const CHECKPOINTS_KEY: &str = "STEPGRAPH_CHECKPOINTS_KEY";
/// One model for everybody.
pub const MODEL: &str = "STEPGRAPH_MODEL";
/// The key of the OpenAI-compatible provider.
pub const OPENAI_API_KEY: &str = "OPENAI_API_KEY";
/// The address of the OpenAI-compatible provider.
pub const OPENAI_BASE_URL: &str = "OPENAI_BASE_URL";
/// The key of Anthropic.
pub const ANTHROPIC_API_KEY: &str = "ANTHROPIC_API_KEY";
/// The address of Anthropic.
pub const ANTHROPIC_BASE_URL: &str = "ANTHROPIC_BASE_URL";
/// What else is known of models.
pub const MODELS_FILE: &str = "STEPGRAPH_MODELS_FILE";
/// The model of the free tier.
pub const FREE_MODEL: &str = "STEPGRAPH_FREE_MODEL";
/// The model of the paid tier.
pub const PAID_MODEL: &str = "STEPGRAPH_PAID_MODEL";
/// Other names of models.
pub const MODEL_ALIASES: &str = "STEPGRAPH_MODEL_ALIASES";
/// The embedding model.
pub const EMBEDDING_MODEL: &str = "EMBEDDING_MODEL";
/// The length of an embedding.
pub const EMBEDDING_DIMENSION: &str = "EMBEDDING_DIMENSION";
/// The secret of trusted callers.
pub const INTERNAL_API_SECRET: &str = "INTERNAL_API_SECRET";
/// Who hears of the progress of documents.
pub const PROGRESS_CALLBACK_URL: &str = "PROGRESS_CALLBACK_URL";
/// Hosts that are called back although they are not public.
pub const CALLBACK_HOSTS: &str = "CALLBACK_HOSTS";
/// Where the free tier may be used.
pub const DASHBOARD_HOSTS: &str = "DASHBOARD_HOSTS";
/// Where the free tier can get more.
pub const UPGRADE_URL: &str = "UPGRADE_URL";
/// Which messages are logged.
pub const RUST_LOG: &str = "RUST_LOG";
/// How log lines look.
pub const LOG_FORMAT: &str = "STEPGRAPH_LOG_FORMAT";

/// Every setting, in the order of `.env.example`.
pub const VARIABLES: &[Variable] = &[
    plain(
        PLACE,
        DATA,
        "./stepgraph-data",
        "Folder of the databases and of stepgraph.toml; one process at a time",
    ),
    plain(
        PLACE,
        HOST,
        "127.0.0.1",
        "Address to listen on; 0.0.0.0 for all, behind a proxy that speaks TLS",
    ),
    plain(PLACE, PORT, "8000", "Port to listen on; 0 for a free one"),
    secret(
        PLACE,
        DATABASE_URL,
        "postgres://stepgraph:...@localhost/express?sslmode=require",
        "The database of the Express service: tenants, documents, the chat log and usage are there instead of in the data folder",
    ),
    secret(
        PLACE,
        CHECKPOINTS_URL,
        "postgres://stepgraph:...@localhost/stepgraph",
        "Where threads are kept, if not in the data folder: a PostgreSQL, or a Redis with appendfsync always (rediss:// for TLS)",
    ),
    secret(
        PLACE,
        REDIS_URL,
        "redis://localhost:6379/",
        "A Redis for counters and short-lived values, shared by several servers (rediss:// for TLS); unset: each process has its own",
    ),
    secret(
        PLACE,
        CHECKPOINTS_KEY,
        "file:/run/secrets/checkpoints-key",
        "What threads are sealed with: 1:KEY with a KEY from `openssl rand -base64 32`, or file: and a path to such a line; to change it, 2:NEW,1:OLD",
    ),
    plain(
        PLACE,
        QDRANT_URL,
        "http://localhost:6334",
        "gRPC address of a Qdrant for the chunks of all tenants; unset: they are in the data folder",
    ),
    secret(
        PLACE,
        QDRANT_API_KEY,
        "a-long-key",
        "Key of that server, where it wants one",
    ),
    plain(
        PLACE,
        QDRANT_COLLECTION,
        "chatconnect_documents",
        "Its collection, made where there is none; its embedding model is fixed then",
    ),
    plain(
        MODELS,
        MODEL,
        "extractive",
        "One model for every tenant: extractive (quotes the documents, needs no key), scripted (tests only), or a model of the provider",
    ),
    secret(
        MODELS,
        OPENAI_API_KEY,
        "sk-...",
        "Key of OpenAI or of any provider that speaks its protocol",
    ),
    plain(
        MODELS,
        OPENAI_BASE_URL,
        "https://api.openai.com/v1",
        "Address of that provider; a local server may need no key",
    ),
    secret(
        MODELS,
        ANTHROPIC_API_KEY,
        "sk-ant-...",
        "Key of Anthropic, for models whose names begin with claude-",
    ),
    plain(
        MODELS,
        ANTHROPIC_BASE_URL,
        "https://api.anthropic.com",
        "Address of Anthropic, or of a gateway that speaks its protocol",
    ),
    plain(
        MODELS,
        FREE_MODEL,
        "gpt-4o-mini",
        "Model of the free tier, where a provider is configured",
    ),
    plain(
        MODELS,
        PAID_MODEL,
        "claude-sonnet-4-5-20250514",
        "Model of the paid tier, where the tenant names none",
    ),
    plain(
        MODELS,
        MODEL_ALIASES,
        "gpt-4=gpt-4o,fast=gpt-4o-mini",
        "Names in tenants' records = names the provider knows, by commas",
    ),
    plain(
        MODELS,
        MODELS_FILE,
        "./models.toml",
        "TOML file of models with limits and prices, beside or in place of the known ones",
    ),
    plain(
        MODELS,
        EMBEDDING_MODEL,
        "text-embedding-3-small",
        "Embedding model for hybrid search; unset: search by words alone",
    ),
    plain(
        MODELS,
        EMBEDDING_DIMENSION,
        "1536",
        "Length of its vectors; fixed for a data folder at the first ingest",
    ),
    secret(
        CALLERS,
        INTERNAL_API_SECRET,
        "a long random text",
        "What trusted callers send as X-Internal-Secret; unset: they are all refused",
    ),
    plain(
        CALLERS,
        PROGRESS_CALLBACK_URL,
        "http://localhost:3000",
        "Origin that is told of each document's progress; unset: nobody",
    ),
    plain(
        CALLERS,
        CALLBACK_HOSTS,
        "hooks.internal,localhost:3000",
        "Hosts that call-backs and webhooks may reach by http or in a private network; all others: public, by https",
    ),
    plain(
        CALLERS,
        DASHBOARD_HOSTS,
        "dashboard.example,*.dashboard.example",
        "Hosts of the pages from which the free tier may be used; unset: all",
    ),
    plain(
        CALLERS,
        UPGRADE_URL,
        "https://dashboard.example/upgrade",
        "Page where a tenant of the free tier gets more; told to those whom a limit refuses",
    ),
    plain(
        KEEPING,
        RETENTION_DAYS,
        "365",
        "Days after which chats leave the log, unless a tenant says otherwise; never keeps them",
    ),
    plain(
        KEEPING,
        RUST_LOG,
        "info",
        "Which messages are logged to stderr, for instance warn or stepgraph_server=debug",
    ),
    plain(KEEPING, LOG_FORMAT, "text", "text for people, json for machines"),
];

impl Variable {
    /// The setting of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        VARIABLES.iter().find(|variable| variable.name == name)
    }

    /// Its key in `stepgraph.toml`.
    #[must_use]
    pub fn key(&self) -> String {
        self.name.to_ascii_lowercase()
    }
}

/// The text of `.env.example`: every setting with its line of documentation, all commented out.
#[must_use]
pub fn env_example() -> String {
    let mut text = String::from(
        "# Settings of stepgraph. A flag wins over the environment, the environment over `stepgraph.toml` in the data\n\
         # folder (or --config FILE), where each name is written in lower case. An empty value counts as unset.\n\
         # To use this file: copy it to .env, remove the # of what you set, then `set -a; . ./.env; set +a`.\n",
    );
    let mut group = "";
    for variable in VARIABLES {
        if variable.group != group {
            group = variable.group;
            let _ = write!(text, "\n# --- {group} ---\n");
        }
        let _ = write!(
            text,
            "# {}.\n#{}={}\n",
            variable.doc,
            variable.name,
            quoted(variable.example)
        );
    }
    text
}

/// As a shell reads it back.
fn quoted(text: &str) -> String {
    if text.contains(' ') {
        format!("'{text}'")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::{VARIABLES, env_example};

    #[test]
    fn the_checked_in_example_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../.env.example");
        if std::env::var_os("UPDATE_ENV_EXAMPLE").is_some() {
            std::fs::write(path, env_example()).unwrap();
        }
        let checked_in = std::fs::read_to_string(path).unwrap();
        assert_eq!(
            checked_in,
            env_example(),
            "write it anew with UPDATE_ENV_EXAMPLE=1 cargo test -p stepgraph-server"
        );
    }

    #[test]
    fn every_setting_is_named_once() {
        let mut names: Vec<_> = VARIABLES.iter().map(|variable| variable.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), VARIABLES.len());
    }
}
