//! Mistakes that must not compile, one a file in `tests/ui`, each with the message that its reader sees.
//!
//! After a change of a message: `TRYBUILD=overwrite cargo test -p stepgraph --test ui`, and read the difference.

#[test]
fn mistakes_do_not_compile_and_their_messages_say_the_remedy() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
