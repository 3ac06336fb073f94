//! The graphs that the product ships, each declared in one file to be read.
//!
//! | graph | state | what it does |
//! |---|---|---|
//! | [`widget_chat`] | [`ChatState`] | answers one message of a chat session from the tenant's documents |
//! | [`document_ingest`] | [`IngestState`] | brings one document into the tenant's knowledge base |

mod document_ingest;
mod recent;
mod widget_chat;

pub use document_ingest::{IngestState, IngestStateInput, document_ingest};
pub use recent::Recent;
pub use widget_chat::{ChatEvent, ChatState, ChatStateInput, FALLBACK, widget_chat};

/// A graph that the product ships.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shipped {
    /// Its name, in checkpoints, logs and commands.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Its drawing, as [`stepgraph::Graph::mermaid`] makes it.
    pub drawing: &'static str,
}

/// Every graph of this crate.
pub const SHIPPED: [Shipped; 2] = [
    Shipped {
        name: "widget_chat",
        about: "answers one message of a chat session from the tenant's documents",
        drawing: include_str!("../drawings/widget_chat.mmd"),
    },
    Shipped {
        name: "document_ingest",
        about: "brings one document into the tenant's knowledge base",
        drawing: include_str!("../drawings/document_ingest.mmd"),
    },
];
