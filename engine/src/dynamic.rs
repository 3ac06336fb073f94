//! Graphs known only at run time: channels, nodes and ways by name, on the same engine as typed graphs.
//!
//! For graphs that are loaded from data, and for tools. A typed graph finds more mistakes before it runs.

mod builder;
mod channels;
mod compat;
mod handlers;
mod migrate;
mod node;
mod state;
mod update;

pub use self::{
    builder::DynamicBuilder,
    channels::{ChannelError, Channels, Merge},
    compat::Compat,
    node::{Goto, Leave, Reply, TaskInput},
    state::JsonState,
    update::{JsonInput, JsonUpdate, Write},
};
