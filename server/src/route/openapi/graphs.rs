//! What the graph interface reads and writes, with the schemas of the graphs that are served.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{below, refers};
use crate::serving::{
    ServedGraph,
    body::{AssistantQuery, EditBody, HistoryBody, NewThread, RunBody, StateBody},
    shape,
};

/// The components of the graph interface: what every graph shares, and the schemas of each.
pub(super) fn components(graphs: &[Arc<dyn ServedGraph>]) -> Map<String, Value> {
    let mut schemas = Map::from_iter([
        below::<NewThread>("NewThread"),
        below::<AssistantQuery>("AssistantQuery"),
        below::<HistoryBody>("HistoryQuery"),
        below::<StateBody>("CheckpointQuery"),
        below::<EditBody>("ThreadEdit"),
        below::<RunBody>("RunOptions"),
    ]);
    let (mut runs, mut values) = (Vec::new(), Vec::new());
    for graph in graphs {
        let name = free_name(graph.name(), &schemas);
        let known = graph.schemas();
        let input = adopt(&mut schemas, &format!("{name}.Input"), known.input.as_ref());
        let state = adopt(&mut schemas, &format!("{name}.State"), known.state.as_ref());
        let run = format!("{name}.Run");
        schemas.insert(run.clone(), run_of(graph.name(), &input));
        runs.push(refers(&run));
        values.push(state);
    }
    schemas.insert("Run".to_owned(), json!({"anyOf": runs}));
    // A thread on which nothing has run has no values yet.
    values.push(json!({"type": "object", "maxProperties": 0}));
    schemas.insert("Values".to_owned(), json!({"anyOf": values.clone()}));
    schemas.insert("RunValues".to_owned(), run_values(values));
    schemas.insert("Thread".to_owned(), thread());
    schemas.insert("ThreadState".to_owned(), thread_state());
    schemas.insert(
        "History".to_owned(),
        json!({"type": "array", "items": refers("ThreadState")}),
    );
    schemas.insert("GraphSchemas".to_owned(), graph_schemas());
    schemas
}

/// The body that begins a run of one graph.
fn run_of(graph: &str, input: &Value) -> Value {
    json!({"allOf": [
        refers("RunOptions"),
        {
            "type": "object",
            "required": ["assistant_id"],
            "properties": {
                "assistant_id": {"enum": [graph, shape::assistant_id(graph)]},
                "input": {"anyOf": [input, {"type": "null"}]},
            },
        },
    ]})
}

/// What a run gives back: the values, with the questions that wait; or what failed.
fn run_values(mut values: Vec<Value>) -> Value {
    values.push(json!({
        "type": "object",
        "required": ["__error__"],
        "properties": {"__error__": {
            "type": "object",
            "required": ["error", "message"],
            "properties": {"error": {"type": "string"}, "message": {"type": "string"}},
        }},
    }));
    json!({"anyOf": values})
}

fn thread() -> Value {
    let time = json!({"type": "string", "format": "date-time"});
    object(&[
        ("thread_id", json!({"type": "string", "format": "uuid"})),
        ("created_at", time.clone()),
        ("updated_at", time.clone()),
        ("state_updated_at", time),
        ("metadata", json!({"type": "object"})),
        ("status", json!({"enum": ["idle", "busy", "interrupted", "error"]})),
        ("config", json!({"type": "object"})),
        ("values", json!({"anyOf": [refers("Values"), {"type": "null"}]})),
        ("interrupts", json!({"type": "object"})),
        ("error", json!({"type": ["object", "string", "null"]})),
    ])
}

fn thread_state() -> Value {
    let object_or_none = json!({"type": ["object", "null"]});
    let id_or_none = json!({"type": ["string", "null"], "format": "uuid"});
    object(&[
        ("values", refers("Values")),
        ("next", json!({"type": "array", "items": {"type": "string"}})),
        ("tasks", json!({"type": "array", "items": {"type": "object"}})),
        ("metadata", object_or_none.clone()),
        ("created_at", json!({"type": ["string", "null"], "format": "date-time"})),
        ("checkpoint", json!({"type": "object"})),
        ("parent_checkpoint", object_or_none),
        ("interrupts", json!({"type": "array", "items": {"type": "object"}})),
        ("checkpoint_id", id_or_none.clone()),
        ("parent_checkpoint_id", id_or_none),
    ])
}

fn graph_schemas() -> Value {
    let schema = json!({"type": ["object", "boolean", "null"]});
    object(&[
        ("graph_id", json!({"type": "string"})),
        ("input_schema", schema.clone()),
        ("output_schema", schema.clone()),
        ("state_schema", schema),
        ("config_schema", json!({"type": "null"})),
        ("context_schema", json!({"type": "null"})),
    ])
}

/// An object that always has these members.
fn object(members: &[(&str, Value)]) -> Value {
    let required: Vec<_> = members.iter().map(|(name, _)| name).collect();
    let properties: Map<_, _> = members
        .iter()
        .map(|(name, schema)| ((*name).to_owned(), schema.clone()))
        .collect();
    json!({"type": "object", "required": required, "properties": properties})
}

/// Makes a graph's schema a component, with its definitions beside it, and refers to it. A graph that has none takes any
/// object.
fn adopt(schemas: &mut Map<String, Value>, name: &str, schema: Option<&Value>) -> Value {
    let Some(schema) = schema else {
        return json!({"type": "object"});
    };
    let mut schema = schema.clone();
    let definitions = schema.as_object_mut().and_then(|members| {
        members.remove("$schema");
        members.remove("$defs")
    });
    if let Some(Value::Object(definitions)) = definitions {
        for (definition, mut body) in definitions {
            lead_to_components(&mut body, name);
            schemas.insert(component(&format!("{name}.{definition}")), body);
        }
    }
    lead_to_components(&mut schema, name);
    schemas.insert(name.to_owned(), schema);
    refers(name)
}

/// A schema that stood alone refers to its own definitions; here they are components under its name.
fn lead_to_components(schema: &mut Value, name: &str) {
    match schema {
        Value::Object(members) => {
            for (key, value) in members {
                let target = value.as_str().filter(|_| key == "$ref");
                let led = target.and_then(|target| match target.strip_prefix("#/$defs/") {
                    Some(definition) => Some(refers(&component(&format!("{name}.{definition}")))),
                    None => (target == "#").then(|| refers(name)),
                });
                match led.as_ref().and_then(|led| led.get("$ref")) {
                    Some(led) => *value = led.clone(),
                    None => lead_to_components(value, name),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| lead_to_components(item, name)),
        _ => {}
    }
}

/// A name that a component may have: letters, digits, dots, hyphens and underscores.
fn component(name: &str) -> String {
    let allowed = |letter: char| {
        if letter.is_ascii_alphanumeric() || ".-_".contains(letter) {
            letter
        } else {
            '_'
        }
    };
    name.chars().map(allowed).collect()
}

/// The graph's name as a component's, told apart from those of other graphs that become the same.
fn free_name(graph: &str, schemas: &Map<String, Value>) -> String {
    let name = component(graph);
    if schemas.contains_key(&format!("{name}.Run")) {
        format!("{name}.{}", shape::assistant_id(graph).simple())
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;

    use super::*;

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "read by its schema alone")]
    struct Tree {
        name: String,
        leaf: Leaf,
        below: Vec<Tree>,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "read by its schema alone")]
    struct Leaf {
        green: bool,
    }

    #[test]
    fn a_schema_of_its_own_becomes_components_that_find_each_other() {
        let (mut schemas, alone) = (Map::new(), schemars::schema_for!(Tree).to_value());

        let led = adopt(&mut schemas, "a.State", Some(&alone));

        assert_eq!(led, refers("a.State"));
        let tree = &schemas["a.State"];
        assert_eq!(tree["properties"]["leaf"], refers("a.State.Leaf"));
        assert_eq!(tree["properties"]["below"]["items"], refers("a.State"));
        assert_eq!(schemas["a.State.Leaf"]["properties"]["green"]["type"], "boolean");
        assert!(tree.get("$schema").is_none() && tree.get("$defs").is_none());
    }

    #[test]
    fn graphs_whose_names_become_the_same_component_keep_components_of_their_own() {
        let mut schemas = Map::new();
        let first = free_name("a b", &schemas);
        schemas.insert(format!("{first}.Run"), Value::Null);

        let second = free_name("a_b", &schemas);

        assert_eq!(first, "a_b");
        assert_ne!(first, second);
    }
}
