//! What is compared of a run whose steps are not durable one by one.

use serde_json::{Value, json};
use stepgraph::{Durability, Event, EventKind, InsideKind, checkpoint::CheckpointSource, dynamic::JsonState};

use super::session::Store;

/// Where and how a case is run.
#[derive(Debug, Clone, Copy)]
pub struct Ground {
    /// Where its threads are kept.
    pub store: Store,
    /// When its runs' steps are durable.
    pub durability: Durability,
}

impl From<Store> for Ground {
    fn from(store: Store) -> Self {
        Self {
            store,
            durability: Durability::Sync,
        }
    }
}

/// Which step an event begins or says to be saved.
enum Step {
    Begins(i64),
    Saved(i64),
    Neither,
}

fn step(event: &Event<JsonState>) -> Step {
    match &event.kind {
        EventKind::Step { step, .. } | EventKind::Inside(InsideKind::Step { step, .. }) => Step::Begins(*step),
        EventKind::Saved { step, .. } | EventKind::Inside(InsideKind::Saved { step, .. }) => Step::Saved(*step),
        _ => Step::Neither,
    }
}

fn admits(event: &Event<JsonState>) -> bool {
    let (EventKind::Saved { source, .. } | EventKind::Inside(InsideKind::Saved { source, .. })) = &event.kind else {
        return false;
    };
    *source == CheckpointSource::Input
}

/// Puts each checkpoint that was told during the next step back to its own step's end, where the cases have it.
pub(super) fn put_back(events: Vec<Event<JsonState>>) -> Vec<Event<JsonState>> {
    let mut ordered: Vec<Event<JsonState>> = Vec::with_capacity(events.len());
    for event in events {
        let mut place = ordered.len();
        if let Step::Saved(saved) = step(&event) {
            // A graph inside that is entered anew begins with its input's checkpoint.
            let begun = ordered
                .iter()
                .rposition(|known| {
                    *known.path == *event.path && (admits(known) || matches!(step(known), Step::Begins(_)))
                })
                .filter(|_| !admits(&event));
            if let Some(begun) = begun
                && matches!(step(&ordered[begun]), Step::Begins(later) if later > saved)
            {
                place = begun;
            }
        }
        ordered.insert(place, event);
    }
    ordered
}

/// Whether a step of a case is about checkpoints that a run at [`Durability::Exit`] never writes.
pub(super) fn needs_every_checkpoint(step: &Value) -> bool {
    let as_last = step["do"] == "update" && !step["as_node"].is_string();
    step["at"].is_u64() || as_last
}

/// What of an expected outcome holds where only the first and the last checkpoint of a run are written.
pub(super) fn but_for_checkpoints(step: &Value) -> Value {
    let mut expected = step["expect"].clone();
    let Some(fields) = expected.as_object_mut() else {
        return expected;
    };
    for told in ["checkpoints", "entries"] {
        fields.remove(told);
    }
    if let Some(stream) = fields.get_mut("stream") {
        *stream = stream_without_checkpoints(stream);
    }
    expected
}

/// The groups of a stream without events of the kind `checkpoint`, and without groups that are empty then.
pub(super) fn stream_without_checkpoints(stream: &Value) -> Value {
    let groups = stream.as_array().map(Vec::as_slice).unwrap_or_default().iter();
    let groups = groups.map(|group| {
        let events = group.as_array().map(Vec::as_slice).unwrap_or_default().iter();
        let others =
            events.filter(|event| event[event.as_array().map_or(0, Vec::len).saturating_sub(2)] != "checkpoint");
        Value::from(others.cloned().collect::<Vec<_>>())
    });
    json!(groups.filter(|group| *group != json!([])).collect::<Vec<_>>())
}
