//! Embedded records.
