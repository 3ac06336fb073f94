//! Routes: the names of the ways that lead on from a branch or a router.

/// An enum of the ways to go on, written by `#[derive(Route)]` on an enum of unit variants.
///
/// ```
/// use stepgraph::Route;
///
/// #[derive(Route, Clone, Copy)]
/// enum Found { Something, Nothing }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a set of routes",
    note = "add `#[derive(Route, Clone, Copy)]` to the enum `{Self}`"
)]
pub trait Route: Copy + Send + Sync + 'static {
    /// Every variant, in order of declaration.
    const ALL: &'static [Self];

    /// The variant's name in drawings and records, in `snake_case`: `TryAgain` is `try_again`.
    fn label(self) -> &'static str;

    /// The variant's position in [`ALL`](Self::ALL).
    fn index(self) -> usize;
}

/// What a router gives back: an update, and which of its own routes to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command<U, R> {
    /// What changes.
    pub update: U,
    /// Where to go on.
    pub goto: R,
}
