//! Tenants as the operator knows them, and how each is served.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use stepgraph::TenantId;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use crate::{
    language::Language,
    service::{ModelName, ServiceError},
};

/// What a tenant pays for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// 100 chat messages an hour, 10 documents.
    Free,
    /// 1,000 chat messages an hour, 100 documents.
    Paid,
}

/// Whether a client may use the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientStatus {
    /// Served.
    Active,
    /// Refused until the owner goes on.
    Paused,
    /// Refused.
    Disabled,
}

/// How a tenant is served. What is `None` or empty is as the operator's settings have it for the tier.
///
/// ```
/// use stepgraph_nodes::service::ClientSettings;
///
/// let settings = ClientSettings { hourly_limit: Some(500), ..ClientSettings::default() };
/// let text = serde_json::to_string(&settings)?;
/// assert_eq!(text, r#"{"hourlyLimit":500}"#);
/// assert_eq!(serde_json::from_str::<ClientSettings>(&text)?, settings);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientSettings {
    /// The model the tenant chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelName>,
    /// The model that answers while the first one does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback_model: Option<ModelName>,
    /// Instructions of the tenant's own, put behind ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_prompt: Option<String>,
    /// Most tokens of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// How free the model is in its choice of words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Hosts whose pages may carry the widget.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_domains: Vec<String>,
    /// Chat messages in a window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hourly_limit: Option<u64>,
    /// Whether messages above the limit are refused, where the tier would serve and charge them.
    #[serde(skip_serializing_if = "is_false")]
    pub hard_cap: bool,
    /// Cents for a hundred messages above the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overage_cents_per_hundred: Option<u32>,
    /// Per cent of the limit at which the owner is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert_threshold_percent: Option<u8>,
    /// Who is told by mail, as the shared database has it: the service that owns it sends mails, this one none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert_email: Option<String>,
    /// Where alerts are posted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert_webhook: Option<String>,
    /// Whether an answer must rest on the tenant's documents.
    #[serde(skip_serializing_if = "is_false")]
    pub answer_only_from_documents: bool,
    /// How much of a question a chunk must hold, or how near to it in meaning it must be, to count as found: 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score_threshold: Option<f32>,
    /// Most chunks that an answer rests on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search_limit: Option<u32>,
    /// The language of the knowledge base, before the first document is in.
    #[serde(skip_serializing_if = "Option::is_none", with = "language_code")]
    pub language: Option<Language>,
    /// Tokens of the conversation so far that a model is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_tokens: Option<u32>,
    /// Days after which turns are deleted from the chat log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
    /// Documents that the tenant may keep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document_quota: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// A language as its code.
mod language_code {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::language::Language;

    #[expect(clippy::ref_option, reason = "serde hands over a reference")]
    pub(super) fn serialize<S: Serializer>(language: &Option<Language>, serializer: S) -> Result<S::Ok, S::Error> {
        match language {
            Some(language) => serializer.serialize_str(language.code()),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Language>, D::Error> {
        let code = Option::<String>::deserialize(deserializer)?;
        code.map(|code| Language::parse(&code).map_err(D::Error::custom))
            .transpose()
    }
}

/// A tenant as the operator knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Client {
    /// Whose data it is.
    pub tenant: TenantId,
    /// Free or paid.
    pub tier: Tier,
    /// Whether it is served.
    pub status: ClientStatus,
    /// Whether the hourly limit is lifted (the demo tenant).
    pub unlimited: bool,
    /// How it is served.
    pub settings: ClientSettings,
}

impl Client {
    /// An active tenant of the free tier, served as the operator's settings have it.
    ///
    /// ```
    /// use stepgraph::TenantId;
    /// use stepgraph_nodes::service::{Client, ClientSettings, Tier};
    ///
    /// let client = Client::new(TenantId::authenticated("acme")?);
    /// assert_eq!((client.tier, client.settings), (Tier::Free, ClientSettings::default()));
    /// # Ok::<(), stepgraph::InvalidId>(())
    /// ```
    #[must_use]
    pub fn new(tenant: TenantId) -> Self {
        Self {
            tenant,
            tier: Tier::Free,
            status: ClientStatus::Active,
            unlimited: false,
            settings: ClientSettings::default(),
        }
    }
}

/// What a public key begins with.
const KEY_PREFIX: &str = "pk_live_";

/// A key that cannot be guessed: 244 random bits.
pub(crate) fn new_key() -> String {
    format!("{KEY_PREFIX}{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// Whether the key that was found is the one that was sent, byte for byte and in a time that tells nothing.
pub(crate) fn is_key(found: &str, sent: &str) -> bool {
    found.as_bytes().ct_eq(sent.as_bytes()).into()
}

/// Looks up, makes and changes clients.
#[async_trait]
pub trait Clients: Send + Sync + 'static {
    /// The client that a public key belongs to; any status. The key found is compared with the one sent in constant time.
    async fn by_key(&self, public_key: &str) -> Result<Option<Client>, ServiceError>;

    /// The client with this id; the caller has proved to be the operator or the internal service.
    async fn by_id(&self, id: &str) -> Result<Option<Client>, ServiceError>;

    /// The next clients by their ids, at most `limit`, behind `after` where it is given. For the operator.
    async fn page(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<Client>, ServiceError>;

    /// Makes or changes a client and returns its public key (`pk_live_..`), which stays the same once made.
    async fn put(&self, client: &Client) -> Result<String, ServiceError>;

    /// Changes how a client is served and nothing else; says whether there is one.
    async fn set(&self, tenant: &TenantId, settings: &ClientSettings) -> Result<bool, ServiceError>;

    /// Changes whether a client is served; says whether there is one.
    async fn set_status(&self, tenant: &TenantId, status: ClientStatus) -> Result<bool, ServiceError>;

    /// The client's public key.
    async fn key(&self, tenant: &TenantId) -> Result<Option<String>, ServiceError>;

    /// Gives the client a new public key, which is returned; the old one is worth nothing from then on.
    async fn rotate_key(&self, tenant: &TenantId) -> Result<Option<String>, ServiceError>;
}
