//! A chat model for tests and demos that does what the message says.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use stepgraph::TenantId;

use super::extractive::Extractive;
use crate::{
    service::{
        ChatDelta, ChatModel, ChatRequest, ChatStream, DocumentId, FinishReason, ModelName, Passage, Role,
        ServiceError, Usage,
    },
    tokens,
};

const SERVICE: &str = "scripted";

/// Longest wait that a message can ask for.
const WAIT_MAX: Duration = Duration::from_mins(10);

/// Most tokens that `drip` gives.
const DRIPS_MAX: u32 = 10_000;

/// Most ids that `flaky` remembers.
const FLAKY_IDS_MAX: usize = 100_000;

/// Longest piece of an answer, in characters.
const PIECE_CHARS_MAX: u64 = 7;

/// A model whose answers are written in the questions, so that a test can bring about any of its behaviours:
///
/// | message | behaviour |
/// |---|---|
/// | `say:<json string>` | answers exactly that string |
/// | `fail:<CODE>` | fails with that code before the first token |
/// | `failmid:<CODE>` | fails with that code after the first token |
/// | `slow:<ms>:<text>` | waits that long before the first token, then answers the text |
/// | `drip:<ms>:<n>` | n tokens, one each so many milliseconds |
/// | `flaky:<CODE>:<id>` | fails once per id with the code, then answers `recovered <id>` |
/// | `src:` | answers `see sources`, with the documents `src-doc-1` and `src-doc-2` as sources |
/// | `echo-prompt:` | answers with the whole prompt it was given |
/// | anything else | answers as [`Extractive`] does |
///
/// It is offered only when asked for and never stands in for a model that lacks its key. It gives what it is told to, whatever
/// `completion_tokens_max` says.
#[derive(Debug)]
pub struct Scripted {
    seed: u64,
    failed: Mutex<HashSet<(TenantId, String)>>,
}

impl Scripted {
    /// A model that cuts its answers into tokens as `seed` says: the same seed, the same cuts.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            failed: Mutex::default(),
        }
    }

    /// Whether this is the first time that `flaky` hears the id from this tenant.
    fn fails_first(&self, tenant: &TenantId, id: &str) -> Result<bool, ServiceError> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.len() >= FLAKY_IDS_MAX {
            return Err(refused(format!(
                "`flaky:` remembers {FLAKY_IDS_MAX} ids at most: start anew"
            )));
        }
        Ok(failed.insert((tenant.clone(), id.to_owned())))
    }

    /// The answer in pieces whose bounds depend on seed and text alone.
    fn pieces(&self, text: &str) -> Vec<String> {
        let mut pieces = Vec::new();
        let mut rest = text.chars();
        let mut cut = DefaultHasher::new();
        (self.seed, text).hash(&mut cut);
        loop {
            cut.write_u64(self.seed);
            let length = usize::try_from(1 + cut.finish() % PIECE_CHARS_MAX).unwrap_or(1);
            let piece: String = rest.by_ref().take(length).collect();
            if piece.is_empty() {
                return pieces;
            }
            pieces.push(piece);
        }
    }

    fn answer(&self, request: &ChatRequest, text: &str) -> Vec<ChatDelta> {
        let finish = finish(request, text);
        self.pieces(text)
            .into_iter()
            .map(ChatDelta::Text)
            .chain([finish])
            .collect()
    }
}

#[async_trait]
impl ChatModel for Scripted {
    fn provider(&self) -> &'static str {
        SERVICE
    }

    async fn chat(&self, tenant: &TenantId, request: ChatRequest) -> Result<ChatStream, ServiceError> {
        let script = Script::parse(&request.question)?;
        let deltas = match script {
            Script::Say(text) => self.answer(&request, &text),
            Script::Fail(code) => return Err(ServiceError::Scripted { code }),
            Script::FailMidway(code) => {
                let beginning = Ok(ChatDelta::Text("so far ".to_owned()));
                return Ok(Box::pin(stream::iter([
                    beginning,
                    Err(ServiceError::Scripted { code }),
                ])));
            }
            Script::Slow(wait, text) => {
                let deltas = stream::iter(self.answer(&request, &text).into_iter().map(Ok));
                return Ok(Box::pin(
                    stream::once(tokio::time::sleep(wait)).flat_map(move |()| deltas.clone()),
                ));
            }
            Script::Drip(wait, count) => return Ok(drip(&request, wait, count)),
            Script::Flaky(code, id) if self.fails_first(tenant, &id)? => return Err(ServiceError::Scripted { code }),
            Script::Flaky(_, id) => self.answer(&request, &format!("recovered {id}")),
            Script::Sources => {
                let mut deltas = self.answer(&request, "see sources");
                deltas.insert(0, ChatDelta::Cited(["src-doc-1", "src-doc-2"].map(source).into()));
                deltas
            }
            Script::EchoPrompt => self.answer(&request, &prompt_text(&request)),
            Script::None => Extractive::extract(request, SERVICE).await?.deltas(),
        };
        Ok(Box::pin(stream::iter(deltas.into_iter().map(Ok))))
    }

    fn reads_prompts(&self, _model: &ModelName) -> bool {
        false
    }

    async fn ping(&self) -> Result<(), ServiceError> {
        Ok(())
    }
}

/// What a message asks for.
#[derive(Debug, PartialEq, Eq)]
enum Script {
    Say(String),
    Fail(String),
    FailMidway(String),
    Slow(Duration, String),
    Drip(Duration, u32),
    Flaky(String, String),
    Sources,
    EchoPrompt,
    None,
}

impl Script {
    fn parse(message: &str) -> Result<Self, ServiceError> {
        let Some((verb, rest)) = message.split_once(':') else {
            return Ok(Self::None);
        };
        Ok(match verb {
            "say" => Self::Say(serde_json::from_str(rest).map_err(|error| {
                refused(format!(
                    "`say:` wants a JSON string, for instance say:\"hello\": {error}"
                ))
            })?),
            "fail" => Self::Fail(rest.to_owned()),
            "failmid" => Self::FailMidway(rest.to_owned()),
            "slow" => {
                let (wait, text) = halves(rest, "slow:<ms>:<text>")?;
                Self::Slow(milliseconds(wait)?, text.to_owned())
            }
            "drip" => {
                let (wait, count) = halves(rest, "drip:<ms>:<n>")?;
                let count = count.parse().ok().filter(|count| *count <= DRIPS_MAX);
                let count = count.ok_or_else(|| refused(format!("`drip:` gives 0 to {DRIPS_MAX} tokens")))?;
                Self::Drip(milliseconds(wait)?, count)
            }
            "flaky" => {
                let (code, id) = halves(rest, "flaky:<CODE>:<id>")?;
                Self::Flaky(code.to_owned(), id.to_owned())
            }
            "src" => Self::Sources,
            "echo-prompt" => Self::EchoPrompt,
            _ => Self::None,
        })
    }
}

fn halves<'a>(rest: &'a str, form: &str) -> Result<(&'a str, &'a str), ServiceError> {
    rest.split_once(':')
        .ok_or_else(|| refused(format!("the message has the form `{form}`")))
}

fn milliseconds(text: &str) -> Result<Duration, ServiceError> {
    let wait = text
        .parse()
        .ok()
        .map(Duration::from_millis)
        .filter(|wait| *wait <= WAIT_MAX);
    wait.ok_or_else(|| {
        refused(format!(
            "`{text}` is not a number of milliseconds up to {}",
            WAIT_MAX.as_millis()
        ))
    })
}

fn refused(message: String) -> ServiceError {
    ServiceError::Refused {
        service: SERVICE,
        message,
    }
}

fn source(document: &str) -> Passage {
    Passage {
        document_id: DocumentId::new(document),
        chunk_index: 0,
        title: document.to_owned(),
        text: format!("The scripted text of {document}."),
    }
}

fn prompt_text(request: &ChatRequest) -> String {
    let name = |role| match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    request
        .messages
        .iter()
        .map(|message| format!("{}: {}", name(message.role), message.content))
        .collect::<Vec<_>>()
        .join("\n\n")
}

fn finish(request: &ChatRequest, answer: &str) -> ChatDelta {
    let usage = Usage {
        prompt_tokens: tokens::count_prompt(&request.messages),
        completion_tokens: tokens::count(answer),
        ..Usage::default()
    };
    ChatDelta::Finish {
        reason: FinishReason::Stop,
        usage,
    }
}

fn drip(request: &ChatRequest, wait: Duration, count: u32) -> ChatStream {
    let drops: Vec<String> = (1..=count).map(|drop| format!("drop{drop} ")).collect();
    let finish = finish(request, &drops.concat());
    let drops = stream::iter(drops).then(move |drop| async move {
        tokio::time::sleep(wait).await;
        Ok(ChatDelta::Text(drop))
    });
    Box::pin(drops.chain(stream::iter([Ok(finish)])))
}

#[cfg(test)]
mod tests;
