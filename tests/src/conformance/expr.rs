//! The expressions of a case.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// What an expression sees: channels (or what a task was sent), and local variables.
pub(super) struct Scope<'a> {
    pub(super) channels: &'a Map<String, Value>,
    pub(super) variables: &'a BTreeMap<String, Value>,
}

impl Scope<'_> {
    pub(super) fn eval(&self, expr: &Value) -> Value {
        match expr {
            Value::Array(items) => items.iter().map(|item| self.eval(item)).collect(),
            Value::Object(call) => match call.iter().next() {
                Some((name, argument)) => self.call(name, argument),
                None => Value::Null,
            },
            scalar => scalar.clone(),
        }
    }

    fn call(&self, name: &str, argument: &Value) -> Value {
        let list = || argument.as_array().map(Vec::as_slice).unwrap_or_default();
        let nth = |at: usize| list().get(at).map_or(Value::Null, |expr| self.eval(expr));
        match name {
            "lit" => argument.clone(),
            "get" => self.channel(argument).cloned().unwrap_or_default(),
            "has" => self.channel(argument).is_some().into(),
            "var" => self.variables.get(text(argument)).cloned().unwrap_or_default(),
            "obj" => {
                let entries = argument.as_object().into_iter().flatten();
                entries.map(|(key, expr)| (key.clone(), self.eval(expr))).collect()
            }
            "len" => json!(match self.eval(argument) {
                Value::Array(list) => list.len(),
                Value::Object(map) => map.len(),
                Value::String(text) => text.chars().count(),
                _ => 0,
            }),
            "not" => (!truth(&self.eval(argument))).into(),
            "add" => list().iter().map(|expr| number(&self.eval(expr))).sum::<i64>().into(),
            "mul" => (number(&nth(0)) * number(&nth(1))).into(),
            "concat" => list()
                .iter()
                .map(|expr| shown(&self.eval(expr)))
                .collect::<String>()
                .into(),
            "at" => at(&nth(0), &nth(1)),
            "or" => match nth(0) {
                Value::Null => nth(1),
                value => value,
            },
            "eq" => (nth(0) == nth(1)).into(),
            "lt" => (number(&nth(0)) < number(&nth(1))).into(),
            "ge" => (number(&nth(0)) >= number(&nth(1))).into(),
            other => panic!("unknown expression `{other}`"),
        }
    }

    fn channel(&self, name: &Value) -> Option<&Value> {
        self.channels.get(text(name))
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

/// What holds.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(holds) => *holds,
        Value::Number(number) => number.as_i64() != Some(0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn at(container: &Value, key: &Value) -> Value {
    let found = match (container, key) {
        (Value::Object(map), Value::String(key)) => map.get(key),
        (Value::Array(list), Value::Number(index)) => {
            index.as_u64().and_then(|index| list.get(usize::try_from(index).ok()?))
        }
        _ => None,
    };
    found.cloned().unwrap_or_default()
}
