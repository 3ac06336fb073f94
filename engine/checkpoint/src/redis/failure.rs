//! What Redis says, in the words of [`CheckpointError`].

use redis::{ErrorKind, RedisError, ServerErrorKind};
use stepgraph::CheckpointError;

use crate::row::unavailable;

/// Codes that the driver has no name for.
const OUT_OF_MEMORY: &str = "OOM";
const CANNOT_PERSIST: &str = "MISCONF";
const NOT_AUTHENTICATED: &str = "NOAUTH";
const BUSY: &str = "BUSY";

/// Whether the connection was lost, so that nobody knows what became of the call.
pub(super) fn is_lost(error: &CheckpointError) -> bool {
    let CheckpointError::Unavailable {
        source: Some(source), ..
    } = error
    else {
        return false;
    };
    source
        .downcast_ref::<RedisError>()
        .is_some_and(RedisError::is_connection_dropped)
}

pub(super) fn anywhere(error: RedisError) -> CheckpointError {
    let text = error.to_string();
    // A refusal inside a script comes with the script's name before the code.
    let says = |code: &str| error.code() == Some(code) || text.contains(&format!("{code} "));
    if says(OUT_OF_MEMORY) || says(CANNOT_PERSIST) {
        return CheckpointError::Full { message: text };
    }
    let remedy = match error.kind() {
        ErrorKind::Server(ServerErrorKind::ReadOnly) => "connect to the primary server",
        ErrorKind::Server(ServerErrorKind::BusyLoading) => "the server is reading its data back: try again",
        ErrorKind::Server(ServerErrorKind::NoPerm) => {
            "let the user run scripts, and all commands on keys with the prefix"
        }
        ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::CrossSlot | ServerErrorKind::ClusterDown) => {
            "a cluster cannot keep checkpoints: use a single server, with replicas if you like"
        }
        ErrorKind::AuthenticationFailed => "correct the user and the password in the URL",
        _ if says(NOT_AUTHENTICATED) => "put the user and the password into the URL",
        _ if says(BUSY) => "a script of somebody else keeps the server busy: try again",
        _ if error.is_timeout() => "the server was busy for too long: raise `answer_timeout`, or see what keeps it",
        _ if error.is_connection_refusal() => "the server does not answer: look after the server, or correct the URL",
        _ => "try again",
    };
    unavailable(format!("{text}; {remedy}"), Some(Box::new(error)))
}
