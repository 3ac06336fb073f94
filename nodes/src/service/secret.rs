//! Text that must never be printed.

use std::fmt;

/// A key, password or connection string: prints as `***`, whatever the format.
///
/// ```
/// # use stepgraph_nodes::service::Secret;
/// let key = Secret::new("sk-very-secret");
/// assert_eq!(format!("{key} {key:?}"), "*** ***");
/// assert_eq!(key.expose(), "sk-very-secret");
/// ```
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes a text out of sight.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one call that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// `text` with every occurrence of the secret blotted out: for messages of others that may quote it.
    #[must_use]
    pub fn scrub(&self, text: &str) -> String {
        if self.0.is_empty() {
            text.to_owned()
        } else {
            text.replace(&self.0, "***")
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed_even_inside_other_types() {
        let nested = Some(vec![Secret::new("hush")]);

        assert!(!format!("{nested:?} {nested:#?}").contains("hush"));
    }

    #[test]
    fn a_message_that_quotes_the_secret_is_scrubbed() {
        assert_eq!(Secret::new("hush").scrub("key hush is wrong"), "key *** is wrong");
        assert_eq!(Secret::new("").scrub("no key"), "no key");
    }
}
