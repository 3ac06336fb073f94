//! Checkpoints in Redis.

mod code;
mod deletion;
mod failure;
mod options;
mod promise;
mod script;
mod thinning;

use async_trait::async_trait;
use redis::{AsyncTypedCommands as _, Client, FromRedisValue, ScriptInvocation, Value, aio::ConnectionManager};
use stepgraph::{
    CheckpointError, Checkpointer, InvalidId, Namespace, TenantId, ThreadId, ThreadKey,
    checkpoint::{
        At, Branch, Checkpoint, CheckpointInfo, Commit, Epoch, OutboxMessage, Page, Payload, RunMark, Seq,
        StoreDurability, Tag, Thinning,
    },
};
use uuid::Uuid;

use self::deletion::Deletion;
pub use self::options::RedisOptions;
use self::script::{about, about_none, root};
use crate::{
    row::{corrupt, names, no_checkpoint, unavailable},
    value::{
        Keeping,
        rows::{Kept, KeptPayload, Shelf},
    },
};

/// Of the layout of the keys. A server that holds a later one is refused.
const VERSION: u32 = 4;
/// How often a claim waits for the end of a deletion that others begin again.
const CLAIMS_MAX: u32 = 16;
/// How many messages of threads that are being deleted one look at an outbox passes over.
const PASSED_OVER_MAX: u32 = 10_000;

/// Keeps checkpoints in Redis (6 or later): each commit is one script, which the server runs whole and alone, and one way to
/// it and back. All calls share one connection, which is made again when it is lost; a call that was on it is made once more,
/// and if the first had reached the server after all, that is seen and counts as done.
///
/// What a finished commit survives is up to the server's settings, which are looked at once, when the store is opened:
///
/// | server | survives | runs of `Durability::Sync` |
/// |---|---|---|
/// | `appendonly yes`, `appendfsync always`, `no-appendfsync-on-rewrite no` | a crash of its machine | yes |
/// | anything less, or a server that does not say | a crash of this process; one of the server takes the newest commits, and without `appendonly` all since its last dump | refused |
///
/// A server that throws keys away when it is full (`maxmemory-policy` other than `noeviction`), a replica and a cluster are
/// refused.
///
/// ```no_run
/// # use stepgraph_checkpoint::Redis;
/// # async fn open() -> Result<(), stepgraph::CheckpointError> {
/// let store = Redis::open("redis://localhost/").await?;
/// # Ok(()) }
/// ```
pub struct Redis {
    connection: ConnectionManager,
    prefix: String,
    durability: StoreDurability,
    at_once_max: u32,
    keeping: Keeping,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis")
            .field("prefix", &self.prefix)
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

/// Makes a call, and once more if its connection was lost on the way.
macro_rules! steady {
    ($connection:ident = $store:expr => $call:expr) => {{
        let mut $connection = $store.connection.clone();
        match $call.await.map_err(failure::anywhere) {
            Err(error) if failure::is_lost(&error) => $call.await.map_err(failure::anywhere),
            outcome => outcome,
        }
    }};
}
use steady;

impl Redis {
    /// Connects to the server of a URL.
    pub async fn open(url: &str) -> Result<Self, CheckpointError> {
        Self::open_with(url, &RedisOptions::default()).await
    }

    /// The same, with settings of your own.
    pub async fn open_with(url: &str, options: &RedisOptions) -> Result<Self, CheckpointError> {
        // The driver's own message could show the URL, and with it the password.
        let client = Client::open(url).map_err(|_| {
            let message = "the address is no URL that this build can use: write `redis://USER:PASSWORD@HOST/DATABASE`, \
                           or `rediss://..` with the feature `tls`";
            unavailable(message.to_owned(), None)
        })?;
        let connection = ConnectionManager::new_with_config(client, options.connection()).await;
        Self::new_with(connection.map_err(failure::anywhere)?, options).await
    }

    /// Works on a connection that others use too. All keys begin with the prefix.
    pub async fn new(connection: ConnectionManager, prefix: impl Into<String>) -> Result<Self, CheckpointError> {
        Self::new_with(connection, &RedisOptions::default().prefix(prefix)).await
    }

    async fn new_with(mut connection: ConnectionManager, options: &RedisOptions) -> Result<Self, CheckpointError> {
        let durability = promise::look(&mut connection).await?;
        script::load(&mut connection).await.map_err(failure::anywhere)?;
        let store = Self {
            connection,
            prefix: options.prefix_text().to_owned(),
            durability,
            at_once_max: options.at_once_max_number(),
            keeping: keeping(options.values_from_bytes()),
        };
        let mut call = about_none(&script::VERSION, &store.prefix);
        let found: u32 = store.call(call.arg(VERSION)).await?;
        if found != VERSION {
            let message = format!(
                "the server has keys of another release (version {found}, not {VERSION}); run that release, or choose another prefix"
            );
            return Err(unavailable(message, None));
        }
        store.clear_graves().await?;
        Ok(store)
    }

    async fn call<T: FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Result<T, CheckpointError> {
        steady!(connection = self => call.invoke_async(&mut connection))
    }

    fn key(&self, kind: &str, rest: &str) -> String {
        format!("{}{kind}:{rest}", self.prefix)
    }

    fn commit_call<'s>(
        &self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        (commit, kept): (&Commit, Option<&KeptPayload>),
        again: bool,
    ) -> Result<ScriptInvocation<'s>, CheckpointError> {
        let new = commit.checkpoint.as_ref();
        let mut call = about(&script::COMMIT, &self.prefix, key);
        call.arg(epoch.0).arg(number(expected)).arg(number(commit.parent));
        match new.filter(|_| again) {
            Some(new) => call.arg(new.id.as_bytes().as_slice()),
            None => call.arg(""),
        };
        call.arg(commit.records.len()).arg(commit.outbox.len());
        call.arg(u8::from(commit.run.is_some())).arg(u8::from(new.is_some()));
        if let Some(run) = &commit.run {
            call.arg(run.run.as_uuid().as_bytes().as_slice())
                .arg(&*run.graph)
                .arg(names::status(run.status));
            call.arg(u8::from(run.error.is_some()))
                .arg(run.error.as_deref().unwrap_or_default());
        }
        if let (Some(new), Some(kept)) = (new, kept) {
            let kind = match new.payload {
                Payload::Snapshot(_) => "S",
                Payload::Delta(_) => "D",
            };
            call.arg(new.id.as_bytes().as_slice()).arg(kind);
            call.arg(code::info_to_bytes(new)?).arg(&*kept.bytes);
            with_values(&mut call, kept);
        }
        for record in &commit.records {
            call.arg(code::record_name(record)).arg(&*record.body);
        }
        for message in &commit.outbox {
            call.arg(message.id.as_bytes().as_slice())
                .arg(&message.topic)
                .arg(&message.body);
        }
        Ok(call)
    }
}

const fn keeping(from: usize) -> Keeping {
    Keeping {
        from,
        packed_from: from,
    }
}

/// How many large values a payload names, or nothing where it is none of stubs; then each with its name.
fn with_values<B>(call: &mut ScriptInvocation<'_>, kept: &Kept<B>) {
    let Some(values) = &kept.values else {
        call.arg("");
        return;
    };
    call.arg(values.len());
    for value in values {
        call.arg(value.name.as_slice()).arg(&*value.body);
    }
}

/// A number, or nothing.
fn number(seq: Option<Seq>) -> String {
    seq.map(|seq| seq.0.to_string()).unwrap_or_default()
}

fn seq(key: &ThreadKey, text: &str) -> Result<Option<Seq>, CheckpointError> {
    if text.is_empty() {
        return Ok(None);
    }
    let seq = text
        .parse()
        .map_err(|_| corrupt(key, format!("a checkpoint of the number `{text}`")))?;
    Ok(Some(Seq(seq)))
}

/// What a script that writes has to say: a word, and a number that it is about.
fn outcome(key: &ThreadKey, expected: Option<Seq>, said: &[String]) -> Result<Option<Seq>, CheckpointError> {
    let found = said.get(1).map_or(Ok(None), |text| seq(key, text))?;
    match said.first().map(String::as_str) {
        Some("ok") => Ok(found),
        Some("fenced") => Err(CheckpointError::Fenced { key: key.clone() }),
        Some("used") => Err(CheckpointError::InUse {
            key: key.clone(),
            seq: found.unwrap_or(Seq(0)),
        }),
        Some("missing") => Err(no_checkpoint(key, found.unwrap_or(Seq(0)))),
        _ => Err(CheckpointError::Conflict {
            key: key.clone(),
            expected,
            found,
        }),
    }
}

#[async_trait]
impl Checkpointer for Redis {
    fn durability(&self) -> StoreDurability {
        self.durability
    }

    async fn claim(&self, key: &ThreadKey) -> Result<Epoch, CheckpointError> {
        for _ in 0..CLAIMS_MAX {
            let said: String = self.call(&about(&script::CLAIM, &self.prefix, key)).await?;
            if !said.is_empty() {
                let epoch = said.parse().map_err(|_| corrupt(key, format!("an epoch `{said}`")))?;
                return Ok(Epoch(epoch));
            }
            // Whoever began to delete the thread may have died over it.
            self.take_out(key, Deletion::Clear).await?;
        }
        let message = "the thread is deleted again and again; claim it once that has ended".to_owned();
        Err(unavailable(message, None))
    }

    async fn commit(
        &self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        commit: Commit,
    ) -> Result<Option<Seq>, CheckpointError> {
        let mut connection = self.connection.clone();
        let new = commit.checkpoint.as_ref();
        let kept = new.map(|new| KeptPayload::of(new.payload.bytes(), self.keeping));
        let what = (&commit, kept.as_ref());
        let call = self.commit_call(key, epoch, expected, what, false)?;
        let first = call.invoke_async(&mut connection).await.map_err(failure::anywhere);
        let said: Vec<String> = match first {
            Err(error) if failure::is_lost(&error) => {
                let call = self.commit_call(key, epoch, expected, what, true)?;
                call.invoke_async(&mut connection).await.map_err(failure::anywhere)?
            }
            first => first?,
        };
        outcome(key, expected, &said)
    }

    async fn get(&self, key: &ThreadKey, at: At) -> Result<Option<Checkpoint>, CheckpointError> {
        let mut call = about(&script::GET, &self.prefix, key);
        match at {
            At::Head => call.arg("head").arg(""),
            At::Seq(seq) => call.arg("seq").arg(seq.0),
            At::Id(id) => call.arg("id").arg(id.as_bytes().as_slice()),
        };
        let values: Vec<Value> = self.call(&call).await?;
        let mut values = values.into_iter();
        let mut next = || values.next().unwrap_or(Value::Nil);
        let word: String = read(key, next())?;
        match word.as_str() {
            "none" => return Ok(None),
            "found" => {}
            _ => return Err(corrupt(key, "a delta without the checkpoint before it")),
        }
        let info: Vec<u8> = read(key, next())?;
        let (run, graph, status): (Vec<u8>, String, String) =
            (read(key, next())?, read(key, next())?, read(key, next())?);
        let (failed, error): (bool, String) = (read(key, next())?, read(key, next())?);
        let parts: Vec<(u8, Vec<u8>)> = read(key, next())?;
        let named: Vec<(Vec<u8>, Vec<u8>)> = read(key, next())?;
        let records = named.iter().map(|(name, body)| code::record_of_name(key, name, body));
        let mut records: Vec<_> = records.collect::<Result<_, _>>()?;
        records.sort_unstable_by(|a, b| (&a.task, a.kind, &a.key).cmp(&(&b.task, b.kind, &b.key)));
        let values: Vec<(Vec<u8>, Vec<u8>)> = read(key, next())?;
        let mut large = Shelf::default();
        for (name, body) in &values {
            large.put(key, name, body)?;
        }
        let part = |(is_stub, bytes): (u8, Vec<u8>)| match is_stub {
            0 => Ok(bytes.into()),
            _ => large.joined(key, &bytes),
        };
        let parts = parts.into_iter().rev().map(part).collect::<Result<_, _>>()?;
        let mark = |run: Uuid| {
            Ok(RunMark {
                run: run.into(),
                graph: graph.into(),
                status: names::status_named(&status)
                    .ok_or_else(|| corrupt(key, format!("a run of the unknown status `{status}`")))?,
                error: failed.then_some(error),
            })
        };
        Ok(Some(Checkpoint {
            info: code::info_of_member(key, &info)?,
            parts,
            records,
            run: code::id(&run).map(mark).transpose()?,
        }))
    }

    async fn list(&self, key: &ThreadKey, page: Page) -> Result<Vec<CheckpointInfo>, CheckpointError> {
        let before = page
            .before
            .map_or_else(|| "+inf".to_owned(), |before| format!("({}", before.0));
        let mut call = about(&script::LIST, &self.prefix, key);
        let members: Vec<Vec<u8>> = self.call(call.arg(before).arg(page.limit)).await?;
        members.iter().map(|member| code::info_of_member(key, member)).collect()
    }

    async fn branch(&self, key: &ThreadKey, epoch: Epoch, from: Seq, name: &str) -> Result<(), CheckpointError> {
        let mut call = about(&script::BRANCH, &self.prefix, key);
        let said: Vec<String> = self.call(call.arg(epoch.0).arg(from.0).arg(name)).await?;
        outcome(key, None, &said).map(drop)
    }

    async fn branches(&self, key: &ThreadKey) -> Result<Vec<Branch>, CheckpointError> {
        let mut stored: Vec<(String, String)> = self.call(&about(&script::BRANCHES, &self.prefix, key)).await?;
        // The branch that the thread is on stands last, and may stand among the others too, where it was left once.
        let Some((current, at)) = stored.pop() else {
            return Ok(Vec::new());
        };
        stored.retain(|(name, _)| *name != current);
        let branch = |(name, head): (String, String), current| {
            let head =
                seq(key, &head)?.ok_or_else(|| corrupt(key, format!("a branch `{name}` without a checkpoint")))?;
            Ok(Branch { name, head, current })
        };
        let others = stored.into_iter().map(|stored| branch(stored, false));
        let mut all: Vec<Branch> = others.collect::<Result<_, CheckpointError>>()?;
        all.push(branch((current, at), true)?);
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    async fn inner(&self, key: &ThreadKey, after: &Namespace, limit: u32) -> Result<Vec<Namespace>, CheckpointError> {
        let (inside, after) = (self.key("inside", &root(key)), format!("({}", after.as_str()));
        let limit = limit.try_into().unwrap_or(isize::MAX);
        let names = steady!(connection = self => connection.zrangebylex_limit(&inside, &after, "+", 0, limit))?;
        Ok(names.iter().map(|name| Namespace::from_stored(name)).collect())
    }

    async fn delete(&self, key: &ThreadKey) -> Result<(), CheckpointError> {
        self.take_out(key, Deletion::Bury).await
    }

    async fn unfinished(&self, graph: &str, limit: u32) -> Result<Vec<ThreadKey>, CheckpointError> {
        let running = self.key("running", graph);
        let members: Vec<Vec<u8>> = steady!(connection = self => redis::cmd("ZRANGEBYLEX")
            .arg(&running)
            .arg("-")
            .arg("+")
            .arg("LIMIT")
            .arg(0)
            .arg(limit)
            .query_async(&mut connection))?;
        members
            .iter()
            .map(|member| Ok(code::id_and_thread(member)?.1))
            .collect()
    }

    async fn outbox(&self, topic: &str, limit: u32) -> Result<Vec<(ThreadKey, OutboxMessage)>, CheckpointError> {
        let mut call = about_none(&script::OUTBOX, &self.prefix);
        let found: Vec<(Vec<u8>, Vec<u8>)> = match limit {
            0 => Vec::new(),
            limit => self.call(call.arg(topic).arg(limit).arg(PASSED_OVER_MAX)).await?,
        };
        let message = |(member, body): (Vec<u8>, Vec<u8>)| {
            let (id, key) = code::id_and_thread(&member)?;
            let topic = topic.to_owned();
            Ok((key, OutboxMessage { id, topic, body }))
        };
        found.into_iter().map(message).collect()
    }

    async fn acknowledge(&self, key: &ThreadKey, message: Uuid) -> Result<(), CheckpointError> {
        let mut call = about(&script::ACKNOWLEDGE, &self.prefix, key);
        let _: String = self.call(call.arg(message.as_bytes().as_slice())).await?;
        Ok(())
    }

    async fn tag(&self, key: &ThreadKey, name: &str, at: Option<Seq>) -> Result<(), CheckpointError> {
        let mut call = about(&script::TAG, &self.prefix, key);
        let said: Vec<String> = self.call(call.arg(name).arg(number(at))).await?;
        outcome(key, None, &said).map(drop)
    }

    async fn tags(&self, key: &ThreadKey) -> Result<Vec<Tag>, CheckpointError> {
        let stored: Vec<(String, String)> = self.call(&about(&script::TAGS, &self.prefix, key)).await?;
        let tag = |(name, at): (String, String)| {
            let seq = seq(key, &at)?.ok_or_else(|| corrupt(key, format!("a tag `{name}` without a checkpoint")))?;
            Ok(Tag { name, seq })
        };
        let mut tags: Vec<Tag> = stored.into_iter().map(tag).collect::<Result<_, CheckpointError>>()?;
        tags.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tags)
    }

    async fn threads(
        &self,
        tenant: &TenantId,
        after: Option<&ThreadId>,
        limit: u32,
    ) -> Result<Vec<ThreadId>, CheckpointError> {
        let threads = self.key("threads", tenant.as_str());
        let after = after.map_or_else(|| "-".to_owned(), |after| format!("({}", after.as_str()));
        let limit = limit.try_into().unwrap_or(isize::MAX);
        let names = steady!(connection = self => connection.zrangebylex_limit(&threads, &after, "+", 0, limit))?;
        let unreadable = |error: InvalidId| unavailable(error.to_string(), Some(Box::new(error)));
        names
            .into_iter()
            .map(|name| ThreadId::new(name).map_err(unreadable))
            .collect()
    }

    async fn erase(&self, tenant: &TenantId) -> Result<(), CheckpointError> {
        self.erase_all(tenant).await
    }

    async fn thin(&self, key: &ThreadKey, thinning: Thinning) -> Result<(), CheckpointError> {
        self.thin_in_pages(key, thinning).await
    }
}

fn read<T: FromRedisValue>(key: &ThreadKey, value: Value) -> Result<T, CheckpointError> {
    T::from_redis_value(value).map_err(|error| corrupt(key, error.to_string()))
}
