//! What a provider says about a refusal.

use serde_json::Value;

/// Names under which providers report an account without credit.
const QUOTA: [&str; 3] = ["insufficient_quota", "billing_error", "billing_hard_limit_reached"];

/// The words one provider uses for the same without a name of its own.
const QUOTA_WORDS: &str = "credit balance is too low";

/// The error object that all of them send, in its several shapes.
#[derive(Debug, Default, PartialEq)]
pub(in crate::service) struct Problem {
    pub(in crate::service) message: String,
    kind: String,
    code: String,
}

impl Problem {
    /// Reads the body of an error.
    pub(in crate::service) fn read(body: &[u8]) -> Self {
        serde_json::from_slice(body).map_or_else(|_| Self::default(), |json: Value| Self::of(&json))
    }

    /// Reads an object that holds an error, or is one.
    pub(in crate::service) fn of(json: &Value) -> Self {
        let text = |pointers: &[&str]| {
            let found = pointers.iter().find_map(|pointer| json.pointer(pointer)?.as_str());
            found.unwrap_or_default().to_owned()
        };
        Self {
            message: text(&["/error/message", "/error", "/message", "/detail", ""]),
            kind: text(&["/error/type", "/type"]),
            code: text(&["/error/code", "/code"]),
        }
    }

    /// Words of our own in the place of the provider's.
    pub(in crate::service) fn saying(message: &str) -> Self {
        Self {
            message: message.to_owned(),
            ..Self::default()
        }
    }

    /// Which kind of problem it is, in the provider's own name for it; the more exact one where there are two.
    pub(in crate::service) fn kind(&self) -> &str {
        if self.code.is_empty() { &self.kind } else { &self.code }
    }

    /// Whether money is what is missing.
    pub(in crate::service) fn is_quota(&self) -> bool {
        QUOTA.contains(&self.kind.as_str()) || QUOTA.contains(&self.code.as_str()) || self.message.contains(QUOTA_WORDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_read_in_every_shape_that_is_in_use() {
        for body in [
            r#"{"error":{"message":"no","type":"t"}}"#,
            r#"{"type":"error","error":{"type":"t","message":"no"}}"#,
            r#"{"error":"no","type":"t"}"#,
            r#"{"detail":"no","type":"t"}"#,
            r#"{"message":"no","type":"t"}"#,
        ] {
            let problem = Problem::read(body.as_bytes());
            assert_eq!((problem.message.as_str(), problem.kind()), ("no", "t"), "{body}");
        }
        assert_eq!(Problem::read(b"\"no\"").message, "no");
        assert_eq!(Problem::read(b"<html>"), Problem::default());
    }

    #[test]
    fn an_empty_account_is_told_from_a_limit() {
        for body in [
            r#"{"error":{"message":"x","code":"insufficient_quota"}}"#,
            r#"{"error":{"message":"x","type":"billing_error"}}"#,
            r#"{"error":{"message":"Your credit balance is too low to access the API","type":"invalid_request_error"}}"#,
        ] {
            assert!(Problem::read(body.as_bytes()).is_quota(), "{body}");
        }
        assert!(!Problem::read(br#"{"error":{"message":"slow down","type":"rate_limit_error"}}"#).is_quota());
    }
}
