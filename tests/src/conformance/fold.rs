//! The laws of a run's events, on the graphs of recorded cases: a run that is listened to ends as one that is not, its
//! events are numbered without a gap, and folding them gives its last state.

use std::sync::Arc;

use futures_util::StreamExt;
use serde_json::{Map, Value};
use stepgraph::{
    EventKind, Extra, Memory, RunEvent, TenantId, ThreadId, ThreadKey,
    checkpoint::At,
    dynamic::{JsonInput, JsonState},
};

use super::graph::{build, channels, list};

/// Every set of extras that a reader may ask for.
fn modes() -> Vec<Vec<Extra>> {
    let all = [Extra::Values, Extra::Checkpoints, Extra::Payloads, Extra::Inside];
    let chosen = |set: u32| all.into_iter().enumerate().filter(move |(at, _)| set & (1 << at) != 0);
    (0..16)
        .map(|set| chosen(set).map(|(_, extra)| extra).collect())
        .collect()
}

/// What is kept of a thread when a run has ended, as JSON.
async fn kept(graph: &stepgraph::Graph<JsonState>, key: &ThreadKey) -> (Map<String, Value>, Vec<String>) {
    let snapshot = graph.state(key, At::Head).await.unwrap().unwrap();
    (snapshot.state.to_object(), snapshot.entry.next)
}

/// Runs the first step of a case unheard, then heard in every mode; what does not hold is said.
///
/// # Panics
/// If the case is not in the recorded form.
pub async fn folds(case: &Value) -> Vec<String> {
    let Some(input) = list(&case["script"]).first().and_then(|step| step["input"].as_object()) else {
        return Vec::new();
    };
    let input = || channels(&case["graphs"]["main"]).known_input(JsonInput::from(input.clone()));
    let key = ThreadKey::new(TenantId::authenticated("folds").unwrap(), ThreadId::new("t").unwrap());
    // Counters of failures live outside the graphs: each run has its own.
    let graph = || {
        build("main", case, &Arc::default())
            .unwrap()
            .checkpointer(Memory::new())
    };
    let unheard = graph();
    let ended = unheard.run(&key, input()).await.map(|outcome| outcome.done().is_some());
    let ended = ended.map_err(|error| error.code().to_owned());
    let expected = kept(&unheard, &key).await;
    let mut problems = Vec::new();
    for mode in modes() {
        let heard = graph();
        let mut events = heard.run(&key, input()).stream_with(mode.clone());
        let (mut seq, mut values, mut saved) = (0, None, None);
        let found = loop {
            match events.next().await {
                Some(Ok(RunEvent::Event(event))) => {
                    seq += 1;
                    if event.seq != seq {
                        problems.push(format!("{mode:?}: event {} came as number {seq}", event.seq));
                    }
                    match event.kind {
                        EventKind::Values { state, .. } => values = Some(state.to_object()),
                        EventKind::Saved { state, .. } => saved = state.map(|state| state.to_object()),
                        _ => {}
                    }
                }
                Some(Ok(RunEvent::Ended(outcome))) => break Ok(outcome.done().is_some()),
                Some(Ok(_)) => {}
                Some(Err(error)) => break Err(error.code().to_owned()),
                None => break Err("the stream ended without an outcome".to_owned()),
            }
        };
        let after = kept(&heard, &key).await;
        // What is kept of a step that failed depends on who had finished by then.
        let differs = found.is_ok() && after != expected;
        if found != ended || differs {
            problems.push(format!(
                "{mode:?}: ended as {found:?} with {after:?}, unheard {ended:?} with {expected:?}"
            ));
        }
        if found == Ok(true) {
            for folded in [values, saved].into_iter().flatten() {
                if folded != expected.0 {
                    problems.push(format!("{mode:?}: folded to {folded:?}, ended with {:?}", expected.0));
                }
            }
        }
    }
    problems
}
