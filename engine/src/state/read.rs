//! What a node reads of the state.

use std::sync::Arc;

use super::State;

/// A view of the state, made before a node runs. Implemented for the state itself (a copy) and for `Arc<S>` (no copy);
/// write one of your own by `#[derive(View)]`, or by hand.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use stepgraph::{State, View};
///
/// #[derive(State, Clone, Serialize, Deserialize)]
/// struct Chat {
///     #[state(input)]
///     question: String,
///     answer: Option<String>,
/// }
///
/// #[derive(View)]
/// #[view(of = Chat)]
/// struct Query {
///     #[view(from = question)]
///     text: String,
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read out of `{S}`",
    note = "implement `FromState<{S}>` for `{Self}` (`#[derive(View)]` writes it), or reach the node by `fan_out`"
)]
pub trait FromState<S: State>: Send + Sized + 'static {
    /// Reads the view. A node that keeps an `Arc` of the state beyond its own end costs a copy of the state.
    fn from_state(state: &Arc<S>) -> Self;
}

#[diagnostic::do_not_recommend]
impl<S: State> FromState<S> for S {
    fn from_state(state: &Arc<S>) -> Self {
        (**state).clone()
    }
}

#[diagnostic::do_not_recommend]
impl<S: State> FromState<S> for Arc<S> {
    fn from_state(state: &Arc<S>) -> Self {
        Self::clone(state)
    }
}
