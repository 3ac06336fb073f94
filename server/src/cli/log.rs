//! Logs: to standard error, as much as `RUST_LOG` asks for, without what looks like a secret.

use std::io::{self, IsTerminal as _, Write};

use stepgraph::scrubbed;
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// What is logged where `RUST_LOG` says nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verbosity {
    /// A server: what happens.
    Server,
    /// A server that somebody tries at a terminal, or a command with an end: what goes wrong.
    Command,
}

impl Verbosity {
    const fn filter(self) -> &'static str {
        match self {
            Self::Server => "info,sqlx=warn",
            Self::Command => "warn",
        }
    }
}

/// Starts logging. `filter` has been checked with the settings; a second start in one process changes nothing.
pub(crate) fn start(verbosity: Verbosity, filter: Option<&str>, format: LogFormat) {
    let filter = EnvFilter::new(filter.unwrap_or(verbosity.filter()));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Scrubbed(io::stderr()));
    // An error means that the host program has started logging of its own, which then stays.
    let _ = match format {
        LogFormat::Text => logs.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
}

/// Takes secrets out of each event: one is written as a whole.
struct Scrubbed<W>(W);

impl<W: Write> Write for Scrubbed<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        self.0.write_all(scrubbed(&text).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_of_either_form_leaves_without_what_its_error_tells() {
        let lines = Lines::default();
        let to = || {
            let lines = lines.clone();
            tracing_subscriber::fmt()
                .with_ansi(false)
                .with_writer(move || Scrubbed(lines.clone()))
        };
        let fail = || {
            let error = "connect to postgres://app:hunter2@db/x: {\"api_key\": \"sk-4fGh7Kq2Lm9Pq3\"}";
            tracing::error!(error, password = "hunter2", thread = "acme/session-1", "it failed");
        };
        tracing::subscriber::with_default(to().finish(), fail);
        tracing::subscriber::with_default(to().json().finish(), fail);

        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(!text.contains("hunter2") && !text.contains("4fGh7"), "{text}");
        assert_eq!(text.matches("acme/session-1").count(), 2, "{text}");
        let json: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(json["fields"]["message"], "it failed");
    }
}
