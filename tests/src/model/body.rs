//! What nodes, branches and answers of a case do: the user's code of it, the same for the engine and for the model.

use serde_json::{Value, json};

use super::case::{Body, Condition, FailKind, Goto, Items, Object, Reducer, Write};

/// At most so many items of a channel are sent.
const ITEMS_MAX: usize = 3;

/// What one entry of a node comes to.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// It has asked and was not answered.
    Asks,
    Fails(FailKind),
    Gives(Vec<Written>, Vec<Goto>),
}

/// A value on its way to a channel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Written {
    pub(super) channel: String,
    pub(super) value: Value,
    pub(super) outright: bool,
}

/// A number for any value: how large or how long it is.
fn measure(scope: &Object, name: &str) -> i64 {
    let long = |len: usize| i64::try_from(len).unwrap_or_default();
    match scope.get(name) {
        None | Some(Value::Null) => 0,
        Some(Value::Bool(holds)) => i64::from(*holds),
        Some(Value::Number(number)) => number.as_i64().unwrap_or_default(),
        Some(Value::String(text)) => long(text.len()),
        Some(Value::Array(list)) => long(list.len()),
        Some(Value::Object(map)) => long(map.len()),
    }
}

impl Condition {
    pub(super) fn holds(&self, scope: &Object) -> bool {
        match self {
            Self::Always => true,
            Self::Below(name, end) => measure(scope, name) < *end,
            Self::Rest(name, divisor, rest) => measure(scope, name).rem_euclid(*divisor) == *rest,
        }
    }
}

impl Write {
    pub(super) fn written(&self, by: &str, scope: &Object, reducer: Reducer) -> Written {
        let base = self.base.as_ref().map_or(0, |name| measure(scope, name));
        let n = base.saturating_add(self.plus).rem_euclid(1000);
        let value = match reducer {
            Reducer::Last | Reducer::Max => json!(n),
            Reducer::Add => json!(n % 5),
            Reducer::Append => json!([format!("{by}{n}")]),
            Reducer::Union => json!([format!("{by}{}", n % 3), n % 4]),
            Reducer::MapMerge => json!({format!("k{}", n % 3): n}),
            Reducer::Messages if n % 5 == 4 => json!([{"id": format!("m{}", n % 4), "remove": true}]),
            Reducer::Messages => json!([{"id": format!("m{}", n % 4), "by": by, "n": n}]),
        };
        Written {
            channel: self.channel.clone(),
            value,
            outright: self.outright,
        }
    }
}

/// Destinations with what is sent to them.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum To {
    Node(String),
    Send(String, Value),
}

pub(super) fn destinations(gotos: &[Goto], scope: &Object) -> Vec<To> {
    let mut all = Vec::new();
    for goto in gotos {
        match goto {
            Goto::End => {}
            Goto::Node(name) => all.push(To::Node(name.clone())),
            Goto::Send(name, items) => {
                let items: Vec<Value> = match items {
                    Items::Numbers(end) => (0..*end).map(Value::from).collect(),
                    Items::Of(channel) => scope
                        .get(channel)
                        .and_then(Value::as_array)
                        .map(|list| list.iter().take(ITEMS_MAX).cloned().collect())
                        .unwrap_or_default(),
                };
                let sent = items.into_iter().enumerate();
                all.extend(sent.map(|(at, item)| To::Send(name.clone(), json!({"item": item, "index": at}))));
            }
        }
    }
    all
}

/// Where a branch leads.
pub(super) fn chosen<'a>(cases: &'a [(Condition, Vec<Goto>)], otherwise: &'a [Goto], state: &Object) -> &'a [Goto] {
    let case = cases.iter().find(|(condition, _)| condition.holds(state));
    case.map_or(otherwise, |(_, gotos)| gotos)
}

/// One entry of a node. `ask` puts a question and gives its answer, if there is one.
pub(super) fn enact(
    (name, body): (&str, &Body),
    input: &Object,
    attempt: u32,
    broken: bool,
    reducers: &std::collections::BTreeMap<String, Reducer>,
    mut ask: impl FnMut(&str, Value) -> Option<Value>,
) -> Act {
    let failing = body.fails.as_ref().filter(|fails| {
        let due = if fails.until_mended { broken } else { true };
        due && attempt <= fails.attempts
    });
    if let Some(fails) = failing.filter(|fails| !fails.after_asking) {
        return Act::Fails(fails.kind);
    }
    let mut scope = input.clone();
    let mut unanswered = false;
    for question in &body.asks {
        match ask(question, json!({"from": name, "n": measure(input, "n")})) {
            Some(answer) => drop(scope.insert(format!("?{question}"), answer)),
            None if body.together => unanswered = true,
            None => return Act::Asks,
        }
    }
    if unanswered {
        return Act::Asks;
    }
    if let Some(fails) = failing {
        return Act::Fails(fails.kind);
    }
    let written = body.writes.iter().filter_map(|write| {
        let reducer = reducers.get(&write.channel)?;
        Some(write.written(name, &scope, *reducer))
    });
    let goto = body.goto.iter().find(|(condition, _)| condition.holds(&scope));
    let gotos = goto.map(|(_, gotos)| gotos.clone()).unwrap_or_default();
    Act::Gives(written.collect(), gotos)
}

/// What is answered to the question of this id.
pub(super) fn answer(id: &str) -> Value {
    let sum: u64 = id.bytes().map(u64::from).sum();
    match sum % 4 {
        0 => Value::Null,
        1 => json!(sum % 10),
        2 => json!("yes"),
        _ => json!([sum % 3, true]),
    }
}

/// What an item that failed is collected as.
pub(super) fn collected(channel: &str, index: u32) -> Written {
    Written {
        channel: channel.to_owned(),
        value: json!([format!("failed{index}")]),
        outright: false,
    }
}
