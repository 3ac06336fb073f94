//! The process that is killed: goes on with its thread from whatever it finds, to the end.

use std::{io::Write as _, path::PathBuf, sync::Arc};

use futures_util::TryStreamExt as _;
use serde_json::json;
use stepgraph::{
    Answers, Checkpointer, Durability, EventKind, Graph, Outcome, Question, Run, RunEvent, ThreadId, ThreadKey,
    checkpoint::{At, RunStatus},
};

use super::{
    fate::{Fate, Reaper},
    graph::{Errand, World, errand, input},
    ledger::Ledger,
    place::{Place, open},
    store::Mortal,
};
use crate::{TestError, tenant};

/// How often a child goes on after a question at most: two are asked, and either may be asked again.
const TURNS_MAX: u32 = 10;

/// What a child is told.
#[derive(Debug, Clone)]
pub struct Orders {
    /// Where its thread is kept.
    pub place: Place,
    /// The address of the store.
    pub address: String,
    /// The thread.
    pub thread: String,
    /// When its steps are durable.
    pub durability: Durability,
    /// The file of what has happened.
    pub ledger: PathBuf,
    /// Where it dies.
    pub fate: Fate,
}

pub(super) fn thread(name: &str) -> Result<ThreadKey, TestError> {
    Ok(ThreadKey::new(tenant("crash"), ThreadId::new(name)?))
}

/// The graph without fate and on no store, for the state that every run must come to.
pub(super) fn undisturbed(ledger: &std::path::Path) -> Result<Graph<Errand>, TestError> {
    let world = World {
        reaper: Arc::new(Reaper::default()),
        ledger: Ledger::at(ledger),
    };
    Ok(errand(&world)?)
}

/// Goes on with the thread to its end, and says on standard output what was saved and what the end is.
///
/// # Errors
/// What the store or the run says.
pub async fn child(orders: Orders) -> Result<(), TestError> {
    let ledger = Ledger::at(&orders.ledger);
    let reaper = Arc::new(Reaper::new(orders.fate));
    let store: Arc<dyn Checkpointer> = Arc::new(Mortal {
        inner: open(orders.place, &orders.address).await?,
        reaper: Arc::clone(&reaper),
        ledger: ledger.clone(),
    });
    let world = World {
        reaper,
        ledger: ledger.clone(),
    };
    let graph = errand(&world)?.shared_checkpointer(Arc::clone(&store));
    let thread = thread(&orders.thread)?;
    let mut next = match store.get(&thread, At::Head).await? {
        None => graph.run(&thread, input()),
        Some(found) if found.run.as_ref().is_some_and(|run| run.status == RunStatus::Done) => {
            let snapshot = graph
                .state(&thread, At::Head)
                .await?
                .ok_or("a thread without a state")?;
            return say(&format!("final {}", serde_json::to_string(&snapshot.state)?));
        }
        Some(_) => graph.resume(&thread),
    };
    for _ in 0..TURNS_MAX {
        match drive(next.durability(orders.durability)).await? {
            Outcome::Done(state) => return say(&format!("final {}", serde_json::to_string(&state)?)),
            Outcome::Asked(questions) => {
                let answers = questions.iter().map(|question| answer(question, &ledger));
                next = graph.resume(&thread).answers(Answers::Many(answers.collect()));
            }
            other => return Err(format!("the run ended so: {other:?}").into()),
        }
    }
    Err("it asks and asks".into())
}

async fn drive(run: Run<Errand>) -> Result<Outcome<Errand>, TestError> {
    let mut stream = run.stream();
    while let Some(next) = stream.try_next().await? {
        match next {
            RunEvent::Event(event) => {
                if let EventKind::Saved {
                    step,
                    checkpoint: Some((seq, _)),
                    ..
                } = event.kind
                {
                    say(&format!("saved {} {step}", seq.0))?;
                }
            }
            RunEvent::Ended(outcome) => return Ok(outcome),
            _ => {}
        }
    }
    Err("the run ended without an outcome".into())
}

/// An effect in doubt is looked up in the ledger, as a person would look into the world.
fn answer(question: &Question, ledger: &Ledger) -> (String, serde_json::Value) {
    let answer = if question.name.starts_with("in_doubt") {
        ledger.write("doubted", "parcel");
        if ledger.has("sent parcel") {
            json!({"done": "parcel 1"})
        } else {
            json!("retry")
        }
    } else {
        json!(true)
    };
    (question.id.clone(), answer)
}

fn say(line: &str) -> Result<(), TestError> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()?;
    Ok(())
}
