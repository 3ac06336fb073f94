//! An answer as it grows: what the model says, screened, and what it rests on.

use futures_util::StreamExt;
use stepgraph::{Context, NodeError};
use tokio::time::Instant;

use super::{Answer, Answering, ChatSettings};
use crate::{
    domains::Domains,
    retrieve::ScoredPassage,
    screen::{Screen, readable},
    service::{
        ChatDelta, ChatRequest, ChatStream, FinishReason, ModelName, Passage, ServiceError, Source, Usage,
        embedded::NO_INFORMATION,
    },
};

/// An answer that grows.
pub(super) struct Draft<'a> {
    passages: &'a [ScoredPassage],
    screen: Screen,
    hosts: &'a Domains,
    /// What the turn has used before the answer.
    used: Usage,
    text: String,
    sources: Vec<Source>,
    usage: Usage,
    model: ModelName,
    finish_reason: FinishReason,
}

impl<'a> Draft<'a> {
    pub(super) fn new(settings: &'a ChatSettings, passages: &'a [ScoredPassage], screen: Screen, used: Usage) -> Self {
        let hosts = &settings.link_hosts;
        Self {
            passages,
            screen,
            hosts,
            used,
            text: String::new(),
            sources: sources(passages.iter().map(|scored| (&scored.passage, scored.score)), hosts),
            usage: Usage::default(),
            model: settings.name.clone(),
            finish_reason: FinishReason::Stop,
        }
    }

    pub(super) async fn fill(
        mut self,
        settings: &ChatSettings,
        request: ChatRequest,
        ctx: &Context<Answering>,
    ) -> Result<Answer, NodeError> {
        let entered = Instant::now();
        let prompt_tokens = crate::tokens::count_prompt(&request.messages);
        let late = || ServiceError::Timeout {
            service: "chat model",
            limit: entered.elapsed(),
        };
        let budget = tokio::time::sleep_until(settings.answer_by);
        tokio::pin!(budget);
        let begun = tokio::select! {
            begun = settings.model.chat(ctx.tenant(), request) => begun,
            () = &mut budget => Err(late()),
        };
        let mut deltas: ChatStream = begun.map_err(ServiceError::into_node_error)?;
        loop {
            let delta = tokio::select! {
                biased;
                delta = deltas.next() => delta,
                () = &mut budget => {
                    let rest = self.screen.finish();
                    self.say(rest, ctx).await;
                    if self.text.is_empty() {
                        return Err(NodeError::terminal(late()));
                    }
                    self.finish_reason = FinishReason::TimeBudget;
                    let completion_tokens = crate::tokens::count(&self.text);
                    self.usage = Usage { prompt_tokens, completion_tokens, is_estimated: true, ..Usage::default() };
                    break;
                }
            };
            match delta {
                None => break,
                // What was read cannot be taken back, so nothing is tried again once there was text.
                Some(Err(error)) if !self.text.is_empty() => {
                    let rest = self.screen.finish();
                    self.say(rest, ctx).await;
                    return Err(NodeError::terminal(error));
                }
                Some(Err(error)) => return Err(error.into_node_error()),
                Some(Ok(delta)) => self.take(delta, ctx).await,
            }
        }
        let rest = self.screen.finish();
        self.say(rest, ctx).await;
        Ok(self.whole())
    }

    async fn take(&mut self, delta: ChatDelta, ctx: &Context<Answering>) {
        match delta {
            ChatDelta::Text(text) => {
                let shown = self.screen.push(&text);
                self.say(shown, ctx).await;
            }
            ChatDelta::Cited(passages) => self.cite(&passages),
            ChatDelta::Unsupported => self.sources.clear(),
            ChatDelta::Working => {}
            ChatDelta::AnsweredBy(model) => self.model = model,
            ChatDelta::Finish { reason, usage } => {
                self.finish_reason = reason;
                self.usage = usage;
            }
        }
    }

    async fn say(&mut self, text: String, ctx: &Context<Answering>) {
        if !text.is_empty() {
            self.text.push_str(&text);
            ctx.emit(Answering::Text(text)).await;
        }
    }

    /// The sources become exactly these passages, with the scores they were found with.
    fn cite(&mut self, passages: &[Passage]) {
        let score = |passage: &Passage| {
            let known = self
                .sources
                .iter()
                .find(|source| source.document_id == passage.document_id.as_str());
            known.map_or(0.0, |source| source.score)
        };
        let cited: Vec<_> = passages.iter().map(|passage| (passage, score(passage))).collect();
        self.sources = sources(cited.into_iter(), self.hosts);
    }

    fn whole(mut self) -> Answer {
        let named = self
            .screen
            .cited()
            .iter()
            .filter_map(|number| self.passages.get(number - 1));
        let named: Vec<_> = named.map(|scored| (&scored.passage, scored.score)).collect();
        if !named.is_empty() {
            self.sources = sources(named.into_iter(), self.hosts);
        } else if self.text.trim() == NO_INFORMATION {
            self.sources.clear();
        }
        Answer {
            text: self.text,
            sources: self.sources,
            usage: self.used + self.usage,
            model: self.model,
            finish_reason: self.finish_reason,
        }
    }
}

/// At most one source a document, with an excerpt that a reader can take in.
fn sources<'a>(passages: impl Iterator<Item = (&'a Passage, f32)>, hosts: &Domains) -> Vec<Source> {
    let mut sources: Vec<Source> = Vec::new();
    for (passage, score) in passages {
        if sources
            .iter()
            .all(|source| source.document_id != passage.document_id.as_str())
        {
            sources.push(Source {
                document_id: passage.document_id.as_str().to_owned(),
                title: readable(&passage.title, hosts),
                excerpt: excerpt(&readable(&passage.text, hosts)),
                score,
                chunk_index: passage.chunk_index,
            });
        }
    }
    sources
}

/// The first 200 characters, ended at a word.
fn excerpt(text: &str) -> String {
    const EXCERPT_CHARS_MAX: usize = 200;
    let text = text.trim();
    let Some((end, _)) = text.char_indices().nth(EXCERPT_CHARS_MAX) else {
        return text.to_owned();
    };
    let (head, _) = text.split_at(end);
    let words = head
        .rfind(char::is_whitespace)
        .map_or(head, |space| head.split_at(space).0);
    words.trim_end().to_owned()
}
