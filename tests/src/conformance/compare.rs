//! Expected and found, side by side.

use serde_json::Value;

/// At most so many differences are shown.
const SHOWN_MAX: usize = 6;

/// Where `found` is not what is expected: only what is expected is looked at, one level deep.
#[must_use]
pub fn differences(expected: &Value, found: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for (key, value) in expected.as_object().into_iter().flatten() {
        match found.get(key) {
            Some(other) => compare(key, value, other, &mut all),
            None => all.push(format!("{key}: expected {value}, found nothing")),
        }
    }
    all.truncate(SHOWN_MAX);
    all
}

fn compare(path: &str, expected: &Value, found: &Value, all: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in a {
                let path = format!("{path}.{key}");
                match b.get(key) {
                    Some(other) => compare(&path, value, other, all),
                    None => all.push(format!("{path}: expected {value}, found nothing")),
                }
            }
            for key in b.keys().filter(|key| !a.contains_key(*key)) {
                all.push(format!("{path}.{key}: found {}, expected nothing", b[key]));
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{path}[{at}]"), a, b, all);
            }
        }
        (a, b) if a == b => {}
        (a, b) => all.push(format!("{path}:\n    expected {a}\n    found    {b}")),
    }
}
