//! Logs: to standard error, as much as `RUST_LOG` asks for.

use std::io::{self, IsTerminal as _};

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
        .with_writer(io::stderr);
    // An error means that the host program has started logging of its own, which then stays.
    let _ = match format {
        LogFormat::Text => logs.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
}
