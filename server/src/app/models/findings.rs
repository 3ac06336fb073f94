//! What `doctor` says of the models: each name that may be asked for, and whether it can answer.

use stepgraph_nodes::service::{ModelName, ServiceError};

use super::Models;
use crate::config::ModelChoice;

/// What was found out about one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFinding {
    /// Where the name stands: a tier, or an alias.
    pub subject: String,
    /// Whether a provider for it is configured.
    pub can_answer: bool,
    /// The real name with what is known of it, or what to do.
    pub detail: String,
}

impl Models {
    /// Each name in the settings that a tenant may be answered by.
    #[must_use]
    pub fn findings(&self) -> Vec<ModelFinding> {
        let tiers = match &self.choice {
            ModelChoice::ByTenant if self.has_provider() => {
                vec![
                    ("the free tier".to_owned(), &self.free),
                    ("the paid tier".to_owned(), &self.paid),
                ]
            }
            ModelChoice::Named(name) => vec![("all tenants".to_owned(), name)],
            ModelChoice::ByTenant | ModelChoice::Extractive | ModelChoice::Scripted => return Vec::new(),
        };
        let aliases = self.aliases.iter();
        let aliases = aliases.map(|(alias, name)| (format!("the alias {alias}"), name));
        let named = tiers.into_iter().chain(aliases);
        named
            .map(|(subject, name)| self.finding(subject, self.real(name)))
            .collect()
    }

    fn finding(&self, subject: String, real: Result<ModelName, ServiceError>) -> ModelFinding {
        match real {
            Ok(name) => ModelFinding {
                subject,
                can_answer: true,
                detail: match self.catalogue.get(&name).and_then(|info| info.prices.as_ref()) {
                    Some(prices) => format!("{name}, by the prices of {}", prices.as_of),
                    None => format!("{name}, of which no price is known: its cost is booked as nothing"),
                },
            },
            Err(error) => ModelFinding {
                subject,
                can_answer: false,
                detail: error.to_string(),
            },
        }
    }
}
