//! What is shown in the place of secret fields.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::{Field, State, StateError};

/// What stands in the place of a secret wherever one would be shown.
pub const SECRET: &str = "[secret]";

/// A state whose secret fields hold nothing any more; the same one if it has none.
pub(crate) fn hidden<S: State>(state: &Arc<S>) -> Arc<S> {
    if !state.has_secrets() {
        return Arc::clone(state);
    }
    let mut hidden = S::clone(state);
    hidden.hide();
    Arc::new(hidden)
}

/// A value as JSON, with [`SECRET`] for members of these names.
#[doc(hidden)]
pub fn shown_with<T: Serialize>(value: &T, secrets: &[&str]) -> Result<Value, StateError> {
    let mut shown = serde_json::to_value(value).map_err(|error| StateError::Encode(error.to_string()))?;
    for name in secrets {
        if let Some(member) = shown.get_mut(name) {
            *member = SECRET.into();
        }
    }
    Ok(shown)
}

/// Hides members named like secret fields at any depth: of stored forms, whose shape is not known where they are shown.
pub(crate) fn hide_members(value: &mut Value, fields: &[Field]) {
    if fields.iter().any(|field| field.secret) {
        hide_in(value, fields);
    }
}

fn hide_in(value: &mut Value, fields: &[Field]) {
    let is_secret = |name: &str| {
        let name = name.strip_prefix("overwrite_").unwrap_or(name);
        fields.iter().any(|field| field.secret && field.name == name)
    };
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if is_secret(name) {
                    *member = SECRET.into();
                } else {
                    hide_in(member, fields);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| hide_in(item, fields)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
