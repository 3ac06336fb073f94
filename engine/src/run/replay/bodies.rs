//! The nodes of a step that is replayed, entered side by side as they were.

use std::time::Duration;

use super::{
    compare::{failed, shown},
    difference::Difference,
    walk::Compared,
};
use crate::{
    graph::Payload,
    run::{
        Spend,
        driver::Driver,
        error::RunError,
        plan::Seed,
        step::{Crowd, End, Shared, StoredOutput},
    },
    scrub::told,
    state::State,
    tree,
};

/// How long the nodes of one step may take to be replayed. What they wait for comes from the record, at once.
const BODIES_TIME_MAX: Duration = Duration::from_mins(1);

/// Runs the tasks; gives their ends in the tasks' order. One without an end has not come to it in time.
pub(super) async fn run<S: State>(
    shared: &Shared<S>,
    tasks: impl Iterator<Item = (usize, &Seed<Payload>)> + Clone,
) -> Result<Vec<Option<End<S>>>, RunError> {
    let order: Vec<usize> = tasks.clone().map(|(at, _)| at).collect();
    let mut ends: Vec<Option<End<S>>> = order.iter().map(|_| None).collect();
    let mut keep = |ended: Vec<(usize, End<S>)>| {
        for (at, end) in ended {
            let slot = order.iter().position(|of| *of == at);
            if let Some(slot) = slot.and_then(|slot| ends.get_mut(slot)) {
                *slot = Some(end);
            }
        }
    };
    let running = async {
        let (mut crowd, ended) = Crowd::start(shared, tasks.map(|(at, task)| (at, task, None))).await;
        keep(ended);
        while !crowd.is_empty() {
            keep(crowd.next().await.map_err(|message| RunError::Panic {
                doing: "a task".to_owned(),
                task: None,
                step: shared.step,
                thread: Box::new(shared.run.key.clone()),
                checkpoint: None,
                message,
            })?);
        }
        Ok::<(), RunError>(())
    };
    match tokio::time::timeout(BODIES_TIME_MAX, running).await {
        Ok(ran) => ran?,
        Err(_late) => {}
    }
    Ok(ends)
}

/// Compares the end of a task with its recorded output.
pub(super) fn compare<S: State>(
    driver: &Driver<S>,
    node: usize,
    task: &str,
    recorded: &[u8],
    end: Option<End<S>>,
) -> Compared {
    let error = match end {
        Some(End::Output(output)) => {
            if let Some(unused) = output.calls.as_ref().and_then(|calls| calls.unused()) {
                return Err(unused.into());
            }
            let replayed = driver.stored_output(node, &output)?;
            // As this version writes it.
            let kept = driver.kept_output(recorded).map_err(RunError::from);
            // What it has cost is not compared: a replay spends nothing.
            let kept = kept.map(|kept| StoredOutput {
                spend: Spend::NOTHING,
                ..kept
            });
            let kept = kept.and_then(|kept| driver.output(node, kept));
            let recorded = kept.and_then(|kept| driver.stored_output(node, &kept));
            let recorded = &*recorded.map_err(|error| failed(&error))?;
            if tree::same(recorded, &replayed) {
                return Ok(());
            }
            let fields = S::fields(&driver.shared.parts.shape);
            let different = Difference::Output {
                task: task.to_owned(),
                recorded: shown(fields, recorded),
                replayed: shown(fields, &replayed),
            };
            return Err(different.into());
        }
        Some(End::Asked(questions)) => {
            let asked = Difference::Asked {
                task: task.to_owned(),
                questions: questions.into_iter().map(|question| question.name).collect(),
            };
            return Err(asked.into());
        }
        Some(End::Failed { error, .. }) => told(&error),
        Some(End::Paused) => "it stops at a breakpoint inside".to_owned(),
        Some(End::Drained) => "it leaves as if it were drained".to_owned(),
        Some(End::OverBudget(error) | End::Unsaved(error)) => told(&error),
        Some(End::Cancelled | End::CutOff) => "it leaves as if it were cancelled".to_owned(),
        Some(End::TimeLimit) | None => format!("it has not ended within {BODIES_TIME_MAX:?}"),
    };
    let task = Some(task.to_owned());
    Err(Difference::Failed { task, error }.into())
}
