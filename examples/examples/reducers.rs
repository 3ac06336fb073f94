//! Reducers of collections: a set that grows, a map that is filled in, a list changed by keys, and setting a field outright.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::{collections::BTreeMap, collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};
use stepgraph::prelude::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Todo {
    id: u32,
    text: String,
}

impl Keyed for Todo {
    type Key = u32;

    fn key(&self) -> &u32 {
        &self.id
    }
}

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Plan {
    #[state(reducer = Union)]
    topics: BTreeSet<String>,
    #[state(reducer = MergeMap)]
    facts: BTreeMap<String, u32>,
    #[state(reducer = Upsert)]
    todos: Vec<Todo>,
    #[state(reducer = Append)]
    drafts: Vec<String>,
}

fn todo(id: u32, text: &str) -> Change<Todo> {
    Change::put(Todo { id, text: text.into() })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut g = Graph::<Plan>::builder("plan");
    // Both write every field in the same step; each field's reducer says how that goes together.
    let read = g.node("read", |_: Arc<Plan>| async {
        let update = Plan::update()
            .topics(["tea".into(), "milk".into()])
            .facts([("cups".into(), 4)]);
        Ok(update
            .todos([todo(1, "boil water"), todo(2, "find cups")])
            .drafts(["tea?".into()]))
    });
    let think = g.node("think", |_: Arc<Plan>| async {
        let update = Plan::update()
            .topics(["tea".into()])
            .facts([("cups".into(), 5), ("pots".into(), 1)]);
        Ok(update
            .todos([todo(2, "find five cups"), todo(3, "pour")])
            .drafts(["tea!".into()]))
    });
    let finish = g.node("finish", |_: Arc<Plan>| async {
        // Past the reducers: the drafts are gone, whatever else the step would have added.
        Ok(Plan::update()
            .todos([Change::remove(1_u32)])
            .overwrite_drafts(["make tea".into()]))
    });
    g.edge(START, to(read).and(think))
        .join([read, think], finish)
        .edge(finish, END);

    let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
    let plan = g
        .build()?
        .run(&thread, PlanInput::new())
        .await?
        .done()
        .ok_or("no end")?;
    println!("{plan:#?}");
    assert_eq!(plan.topics.len(), 2);
    assert_eq!(plan.facts, BTreeMap::from([("cups".into(), 5), ("pots".into(), 1)]));
    let todos: Vec<_> = plan.todos.iter().map(|todo| todo.text.as_str()).collect();
    assert_eq!(todos, ["find five cups", "pour"]);
    assert_eq!(plan.drafts, ["make tea"]);
    Ok(())
}
