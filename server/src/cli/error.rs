//! Why a command failed, and with which exit code.

use std::{io, path::PathBuf, process::ExitCode};

use stepgraph::InvalidId;
use stepgraph_nodes::service::ServiceError;

use crate::{
    app::{AppError, ChatError},
    builder::{ServeError, ServerError},
};

/// Exit code of a command that was called wrongly; clap uses the same.
const EXIT_USAGE: u8 = 2;

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The flags do not fit together.
    #[error("{0}")]
    Usage(String),
    /// Settings, data folder or services cannot be used.
    #[error(transparent)]
    App(#[from] AppError),
    /// A service failed on the way.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// An id is not one.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// A tenant is not in this data folder.
    #[error("there is no tenant `{tenant}` in {}: make it with `stepgraph tenant add {tenant}`, or name another folder with --data", data.display())]
    NoTenant {
        /// Who was asked for.
        tenant: String,
        /// Where it was looked for.
        data: PathBuf,
    },
    /// A tenant has no such document.
    #[error("tenant `{tenant}` has no document `{document}`: `stepgraph documents list --tenant {tenant}` lists them")]
    NoDocument {
        /// Whose.
        tenant: String,
        /// Which.
        document: String,
    },
    /// A knowledge base was begun in another language.
    #[error(
        "the documents of `{tenant}` are kept in language `{kept}` since the first ingest, not `{asked}`: leave --language out, or use another tenant"
    )]
    Language {
        /// Whose documents.
        tenant: String,
        /// The language that holds.
        kept: String,
        /// The language asked for.
        asked: String,
    },
    /// Another program has the port.
    #[error(
        "port {port} on {host} is taken by another program: stop that one, or choose another port with --port (0 takes a free one)"
    )]
    PortTaken {
        /// The address.
        host: String,
        /// The port.
        port: u16,
    },
    /// The address is not this machine's, or may not be listened on.
    #[error(
        "cannot listen on {host} port {port} ({source}): name an address of this machine with --host, and a port you may use with --port"
    )]
    Address {
        /// The address.
        host: String,
        /// The port.
        port: u16,
        /// The system's own error.
        source: io::Error,
    },
    /// The server cannot be put together, or failed while serving.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The chat graph gave no answer.
    #[error("there is no answer: {0}")]
    NoAnswer(#[source] ChatError),
    /// There is no such graph.
    #[error("there is no graph `{name}`: there are {known}")]
    NoGraph {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A sample document could not be ingested.
    #[error(
        "the sample document {name} cannot be read ({message}): `stepgraph doctor` says what is wrong with this machine"
    )]
    Sample {
        /// The file.
        name: &'static str,
        /// Why.
        message: String,
    },
    /// A file of the user's cannot be read.
    #[error("{} cannot be read ({source}): check the path and your right to read it", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The system's own error.
        source: io::Error,
    },
    /// A line of a `.jsonl` file is not what it should be.
    #[error("{} line {line} is not {expected} ({message})", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What should stand there.
        expected: &'static str,
        /// What the parser says.
        message: String,
    },
    /// Standard output or the terminal cannot be written.
    #[error("the output cannot be written ({0}): check where it is sent")]
    Output(#[source] io::Error),
    /// The process cannot get what it needs of the system.
    #[error("{what} is not to be had ({source}): close other programs and try again")]
    System {
        /// Threads, signals.
        what: &'static str,
        /// The system's own error.
        source: io::Error,
    },
}

impl From<ServerError> for CliError {
    fn from(error: ServerError) -> Self {
        Self::Serve(error.into())
    }
}

impl CliError {
    /// The exit code it ends the process with.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(EXIT_USAGE),
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }

    /// Whether there is nobody left to tell: the reader of our output has gone, as `| head` does.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}
