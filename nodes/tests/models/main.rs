//! The models of providers, against local servers that speak their protocols.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod anthropic;
mod embeddings;
mod openai;
mod resilience;
mod server;
