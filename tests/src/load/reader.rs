//! Who asks: over HTTP, with the tenant's key, and looks closely at what comes.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::knowledge::Knowledge;
use crate::TestError;

/// A caller with the key of a tenant.
pub(super) struct Reader<'a> {
    http: Client,
    url: String,
    known: &'a Knowledge,
}

impl<'a> Reader<'a> {
    pub(super) fn new(url: &str, known: &'a Knowledge) -> Result<Self, TestError> {
        Ok(Self {
            http: Client::builder().pool_max_idle_per_host(usize::MAX).build()?,
            url: url.to_owned(),
            known,
        })
    }

    async fn send(&self, path: &str, message: &str) -> Result<Response, TestError> {
        let body = json!({"message": message, "sessionId": Uuid::new_v4()});
        let request = self.http.post(format!("{}{path}", self.url));
        let response = request.header("x-api-key", &self.known.key).json(&body).send().await?;
        Ok(response.error_for_status()?)
    }

    /// Asks the question of this number in a session of its own, and says how long the whole answer took.
    pub(super) async fn ask(&self, number: u64) -> Result<Duration, TestError> {
        let message = self.known.question(number);
        let began = Instant::now();
        let answer: Value = self.send("/chat", &message).await?.json().await?;
        let took = began.elapsed();
        match answer.get("sources").and_then(Value::as_array) {
            Some(sources) if !sources.is_empty() => Ok(took),
            Some(_) | None => Err(format!("`{message}` has found nothing: {answer}").into()),
        }
    }

    /// Opens a stream that says so many drops.
    pub(super) async fn open(&self, drops: usize, every: Duration) -> Result<Stream, TestError> {
        let message = format!("drip:{}:{drops}", every.as_millis());
        let response = self.send("/chat/stream?dialect=json", &message).await?;
        Ok(Stream { response, drops })
    }
}

/// A stream that is open.
pub(super) struct Stream {
    response: Response,
    drops: usize,
}

/// What a stream has said.
#[derive(Debug, Default)]
pub(super) struct Read {
    text: String,
    expected: usize,
    /// The numbers of the events, in the order they came.
    numbers: Vec<u64>,
    is_done: bool,
}

impl Stream {
    /// Reads to the end. A stream that breaks off is one that has lost what it did not say.
    pub(super) async fn read(self) -> Read {
        let mut read = Read {
            expected: self.drops,
            ..Read::default()
        };
        let mut bytes = self.response.bytes_stream();
        let mut rest = Vec::new();
        while let Ok(Some(piece)) = bytes.try_next().await {
            rest.extend_from_slice(&piece);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                read.line(String::from_utf8_lossy(&line).trim_end());
            }
        }
        read
    }
}

impl Read {
    fn line(&mut self, line: &str) {
        if let Some(number) = line
            .strip_prefix("id: ")
            .and_then(|id| id.rsplit_once('-')?.1.parse().ok())
        {
            self.numbers.push(number);
        }
        if let Some(data) = line.strip_prefix("data: ") {
            self.is_done |= data == "[DONE]";
            let data: Value = serde_json::from_str(data).unwrap_or_default();
            self.text
                .push_str(data.get("text").and_then(Value::as_str).unwrap_or_default());
        }
    }

    /// Whether something was not said, or said otherwise.
    pub(super) fn is_lost(&self) -> bool {
        let said = self.text.split_whitespace();
        let expected = (1..=self.expected).map(|drop| format!("drop{drop}"));
        !self.is_done || !said.eq(expected)
    }

    /// Whether an event came before one that it follows, or twice.
    pub(super) fn is_reordered(&self) -> bool {
        self.numbers.is_empty() || (0..).zip(&self.numbers).any(|(expected, number)| expected != *number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Read {
        let mut read = Read {
            expected: 2,
            ..Read::default()
        };
        for line in lines {
            read.line(line);
        }
        read
    }

    #[test]
    fn what_is_missing_or_out_of_order_is_seen() {
        const FIRST: [&str; 2] = ["id: a-b-0", "data: {\"text\":\"drop1 \"}"];
        const SECOND: [&str; 2] = ["id: a-b-1", "data: {\"text\":\"drop2 \"}"];
        let done = "data: [DONE]";

        let whole = read(&[&FIRST[..], &SECOND, &[done]].concat());
        assert!(!whole.is_lost() && !whole.is_reordered());
        assert!(read(&[&FIRST[..], &[done]].concat()).is_lost());
        assert!(read(&[&FIRST[..], &SECOND].concat()).is_lost());
        let turned = read(&[&SECOND[..], &FIRST, &[done]].concat());
        assert!(turned.is_lost() && turned.is_reordered());
    }
}
