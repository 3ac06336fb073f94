//! The stores that need a server, on private ones. The tests stand in a module of this name so that `./test --no-live` can
//! leave them out, and says so.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod live {
    mod conformance;
    mod cost;
    mod deletion;
    mod ground;
    mod groups;
    mod keys;
    mod pages;
    mod postgres;
    mod redis;
    mod thinning;
    mod values;
}
