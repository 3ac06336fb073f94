//! A graph that is loaded from data: channels, nodes and ways are named at run time, on the same engine.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use serde_json::{Value, json};
use stepgraph::{
    Graph, TenantId, ThreadId, ThreadKey,
    dynamic::{Channels, DynamicBuilder, JsonState, JsonUpdate, Merge, TaskInput},
};

/// What a tool or a file may hand over.
fn description() -> Value {
    json!({
        "name": "greetings",
        "nodes": {"hello": "Hello", "welcome": "Welcome", "bye": "Goodbye"},
        "edges": [["START", "hello"], ["START", "welcome"], ["bye", "END"]],
        "join": {"of": ["hello", "welcome"], "to": "bye"},
    })
}

fn loaded(description: &Value) -> Result<Graph<JsonState>, Box<dyn std::error::Error>> {
    let channels = Channels::new([("name", Merge::Last), ("said", Merge::Append)])?.inputs(["name"])?;
    let mut g = DynamicBuilder::new(description["name"].as_str().unwrap_or("graph"), channels);
    for (name, word) in description["nodes"].as_object().into_iter().flatten() {
        let word = word.as_str().unwrap_or_default().to_owned();
        g.node(name, move |input: TaskInput, _ctx| {
            let line = format!("{word}, {}", input.get("name").and_then(Value::as_str).unwrap_or("you"));
            async move { Ok(JsonUpdate::new().set("said", json!([line])).into()) }
        });
    }
    for edge in description["edges"].as_array().into_iter().flatten() {
        let end = |at: usize| edge[at].as_str().unwrap_or_default().to_owned();
        g.edge(end(0), end(1));
    }
    let join = &description["join"];
    let sources = join["of"].as_array().into_iter().flatten().filter_map(Value::as_str);
    g.join(sources, join["to"].as_str().unwrap_or_default());
    Ok(g.build()?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let graph = loaded(&description())?;
    println!("{}", graph.ascii());
    let wrong = description()
        .to_string()
        .replace(r#"["START","hello"]"#, r#"["START","helo"]"#);
    if let Err(problems) = loaded(&serde_json::from_str(&wrong)?) {
        println!("a wrong name is found when it is built:\n  {problems}\n");
    }

    let channels = graph.shape();
    let input = channels.input(json!({"name": "Ada"}).as_object().cloned().unwrap_or_default())?;
    let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
    let state = graph.run(&thread, input).await?.done();
    let said = state.as_ref().and_then(|state| state.get("said"));
    println!("{}", said.unwrap_or(&Value::Null));
    assert_eq!(said, Some(&json!(["Hello, Ada", "Welcome, Ada", "Goodbye, Ada"])));
    Ok(())
}
