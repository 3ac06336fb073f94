//! The scripts: each runs on the server from its first line to its last with nobody in between.

use std::sync::LazyLock;

use redis::{RedisResult, Script, ScriptInvocation, aio::ConnectionManager};
use stepgraph::ThreadKey;

macro_rules! scripts {
    ($($name:ident = $file:literal),* $(,)?) => { $(
        pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!(include_str!("scripts/names.lua"), include_str!($file))));
        )*
        const ALL: &[&LazyLock<Script>] = &[$(&$name),*];
    };
}

scripts! {
    ACKNOWLEDGE = "scripts/acknowledge.lua",
    BRANCH = "scripts/branch.lua",
    BRANCHES = "scripts/branches.lua",
    CLAIM = "scripts/claim.lua",
    COMMIT = "scripts/commit.lua",
    DELETE = "scripts/delete.lua",
    GET = "scripts/get.lua",
    LIST = "scripts/list.lua",
    OUTBOX = "scripts/outbox.lua",
    TAG = "scripts/tag.lua",
    TAGS = "scripts/tags.lua",
    THIN = "scripts/thin.lua",
    VERSION = "scripts/version.lua",
}

/// Gives the server all scripts, so that calls can name them. What a server has forgotten since is sent again by the call
/// that finds it missing.
pub(super) async fn load(connection: &mut ConnectionManager) -> RedisResult<()> {
    for script in ALL {
        script.load_async(connection).await?;
    }
    Ok(())
}

/// A call with its first three values: the prefix of all keys, and the thread's full name.
pub(super) fn about<'s>(script: &'s Script, prefix: &str, key: &ThreadKey) -> ScriptInvocation<'s> {
    let mut call = script.prepare_invoke();
    call.arg(prefix).arg(root(key)).arg(key.namespace.as_str());
    call
}

/// A call about no thread.
pub(super) fn about_none<'s>(script: &'s Script, prefix: &str) -> ScriptInvocation<'s> {
    let mut call = script.prepare_invoke();
    call.arg(prefix).arg("").arg("");
    call
}

/// The name of a thread with its tenant's before it. Neither may hold a slash.
pub(super) fn root(key: &ThreadKey) -> String {
    format!("{}/{}", key.tenant.as_str(), key.thread.as_str())
}
