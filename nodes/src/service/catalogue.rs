//! What is known of models: limits, abilities, prices.

mod price;

use std::collections::BTreeMap;

use serde::Deserialize;

pub use self::price::Prices;
use super::{ChatRequest, Cost, ModelName, ServiceError, Usage};
use crate::tokens;

/// The entries that come with the program.
const BUILTIN: &str = include_str!("catalogue/models.toml");

/// Limits, abilities and prices of models, by name. Of a model that is not in it nothing is checked, and no cost is known.
///
/// ```
/// use stepgraph_nodes::service::{Catalogue, ModelName, Usage};
///
/// let catalogue = Catalogue::builtin()?;
/// let usage = Usage { prompt_tokens: 1_000_000, completion_tokens: 1_000_000, ..Usage::default() };
/// let cost = catalogue.cost(&ModelName::new("gpt-4o-mini"), &usage);
/// assert_eq!(cost.map(|cost| cost.cents()), Some(15 + 60));
/// # Ok::<(), stepgraph_nodes::service::CatalogueError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    models: BTreeMap<String, ModelInfo>,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ModelInfo {
    /// Its name at the provider, without the date of a version.
    pub name: String,
    /// Whose it is: `openai`, `anthropic`, or any other name.
    pub provider: String,
    /// Most tokens of prompt and answer together.
    pub context_tokens: u64,
    /// Most tokens of an answer.
    pub output_tokens_max: Option<u32>,
    /// The highest temperature it takes; none where it takes no temperature at all.
    pub temperature_max: Option<f32>,
    /// Whether it thinks before it speaks, which costs time and tokens of its answer.
    #[serde(default)]
    pub reasons: bool,
    /// Length of its vectors, where it embeds.
    pub dimension: Option<u32>,
    /// Other names in records, and the name that the provider knows.
    #[serde(default)]
    pub aliases: BTreeMap<String, String>,
    /// What it costs.
    pub prices: Option<Prices>,
}

/// A catalogue that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// The text is not what a catalogue is written as.
    #[error("the catalogue of models cannot be read: {0}")]
    Unreadable(String),
    /// An entry contradicts itself.
    #[error("the catalogue's entry for `{name}` cannot be right: {why}")]
    Wrong {
        /// The model.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    model: Vec<ModelInfo>,
}

impl Catalogue {
    /// The models that the program knows by itself.
    ///
    /// # Errors
    ///
    /// Never in a program that passes its tests.
    pub fn builtin() -> Result<Self, CatalogueError> {
        Self::default().with(BUILTIN)
    }

    /// These models and those of `text`, which is written as `models.toml` beside this module is. An entry of the same
    /// name takes the place of the one there is.
    ///
    /// ```
    /// # use stepgraph_nodes::service::{Catalogue, ModelName};
    /// let catalogue = Catalogue::builtin()?.with(
    ///     r#"
    ///     [[model]]
    ///     name = "house-7b"
    ///     provider = "vllm"
    ///     context_tokens = 32_768
    ///     temperature_max = 2.0
    ///     prices = { as_of = "2026-01-31", input = 0.01, output = 0.02 }
    ///     "#,
    /// )?;
    /// assert_eq!(catalogue.get(&ModelName::new("house-7b")).map(|model| model.context_tokens), Some(32_768));
    /// # Ok::<(), stepgraph_nodes::service::CatalogueError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The text cannot be read, or an entry contradicts itself.
    pub fn with(mut self, text: &str) -> Result<Self, CatalogueError> {
        let file: File = toml::from_str(text).map_err(|error| CatalogueError::Unreadable(error.to_string()))?;
        for model in file.model {
            if let Some(why) = model.problem() {
                return Err(CatalogueError::Wrong { name: model.name, why });
            }
            self.models.insert(model.name.clone(), model);
        }
        Ok(self)
    }

    /// What is known of a model, by its name, its name without a version's date, or an alias.
    #[must_use]
    pub fn get(&self, model: &ModelName) -> Option<&ModelInfo> {
        let name = model.as_str();
        let exact = self.models.get(name).or_else(|| self.models.get(undated(name)));
        exact.or_else(|| self.models.values().find(|info| info.aliases.contains_key(name)))
    }

    /// The provider's own name for a name that is known to be wrong.
    #[must_use]
    pub fn alias(&self, model: &ModelName) -> Option<ModelName> {
        let mut infos = self.models.values();
        infos.find_map(|info| info.aliases.get(model.as_str()).map(ModelName::new))
    }

    /// What `usage` of a model costs, where its prices are known.
    #[must_use]
    pub fn cost(&self, model: &ModelName, usage: &Usage) -> Option<Cost> {
        Some(self.get(model)?.prices.as_ref()?.cost(usage))
    }

    /// Most tokens of a prompt that leaves room for `completion_tokens_max`, where the model is known.
    #[must_use]
    pub fn prompt_tokens_max(&self, model: &ModelName, completion_tokens_max: u32) -> Option<u64> {
        let context = self.get(model)?.context_tokens;
        Some(context.saturating_sub(u64::from(completion_tokens_max)))
    }

    /// Whether the model can do what is asked of it. What it cannot is refused and never left out.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Refused`] with what to change.
    pub fn check(&self, service: &'static str, request: &ChatRequest) -> Result<(), ServiceError> {
        let Some(info) = self.get(&request.model) else {
            return Ok(());
        };
        let model = &request.model;
        let refused = |message: String| Err(ServiceError::Refused { service, message });
        if info.dimension.is_some() {
            return refused(format!("`{model}` embeds and does not chat: choose another model"));
        }
        match (request.temperature, info.temperature_max) {
            (Some(_), None) => {
                return refused(format!(
                    "`{model}` takes no temperature: unset the tenant's temperature"
                ));
            }
            (Some(wanted), Some(most)) if wanted > most => {
                return refused(format!(
                    "`{model}` takes a temperature up to {most}, not {wanted}: lower the tenant's"
                ));
            }
            _ => {}
        }
        let completion = request.completion_tokens_max;
        if let Some(most) = info.output_tokens_max.filter(|&most| completion > most) {
            return refused(format!(
                "`{model}` answers with at most {most} tokens, not {completion}: lower the limit of tokens of an answer"
            ));
        }
        let room = info.context_tokens.saturating_sub(u64::from(completion));
        if prompt_exceeds(request, room) {
            return refused(format!(
                "the prompt and an answer of {completion} tokens are more than the {} that `{model}` reads: shorten \
                 the instructions, the memory or the passages",
                info.context_tokens
            ));
        }
        Ok(())
    }
}

impl ModelInfo {
    fn problem(&self) -> Option<&'static str> {
        if self.name.is_empty() {
            Some("it has no name")
        } else if self.context_tokens == 0 {
            Some("no prompt fits into a context of no tokens")
        } else if self
            .output_tokens_max
            .is_some_and(|most| u64::from(most) > self.context_tokens)
        {
            Some("its answers are longer than its context")
        } else if self.dimension == Some(0) {
            Some("no vector has no numbers")
        } else if self.temperature_max.is_some_and(|most| !(0.0..=2.0).contains(&most)) {
            Some("a temperature is from 0 to 2")
        } else {
            None
        }
    }
}

/// Tokens are counted only where their number could matter: none is shorter than a byte.
fn prompt_exceeds(request: &ChatRequest, room: u64) -> bool {
    let bytes: usize = request.messages.iter().map(|message| message.content.len() + 4).sum();
    u64::try_from(bytes).unwrap_or(u64::MAX) > room && tokens::count_prompt(&request.messages) > room
}

/// A name without the date at its end: `-2024-08-06`, `-20250929`, or `-latest`.
fn undated(name: &str) -> &str {
    let is_digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(name) = name.strip_suffix("-latest") {
        return name;
    }
    match name.rsplit_once('-') {
        Some((name, date)) if is_digits(date, 8) => name,
        Some((rest, day)) if is_digits(day, 2) => {
            let month = rest.rsplit_once('-').filter(|(_, month)| is_digits(month, 2));
            let year = month.and_then(|(rest, _)| rest.rsplit_once('-'));
            year.filter(|(_, year)| is_digits(year, 4))
                .map_or(name, |(name, _)| name)
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests;
