//! Typed ids of nodes, and the ends of edges.

use std::{fmt, marker::PhantomData};

/// A place in a builder's list of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) builder: u32,
    pub(crate) index: usize,
}

/// One end of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Start,
    Node(Slot),
    End,
}

/// A node that is fed by the state.
#[must_use]
pub struct NodeId<S>(pub(crate) Slot, pub(crate) PhantomData<fn(S)>);

/// A node that chooses among the routes `R`; it cannot be given a plain edge.
#[must_use = "a router needs `routes`"]
pub struct RouterId<S, R>(pub(crate) Slot, pub(crate) PhantomData<fn(S, R)>);

/// A node that always follows its edges, and may take any of the routes `R` besides.
#[must_use = "it needs `routes`, and an edge"]
pub struct AlsoId<S, R>(pub(crate) Slot, pub(crate) PhantomData<fn(S, R)>);

/// A node that is fed by a payload `I`; it is reached by `fan_out` alone.
#[must_use = "a worker is started by `fan_out`"]
pub struct WorkerId<S, I>(pub(crate) Slot, pub(crate) PhantomData<fn(S, I)>);

/// A node that runs for tasks that have failed; no edge leads into it, `on_error` does.
#[must_use = "a handler is given its nodes by `on_error`"]
pub struct HandlerId<S>(pub(crate) Slot, pub(crate) PhantomData<fn(S)>);

/// The same, choosing among the routes `R`.
#[must_use = "a handler is given its nodes by `on_error`"]
pub struct HandlerRouterId<S, R>(pub(crate) Slot, pub(crate) PhantomData<fn(S, R)>);

/// Type of [`START`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start;

/// Type of [`END`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End;

/// Where every run begins. Edges only lead out of it.
pub const START: Start = Start;

/// Where a way ends. Edges only lead into it.
pub const END: End = End;

/// The beginning of an edge, of whatever kind: for lists that mix kinds.
#[must_use]
pub struct Source<S>(pub(crate) At, pub(crate) PhantomData<fn(S)>);

/// The ends of a branch, route or join: one or many.
#[must_use]
pub struct Targets<S>(Vec<At>, PhantomData<fn(S)>);

/// What an edge may start at: [`START`], a node, a worker or a handler of the same state.
#[diagnostic::on_unimplemented(
    message = "no edge of a `{S}` graph can start at `{Self}`",
    note = "an edge starts at START, a node, a worker or a handler of the same state; a router leads on by `routes`, END leads nowhere"
)]
pub trait EdgeFrom<S> {
    /// The edge's beginning.
    fn source(self) -> Source<S>;
}

/// What an edge may lead to: [`END`], a node or a router of the same state; several by `to(a).and(b)`.
#[diagnostic::on_unimplemented(
    message = "no edge of a `{S}` graph can lead to `{Self}`",
    note = "an edge leads to END, a node or a router of the same state; a worker is started by `fan_out`, a handler by `on_error`"
)]
pub trait EdgeTo<S>: Sized {
    /// The edge's end or ends.
    fn targets(self) -> Targets<S>;
}

/// Hides what an end is made of.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Opaque(pub(crate) At);

/// The end of a branch or route.
pub fn to<S>(end: impl EdgeTo<S>) -> Targets<S> {
    end.targets()
}

/// A beginning as a [`Source`], for lists that mix nodes and workers.
pub fn from<S>(begin: impl EdgeFrom<S>) -> Source<S> {
    begin.source()
}

impl<S> Targets<S> {
    /// One more end, to run side by side with the others.
    pub fn and(mut self, end: impl EdgeTo<S>) -> Self {
        self.0.extend(end.targets().0);
        self
    }

    pub(crate) fn into_ends(self) -> Vec<At> {
        self.0
    }
}

impl<S> EdgeTo<S> for Targets<S> {
    fn targets(self) -> Self {
        self
    }
}

impl<S> EdgeFrom<S> for Start {
    fn source(self) -> Source<S> {
        Source(At::Start, PhantomData)
    }
}

impl<S> EdgeFrom<S> for NodeId<S> {
    fn source(self) -> Source<S> {
        Source(At::Node(self.0), PhantomData)
    }
}

impl<S, R> EdgeFrom<S> for AlsoId<S, R> {
    fn source(self) -> Source<S> {
        Source(At::Node(self.0), PhantomData)
    }
}

impl<S, I> EdgeFrom<S> for WorkerId<S, I> {
    fn source(self) -> Source<S> {
        Source(At::Node(self.0), PhantomData)
    }
}

impl<S> EdgeFrom<S> for HandlerId<S> {
    fn source(self) -> Source<S> {
        Source(At::Node(self.0), PhantomData)
    }
}

impl<S> EdgeFrom<S> for Source<S> {
    fn source(self) -> Self {
        self
    }
}

impl<S> EdgeTo<S> for End {
    fn targets(self) -> Targets<S> {
        Targets(vec![At::End], PhantomData)
    }
}

impl<S> EdgeTo<S> for NodeId<S> {
    fn targets(self) -> Targets<S> {
        Targets(vec![At::Node(self.0)], PhantomData)
    }
}

impl<S, R> EdgeTo<S> for RouterId<S, R> {
    fn targets(self) -> Targets<S> {
        Targets(vec![At::Node(self.0)], PhantomData)
    }
}

impl<S, R> EdgeTo<S> for AlsoId<S, R> {
    fn targets(self) -> Targets<S> {
        Targets(vec![At::Node(self.0)], PhantomData)
    }
}

/// What has routes: a router of the same state.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no routes `{R}` in a `{S}` graph",
    note = "routes are given to what `router`, `router_also` or `handler_router` returned"
)]
pub trait RoutesFrom<S, R> {
    #[doc(hidden)]
    fn router(self) -> Opaque;
}

impl<S, R> RoutesFrom<S, R> for RouterId<S, R> {
    fn router(self) -> Opaque {
        Opaque(At::Node(self.0))
    }
}

impl<S, R> RoutesFrom<S, R> for AlsoId<S, R> {
    fn router(self) -> Opaque {
        Opaque(At::Node(self.0))
    }
}

impl<S, R> RoutesFrom<S, R> for HandlerRouterId<S, R> {
    fn router(self) -> Opaque {
        Opaque(At::Node(self.0))
    }
}

/// What a policy may be given to: a node, a router, a worker or a handler.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a node of a `{S}` graph",
    note = "policies, limits and the like are given to a node, a router, a worker or a handler; START and END run nothing"
)]
pub trait AnyNode<S> {
    #[doc(hidden)]
    fn slot(self) -> Opaque;
}

impl<S> AnyNode<S> for NodeId<S> {
    fn slot(self) -> Opaque {
        Opaque(At::Node(self.0))
    }
}

impl<S, R> AnyNode<S> for RouterId<S, R> {
    fn slot(self) -> Opaque {
        Opaque(At::Node(self.0))
    }
}

impl<S, R> AnyNode<S> for AlsoId<S, R> {
    fn slot(self) -> Opaque {
        Opaque(At::Node(self.0))
    }
}

impl<S, I> AnyNode<S> for WorkerId<S, I> {
    fn slot(self) -> Opaque {
        Opaque(At::Node(self.0))
    }
}

impl<S> AnyNode<S> for HandlerId<S> {
    fn slot(self) -> Opaque {
        Opaque(At::Node(self.0))
    }
}

impl<S, R> AnyNode<S> for HandlerRouterId<S, R> {
    fn slot(self) -> Opaque {
        Opaque(At::Node(self.0))
    }
}

/// What may have a handler: a node, a router or a worker.
#[diagnostic::on_unimplemented(
    message = "the failures of `{Self}` cannot be handed to a handler",
    note = "`on_error` takes a node, a router or a worker of the same state; a handler's own failure fails the run"
)]
pub trait MayFail<S> {
    #[doc(hidden)]
    fn failing(self) -> Opaque;
}

impl<S> MayFail<S> for NodeId<S> {
    fn failing(self) -> Opaque {
        Opaque(At::Node(self.0))
    }
}

impl<S, R> MayFail<S> for RouterId<S, R> {
    fn failing(self) -> Opaque {
        Opaque(At::Node(self.0))
    }
}

impl<S, R> MayFail<S> for AlsoId<S, R> {
    fn failing(self) -> Opaque {
        Opaque(At::Node(self.0))
    }
}

impl<S, I> MayFail<S> for WorkerId<S, I> {
    fn failing(self) -> Opaque {
        Opaque(At::Node(self.0))
    }
}

/// What failures may be handed to: what `handler` and `handler_router` return.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler of a `{S}` graph",
    note = "a handler is made by `g.handler(name, |failed: Failed<_>| async move {{ .. }})`"
)]
pub trait Handles<S> {
    #[doc(hidden)]
    fn handling(self) -> Opaque;
}

impl<S> Handles<S> for HandlerId<S> {
    fn handling(self) -> Opaque {
        Opaque(At::Node(self.0))
    }
}

impl<S, R> Handles<S> for HandlerRouterId<S, R> {
    fn handling(self) -> Opaque {
        Opaque(At::Node(self.0))
    }
}

macro_rules! copyable {
    ($($id:ident<$($p:ident),*>),*) => { $(
        impl<$($p),*> Clone for $id<$($p),*> {
            fn clone(&self) -> Self { *self }
        }
        impl<$($p),*> Copy for $id<$($p),*> {}
        impl<$($p),*> fmt::Debug for $id<$($p),*> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{}({})", stringify!($id), self.0.index) }
        }
    )* };
}
copyable!(NodeId<S>, RouterId<S, R>, AlsoId<S, R>, WorkerId<S, I>, HandlerId<S>, HandlerRouterId<S, R>);

impl<S> fmt::Debug for Source<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<S> fmt::Debug for Targets<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
