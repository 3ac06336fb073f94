//! Tests of your own graphs and nodes: the feature `testing`, for `[dev-dependencies]`.
//!
//! # The way a run has taken
//!
//! [`TestRun`] runs a graph and keeps what happened; [`assert_path`] compares its steps with those expected, and says where
//! they part. [`Coverage`] says after all tests of a graph which nodes have never run and which routes were never taken.
//!
//! ```
//! use std::sync::Arc;
//!
//! use serde::{Deserialize, Serialize};
//! use stepgraph::{prelude::*, testing::{Coverage, TestRun, assert_path, torture}};
//!
//! #[derive(State, Clone, Debug, Serialize, Deserialize)]
//! struct Chat {
//!     #[state(input)]
//!     question: String,
//!     answer: Option<String>,
//! }
//!
//! #[derive(Route, Clone, Copy)]
//! enum Sources { Found, None }
//!
//! fn chat() -> Graph<Chat> {
//!     let mut g = Graph::<Chat>::builder("chat");
//!     let retrieve = g.node("retrieve", |_: Arc<Chat>| async { Ok(()) });
//!     let generate = g.node("generate", |_: Arc<Chat>| async { Ok(Chat::update().answer("yes".to_string())) });
//!     g.edge(START, retrieve).edge(generate, END);
//!     g.branch(
//!         retrieve,
//!         |chat| if chat.question.is_empty() { Sources::None } else { Sources::Found },
//!         |sources| match sources { Sources::Found => to(generate), Sources::None => to(END) },
//!     );
//!     g.build().expect("a sound graph")
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
//! let (graph, coverage) = Coverage::of(chat());
//! let run = TestRun::of(graph.run(&thread, ChatInput { question: "why".into() })).await;
//! assert_path(&run, ["retrieve", "generate"]);
//! assert_eq!(coverage.missing(), ["the route `none` from `retrieve`"]);
//!
//! // The same run with every kind of accident, each resumed to its end.
//! torture(chat, ChatInput { question: "why".into() }).seeds(0..20).run().await?;
//! # Ok(()) }
//! ```
//!
//! # One node alone
//!
//! [`run_node`] gives a node a context of its own, with answers and values it is to be given, and tells what it gave back,
//! emitted, asked and did.
//!
//! # Accidents
//!
//! [`torture`] runs a graph of yours as it is, then once for each seed with accidents: the store fails, or keeps a commit
//! and says that it failed; the run is dropped; a node fails once; tasks that run side by side end in another order. Each
//! time the thread is resumed to its end. The state must be the same as without accidents, and no recorded effect may have
//! run twice. [`FaultyStore`] is the store it uses, for accidents of your own; [`ManualClock`] a clock that you set.

mod clock;
mod coverage;
mod faulty;
mod lone;
mod record;
mod torture;

pub use self::{
    clock::ManualClock,
    coverage::Coverage,
    faulty::FaultyStore,
    lone::{LoneNode, NodeReport, run_node},
    record::{TestRun, assert_path},
    torture::{Torture, TortureFailure, TortureReport, torture},
};
