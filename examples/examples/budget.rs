//! A run has a budget of tokens. When it is spent, a person is asked whether to go on, and how far.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stepgraph::{
    Append, Budget, Context, END, Graph, Memory, OnBudget, Outcome, OverBudget, RaiseBudget, Route, START, Spend,
    State, TenantId, ThreadId, ThreadKey, to,
};

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Draft {
    #[state(reducer = Append)]
    versions: Vec<String>,
}

#[derive(Route, Clone, Copy)]
enum Good {
    Enough,
    NotYet,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut g = Graph::<Draft>::builder("draft");
    let write = g.node("write", |draft: Arc<Draft>, ctx: Context<()>| async move {
        // What a model says that it has used.
        ctx.spend(Spend {
            tokens: 400,
            cost_micros: 1_200,
        });
        println!(
            "version {}, {} tokens so far",
            draft.versions.len() + 1,
            ctx.spent().tokens
        );
        Ok(Draft::update().versions([format!("version {}", draft.versions.len() + 1)]))
    });
    g.edge(START, write);
    g.branch(
        write,
        |draft: &Draft| {
            if draft.versions.len() < 4 {
                Good::NotYet
            } else {
                Good::Enough
            }
        },
        |good| match good {
            Good::NotYet => to(write),
            Good::Enough => to(END),
        },
    );
    let graph = g.build()?.checkpointer(Memory::new());
    let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
    let budget = Budget::tokens(1_000).then(OnBudget::Ask);

    let Outcome::Asked(questions) = graph.run(&thread, DraftInput {}).budget(budget).await? else {
        return Err("1,200 tokens are within 1,000".into());
    };
    for question in &questions {
        println!("asked {}: {}", question.id, question.payload);
    }
    let raise = RaiseBudget {
        tokens: Some(2_000),
        ..RaiseBudget::default()
    };
    let outcome = graph
        .resume(&thread)
        .budget(budget)
        .answer::<OverBudget>(&raise)
        .await?;
    assert_eq!(outcome.done().map(|draft| draft.versions.len()), Some(4));
    Ok(())
}
