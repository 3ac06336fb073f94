//! A store over `Memory` that a test can watch, slow down and break: that of the test kit.

/// Never answers at once, as no real store does, and fails where it is told.
pub(crate) type Watched = stepgraph::testing::FaultyStore<stepgraph::Memory>;
