//! Outside effects that are journaled: run once, recorded, given again.

use std::{fmt, future::Future};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Context, InFlight, NodeError, Retry, share};
use crate::{
    ask::Ask,
    checkpoint::{RecordKind, TaskRecord},
    run::encode_record,
};

/// What a second try of an effect can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffectClass {
    /// It changes nothing: try again freely.
    Read,
    /// It takes the stable key and acts once per key, however often it is tried.
    Idempotent,
    /// A second try may act twice: its intent is recorded first, and an unknown outcome is put to a person.
    Other,
}

/// The same for every try of one effect, different for every other: pass it to the service that acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An outside effect, for [`Context::once`].
#[must_use]
pub struct Effect<F> {
    class: EffectClass,
    make: F,
    retry: Retry,
}

impl Effect<()> {
    /// An effect that changes nothing.
    pub fn read<G: Fn() -> Fut, Fut>(make: G) -> Effect<impl Fn(IdempotencyKey) -> Fut> {
        Effect {
            class: EffectClass::Read,
            make: move |_| make(),
            retry: Retry::default(),
        }
    }

    /// An effect that acts once per key.
    pub fn idempotent<G: Fn(IdempotencyKey) -> Fut, Fut>(make: G) -> Effect<G> {
        Effect {
            class: EffectClass::Idempotent,
            make,
            retry: Retry::default(),
        }
    }

    /// An effect of which nobody knows what a second try would do.
    pub fn other<G: Fn() -> Fut, Fut>(make: G) -> Effect<impl Fn(IdempotencyKey) -> Fut> {
        Effect {
            class: EffectClass::Other,
            make: move |_| make(),
            retry: Retry::default(),
        }
    }
}

impl<F> Effect<F> {
    /// Tries again after retryable errors, inside this one call. They are never recorded.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }
}

impl<F> fmt::Debug for Effect<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Effect")
            .field("class", &self.class)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

/// What a person is asked when an effect was begun and nobody knows how it ended.
#[derive(Debug, Serialize)]
pub struct InDoubt {
    /// Key of the effect.
    pub effect: String,
}

/// What became of an effect in doubt.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InDoubtAnswer {
    /// It did not happen: run it.
    Retry,
    /// It happened, with this result.
    Done(Value),
    /// Give up: the node fails for good.
    Fail,
}

impl Ask for InDoubt {
    type Answer = InDoubtAnswer;
    const NAME: &'static str = "in_doubt";
}

/// The stored end of an effect.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Recorded<T> {
    Ok(T),
    Failed(String),
}

/// Whether an effect was begun without a known end.
#[derive(Serialize, Deserialize, Clone, Copy, Default)]
struct Intent {
    begun: bool,
    /// How often a person has said to try again: each doubt is a question of its own.
    retries: u32,
}

impl<F> Effect<F> {
    pub(crate) async fn run<E, T, Fut>(self, ctx: &Context<E>, key: &str) -> Result<T, NodeError>
    where
        E: Send + 'static,
        T: Serialize + DeserializeOwned + Send,
        F: Fn(IdempotencyKey) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, NodeError>> + Send,
    {
        ctx.task.refuse_late()?;
        ctx.task.beat();
        let journal = &ctx.task.run.journal;
        let task = ctx.task.id();
        if let Some(recorded) = journal.decode::<Recorded<T>>(&task, RecordKind::Effect, key)? {
            return match recorded {
                Recorded::Ok(value) => Ok(value),
                Recorded::Failed(message) => Err(NodeError::terminal(message)),
            };
        }
        let mut intent = journal
            .decode::<Intent>(&task, RecordKind::Intent, key)?
            .unwrap_or_default();
        if intent.begun {
            let name = match intent.retries {
                0 => format!("{}:{key}", InDoubt::NAME),
                again => format!("{}:{key}:{again}", InDoubt::NAME),
            };
            match ctx.ask_as(&name, InDoubt { effect: key.to_owned() })? {
                InDoubtAnswer::Retry => intent.retries += 1,
                InDoubtAnswer::Done(value) => {
                    let value = serde_json::from_value(value).map_err(NodeError::terminal)?;
                    return keep(ctx, key, Recorded::Ok(value)).await;
                }
                InDoubtAnswer::Fail => {
                    return keep(
                        ctx,
                        key,
                        Recorded::Failed(format!("effect `{key}` was given up while in doubt")),
                    )
                    .await;
                }
            }
        }
        self.attempt(ctx, key, intent.retries).await
    }

    async fn attempt<E, T, Fut>(&self, ctx: &Context<E>, key: &str, retries: u32) -> Result<T, NodeError>
    where
        E: Send + 'static,
        T: Serialize + Send,
        F: Fn(IdempotencyKey) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, NodeError>> + Send,
    {
        if let Some(calls) = &ctx.task.calls {
            calls.refuse_effect(key)?;
        }
        // Its key is made of the checkpoint that the step begins at: were that one lost, the effect could act twice.
        ctx.task.run.settled().await.map_err(NodeError::terminal)?;
        let stable = IdempotencyKey(ctx.uuid(&format!("once:{key}")).to_string());
        let mut rng = ctx.rng(key);
        for attempt in 1.. {
            // Held until the end is recorded: an effect that was waited for must not be in doubt afterwards.
            let in_flight = self.begin(ctx, key, retries).await?;
            let error = match (self.make)(stable.clone()).await {
                Ok(value) => return keep(ctx, key, Recorded::Ok(value)).await,
                Err(error) if error.is_retryable() => error,
                Err(error) => return keep(ctx, key, Recorded::Failed(error.to_string())).await,
            };
            if in_flight.is_some() {
                intend(ctx, key, Intent { begun: false, retries }).await?;
            }
            drop(in_flight);
            match self.retry.delay_after(attempt, &error, || share(&mut rng)) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(error),
            }
        }
        Err(NodeError::terminal("an effect ran out of attempts"))
    }

    /// Before an effect of class other, its intent is durable; and none begins in a run that was cancelled.
    async fn begin<E: Send + 'static>(
        &self,
        ctx: &Context<E>,
        key: &str,
        retries: u32,
    ) -> Result<Option<InFlight>, NodeError> {
        match self.class {
            EffectClass::Read | EffectClass::Idempotent => Ok(None),
            EffectClass::Other if ctx.is_cancelled() => Err(NodeError::cancelled()),
            EffectClass::Other => {
                let in_flight = InFlight::enter(&ctx.task);
                intend(ctx, key, Intent { begun: true, retries }).await?;
                Ok(Some(in_flight))
            }
        }
    }
}

async fn intend<E: Send + 'static>(ctx: &Context<E>, key: &str, intent: Intent) -> Result<(), NodeError> {
    ctx.task.refuse_late()?;
    let body = encode_record(&intent).map_err(NodeError::terminal)?;
    let record = TaskRecord {
        task: ctx.task.id(),
        kind: RecordKind::Intent,
        key: key.to_owned(),
        body,
    };
    ctx.task.commit(vec![record]).await
}

async fn keep<E: Send + 'static, T: Serialize + Send>(
    ctx: &Context<E>,
    key: &str,
    end: Recorded<T>,
) -> Result<T, NodeError> {
    // The effect has happened, but nobody waits for it any more: whoever tries it again brings the same key.
    ctx.task.refuse_late()?;
    let body = encode_record(&end).map_err(NodeError::terminal)?;
    ctx.task
        .commit(vec![TaskRecord {
            task: ctx.task.id(),
            kind: RecordKind::Effect,
            key: key.to_owned(),
            body,
        }])
        .await?;
    match end {
        Recorded::Ok(value) => Ok(value),
        Recorded::Failed(message) => Err(NodeError::terminal(message)),
    }
}
