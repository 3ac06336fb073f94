//! Handlers and spent budgets in graphs that are known only at run time.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    pub(crate) mod threads;
}

use serde_json::{Value, json};
use stepgraph::{
    Ask, Budget, BuildError, Memory, NodeError, OnBudget, Outcome, Spend,
    dynamic::{Channels, DynamicBuilder, Goto, JsonInput, JsonUpdate, Merge, Reply},
};
use support::threads::thread;

#[derive(serde::Serialize, Ask)]
#[ask(name = "approve", answer = bool)]
struct Approve;

fn builder() -> DynamicBuilder {
    DynamicBuilder::new("dynamic", Channels::new([("log", Merge::Append)]).unwrap())
}

fn line(text: &str) -> Reply {
    JsonUpdate::new().set("log", json!([text])).into()
}

fn input() -> JsonInput {
    JsonInput::new()
}

#[tokio::test]
async fn a_handler_answers_for_what_failed_and_leads_on_by_its_own_ways() {
    let mut g = builder();
    g.node("fails", |_, _| async { Err(NodeError::terminal("it cannot")) });
    g.node("never", |_, _| async { Ok(line("never")) });
    g.node("after", |_, _| async { Ok(line("after")) });
    g.handler("recover", |failed, ctx| async move {
        let approved = ctx.ask(Approve)?;
        let text = format!("{} {}: {approved}", failed.node(), failed.failure().message);
        Ok(Reply {
            goto: vec![Goto::Node("after".to_owned())],
            ..line(&text)
        })
    });
    g.on_error("fails", "recover");
    g.edge("START", "fails")
        .edge("fails", "never")
        .edge("never", "END")
        .edge("after", "END");
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let asked = graph.run(&thread("t"), input()).await.unwrap();
    assert!(matches!(asked, Outcome::Asked(_)), "{asked:?}");
    let done = graph
        .resume(&thread("t"))
        .answer::<Approve>(&true)
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(done.get("log"), Some(&json!(["fails it cannot: true", "after"])));
}

#[tokio::test]
async fn what_was_sent_to_a_failed_task_is_what_its_handler_is_given() {
    let mut g = builder();
    g.node("worker", |_, _| async { Err(NodeError::terminal("it cannot")) });
    g.handler("recover", |failed, _| async move {
        Ok(line(
            failed.input.get("id").and_then(Value::as_str).unwrap_or("nothing"),
        ))
    });
    g.on_any_error("recover");
    g.branch("START", |_| vec![Goto::Send("worker".to_owned(), json!({"id": "a"}))]);
    g.edge("recover", "END");
    let done = g
        .build()
        .unwrap()
        .run(&thread("t"), input())
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(done.get("log"), Some(&json!(["a"])));
}

#[tokio::test]
async fn a_spent_budget_leads_to_the_node_for_it() {
    let mut g = builder();
    g.node("work", |_, ctx| async move {
        ctx.spend(Spend {
            tokens: 10,
            cost_micros: 0,
        });
        Ok(line("work"))
    });
    g.node("sum_up", |_, _| async { Ok(line("sum up")) });
    g.on_budget("sum_up");
    g.edge("START", "work").edge("work", "work").edge("sum_up", "END");
    let graph = g.build().unwrap();
    let budget = Budget::tokens(15).then(OnBudget::Route);
    let done = graph
        .run(&thread("t"), input())
        .budget(budget)
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(done.get("log"), Some(&json!(["work", "work", "sum up"])));
}

#[test]
fn names_that_are_no_handlers_are_errors_of_the_build() {
    let mut g = builder();
    g.node("a", |_, _| async { Ok(line("a")) });
    g.on_error("a", "a").on_any_error("nobody").on_budget("nothing");
    g.edge("START", "a").edge("a", "END");
    let errors = g.build().unwrap_err();
    let codes: Vec<_> = errors.errors().iter().map(BuildError::code).collect();
    assert_eq!(
        codes,
        ["graph::not_a_handler", "graph::unknown_node", "graph::unknown_node"]
    );
}
