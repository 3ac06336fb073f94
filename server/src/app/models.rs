//! Which chat model answers whom: one choice, made from the settings and the tenant's record.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use stepgraph::TenantId;
use stepgraph_nodes::service::{
    ChatModel, ChatRequest, ChatStream, Client, Embedder, ModelName, ServiceError, Tier,
    embedded::{Extractive, Scripted},
    openai::{OpenAi, OpenAiEmbedder, OpenAiOptions},
};

use super::AppError;
use crate::config::{ModelChoice, ProviderSettings, Settings};

const EXTRACTIVE: &str = "extractive";
const SCRIPTED: &str = "scripted";
/// Where the scripted model cuts its tokens: always at the same places.
const SCRIPTED_SEED: u64 = 0;
/// What the names of Anthropic's models begin with.
const ANTHROPIC_PREFIX: &str = "claude-";
/// Where only OpenAI's own models are.
const OPENAI_HOST: &str = "https://api.openai.com";

/// The configured chat models, and the rule which of them a tenant gets. As a [`ChatModel`] it passes each request on to
/// the model the request names.
#[derive(Clone)]
pub struct Models {
    choice: ModelChoice,
    free: ModelName,
    paid: ModelName,
    aliases: BTreeMap<String, ModelName>,
    provider: Option<Provider>,
    extractive: Arc<dyn ChatModel>,
    scripted: Arc<dyn ChatModel>,
}

#[derive(Clone)]
struct Provider {
    model: Arc<dyn ChatModel>,
    /// Whether it is OpenAI itself, which has no models of others.
    is_openai: bool,
}

impl std::fmt::Debug for Models {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Models")
            .field("choice", &self.choice)
            .field("has_provider", &self.provider.is_some())
            .finish_non_exhaustive()
    }
}

impl Models {
    /// The models that the settings name.
    ///
    /// # Errors
    /// The provider's settings cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, AppError> {
        let provider = settings.provider.as_ref().map(provider).transpose()?;
        Ok(Self {
            choice: settings.model.clone(),
            free: settings.free_model.clone(),
            paid: settings.paid_model.clone(),
            aliases: settings.model_aliases.clone(),
            provider,
            extractive: Arc::new(Extractive::new()),
            scripted: Arc::new(Scripted::new(SCRIPTED_SEED)),
        })
    }

    /// The model that answers this tenant, by its real name.
    ///
    /// # Errors
    /// The tenant's model is at a provider that is not configured: no other one is taken silently.
    pub fn of(&self, client: &Client) -> Result<ModelName, ServiceError> {
        let wanted = match (&self.choice, &self.provider) {
            (ModelChoice::Extractive, _) | (ModelChoice::ByTenant, None) => return Ok(ModelName::new(EXTRACTIVE)),
            (ModelChoice::Scripted, _) => return Ok(ModelName::new(SCRIPTED)),
            (ModelChoice::Named(name), _) => name,
            (ModelChoice::ByTenant, Some(_)) => client.settings.model.as_ref().unwrap_or(match client.tier {
                Tier::Free => &self.free,
                Tier::Paid => &self.paid,
            }),
        };
        let name = self.aliases.get(wanted.as_str()).unwrap_or(wanted);
        self.answering(name)?;
        Ok(name.clone())
    }

    /// Whether messages tell the model what to do, so that each must reach it, whatever was found for it.
    #[must_use]
    pub fn is_scripted(&self) -> bool {
        self.choice == ModelChoice::Scripted
    }

    /// What is said of the models at the start, in health and by `doctor`.
    #[must_use]
    pub fn describe(&self) -> String {
        match (&self.choice, &self.provider) {
            (ModelChoice::ByTenant, None) => {
                "extractive for all tenants: no provider is configured, so answers are sentences of the documents"
                    .to_owned()
            }
            (ModelChoice::Extractive, _) => {
                "extractive for all tenants: answers are sentences of the documents".to_owned()
            }
            (ModelChoice::Scripted, _) => {
                "scripted for all tenants: for tests only, it does as the messages say".to_owned()
            }
            (ModelChoice::Named(name), _) => format!("{name} for all tenants"),
            (ModelChoice::ByTenant, Some(_)) => {
                format!(
                    "{} for the free tier, {} for the paid one, or the tenant's own",
                    self.free, self.paid
                )
            }
        }
    }

    /// The models that can be asked for as things stand, for health.
    #[must_use]
    pub fn in_use(&self) -> Vec<Arc<dyn ChatModel>> {
        match (&self.choice, &self.provider) {
            (ModelChoice::Scripted, _) => vec![Arc::clone(&self.scripted)],
            (ModelChoice::ByTenant | ModelChoice::Named(_), Some(provider)) => vec![Arc::clone(&provider.model)],
            (ModelChoice::Extractive, _) | (ModelChoice::ByTenant | ModelChoice::Named(_), None) => {
                vec![Arc::clone(&self.extractive)]
            }
        }
    }

    fn answering(&self, name: &ModelName) -> Result<&Arc<dyn ChatModel>, ServiceError> {
        match (name.as_str(), &self.provider) {
            (EXTRACTIVE, _) => Ok(&self.extractive),
            (SCRIPTED, _) if self.choice == ModelChoice::Scripted => Ok(&self.scripted),
            (SCRIPTED, _) => Err(absent(
                name,
                "it answers only where the whole server is started with --model scripted",
            )),
            (other, Some(provider)) if provider.is_openai && other.starts_with(ANTHROPIC_PREFIX) => Err(absent(
                name,
                "its provider is not configured: give the tenant another model, or set OPENAI_BASE_URL to a provider that has it",
            )),
            (_, Some(provider)) => Ok(&provider.model),
            (_, None) => Err(absent(
                name,
                "no provider is configured: set OPENAI_API_KEY or OPENAI_BASE_URL",
            )),
        }
    }
}

#[async_trait]
impl ChatModel for Models {
    fn provider(&self) -> &'static str {
        self.in_use().first().map_or(EXTRACTIVE, |model| model.provider())
    }

    async fn chat(&self, tenant: &TenantId, request: ChatRequest) -> Result<ChatStream, ServiceError> {
        self.answering(&request.model)?.chat(tenant, request).await
    }

    fn reads_prompts(&self, model: &ModelName) -> bool {
        self.answering(model)
            .is_ok_and(|answering| answering.reads_prompts(model))
    }

    async fn ping(&self) -> Result<(), ServiceError> {
        for model in self.in_use() {
            model.ping().await?;
        }
        Ok(())
    }
}

fn absent(name: &ModelName, why: &str) -> ServiceError {
    ServiceError::Unavailable {
        service: "chat model",
        message: format!("`{name}` cannot answer: {why}"),
        source: None,
    }
}

fn provider(settings: &ProviderSettings) -> Result<Provider, AppError> {
    let model = OpenAi::new(&options(settings))?;
    Ok(Provider {
        model: Arc::new(model),
        is_openai: settings.base_url.starts_with(OPENAI_HOST),
    })
}

/// The embedding model that the settings name.
pub(super) fn embedder(settings: &Settings) -> Result<Option<Arc<dyn Embedder>>, AppError> {
    let (Some(provider), Some(embedding)) = (&settings.provider, &settings.embedding) else {
        return Ok(None);
    };
    let embedder = OpenAiEmbedder::new(&options(provider), embedding.model.clone(), embedding.dimension)?;
    Ok(Some(Arc::new(embedder)))
}

fn options(settings: &ProviderSettings) -> OpenAiOptions {
    OpenAiOptions::new(&settings.base_url, settings.key.clone())
}

#[cfg(test)]
mod tests {
    use stepgraph::TenantId;
    use stepgraph_nodes::service::{Client, ModelName, Tier};

    use super::Models;
    use crate::config::{Flags, Settings};

    fn models(environment: &[(&str, &str)]) -> Models {
        let environment = environment
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Models::new(&Settings::load(&Flags::default(), environment).unwrap()).unwrap()
    }

    fn client(tier: Tier, model: Option<&str>) -> Client {
        let mut client = Client::new(TenantId::authenticated("acme").unwrap());
        client.tier = tier;
        client.settings.model = model.map(ModelName::new);
        client
    }

    fn name(models: &Models, tier: Tier, model: Option<&str>) -> String {
        models.of(&client(tier, model)).unwrap().to_string()
    }

    #[test]
    fn without_any_provider_everybody_is_answered_by_extraction() {
        let models = models(&[]);

        assert_eq!(name(&models, Tier::Paid, Some("gpt-4o")), "extractive");
        assert!(models.describe().contains("no provider is configured"));
    }

    #[test]
    fn with_a_provider_the_tenants_model_wins_over_its_tiers() {
        let models = models(&[
            ("OPENAI_API_KEY", "k"),
            ("STEPGRAPH_PAID_MODEL", "big"),
            ("STEPGRAPH_MODEL_ALIASES", "mine=gpt-4o"),
        ]);

        assert_eq!(name(&models, Tier::Free, None), "gpt-4o-mini");
        assert_eq!(name(&models, Tier::Paid, None), "big");
        assert_eq!(name(&models, Tier::Free, Some("mine")), "gpt-4o");
    }

    #[test]
    fn a_tenant_whose_provider_is_missing_gets_no_other_model() {
        let paid = client(Tier::Paid, None);

        let refused = models(&[("OPENAI_API_KEY", "k")]).of(&paid).unwrap_err();
        let gateway = models(&[("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")])
            .of(&paid)
            .unwrap();

        assert!(
            refused.to_string().contains("its provider is not configured"),
            "{refused}"
        );
        assert_eq!(gateway.as_str(), "claude-sonnet-4-5-20250514", "a gateway may have it");
    }

    #[test]
    fn one_model_for_all_can_be_set() {
        assert_eq!(
            name(&models(&[("STEPGRAPH_MODEL", "scripted")]), Tier::Free, Some("x")),
            "scripted"
        );
        let named = models(&[
            ("STEPGRAPH_MODEL", "smol"),
            ("OPENAI_BASE_URL", "http://127.0.0.1:1/v1"),
        ]);
        assert_eq!(name(&named, Tier::Paid, Some("x")), "smol");
    }

    #[test]
    fn the_scripted_model_answers_only_where_the_server_is_told_so() {
        let models = models(&[("OPENAI_API_KEY", "k")]);

        let refused = models.of(&client(Tier::Free, Some("scripted"))).unwrap_err();

        assert!(refused.to_string().contains("--model scripted"), "{refused}");
    }
}
