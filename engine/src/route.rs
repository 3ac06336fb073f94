//! Routes: the ways that lead on from a node.

/// The ways a node may choose among: an enum of unit variants with `#[derive(Route)]`, so that a graph can be wired,
/// drawn and checked before it runs.
///
/// ```
/// use stepgraph::Route;
///
/// #[derive(Route, Clone, Copy, Debug, PartialEq)]
/// enum Verdict {
///     Accept,
///     TryAgain,
/// }
///
/// assert_eq!(Verdict::ALL, [Verdict::Accept, Verdict::TryAgain]);
/// assert_eq!(Verdict::TryAgain.label(), "try_again");
/// assert_eq!(Verdict::TryAgain.index(), 1);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a set of routes",
    note = "routes are an enum of unit variants with `#[derive(Route, Clone, Copy)]`"
)]
pub trait Route: Copy + Send + Sync + 'static {
    /// Every route, in the order in which they are declared.
    const ALL: &'static [Self];

    /// Name of the route in drawings and records: the variant's name in `snake_case`.
    fn label(self) -> &'static str;

    /// Its position in [`ALL`](Self::ALL).
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
