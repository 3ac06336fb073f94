//! The graphs that the product ships, each declared in one file to be read.
//!
//! | graph | state | what it does |
//! |---|---|---|
//! | [`widget_chat`] | [`ChatState`] | answers one message of a chat session from the tenant's documents |
//! | [`document_ingest`] | [`IngestState`] | brings one document into the tenant's knowledge base |

mod document_ingest;
mod widget_chat;

pub use document_ingest::{IngestState, IngestStateInput, document_ingest};
pub use widget_chat::{ChatEvent, ChatState, ChatStateInput, FALLBACK, widget_chat};
