//! Load on the whole server: what it adds to a model's own time, and what a thousand open streams cost it.
//!
//! The server is a process of its own, on embedded defaults and the scripted model, which takes no time: what a reader waits
//! for is ours, from the check of the key to the search in a tenant's chunks.

mod knowledge;
mod reader;
mod server;

use std::{path::Path, time::Duration};

use futures_util::{StreamExt, future::join_all, stream};
use serde_json::{Map, Value, json};
use stepgraph_nodes::service::tls;
use tokio::{sync::watch, time::Instant};

use crate::TestError;

use knowledge::Knowledge;
use reader::{Reader, Stream};
use server::Child;

/// Questions that are open at a time in the crowd.
const CROWD_WIDTH: usize = 64;
/// The number of its first question; no part before comes so far.
const CROWD_FROM: u64 = 1 << 32;
/// How many streams are opened at a time, so that a listener's backlog is not what is measured.
const OPENED_AT_ONCE: usize = 64;

/// How much load.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Chunks of the tenant that asks.
    pub chunks: u32,
    /// Streams that are open at once.
    pub streams: usize,
    /// Words that each of them says.
    pub drops: usize,
    /// Time between two of them.
    pub drop_every: Duration,
    /// Questions that are asked one after another.
    pub alone: u64,
    /// Questions that are asked in a crowd.
    pub crowd: u64,
}

type Figures = Map<String, Value>;

/// Puts load on a server started as `program` with the arguments of [`serve`], and gives one line of figures for each part, with the most memory that the server had by then.
///
/// # Errors
/// The server does not start or answer, or an answer is not what was asked for.
pub async fn chat(load: Load, folder: &Path, tell: impl Fn(&str)) -> Result<Vec<Figures>, TestError> {
    tls::install();
    rlimit::increase_nofile_limit(u64::MAX)?;
    tell(&format!("making {} chunks", load.chunks));
    let known = Knowledge::make(folder, load.chunks).await?;
    tell("starting the server");
    let mut server = Child::start(folder).await?;
    let reader = Reader::new(&server.url, &known)?;
    reader.ask(u64::MAX).await?;
    let idle = server.memory_mb()?;

    tell(&format!("asking {} questions, one after another", load.alone));
    let alone = asked_until(&reader, 0, load.alone, None).await?;
    let mut lines = vec![(line("one at a time", &alone), server.peak_mb()?)];

    tell(&format!("opening {} streams, and asking beside them", load.streams));
    lines.push((beside_streams(&reader, load).await?, server.peak_mb()?));

    tell(&format!("asking {} questions, {CROWD_WIDTH} at a time", load.crowd));
    lines.push((crowd(&reader, load.crowd).await?, server.peak_mb()?));

    server.stop().await?;
    for (line, peak) in &mut lines {
        let figures = [
            ("chunks", json!(load.chunks)),
            ("idle_mb", rounded(idle)),
            ("peak_mb", rounded(*peak)),
            ("above_idle_mb", rounded(*peak - idle)),
        ];
        for (name, value) in figures {
            line.insert(name.to_owned(), value);
        }
    }
    Ok(lines.into_iter().map(|(line, _)| line).collect())
}

/// The server's own process: `load serve FOLDER`.
pub use server::serve;

/// Times of questions from `first` on, one after another: `most` of them, or fewer if `over` comes true before.
async fn asked_until(
    reader: &Reader<'_>,
    first: u64,
    most: u64,
    over: Option<watch::Receiver<bool>>,
) -> Result<Times, TestError> {
    let began = Instant::now();
    let mut taken = Vec::new();
    for number in first..first + most {
        if over.as_ref().is_some_and(|over| *over.borrow()) {
            break;
        }
        taken.push(reader.ask(number).await?);
    }
    Ok(Times::new(taken, began.elapsed()))
}

async fn beside_streams(reader: &Reader<'_>, load: Load) -> Result<Figures, TestError> {
    let streams = load.streams;
    let (ended, over) = watch::channel(false);
    let reading = async {
        let opened: Vec<Stream> = stream::iter(0..streams)
            .map(|_| reader.open(load.drops, load.drop_every))
            .buffer_unordered(OPENED_AT_ONCE)
            .collect::<Vec<_>>()
            .await
            .into_iter()
            .collect::<Result<_, _>>()?;
        let read = join_all(opened.into_iter().map(Stream::read)).await;
        let _ = ended.send(true);
        Ok::<_, TestError>(read)
    };
    let (read, asked) = tokio::join!(
        reading,
        asked_until(reader, load.alone, CROWD_FROM - load.alone, Some(over))
    );
    let (read, asked) = (read?, asked?);
    let mut line = line(&format!("beside {streams} streams"), &asked);
    for (name, count) in [
        ("streams", streams),
        ("lost", read.iter().filter(|read| read.is_lost()).count()),
        ("reordered", read.iter().filter(|read| read.is_reordered()).count()),
    ] {
        line.insert(name.to_owned(), json!(count));
    }
    Ok(line)
}

async fn crowd(reader: &Reader<'_>, most: u64) -> Result<Figures, TestError> {
    let began = Instant::now();
    let taken: Vec<Duration> = stream::iter(CROWD_FROM..CROWD_FROM + most)
        .map(async |number| reader.ask(number).await)
        .buffer_unordered(CROWD_WIDTH)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect::<Result<_, _>>()?;
    Ok(line(
        &format!("{CROWD_WIDTH} at a time"),
        &Times::new(taken, began.elapsed()),
    ))
}

/// How long answers took, sorted.
struct Times {
    sorted: Vec<Duration>,
    all: Duration,
}

impl Times {
    fn new(mut taken: Vec<Duration>, all: Duration) -> Self {
        taken.sort_unstable();
        Self { sorted: taken, all }
    }

    /// The time that `percent` of the answers stayed below, in milliseconds.
    fn percentile_ms(&self, percent: usize) -> Value {
        let at = (self.sorted.len() * percent).div_ceil(100).saturating_sub(1);
        self.sorted
            .get(at)
            .map_or(Value::Null, |time| rounded(time.as_secs_f64() * 1e3))
    }
}

fn line(part: &str, times: &Times) -> Figures {
    let answers = u32::try_from(times.sorted.len()).unwrap_or(u32::MAX);
    [
        ("workload", json!("chat")),
        ("part", json!(part)),
        ("answers", json!(answers)),
        ("p50_ms", times.percentile_ms(50)),
        ("p95_ms", times.percentile_ms(95)),
        ("p99_ms", times.percentile_ms(99)),
        (
            "answers_per_second",
            rounded(f64::from(answers) / times.all.as_secs_f64()),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .collect()
}

fn rounded(value: f64) -> Value {
    json!((value * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times = Times::new(
            (1..=200).rev().map(Duration::from_millis).collect(),
            Duration::from_secs(2),
        );
        let line = line("p", &times);

        assert_eq!(
            (
                &line["p50_ms"],
                &line["p95_ms"],
                &line["p99_ms"],
                &line["answers_per_second"]
            ),
            (&json!(100.0), &json!(190.0), &json!(198.0), &json!(100.0))
        );
    }
}
