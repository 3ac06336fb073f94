//! Embedded extractive.
