//! What a server promises of a finished commit, and which server a store cannot be built on.

use std::collections::HashMap;

use redis::aio::ConnectionManager;
use stepgraph::{CheckpointError, checkpoint::StoreDurability};

use super::failure;
use crate::row::unavailable;

/// Looks at the server's settings.
pub(super) async fn look(connection: &mut ConnectionManager) -> Result<StoreDurability, CheckpointError> {
    let info: String = redis::cmd("INFO")
        .query_async(connection)
        .await
        .map_err(failure::anywhere)?;
    let info: HashMap<&str, &str> = info
        .lines()
        .filter_map(|line| line.trim_end().split_once(':'))
        .collect();
    let is = |name: &str, value: &str| info.get(name).is_some_and(|found| *found == value);
    let refuse = |message: &str| Err(unavailable(message.to_owned(), None));
    if is("cluster_enabled", "1") {
        return refuse("a cluster cannot keep checkpoints: use a single server, with replicas if you like");
    }
    if is("role", "slave") {
        return refuse("the server is a replica: connect to the primary server");
    }
    if !is("maxmemory", "0") && !is("maxmemory_policy", "noeviction") {
        return refuse(
            "the server throws keys away when it is full, and with them parts of threads: set `maxmemory-policy noeviction`",
        );
    }
    let keeps_a_log = is("aof_enabled", "1");
    if !keeps_a_log {
        tracing::warn!(
            "the Redis with the checkpoints has `appendonly no`: a crash of it takes all since its last dump"
        );
    }
    Ok(if keeps_a_log && waits_for_the_disk(connection).await? {
        StoreDurability::Machine
    } else {
        StoreDurability::Process
    })
}

/// Whether it answers only when the disk has what was written. Hosted servers often do not let their settings be read:
/// then nothing is promised.
async fn waits_for_the_disk(connection: &mut ConnectionManager) -> Result<bool, CheckpointError> {
    let mut read = redis::cmd("CONFIG");
    read.arg("GET").arg("*appendfsync*");
    let settings: Vec<(String, String)> = match read.query_async(connection).await {
        Ok(settings) => settings,
        Err(error) if error.is_io_error() => return Err(failure::anywhere(error)),
        Err(_) => return Ok(false),
    };
    let is = |name: &str, value: &str| settings.iter().any(|(found, set)| found == name && set == value);
    Ok(is("appendfsync", "always") && is("no-appendfsync-on-rewrite", "no"))
}
