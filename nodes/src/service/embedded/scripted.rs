//! Embedded scripted.
