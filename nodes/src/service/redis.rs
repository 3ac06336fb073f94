//! A cache on a Redis that several processes share.
//!
//! One multiplexed connection, whose calls are pipelined and which comes back by itself. The tenant is part of every
//! key. What must be checked and changed in one step is one script.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use redis::{
    Client, RedisError, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use stepgraph::TenantId;
use uuid::Uuid;

use super::{COUNTERS, Cache, CacheState, Counted, Secret, ServiceError};

const SERVICE: &str = "redis";

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// How long an answer may take, a new connection included: a chat waits for it, and does without after that.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Most waiting between two tries to connect.
const RECONNECT_DELAY_MAX: Duration = Duration::from_millis(500);
/// Tries of one call to connect; the next call tries anew.
const RECONNECTS_MAX: usize = 2;
/// How long a generation is remembered without being renewed; after that there is a new one, and nothing old is found.
const GENERATION_TTL: Duration = Duration::from_hours(24);

/// Keys that one call of an erasure looks at, about; and calls of one erasure at most.
const SCAN_COUNT: u32 = 1_000;
const SCANS_MAX: u32 = 1_000_000;

/// Counts unless the cap is reached, in one step; a counter that was left without its end gets one. A cap below 0 is none.
const COUNT: &str = r"
local count = tonumber(redis.call('GET', KEYS[1]) or '0')
local left = redis.call('PTTL', KEYS[1])
local cap = tonumber(ARGV[2])
local accepted = 0
if cap < 0 or count < cap then
  count = redis.call('INCR', KEYS[1])
  accepted = 1
end
if left < 0 then
  left = tonumber(ARGV[1])
  if count > 0 then redis.call('PEXPIRE', KEYS[1], left) end
end
return {count, left, accepted}
";

/// The generation there is, else the offered one.
const GENERATION: &str = r"
local known = redis.call('GET', KEYS[1])
if known then return known end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
";

/// [`Cache`] over a Redis server, 6 or newer. Clones share the connection.
///
/// ```no_run
/// use stepgraph_nodes::service::{Secret, redis::RedisCache};
/// # fn open() -> Result<(), stepgraph_nodes::service::ServiceError> {
/// let cache = RedisCache::new(&Secret::new("redis://localhost/"))?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisCache {
    connection: ConnectionManager,
    count: Script,
    generation: Script,
}

impl fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCache").finish_non_exhaustive()
    }
}

impl RedisCache {
    /// A cache on the server at this address, which need not be there yet: it is connected to by the first call. Called
    /// inside a Tokio runtime.
    pub fn new(address: &Secret) -> Result<Self, ServiceError> {
        super::tls::install();
        let refused = |error: RedisError| ServiceError::Refused {
            service: SERVICE,
            message: format!("its address cannot be used ({error}): write it as redis://host:6379/"),
        };
        let client = Client::open(address.expose()).map_err(refused)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_LIMIT))
            .set_response_timeout(Some(ANSWER_LIMIT))
            .set_max_delay(RECONNECT_DELAY_MAX)
            .set_number_of_retries(RECONNECTS_MAX);
        Ok(Self {
            connection: ConnectionManager::new_lazy_with_config(client, config).map_err(refused)?,
            count: Script::new(COUNT),
            generation: Script::new(GENERATION),
        })
    }

    async fn limited<T>(&self, call: impl Future<Output = Result<T, RedisError>>) -> Result<T, ServiceError> {
        let answered = tokio::time::timeout(ANSWER_LIMIT, call).await;
        let answered = answered.map_err(|_| ServiceError::Timeout {
            service: SERVICE,
            limit: ANSWER_LIMIT,
        })?;
        answered.map_err(failed)
    }
}

#[async_trait]
impl Cache for RedisCache {
    async fn get(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, ServiceError> {
        let mut connection = self.connection.clone();
        let mut get = redis::cmd("GET");
        get.arg(value_key(tenant, key));
        self.limited(get.query_async(&mut connection)).await
    }

    async fn put(&self, tenant: &TenantId, key: &str, value: Vec<u8>, ttl: Duration) -> Result<(), ServiceError> {
        let mut connection = self.connection.clone();
        let mut set = redis::cmd("SET");
        set.arg(value_key(tenant, key)).arg(value).arg("PX").arg(millis(ttl));
        self.limited(set.query_async(&mut connection)).await
    }

    async fn count(
        &self,
        tenant: &TenantId,
        key: &str,
        ttl: Duration,
        cap: Option<u64>,
    ) -> Result<Counted, ServiceError> {
        let mut connection = self.connection.clone();
        let mut script = self.count.key(counter_key(tenant, key));
        script.arg(millis(ttl));
        script.arg(cap.map_or(-1, |cap| i64::try_from(cap).unwrap_or(i64::MAX)));
        let (count, left, accepted): (u64, u64, u8) = self.limited(script.invoke_async(&mut connection)).await?;
        Ok(Counted {
            count,
            expires_in: Duration::from_millis(left),
            accepted: accepted == 1,
            alone: false,
        })
    }

    async fn generation(&self, tenant: &TenantId) -> Result<Uuid, ServiceError> {
        let mut connection = self.connection.clone();
        let mut script = self.generation.key(generation_key(tenant));
        script.arg(Uuid::new_v4().to_string()).arg(millis(GENERATION_TTL));
        let known: String = self.limited(script.invoke_async(&mut connection)).await?;
        known.parse().map_err(|_| ServiceError::Corrupt {
            service: SERVICE,
            message: format!("the generation `{known}` of a tenant: delete the keys stepgraph:generation:*"),
        })
    }

    async fn renew(&self, tenant: &TenantId) -> Result<(), ServiceError> {
        let mut connection = self.connection.clone();
        let mut set = redis::cmd("SET");
        set.arg(generation_key(tenant)).arg(Uuid::new_v4().to_string());
        set.arg("PX").arg(millis(GENERATION_TTL));
        self.limited(set.query_async(&mut connection)).await
    }

    /// Looks through all keys there are, without holding the server up.
    async fn erase(&self, tenant: &TenantId) -> Result<(), ServiceError> {
        let pattern = format!("*:{}*", literal(&escaped(tenant)));
        let mut cursor = 0_u64;
        for _ in 0..SCANS_MAX {
            let mut connection = self.connection.clone();
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_COUNT);
            let (next, keys): (u64, Vec<Vec<u8>>) = self.limited(scan.query_async(&mut connection)).await?;
            let of_tenant = |key: &Vec<u8>| std::str::from_utf8(key).is_ok_and(|key| is_of(tenant, key));
            let keys: Vec<Vec<u8>> = keys.into_iter().filter(of_tenant).collect();
            if !keys.is_empty() {
                let mut unlink = redis::cmd("UNLINK");
                unlink.arg(keys);
                self.limited(unlink.query_async::<()>(&mut connection)).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
        Err(ServiceError::Refused {
            service: SERVICE,
            message: format!(
                "{SCANS_MAX} times {SCAN_COUNT} keys were looked through, and there are more: give this program a \
                 database of its own by REDIS_URL"
            ),
        })
    }

    async fn state(&self) -> CacheState {
        let mut connection = self.connection.clone();
        match self
            .limited(redis::cmd("PING").query_async::<String>(&mut connection))
            .await
        {
            Ok(_) => CacheState::Answering,
            Err(error) => {
                tracing::warn!(code = error.code(), %error, "redis does not answer");
                CacheState::Away
            }
        }
    }
}

fn failed(error: RedisError) -> ServiceError {
    if error.is_timeout() {
        return ServiceError::Timeout {
            service: SERVICE,
            limit: ANSWER_LIMIT,
        };
    }
    if error.kind() == redis::ErrorKind::UnexpectedReturnType {
        return ServiceError::Corrupt {
            service: SERVICE,
            message: error.to_string(),
        };
    }
    ServiceError::Unavailable {
        service: SERVICE,
        message: format!("{error}; look at the server that REDIS_URL names"),
        source: Some(Box::new(error)),
    }
}

/// A tenant inside a key: no tenant's keys are those of another, whatever signs its name has.
fn escaped(tenant: &TenantId) -> String {
    tenant.as_str().replace('%', "%25").replace(':', "%3A")
}

fn value_key(tenant: &TenantId, key: &str) -> String {
    format!("stepgraph:value:{}:{key}", escaped(tenant))
}

fn generation_key(tenant: &TenantId) -> String {
    format!("stepgraph:generation:{}", escaped(tenant))
}

/// `rate_limit:482` of a tenant is `rate_limit:{tenant}:482`, where others that share the database look for it.
fn counter_key(tenant: &TenantId, key: &str) -> String {
    match key.split_once(':') {
        Some((name, rest)) => format!("{name}:{}:{rest}", escaped(tenant)),
        None => format!("{key}:{}", escaped(tenant)),
    }
}

/// Whether a key is one of ours and of this tenant.
fn is_of(tenant: &TenantId, key: &str) -> bool {
    key == generation_key(tenant)
        || key.starts_with(&value_key(tenant, ""))
        || COUNTERS
            .iter()
            .any(|name| key.starts_with(&counter_key(tenant, &format!("{name}:"))))
}

/// A text inside a pattern, where it stands for itself.
fn literal(text: &str) -> String {
    let mut literal = String::with_capacity(text.len());
    for sign in text.chars() {
        if matches!(sign, '*' | '?' | '[' | ']' | '^' | '-' | '\\') {
            literal.push('\\');
        }
        literal.push(sign);
    }
    literal
}

/// Redis takes no 0.
fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis())
        .unwrap_or(u64::MAX)
        .clamp(1, u64::MAX / 2_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_of_a_tenant_is_that_of_another() {
        let tenant = |id: &str| TenantId::authenticated(id).unwrap();
        assert_eq!(counter_key(&tenant("acme"), "rate_limit:482"), "rate_limit:acme:482");
        for (one, other) in [(("a:1", "n:2"), ("a", "n:1:2")), (("a%3A1", "n:2"), ("a:1", "n:2"))] {
            assert_ne!(
                counter_key(&tenant(one.0), one.1),
                counter_key(&tenant(other.0), other.1)
            );
            assert_ne!(value_key(&tenant(one.0), one.1), value_key(&tenant(other.0), other.1));
        }
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_refused_with_the_form_it_should_have() {
        let error = RedisCache::new(&Secret::new("localhost")).unwrap_err();
        assert!(error.to_string().contains("redis://host:6379/"), "{error}");
    }
}
