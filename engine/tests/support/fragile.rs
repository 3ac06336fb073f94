//! A reducer that fails where nothing is expected to.

use serde::{Deserialize, Deserializer, Serialize};
use stepgraph::{Mark, Reducer};

/// Panics at 13 as it merges, and at 17 as it is written down.
pub(crate) struct Fragile;

impl Reducer<u64> for Fragile {
    type Update = u64;
    const ID: &'static str = "fragile";
    const CONCURRENT: bool = true;

    fn first(update: u64) -> u64 {
        update
    }

    fn reduce(current: &mut u64, update: u64) {
        assert!(update != 13, "thirteen");
        *current = update;
    }

    fn effect(current: &u64, _: &Mark) -> impl Serialize {
        assert!(*current != 17, "seventeen");
        *current
    }

    fn restore<'de, D: Deserializer<'de>>(slot: &mut Option<u64>, effect: D) -> Result<(), D::Error> {
        *slot = Some(u64::deserialize(effect)?);
        Ok(())
    }
}
