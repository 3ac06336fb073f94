//! Reading text out of files.
