//! The dozen names a graph author needs: `use stepgraph::prelude::*;`.

pub use crate::{
    Append, Ask, Change, Command, Context, END, FromState, Graph, Keyed, MergeMap, Node, NodeError, Outcome, Policy,
    Replace, Route, START, State, Sum, TenantId, Terminal, ThreadId, ThreadKey, Union, Upsert, View, from, to,
};
