//! The settings: flag over environment over file, read once at start, all that is wrong listed together.

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::http::Uri;
use stepgraph_checkpoint::seal::{InvalidKeys, MasterKeys};
use stepgraph_nodes::service::{Catalogue, ModelName, Secret, anthropic, postgres::ClientWrites};

mod layer;
pub mod variable;

use layer::Reader;
pub use layer::{Problem, SettingsError};

/// The data folder where nobody names one.
pub const DATA_DEFAULT: &str = "stepgraph-data";
/// The port where nobody names one.
pub const PORT_DEFAULT: u16 = 8000;
/// The collection where nobody names one.
pub const COLLECTION_DEFAULT: &str = "chatconnect_documents";
/// Days that chats are kept where neither tenant nor operator says otherwise.
pub const RETENTION_DAYS_DEFAULT: u32 = 365;
/// The settings file looked for in the data folder.
pub const FILE_NAME: &str = "stepgraph.toml";

/// What the command line says; `None` leaves it to environment, file or default.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Flags {
    /// `--data`.
    pub data: Option<PathBuf>,
    /// `--config`: a settings file at another place; it must exist.
    pub config: Option<PathBuf>,
    /// `--host`.
    pub host: Option<String>,
    /// `--port`.
    pub port: Option<u16>,
    /// `--model`.
    pub model: Option<String>,
    /// The port where nobody names one, [`PORT_DEFAULT`] unless the command has its own.
    pub port_default: Option<u16>,
}

/// Which model answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelChoice {
    /// The tenant's own, else its tier's; `extractive` for all where no provider is configured.
    ByTenant,
    /// The model that quotes the retrieved documents, for every tenant.
    Extractive,
    /// The model that does as the message says, for tests.
    Scripted,
    /// This model of the provider, for every tenant.
    Named(ModelName),
}

impl ModelChoice {
    fn parse(text: &str) -> Self {
        match text {
            "extractive" => Self::Extractive,
            "scripted" => Self::Scripted,
            name => Self::Named(ModelName::new(name)),
        }
    }
}

/// A server that keeps threads, with its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointServer {
    /// A PostgreSQL.
    Postgres(Secret),
    /// A Redis.
    Redis(Secret),
}

impl CheckpointServer {
    fn parse(text: &str) -> Result<Self, String> {
        let address = || Secret::new(text);
        match text.split_once("://").map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => Ok(Self::Postgres(address())),
            Some("redis" | "rediss" | "redis+unix") => Ok(Self::Redis(address())),
            _ => Err(
                "is not the address of a store: write it as postgres://user:password@host/database or redis://host/"
                    .to_owned(),
            ),
        }
    }
}

/// A provider of models.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// Its key; a local server may need none.
    pub key: Option<Secret>,
    /// Its address.
    pub base_url: String,
}

/// The embedding model of hybrid search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddingSettings {
    /// The name the provider knows.
    pub model: ModelName,
    /// The length of its vectors.
    pub dimension: u32,
}

/// A Qdrant server and the collection on it.
#[derive(Debug, Clone)]
pub struct QdrantSettings {
    /// Its gRPC address.
    pub url: String,
    /// Its key, where it wants one.
    pub key: Option<Secret>,
    /// The collection of all tenants' chunks.
    pub collection: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// All settings, valid each and together.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// The folder of the databases.
    pub data: PathBuf,
    /// The address to listen on.
    pub host: String,
    /// The port to listen on; 0 for a free one.
    pub port: u16,
    /// The shared database of records; they are in the data folder if nowhere else.
    pub database: Option<Secret>,
    /// Whether this command may write `clients` there, which the Express service owns.
    pub client_writes: ClientWrites,
    /// Where threads are kept; in the data folder if nowhere else.
    pub checkpoints: Option<CheckpointServer>,
    /// The Redis of short-lived values and counters; this process's own memory where there is none.
    pub redis: Option<Secret>,
    /// The Qdrant of chunks; the data folder where there is none.
    pub qdrant: Option<QdrantSettings>,
    /// What threads are sealed with; unset, they are kept as they are.
    pub checkpoints_key: Option<MasterKeys>,
    /// Which model answers.
    pub model: ModelChoice,
    /// Where models other than the embedded ones are found.
    pub provider: Option<ProviderSettings>,
    /// Where Anthropic's models are found by its own protocol.
    pub anthropic: Option<ProviderSettings>,
    /// What is known of models: the program's own entries, and the operator's over them.
    pub catalogue: Arc<Catalogue>,
    /// The model of the free tier.
    pub free_model: ModelName,
    /// The model of the paid tier.
    pub paid_model: ModelName,
    /// Names in tenants' records, and the names the provider knows for them.
    pub model_aliases: BTreeMap<String, ModelName>,
    /// Dense vectors beside the words, where configured.
    pub embedding: Option<EmbeddingSettings>,
    /// What trusted callers send.
    pub internal_secret: Option<Secret>,
    /// The origin that hears of documents' progress.
    pub progress_callback: Option<String>,
    /// Hosts that call-backs and webhooks may reach without https or inside the operator's network.
    pub callback_hosts: Vec<String>,
    /// Hosts of the pages from which the free tier may be used; empty for all.
    pub dashboard_hosts: Vec<String>,
    /// Where a tenant of the free tier can get more.
    pub upgrade_url: Option<String>,
    /// Days after which turns leave the chat log, unless a tenant says otherwise; `None` keeps them.
    pub retention_days: Option<u32>,
    /// Which messages are logged; the command's own default otherwise.
    pub log_filter: Option<String>,
    /// How log lines look.
    pub log_format: LogFormat,
}

impl Settings {
    /// Reads all layers. `environment` is the process's own, handed in so that a test can give another.
    ///
    /// # Errors
    /// Lists every setting that is wrong, contradicts another or cannot be honoured by this build.
    pub fn load(flags: &Flags, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, SettingsError> {
        let environment: BTreeMap<String, String> = environment.into_iter().collect();
        let mut reader = Reader::new();
        let data_before_file = flags
            .data
            .clone()
            .or_else(|| {
                environment
                    .get(variable::DATA)
                    .filter(|text| !text.trim().is_empty())
                    .map(PathBuf::from)
            })
            .unwrap_or_else(|| PathBuf::from(DATA_DEFAULT));
        let beside_data = data_before_file.join(FILE_NAME);
        match &flags.config {
            Some(path) => reader.over_file(path),
            None if beside_data.is_file() => reader.over_file(&beside_data),
            None => {}
        }
        refuse_unknown(&mut reader, &environment);
        let known = environment
            .into_iter()
            .filter(|(name, _)| variable::Variable::named(name).is_some());
        reader.over("the environment", known);
        reader.over("the command line", flags.texts());
        let settings = Self::read(&mut reader, flags.port_default.unwrap_or(PORT_DEFAULT));
        reader.finish(settings)
    }

    fn read(reader: &mut Reader, port_default: u16) -> Self {
        let model = reader
            .text(variable::MODEL)
            .map_or(ModelChoice::ByTenant, |text| ModelChoice::parse(&text));
        let provider = read_provider(reader);
        let anthropic = read_anthropic(reader);
        if let (ModelChoice::Named(name), None, None) = (&model, &provider, &anthropic) {
            reader.problem(
                variable::MODEL,
                format!(
                    "unknown model `{name}`: use extractive or scripted, or set OPENAI_API_KEY, OPENAI_BASE_URL or ANTHROPIC_API_KEY to reach a provider that has it"
                ),
            );
        }
        let catalogue = read_catalogue(reader);
        Self {
            data: reader
                .text(variable::DATA)
                .map_or_else(|| PathBuf::from(DATA_DEFAULT), PathBuf::from),
            host: reader.text(variable::HOST).unwrap_or_else(|| "127.0.0.1".to_owned()),
            port: reader.parsed(variable::PORT, parse_port).unwrap_or(port_default),
            database: reader.parsed(variable::DATABASE_URL, parse_database),
            client_writes: ClientWrites::Refused,
            retention_days: reader
                .parsed(variable::RETENTION_DAYS, parse_days)
                .unwrap_or(Some(RETENTION_DAYS_DEFAULT)),
            checkpoints: reader.parsed(variable::CHECKPOINTS_URL, CheckpointServer::parse),
            qdrant: read_qdrant(reader),
            redis: reader.parsed(variable::REDIS_URL, parse_redis),
            embedding: read_embedding(reader, provider.is_some(), &catalogue),
            checkpoints_key: reader.parsed(variable::CHECKPOINTS_KEY, parse_keys),
            model,
            provider,
            anthropic,
            catalogue: Arc::new(catalogue),
            free_model: ModelName::new(
                reader
                    .text(variable::FREE_MODEL)
                    .unwrap_or_else(|| "gpt-4o-mini".to_owned()),
            ),
            paid_model: ModelName::new(
                reader
                    .text(variable::PAID_MODEL)
                    .unwrap_or_else(|| "claude-sonnet-4-5-20250514".to_owned()),
            ),
            model_aliases: reader
                .parsed(variable::MODEL_ALIASES, parse_aliases)
                .unwrap_or_default(),
            internal_secret: reader.text(variable::INTERNAL_API_SECRET).map(Secret::new),
            progress_callback: reader.parsed(variable::PROGRESS_CALLBACK_URL, parse_url),
            callback_hosts: reader.parsed(variable::CALLBACK_HOSTS, parse_hosts).unwrap_or_default(),
            dashboard_hosts: reader
                .parsed(variable::DASHBOARD_HOSTS, parse_hosts)
                .unwrap_or_default(),
            upgrade_url: reader.parsed(variable::UPGRADE_URL, parse_url),
            log_filter: reader.parsed(variable::RUST_LOG, parse_filter),
            log_format: reader
                .parsed(variable::LOG_FORMAT, parse_format)
                .unwrap_or(LogFormat::Text),
        }
    }

    /// The name the provider knows for a name in a tenant's record.
    #[must_use]
    pub fn resolved<'a>(&'a self, name: &'a ModelName) -> &'a ModelName {
        self.model_aliases.get(name.as_str()).unwrap_or(name)
    }
}

impl Flags {
    fn texts(&self) -> Vec<(&'static str, String)> {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        [
            (variable::DATA, self.data.as_deref().map(path)),
            (variable::HOST, self.host.clone()),
            (variable::PORT, self.port.map(|port| port.to_string())),
            (variable::MODEL, self.model.clone()),
        ]
        .into_iter()
        .filter_map(|(name, text)| Some((name, text?)))
        .collect()
    }
}

/// A misspelt variable of ours would otherwise be dropped without a word.
fn refuse_unknown(reader: &mut Reader, environment: &BTreeMap<String, String>) {
    let ours = environment.keys().filter(|name| name.starts_with("STEPGRAPH_"));
    for name in ours.filter(|name| variable::Variable::named(name).is_none()) {
        reader.problem(
            name,
            "is not a setting (from the environment): .env.example lists them all",
        );
    }
}

fn read_provider(reader: &mut Reader) -> Option<ProviderSettings> {
    let key = reader.text(variable::OPENAI_API_KEY).map(Secret::new);
    let base_url = reader.parsed(variable::OPENAI_BASE_URL, parse_url);
    if key.is_none() && base_url.is_none() {
        return None;
    }
    Some(ProviderSettings {
        key,
        base_url: base_url.unwrap_or_else(|| "https://api.openai.com/v1".to_owned()),
    })
}

fn read_qdrant(reader: &mut Reader) -> Option<QdrantSettings> {
    let url = reader.parsed(variable::QDRANT_URL, parse_url);
    let key = reader.text(variable::QDRANT_API_KEY).map(Secret::new);
    let collection = reader.text(variable::QDRANT_COLLECTION);
    if url.is_none() {
        let alone = "says nothing without QDRANT_URL: set that too, or unset it";
        for (name, is_set) in [
            (variable::QDRANT_API_KEY, key.is_some()),
            (variable::QDRANT_COLLECTION, collection.is_some()),
        ] {
            if is_set {
                reader.problem(name, alone);
            }
        }
    }
    Some(QdrantSettings {
        url: url?,
        key,
        collection: collection.unwrap_or_else(|| COLLECTION_DEFAULT.to_owned()),
    })
}

fn read_anthropic(reader: &mut Reader) -> Option<ProviderSettings> {
    let key = reader.text(variable::ANTHROPIC_API_KEY).map(Secret::new);
    let base_url = reader.parsed(variable::ANTHROPIC_BASE_URL, parse_url);
    if key.is_none() && base_url.is_none() {
        return None;
    }
    Some(ProviderSettings {
        key,
        base_url: base_url.unwrap_or_else(|| anthropic::BASE_URL.to_owned()),
    })
}

fn read_catalogue(reader: &mut Reader) -> Catalogue {
    let ours = Catalogue::builtin().unwrap_or_else(|error| {
        reader.problem(variable::MODELS_FILE, format!("this build is broken: {error}"));
        Catalogue::default()
    });
    let theirs = reader.parsed(variable::MODELS_FILE, |path| {
        let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read ({error})"))?;
        ours.clone().with(&text).map_err(|error| error.to_string())
    });
    theirs.unwrap_or(ours)
}

fn read_embedding(reader: &mut Reader, has_provider: bool, catalogue: &Catalogue) -> Option<EmbeddingSettings> {
    let model = reader.text(variable::EMBEDDING_MODEL);
    let dimension = reader.parsed(variable::EMBEDDING_DIMENSION, parse_dimension);
    match (model, dimension) {
        (None, None) => None,
        (None, Some(_)) => {
            reader.problem(
                variable::EMBEDDING_DIMENSION,
                "says nothing without EMBEDDING_MODEL: set both or neither",
            );
            None
        }
        (Some(_), _) if !has_provider => {
            reader.problem(
                variable::EMBEDDING_MODEL,
                "needs a provider: set OPENAI_API_KEY or OPENAI_BASE_URL, or unset it",
            );
            None
        }
        (Some(model), dimension) => {
            let model = ModelName::new(model);
            let dimension = dimension.or_else(|| catalogue.get(&model)?.dimension);
            if dimension.is_none() {
                let unknown =
                    "the length of the vectors of this model is not known here: set it as the provider documents it";
                reader.problem(variable::EMBEDDING_DIMENSION, unknown);
            }
            dimension.map(|dimension| EmbeddingSettings { model, dimension })
        }
    }
}

fn parse_database(text: &str) -> Result<Secret, String> {
    match text.split_once("://").map(|(scheme, _)| scheme) {
        Some("postgres" | "postgresql") => Ok(Secret::new(text)),
        _ => Err("is not the address of a database: write it as postgres://user:password@host/database".to_owned()),
    }
}

fn parse_days(text: &str) -> Result<Option<u32>, String> {
    match text.parse() {
        Ok(days @ 1..) => Ok(Some(days)),
        _ if text == "never" => Ok(None),
        _ => Err("is not a number of days: use 1 or more, or never".to_owned()),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| "is not a port: use 0 to 65535, 0 for a free one".to_owned())
}

fn parse_redis(text: &str) -> Result<Secret, String> {
    match text.split_once("://").map(|(scheme, _)| scheme) {
        Some("redis" | "rediss" | "redis+unix") => Ok(Secret::new(text)),
        _ => Err("is not the address of a Redis: write it as redis://host:6379/, or rediss:// for TLS".to_owned()),
    }
}

/// The keys themselves, or a file that holds them and nothing else.
fn parse_keys(text: &str) -> Result<MasterKeys, String> {
    let unusable = |error: InvalidKeys| format!("cannot be used: {error}");
    match text.strip_prefix("file:") {
        None => text.parse().map_err(unusable),
        Some(path) => {
            let keys = read_start(Path::new(path)).map_err(|error| {
                format!("names the file {path}, which cannot be read ({error}): give this user the right to")
            })?;
            keys.trim().parse().map_err(unusable)
        }
    }
}

/// No more of a file than any list of keys is long.
fn read_start(path: &Path) -> std::io::Result<String> {
    const KEYS_BYTES_MAX: u64 = 4096;
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(KEYS_BYTES_MAX)
        .read_to_string(&mut text)?;
    Ok(text)
}

fn parse_dimension(text: &str) -> Result<u32, String> {
    const DIMENSION_MAX: u32 = 16_384;
    match text.parse() {
        Ok(dimension @ 1..=DIMENSION_MAX) => Ok(dimension),
        _ => Err(format!("is not the length of a vector: use 1 to {DIMENSION_MAX}")),
    }
}

fn parse_url(text: &str) -> Result<String, String> {
    let uri: Option<Uri> = text.parse().ok();
    let scheme = uri.as_ref().and_then(Uri::scheme_str);
    if matches!(scheme, Some("http" | "https")) {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err("is not an address: write it as http://host:port or https://host/path".to_owned())
    }
}

fn parse_hosts(text: &str) -> Result<Vec<String>, String> {
    let is_host = |host: &&str| !host.is_empty() && !host.contains(['/', '@', ' ']);
    text.split(',')
        .map(str::trim)
        .map(|host| {
            Some(host)
                .filter(is_host)
                .map(str::to_owned)
                .ok_or_else(|| "is not a list of hosts: write it as host,host:port".to_owned())
        })
        .collect()
}

fn parse_aliases(text: &str) -> Result<BTreeMap<String, ModelName>, String> {
    let pair = |part: &str| {
        let (name, known) = part.split_once('=')?;
        let (name, known) = (name.trim(), known.trim());
        (!name.is_empty() && !known.is_empty()).then(|| (name.to_owned(), ModelName::new(known)))
    };
    text.split(',')
        .map(|part| pair(part).ok_or_else(|| "is not a list of aliases: write it as name=model,name=model".to_owned()))
        .collect()
}

fn parse_filter(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "is not a log filter ({error}): use for instance info, or warn,stepgraph_server=debug"
        )),
    }
}

fn parse_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("is not a log format: use text or json".to_owned()),
    }
}

#[cfg(test)]
mod tests;
