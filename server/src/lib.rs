//! The HTTP server over the graphs: authentication, limits, event streams and background jobs; and the `stepgraph`
//! program around it.
//!
//! Any graph is served by [`ServerBuilder::graph`], as threads and runs. The product stands on a [`Backend`]: services, the
//! two graphs behind [`ChatRunner`] and [`IngestRunner`], and a [`Dispatch`] for jobs. The server holds no workflow of its
//! own. [`Server::router`] is the whole of it, usable without a socket; [`Server::serve`] adds socket, workers and a
//! graceful stop.
//!
//! | module | what it knows |
//! |---|---|
//! | `builder` | how the parts come together, start and stop |
//! | `backend` | the seams to the rooms below, and the settings |
//! | `route` | one file per resource; every route at `/` and at `/api/widget` |
//! | `auth`, `limit` | who is asking, and how often they may |
//! | `guard` | which addresses may be called on the word of others |
//! | `serving` | graphs of any state: threads, runs, event streams |
//! | `runs` | chat runs owned by the server: joined, repeated, kept for a while |
//! | `sse`, `wire` | what stands on the wire |
//! | `error` | the codes of the contract, and the only place that chooses statuses |
//! | `jobs` | ingestion in the background: queue, tries, call-back |
//! | `config` | the settings, read once |
//! | `app` | the data folder, the services on it, the graphs behind the seams |
//! | `cli` | the commands of the binary |
//! | `trace` | the outermost layer: ids, error envelope, log line |

mod alerts;
pub mod app;
mod auth;
mod backend;
mod builder;
pub mod cli;
pub mod config;
mod demo;
mod error;
pub mod guard;
mod hook;
mod jobs;
mod limit;
mod metrics;
mod retention;
mod route;
mod runs;
mod serving;
mod sse;
mod state;
mod trace;
mod wire;

pub use backend::{
    Again, Answer, Backend, ChatCommand, ChatEvent, ChatEvents, ChatFailure, ChatRunner, Demo, HttpSettings,
    IngestFailure, IngestRunner, Limits, Progress,
};
pub use builder::{ServeError, Server, ServerBuilder, ServerError};
pub use error::ErrorCode;
pub use jobs::{Dispatch, IngestJob, JobHandler, SqliteDispatch, Verdict};
pub use metrics::Metrics;
pub use serving::{Authenticator, FixedKeys, Heard, Occasion, Refusal, Registration, RunFor, Serve, SingleTenant};
