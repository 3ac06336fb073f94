//! The crash matrix: a real process killed by `kill -9` at every named point, on every store that outlives a process, in
//! every durability, and started again. It must end in the same state as a run without a crash, with nothing lost that was
//! told to be saved, and with every journaled effect done once.
//!
//! The points lie in a store around the real one and in the nodes of a graph made for this: there is no code for crashes in
//! the product. [`matrix`] is the parent, which starts this same program as [`child`] and judges what it left behind.

mod child;
mod fate;
mod graph;
mod ledger;
mod matrix;
mod place;
mod store;
mod verdict;

pub use self::{
    child::{Orders, child},
    fate::{Fate, POINTS},
    matrix::{Matrix, matrix},
    place::{Place, Servers},
    verdict::{Report, UNREACHED},
};
