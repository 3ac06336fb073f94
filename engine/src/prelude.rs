//! The dozen names a graph author needs: `use stepgraph::prelude::*;`.

pub use crate::{
    Append, Ask, Command, Context, END, FromState, Graph, Node, NodeError, Outcome, Policy, Replace, Route, START,
    State, Sum, TenantId, Terminal, ThreadId, ThreadKey, View, from, to,
};
