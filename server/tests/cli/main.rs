//! The `stepgraph` program as a user calls it: the real binary, a data folder of its own for each test.

mod support;

mod asking;
mod calling;
mod extracting;
mod ingesting;
mod serving;
