//! What may stand as a node: a type with `impl Node`, a closure, a plain `async fn`.

use std::{future::Future, sync::Arc};

use super::{Context, LazyContext, Node, NodeError};
use crate::state::State;

/// Everything that may stand as a node of an `S` graph:
///
/// - a type with `impl Node`, whose event converts into the state's event;
/// - `|input| async move { Ok(update) }`;
/// - `|input, ctx| async move { Ok(update) }`, or an `async fn` of that form.
///
/// `M` only tells the three apart; it is always inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a node of a `{S}` graph",
    note = "a node is a type with `impl Node`, or `|input| async move {{ Ok(update) }}`, or `|input, ctx: Context<_>| async move {{ .. }}`",
    note = "the events of an `impl Node` must convert into the state's event"
)]
pub trait IntoNode<S: State, M>: Send + Sync + 'static {
    /// What it is given.
    type Input: Send + 'static;
    /// What it gives back.
    type Output: Send + 'static;

    /// Starts it once.
    #[doc(hidden)]
    fn enter(
        node: &Arc<Self>,
        input: Self::Input,
        ctx: LazyContext<'_, S::Event>,
    ) -> impl Future<Output = Result<Self::Output, NodeError>> + Send + 'static;
}

/// Marks an `impl Node`.
#[derive(Debug)]
pub struct ByTrait;

#[diagnostic::do_not_recommend]
impl<S: State, N: Node> IntoNode<S, ByTrait> for N
where
    N::Event: Into<S::Event>,
{
    type Input = N::Input;
    type Output = N::Output;

    fn enter(
        node: &Arc<Self>,
        input: Self::Input,
        ctx: LazyContext<'_, S::Event>,
    ) -> impl Future<Output = Result<Self::Output, NodeError>> + Send + 'static {
        let (node, ctx) = (Arc::clone(node), ctx.make());
        async move { node.run(input, ctx.narrow()).await }
    }
}

#[diagnostic::do_not_recommend]
impl<S: State, F, Fut, I, O> IntoNode<S, fn(I) -> O> for F
where
    F: Fn(I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, NodeError>> + Send + 'static,
    I: Send + 'static,
    O: Send + 'static,
{
    type Input = I;
    type Output = O;

    fn enter(
        node: &Arc<Self>,
        input: I,
        _: LazyContext<'_, S::Event>,
    ) -> impl Future<Output = Result<O, NodeError>> + Send + 'static {
        node(input)
    }
}

#[diagnostic::do_not_recommend]
impl<S: State, F, Fut, I, O> IntoNode<S, fn(I, Context<S::Event>) -> O> for F
where
    F: Fn(I, Context<S::Event>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, NodeError>> + Send + 'static,
    I: Send + 'static,
    O: Send + 'static,
{
    type Input = I;
    type Output = O;

    fn enter(
        node: &Arc<Self>,
        input: I,
        ctx: LazyContext<'_, S::Event>,
    ) -> impl Future<Output = Result<O, NodeError>> + Send + 'static {
        node(input, ctx.make())
    }
}
