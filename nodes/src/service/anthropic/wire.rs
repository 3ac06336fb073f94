//! The parts of the Messages API that are read and written here. Events and members that are not known are passed over, as
//! the protocol asks.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::service::{ChatRequest, FinishReason, Message, Role, Usage};

#[derive(Serialize)]
pub(super) struct Body<'a> {
    model: &'a str,
    max_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    stream: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    system: Vec<SystemBlock<'a>>,
    messages: Vec<Turn<'a>>,
}

#[derive(Serialize)]
struct SystemBlock<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

#[derive(Serialize)]
struct CacheControl {
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
struct Turn<'a> {
    role: &'static str,
    content: &'a str,
}

impl<'a> Body<'a> {
    /// The first system message is the same for every request of a tenant, so that the provider may keep it; what follows
    /// it belongs to this request alone. An empty text is no message to this provider, and it wants the visitor to begin.
    pub(super) fn of(request: &'a ChatRequest) -> Self {
        let said = || {
            request
                .messages
                .iter()
                .filter(|message| !message.content.trim().is_empty())
        };
        let system = said().filter(|message| message.role == Role::System).enumerate();
        let system = system.map(|(at, message)| SystemBlock {
            kind: "text",
            text: &message.content,
            cache_control: (at == 0).then_some(CacheControl { kind: "ephemeral" }),
        });
        let mut messages: Vec<Turn<'a>> = said().filter_map(turn).collect();
        if messages.first().is_some_and(|first| first.role == ASSISTANT) {
            messages.insert(
                0,
                Turn {
                    role: USER,
                    content: EARLIER,
                },
            );
        }
        Self {
            model: request.model.as_str(),
            max_tokens: request.completion_tokens_max,
            temperature: request.temperature,
            stream: true,
            system: system.collect(),
            messages,
        }
    }
}

const USER: &str = "user";
const ASSISTANT: &str = "assistant";
/// Stands for what was said before the history begins.
const EARLIER: &str = "(The conversation began earlier.)";

fn turn(message: &Message) -> Option<Turn<'_>> {
    let role = match message.role {
        Role::System => return None,
        Role::User => USER,
        Role::Assistant => ASSISTANT,
    };
    Some(Turn {
        role,
        content: &message.content,
    })
}

/// One event of an answer.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Event {
    MessageStart {
        message: Started,
    },
    ContentBlockStart {
        content_block: Block,
    },
    ContentBlockDelta {
        delta: Block,
    },
    MessageDelta {
        delta: Ending,
        #[serde(default)]
        usage: WireUsage,
    },
    MessageStop,
    Ping,
    Error {
        error: Value,
    },
    #[serde(other)]
    Unknown,
}

#[derive(Deserialize)]
pub(super) struct Started {
    #[serde(default)]
    pub(super) usage: WireUsage,
}

/// A piece of the answer, or its beginning.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Block {
    #[serde(alias = "text_delta")]
    Text {
        #[serde(default)]
        text: String,
    },
    #[serde(alias = "thinking_delta", alias = "signature_delta", alias = "redacted_thinking")]
    Thinking,
    #[serde(alias = "server_tool_use", alias = "input_json_delta")]
    ToolUse,
    #[serde(other)]
    Unknown,
}

#[derive(Deserialize)]
pub(super) struct Ending {
    stop_reason: Option<String>,
}

/// How an answer ends.
pub(super) enum End {
    Reason(FinishReason),
    /// The model waits for a tool.
    Tools,
}

impl Ending {
    /// Why the answer ended, where it has.
    pub(super) fn end(&self) -> Option<End> {
        self.stop_reason.as_deref().map(|reason| match reason {
            "max_tokens" | "model_context_window_exceeded" => End::Reason(FinishReason::Length),
            "refusal" => End::Reason(FinishReason::Filtered),
            "tool_use" | "pause_turn" => End::Tools,
            _ => End::Reason(FinishReason::Stop),
        })
    }
}

/// What was used so far. Later events repeat or correct earlier ones, each member on its own.
#[derive(Deserialize, Default, Clone, Copy)]
#[expect(clippy::struct_field_names, reason = "the protocol's own names")]
pub(super) struct WireUsage {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
}

impl WireUsage {
    pub(super) fn or(self, earlier: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.or(earlier.input_tokens),
            output_tokens: self.output_tokens.or(earlier.output_tokens),
            cache_read_input_tokens: self.cache_read_input_tokens.or(earlier.cache_read_input_tokens),
            cache_creation_input_tokens: self.cache_creation_input_tokens.or(earlier.cache_creation_input_tokens),
        }
    }

    /// The provider counts what was read from and written to its cache apart; here they are parts of the prompt.
    pub(super) fn whole(self) -> Option<Usage> {
        let (input, output) = (self.input_tokens?, self.output_tokens?);
        let read = self.cache_read_input_tokens.unwrap_or_default();
        let written = self.cache_creation_input_tokens.unwrap_or_default();
        Some(Usage {
            prompt_tokens: input.saturating_add(read).saturating_add(written),
            completion_tokens: output,
            cached_tokens: read,
            cache_write_tokens: written,
            ..Usage::default()
        })
    }
}
