//! Skeleton.

pub mod app;
pub mod cli;
pub mod config;
