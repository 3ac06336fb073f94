//! Embedded cache.
