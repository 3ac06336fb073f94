//! Nodes that follow their edges and may go to more places besides.

use std::{borrow::Cow, marker::PhantomData, sync::Arc};

use super::{
    builder::GraphBuilder,
    id::AlsoId,
    parts::{Call, Output, Rare},
    running::Running,
    topology::Kind,
};
use crate::{
    node::IntoNode,
    route::{Command, Route},
    state::{FromState, State},
};

impl<S: State> GraphBuilder<S> {
    /// Adds a node that always follows its edges and may take any of its routes besides: it gives a [`Command`] whose `goto`
    /// is none, one or several of them. A [`router`](Self::router) takes one of its routes instead of edges.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use serde::{Deserialize, Serialize};
    /// # use stepgraph::{Append, Command, Graph, Route, START, END, State, to};
    /// # #[derive(State, Clone, Serialize, Deserialize)]
    /// # struct Order { #[state(input)] total: u64, #[state(reducer = Append)] done: Vec<String> }
    /// #[derive(Route, Clone, Copy)]
    /// enum Extra { Review }
    ///
    /// # let mut g = Graph::<Order>::builder("order");
    /// let accept = g.router_also("accept", |order: Arc<Order>| async move {
    ///     let large = order.total > 1000;
    ///     Ok(Command { update: Order::update(), goto: large.then_some(Extra::Review) })
    /// });
    /// let ship = g.node("ship", |_: Arc<Order>| async { Ok(Order::update().done(["shipped".to_owned()])) });
    /// let review = g.node("review", |_: Arc<Order>| async { Ok(Order::update().done(["reviewed".to_owned()])) });
    /// g.edge(START, accept).edge(accept, ship).edge(ship, END).edge(review, END);
    /// g.routes(accept, |Extra::Review| to(review));
    /// # g.build()?;
    /// # Ok::<(), stepgraph::BuildErrors>(())
    /// ```
    pub fn router_also<M, N, U, G, R>(&mut self, name: impl Into<Cow<'static, str>>, node: N) -> AlsoId<S, R>
    where
        N: IntoNode<S, M, Output = Command<U, G>>,
        N::Input: FromState<S>,
        U: Into<S::Update> + Send + 'static,
        G: IntoIterator<Item = R> + Send + 'static,
        R: Route,
    {
        let node = Arc::new(node);
        let call: Call<S> = Box::new(move |state, _, ctx| {
            let running = N::enter(&node, N::Input::from_state(state), ctx);
            Running::made(running, |Command { update, goto }: Command<U, G>| {
                let rare = Rare {
                    also: goto.into_iter().map(Route::index).collect(),
                    ..Rare::default()
                };
                Output::with(update.into(), rare)
            })
        });
        AlsoId(self.push(name.into(), Kind::Also, call, None), PhantomData)
    }
}
