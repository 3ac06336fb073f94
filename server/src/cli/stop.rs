//! Ctrl-C and a polite kill: finish what is begun, then stop; a second one stops at once.

use std::process;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{CliError, output::say};

/// Exit code of a command that was told twice to stop.
const EXIT_STOPPED: i32 = 1;

/// Whether the user wants to stop. Listening ends when this is dropped.
#[derive(Debug)]
pub(super) struct Stop {
    token: CancellationToken,
    listener: JoinHandle<()>,
}

impl Stop {
    /// Listens for Ctrl-C and, on Unix, for the signal of a polite kill.
    pub(super) fn on_signal() -> Result<Self, CliError> {
        let token = CancellationToken::new();
        let mut signals = Signals::new()?;
        let cancel = token.clone();
        let listener = tokio::spawn(async move {
            signals.next().await;
            cancel.cancel();
            say("stopping: what is begun is brought to a safe place; once more stops at once");
            signals.next().await;
            process::exit(EXIT_STOPPED);
        });
        Ok(Self { token, listener })
    }

    /// Cancelled at the first signal.
    pub(super) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Whether a signal has come.
    pub(super) fn is_asked(&self) -> bool {
        self.token.is_cancelled()
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> Result<Self, CliError> {
        use tokio::signal::unix::{SignalKind, signal};

        let listen = |kind| {
            signal(kind).map_err(|source| CliError::System {
                what: "a signal handler",
                source,
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> Result<Self, CliError> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
