//! A thread as the engine writes it, for stores that keep large values apart.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stepgraph::{
    Checkpointer, Durability, END, Graph, NodeError, Outcome, Route, START, State, TenantId, ThreadId, ThreadKey,
    checkpoint::At, to,
};

/// Bytes of the text that stays as it is.
pub(crate) const TEXT_BYTES: usize = 100_000;
pub(crate) const STEPS: u32 = 100;

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Desk {
    #[state(input)]
    text: String,
    #[state(input)]
    note_bytes: usize,
    note: String,
    count: u32,
}

#[derive(Route, Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    More,
    Enough,
}

/// Words of a small language, which LZ4 makes about half as long: the same for the same number.
pub(crate) fn words(number: u32, bytes: usize) -> String {
    const SYLLABLES: [&str; 16] = [
        "ka", "lo", "mi", "ter", "sun", "ba", "ri", "vel", "no", "dra", "shi", "pon", "qua", "el", "ust", "fe",
    ];
    let mut state = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // A word out of five hundred, of two to four syllables.
        let mut word = (state >> 33) % 500 + 20;
        while word > 0 {
            text.push_str(SYLLABLES.get(usize::try_from(word % 16).unwrap()).unwrap());
            word /= 16;
        }
        text.push(' ');
    }
    text.truncate(bytes);
    text
}

pub(crate) fn key() -> ThreadKey {
    ThreadKey::new(TenantId::authenticated("acme").unwrap(), ThreadId::new("desk").unwrap())
}

/// What is written beside a text of 100 kB: notes of so many bytes, in so many runs, which are given the text each time; and
/// most that a thread may take in SQLite, in PostgreSQL and in Redis.
pub(crate) const WRITTEN: [(usize, u32, [u64; 3]); 3] = [
    (100, 1, [150_000, 70_000, 170_000]),
    (8_000, 1, [700_000, 500_000, 700_000]),
    (100, 10, [150_000, 80_000, 180_000]),
];

/// A thread that holds a text, with a hundred steps in so many runs, of which each writes another note of so many bytes.
pub(crate) async fn hundred_steps(store: impl Checkpointer, note_bytes: usize, runs: u32) {
    let mut g = Graph::<Desk>::builder("desk");
    let write = g.node("write", |desk: Arc<Desk>| async move {
        let count = desk.count + 1;
        Ok::<_, NodeError>(Desk::update().note(words(count, desk.note_bytes)).count(count))
    });
    g.edge(START, write).branch(
        write,
        move |desk| {
            if desk.count.is_multiple_of(STEPS / runs) {
                Next::Enough
            } else {
                Next::More
            }
        },
        |next| match next {
            Next::More => to(write),
            Next::Enough => to(END),
        },
    );
    let graph = g.build().unwrap().checkpointer(store);
    for run in 1..=runs {
        let input = DeskInput {
            text: words(0, TEXT_BYTES),
            note_bytes,
        };
        let steps = graph.run(&key(), input).durability(Durability::Async);
        let done = steps.step_limit(STEPS + 10).await.unwrap();
        let done = matches!(&done, Outcome::Done(desk) if desk.count == STEPS / runs * run);
        assert!(done, "run {run}");
    }
    // As a process that knows nothing of the run reads it.
    let read = graph.state(&key(), At::Head).await.unwrap().unwrap();
    assert_eq!((read.state.text.len(), read.state.count), (TEXT_BYTES, STEPS));
    assert_eq!(read.state.text, words(0, TEXT_BYTES));
    assert_eq!(read.state.note, words(STEPS, note_bytes));
}
