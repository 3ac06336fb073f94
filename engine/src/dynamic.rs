//! Graphs known only at run time.

mod compat;

pub use self::compat::Compat;
