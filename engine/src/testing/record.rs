//! A run with everything that happened in it.

use std::fmt::Write;

use futures_util::StreamExt;

use crate::{
    run::{Event, EventKind, Outcome, Run, RunError, RunEvent, StartedTask},
    state::State,
};

/// A run that has ended, with what it told and the way it took.
#[derive(Debug)]
pub struct TestRun<S: State> {
    /// What it has come to.
    pub outcome: Result<Outcome<S>, RunError>,
    /// What it told.
    pub events: Vec<Event<S>>,
}

impl<S: State> TestRun<S> {
    /// Runs to the end.
    pub async fn of(run: Run<S>) -> Self {
        let mut stream = run.stream();
        let mut events = Vec::new();
        loop {
            match stream.next().await {
                Some(Ok(RunEvent::Event(event))) => events.push(event),
                Some(Ok(RunEvent::Ended(outcome))) => {
                    return Self {
                        outcome: Ok(outcome),
                        events,
                    };
                }
                Some(Err(error)) => {
                    return Self {
                        outcome: Err(error),
                        events,
                    };
                }
                None => {}
            }
        }
    }

    /// Its steps: the node of each, or `[a, b, worker*3]` where there are several tasks.
    #[must_use]
    pub fn path(&self) -> Vec<String> {
        let steps = self.events.iter().filter(|event| event.path.is_empty());
        steps
            .filter_map(|event| match &event.kind {
                EventKind::Step { tasks, .. } => Some(step(tasks)),
                _ => None,
            })
            .collect()
    }
}

fn step(tasks: &[StartedTask]) -> String {
    let mut nodes: Vec<(&str, u32)> = Vec::new();
    for task in tasks {
        match nodes.last_mut() {
            Some((node, times)) if *node == task.node => *times += 1,
            _ => nodes.push((&task.node, 1)),
        }
    }
    let names: Vec<_> = nodes
        .into_iter()
        .map(|(node, times)| {
            if times == 1 {
                node.to_owned()
            } else {
                format!("{node}*{times}")
            }
        })
        .collect();
    if tasks.len() == 1 {
        names.concat()
    } else {
        format!("[{}]", names.join(", "))
    }
}

/// Checks the steps of a run: the node of each, or `[a, b, worker*3]` where there are several tasks.
///
/// # Panics
/// When they are others, with both side by side.
#[track_caller]
#[expect(clippy::panic, reason = "an assertion of a test")]
pub fn assert_path<S: State, T: AsRef<str>>(run: &TestRun<S>, expected: impl IntoIterator<Item = T>) {
    let path = run.path();
    let expected: Vec<String> = expected.into_iter().map(|step| step.as_ref().to_owned()).collect();
    if path == expected {
        return;
    }
    let mut text = "the run took another way:\n".to_owned();
    for at in 0..path.len().max(expected.len()) {
        let (ran, wanted) = (path.get(at), expected.get(at));
        let none = || "-".to_owned();
        let mark = if ran == wanted { ' ' } else { '>' };
        let (ran, wanted) = (ran.cloned().unwrap_or_else(none), wanted.cloned().unwrap_or_else(none));
        let _infallible = writeln!(text, "{mark} {:>3}. ran {ran:<24} expected {wanted}", at + 1);
    }
    if let Err(error) = &run.outcome {
        let _infallible = writeln!(text, "it ended with: {error}");
    }
    panic!("{text}");
}
