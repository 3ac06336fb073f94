//! Which chat model answers whom: one choice, made from the settings and the tenant's record.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use stepgraph::TenantId;
use stepgraph_nodes::service::{
    Catalogue, ChatModel, ChatRequest, ChatStream, Client, Embedder, ModelName, ProviderOptions, ServiceError, Tier,
    anthropic::Anthropic,
    embedded::{Extractive, Scripted},
    openai::{OpenAi, OpenAiEmbedder},
    resilience::{CallLimits, Resilient, ResilientEmbedder, told_who_answers},
};
use tokio::time::Instant;

use super::AppError;
use crate::config::{ModelChoice, ProviderSettings, Settings};

mod findings;

pub use findings::ModelFinding;

const EXTRACTIVE: &str = "extractive";
const SCRIPTED: &str = "scripted";
/// Where the scripted model cuts its tokens: always at the same places.
const SCRIPTED_SEED: u64 = 0;
/// What the names of Anthropic's models begin with.
const ANTHROPIC_PREFIX: &str = "claude-";
/// Where only OpenAI's own models are.
const OPENAI_HOST: &str = "https://api.openai.com";
/// Little left to chance: answers quote documents.
const TEMPERATURE: f32 = 0.2;

/// The configured chat models, and the rule which of them a tenant gets. As a [`ChatModel`] it passes each request on to
/// the model the request names, and to the request's fall-back where that one cannot answer.
#[derive(Clone)]
pub struct Models {
    choice: ModelChoice,
    free: ModelName,
    paid: ModelName,
    aliases: BTreeMap<String, ModelName>,
    catalogue: Arc<Catalogue>,
    openai: Option<OpenAiProvider>,
    anthropic: Option<Arc<dyn ChatModel>>,
    extractive: Arc<dyn ChatModel>,
    scripted: Arc<dyn ChatModel>,
}

#[derive(Clone)]
struct OpenAiProvider {
    model: Arc<dyn ChatModel>,
    /// Whether it is OpenAI itself, which has no models of others.
    is_openai: bool,
}

impl std::fmt::Debug for Models {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Models")
            .field("choice", &self.choice)
            .field("has_openai", &self.openai.is_some())
            .field("has_anthropic", &self.anthropic.is_some())
            .finish_non_exhaustive()
    }
}

impl Models {
    /// The models that the settings name.
    ///
    /// # Errors
    /// A provider's settings cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, AppError> {
        let catalogue = Arc::clone(&settings.catalogue);
        let resilient = |model| -> Arc<dyn ChatModel> {
            Arc::new(Resilient::new(model, CallLimits::default(), Arc::clone(&catalogue)))
        };
        let openai = settings.provider.as_ref().map(|provider| {
            Ok::<_, ServiceError>(OpenAiProvider {
                model: resilient(Arc::new(OpenAi::new(&options(provider))?)),
                is_openai: provider.base_url.starts_with(OPENAI_HOST),
            })
        });
        let anthropic = settings
            .anthropic
            .as_ref()
            .map(|provider| Ok::<_, ServiceError>(resilient(Arc::new(Anthropic::new(&options(provider))?))));
        Ok(Self {
            choice: settings.model.clone(),
            free: settings.free_model.clone(),
            paid: settings.paid_model.clone(),
            aliases: settings.model_aliases.clone(),
            openai: openai.transpose()?,
            anthropic: anthropic.transpose()?,
            extractive: Arc::new(Extractive::new()),
            scripted: Arc::new(Scripted::new(SCRIPTED_SEED)),
            catalogue,
        })
    }

    /// The model that answers this tenant, by its real name.
    ///
    /// # Errors
    /// The tenant's model is at a provider that is not configured: no other one is taken silently.
    pub fn of(&self, client: &Client) -> Result<ModelName, ServiceError> {
        let wanted = match &self.choice {
            ModelChoice::Extractive => return Ok(ModelName::new(EXTRACTIVE)),
            ModelChoice::ByTenant if !self.has_provider() => return Ok(ModelName::new(EXTRACTIVE)),
            ModelChoice::Scripted => return Ok(ModelName::new(SCRIPTED)),
            ModelChoice::Named(name) => name,
            ModelChoice::ByTenant => client.settings.model.as_ref().unwrap_or(match client.tier {
                Tier::Free => &self.free,
                Tier::Paid => &self.paid,
            }),
        };
        self.real(wanted)
    }

    /// The model that answers this tenant while its own cannot, where it has chosen one. One that could not answer is named
    /// in the log and left out: the first one may well do without it.
    #[must_use]
    pub fn fallback_of(&self, client: &Client) -> Option<ModelName> {
        let is_chosen = matches!(self.choice, ModelChoice::ByTenant | ModelChoice::Named(_)) && self.has_provider();
        let wanted = client.settings.fallback_model.as_ref().filter(|_| is_chosen)?;
        match self.real(wanted) {
            Ok(name) => Some(name),
            Err(error) => {
                tracing::warn!(tenant = %client.tenant, %error, "the tenant's fall-back model cannot be used");
                None
            }
        }
    }

    /// The temperature for this tenant: its own, which a model that takes none refuses; else ours, where all the models
    /// that may answer take one.
    #[must_use]
    pub fn temperature(&self, client: &Client, models: &[&ModelName]) -> Option<f32> {
        let takes = |model: &&ModelName| {
            let known = self.catalogue.get(model);
            known.is_none_or(|info| info.temperature_max.is_some())
        };
        let ours = || models.iter().all(takes).then_some(TEMPERATURE);
        client.settings.temperature.or_else(ours)
    }

    /// What is known of models.
    #[must_use]
    pub const fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    /// Whether messages tell the model what to do, so that each must reach it, whatever was found for it.
    #[must_use]
    pub fn is_scripted(&self) -> bool {
        self.choice == ModelChoice::Scripted
    }

    /// What is said of the models at the start, in health and by `doctor`.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.choice {
            ModelChoice::ByTenant if !self.has_provider() => {
                "extractive for all tenants: no provider is configured, so answers are sentences of the documents"
                    .to_owned()
            }
            ModelChoice::Extractive => "extractive for all tenants: answers are sentences of the documents".to_owned(),
            ModelChoice::Scripted => "scripted for all tenants: for tests only, it does as the messages say".to_owned(),
            ModelChoice::Named(name) => format!("{name} for all tenants"),
            ModelChoice::ByTenant => {
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
        match &self.choice {
            ModelChoice::Scripted => vec![Arc::clone(&self.scripted)],
            ModelChoice::ByTenant | ModelChoice::Named(_) if self.has_provider() => {
                let openai = self.openai.iter().map(|provider| &provider.model);
                openai.chain(&self.anthropic).cloned().collect()
            }
            ModelChoice::Extractive | ModelChoice::ByTenant | ModelChoice::Named(_) => {
                vec![Arc::clone(&self.extractive)]
            }
        }
    }

    const fn has_provider(&self) -> bool {
        self.openai.is_some() || self.anthropic.is_some()
    }

    /// The name the provider knows for a name in a record.
    fn real(&self, wanted: &ModelName) -> Result<ModelName, ServiceError> {
        let name = self.aliases.get(wanted.as_str()).unwrap_or(wanted);
        self.answering(name)?;
        // A gateway may know the name as it is; the provider itself does not.
        let is_own = self.anthropic.is_some() && self.is_anthropic(name);
        let real = self.catalogue.alias(name).filter(|_| is_own);
        Ok(real.unwrap_or_else(|| name.clone()))
    }

    fn is_anthropic(&self, name: &ModelName) -> bool {
        let known = self.catalogue.get(name).map(|info| info.provider == "anthropic");
        known.unwrap_or_else(|| name.as_str().starts_with(ANTHROPIC_PREFIX))
    }

    fn answering(&self, name: &ModelName) -> Result<&Arc<dyn ChatModel>, ServiceError> {
        match name.as_str() {
            EXTRACTIVE => return Ok(&self.extractive),
            SCRIPTED if self.choice == ModelChoice::Scripted => return Ok(&self.scripted),
            SCRIPTED => {
                return Err(absent(
                    name,
                    "it answers only where the whole server is started with --model scripted",
                ));
            }
            _ => {}
        }
        match (&self.anthropic, &self.openai) {
            (Some(anthropic), _) if self.is_anthropic(name) => Ok(anthropic),
            (None, Some(openai)) if openai.is_openai && self.is_anthropic(name) => Err(absent(
                name,
                "its provider is not configured: set ANTHROPIC_API_KEY, give the tenant another model, or set \
                 OPENAI_BASE_URL to a provider that has it",
            )),
            (_, Some(openai)) => Ok(&openai.model),
            (_, None) => Err(absent(
                name,
                "its provider is not configured: set OPENAI_API_KEY or OPENAI_BASE_URL",
            )),
        }
    }
}

#[async_trait]
impl ChatModel for Models {
    fn provider(&self) -> &'static str {
        self.in_use().first().map_or(EXTRACTIVE, |model| model.provider())
    }

    async fn chat(&self, tenant: &TenantId, mut request: ChatRequest) -> Result<ChatStream, ServiceError> {
        let first = self.answering(&request.model)?;
        let fallback = request.fallback.take().filter(|fallback| *fallback != request.model);
        let Some(fallback) = fallback else {
            return first.chat(tenant, request).await;
        };
        let error = match first.chat(tenant, request.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let is_late = request.answer_by.is_some_and(|by| by <= Instant::now());
        if is_late || !(error.is_retryable() || matches!(error, ServiceError::Corrupt { .. })) {
            return Err(error);
        }
        let model = &request.model;
        tracing::warn!(%tenant, %model, %fallback, %error, "the tenant's fall-back model answers");
        let second = self.answering(&fallback)?;
        request.model = fallback.clone();
        match second.chat(tenant, request).await {
            Ok(answer) => Ok(told_who_answers(fallback, answer)),
            Err(second) => {
                tracing::warn!(%tenant, %fallback, error = %second, "the fall-back model does not answer either");
                Err(error)
            }
        }
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

    fn held_back(&self) -> Vec<ModelName> {
        self.in_use().iter().flat_map(|model| model.held_back()).collect()
    }
}

fn absent(name: &ModelName, why: &str) -> ServiceError {
    ServiceError::Unavailable {
        service: "chat model",
        message: format!("`{name}` cannot answer: {why}"),
        source: None,
    }
}

/// The embedding model that the settings name.
pub(super) fn embedder(settings: &Settings) -> Result<Option<Arc<dyn Embedder>>, AppError> {
    let (Some(provider), Some(embedding)) = (&settings.provider, &settings.embedding) else {
        return Ok(None);
    };
    let embedder = OpenAiEmbedder::new(&options(provider), embedding.model.clone(), embedding.dimension)?;
    let embedder = ResilientEmbedder::new("embedder", Arc::new(embedder), CallLimits::default());
    Ok(Some(Arc::new(embedder)))
}

fn options(settings: &ProviderSettings) -> ProviderOptions {
    ProviderOptions::new(&settings.base_url, settings.key.clone())
}

#[cfg(test)]
mod tests;
