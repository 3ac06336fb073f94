//! Posts JSON where the operator or a tenant wants to be told something.

use std::time::Duration;

use axum::http::HeaderMap;
use serde_json::Value;

use crate::guard::Guard;

/// How often one message is sent before it is given up.
const TRIES: u32 = 3;
/// How long one try may take.
const TRY_LIMIT: Duration = Duration::from_secs(5);
/// The wait before the second try; it doubles with each.
const BACK_OFF: Duration = Duration::from_millis(250);
/// Longest time that [`post`] takes, looking up the name included.
pub(crate) const POST_LIMIT: Duration = Duration::from_secs(35);

/// A message to a receiver.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    pub(crate) url: &'a str,
    pub(crate) headers: HeaderMap,
    pub(crate) body: &'a Value,
}

/// Sends until the receiver takes it, a few times at most; says whether it did.
pub(crate) async fn post(guard: &Guard, message: &Message<'_>) -> bool {
    let mut wait = BACK_OFF;
    for attempt in 1..=TRIES {
        match try_once(guard, message).await {
            Ok(()) => return true,
            Err(why) => tracing::warn!(%why, attempt, "a call-back failed"),
        }
        if attempt < TRIES {
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
    }
    false
}

/// The name is looked up for each try: the receiver may have moved.
async fn try_once(guard: &Guard, message: &Message<'_>) -> Result<(), String> {
    let allowed = guard.allow(message.url).await.map_err(|error| error.to_string())?;
    let request = allowed.client.post(allowed.url).timeout(TRY_LIMIT);
    let request = request.headers(message.headers.clone()).json(message.body);
    let answer = request.send().await.map_err(|error| error.without_url().to_string())?;
    if answer.status().is_success() {
        Ok(())
    } else {
        // A redirect, too, is no success: it is not followed.
        Err(format!("the receiver answered {}", answer.status()))
    }
}
