//! The servers that the product stands on die under load, one after the other, and come back: chat goes on as well as it can
//! without each, health tells, no accepted answer is lost, and nothing is started anew.
#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test may panic and say what it saw"
)]

mod live {
    mod chat;
    mod ground;
}
