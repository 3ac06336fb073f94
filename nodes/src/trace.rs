//! The caller's trace: taken from its request, carried beside the work, sent on to whoever is called.
//!
//! A [`TraceParent`] is parsed once at the edge. [`within`] makes it the trace of everything that a future does on its own
//! task; services read it with [`current`] at the moment they send a request. Nodes begin their work with [`carried`],
//! which takes it from what the run was provided with, so that it also reaches tasks that the engine runs elsewhere.

use std::{fmt, future::Future, str::FromStr};

use serde::{Deserialize, Serialize};
use stepgraph::Context;

/// Name of the header, on the way in and on the way out.
pub const TRACEPARENT: &str = "traceparent";

tokio::task_local! {
    static CURRENT: Option<TraceParent>;
}

/// A `traceparent` of W3C's Trace Context: which trace a request is part of, and which span sent it.
///
/// ```
/// use stepgraph_nodes::trace::TraceParent;
///
/// let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// let trace: TraceParent = text.parse()?;
/// assert_eq!(trace.to_string(), text);
/// assert!(trace.is_sampled());
/// assert_eq!(serde_json::to_value(trace)?, text);
/// assert!("00-00000000000000000000000000000000-b7ad6b7169203331-01".parse::<TraceParent>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct TraceParent {
    trace: u128,
    span: u64,
    flags: u8,
}

impl TraceParent {
    /// The trace's id, 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// Whether the caller records this trace.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

/// A text that is no `traceparent`. By the standard the header is then left out, and a new trace may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a traceparent: write it as 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, in lower case, no id all zero"
)]
pub struct InvalidTraceParent;

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    /// Strict for version 00. Of a later version the first four parts are read, as the standard asks, and it is sent on as 00.
    fn from_str(text: &str) -> Result<Self, InvalidTraceParent> {
        let mut parts = text.split('-');
        let mut part = |digits| {
            parts
                .next()
                .and_then(|part| hex(part, digits))
                .ok_or(InvalidTraceParent)
        };
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let is_version_known = match version {
            0x00 => parts.next().is_none(),
            0xff => false,
            _ => true,
        };
        // Both fit: they are read from so many digits.
        let (span, flags) = (
            u64::try_from(span).map_err(|_| InvalidTraceParent)?,
            u8::try_from(flags).map_err(|_| InvalidTraceParent)?,
        );
        if !is_version_known || trace == 0 || span == 0 {
            return Err(InvalidTraceParent);
        }
        Ok(Self { trace, span, flags })
    }
}

impl From<TraceParent> for String {
    fn from(trace: TraceParent) -> Self {
        trace.to_string()
    }
}

impl TryFrom<String> for TraceParent {
    type Error = InvalidTraceParent;

    fn try_from(text: String) -> Result<Self, InvalidTraceParent> {
        text.parse()
    }
}

/// Exactly so many hexadecimal digits, in lower case.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// Makes `trace` the current one for all that `work` does on its own task.
pub async fn within<F: Future>(trace: Option<TraceParent>, work: F) -> F::Output {
    CURRENT.scope(trace, work).await
}

/// The trace of what is being done, where it has one.
#[must_use]
pub fn current() -> Option<TraceParent> {
    CURRENT.try_with(|trace| *trace).ok().flatten()
}

/// As [`within`], with the trace that the run was provided with (`run.provide(trace)`), or else the current one.
pub async fn carried<E: Send + 'static, F: Future>(ctx: &Context<E>, work: F) -> F::Output {
    let provided = ctx.provided::<TraceParent>().ok().copied();
    within(provided.or_else(current), work).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_no_traceparent_is_refused() {
        for text in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(text.parse::<TraceParent>(), Err(InvalidTraceParent), "{text}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later: TraceParent = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"
            .parse()
            .unwrap();

        assert_eq!(later.to_string(), TEXT);
    }

    #[tokio::test]
    async fn the_trace_holds_for_the_work_it_was_given_to_and_no_longer() {
        let trace = TEXT.parse().ok();

        let seen = within(trace, async { (current(), within(None, async { current() }).await) }).await;

        assert_eq!(seen, (trace, None));
        assert_eq!(current(), None);
    }
}
