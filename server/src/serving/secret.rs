//! Secret fields at the edge: shown to nobody, and written like others.

use serde_json::{Value, json};
use stepgraph::{Field, SECRET};

use super::served::Unserved;

/// Refuses what was shown in a secret's place: whoever sends a state back as it was read would overwrite the secret with it.
pub(super) fn refuse_shown(place: &str, values: &Value, fields: &[Field]) -> Result<(), Unserved> {
    let names = fields.iter().filter(|field| field.secret);
    let names = names.flat_map(|field| [field.name.to_string(), format!("overwrite_{}", field.name)]);
    let mut sent_back = names.filter(|name| values.get(name).is_some_and(is_shown));
    match sent_back.next() {
        None => Ok(()),
        Some(name) => Err(Unserved::Unfit(format!(
            "`{place}.{name}` is secret, and `{SECRET}` was shown in its place: leave it out, or send another value"
        ))),
    }
}

fn is_shown(value: &Value) -> bool {
    let within = value.get("__overwrite__").unwrap_or(value);
    within.as_str() == Some(SECRET)
}

/// A state's schema, with what is shown for its secrets.
pub(super) fn of_state(mut schema: Value, secrets: &[&str]) -> Value {
    for name in secrets {
        if let Some(property) = schema.get_mut("properties").and_then(|all| all.get_mut(name)) {
            *property = json!({"const": SECRET, "description": "Secret: its value is not told."});
        }
    }
    schema
}

/// An input's schema, without what its secrets are when they are left out.
pub(super) fn of_input(mut schema: Value, fields: &[Field]) -> Value {
    for field in fields.iter().filter(|field| field.secret) {
        let property = schema.get_mut("properties").and_then(|all| all.get_mut(&*field.name));
        if let Some(property) = property.and_then(Value::as_object_mut) {
            property.remove("default");
            property.insert("writeOnly".to_owned(), json!(true));
        }
    }
    schema
}
