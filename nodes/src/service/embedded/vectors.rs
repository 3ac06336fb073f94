//! Embedded vectors.
