//! Which engine's semantics a dynamic graph follows.

/// Which semantics a dynamic graph follows where they differ; `docs/guide/compat.md` lists the differences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compat {
    /// This engine's own.
    #[default]
    Strict,
    /// Those recorded of LangGraph 1.2.
    Recorded,
}
