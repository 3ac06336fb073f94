# The daily commands. CI runs the same lines.

# list the commands
default:
    @just --list --unsorted

# server on embedded services with the sample documents, no keys
demo *flags:
    cargo run --release -- demo {{ flags }}

# formatting, lints, documentation: what a commit must pass
check:
    ./test --only fmt,clippy,doc

# the core stages
test *flags:
    ./test {{ flags }}

# everything CI runs
test-all:
    ./test --all

# what must not compile, with the messages; `just ui overwrite` renews them
ui mode="wip":
    TRYBUILD={{ mode }} cargo test -p stepgraph --test ui

# the built binary from outside, killed and started again
e2e *flags:
    cargo build -p stepgraph-server
    python3 tools/e2e.py target/debug/stepgraph {{ flags }}

# a crate outside the workspace with a graph of its own, killed and started again
compose:
    ./test --only compose

# each feature alone and none must build (needs cargo-hack)
hack:
    cargo hack check --workspace --each-feature --no-dev-deps

# licences, sources, advisories (needs cargo-deny and the network)
deny:
    cargo deny check

# order of manifests, spelling (needs cargo-sort and typos)
tidy:
    cargo sort --workspace --grouped --check
    typos

# renew .env.example from the table of settings
env-example:
    UPDATE_ENV_EXAMPLE=1 cargo test -p stepgraph-server --lib the_checked_in_example_is_the_table

# renew the sample documents
knowledge:
    python3 -m venv target/tools/knowledge
    target/tools/knowledge/bin/pip install --quiet -r tools/knowledge/requirements.txt
    target/tools/knowledge/bin/python tools/knowledge/build.py

# all of it, in CI's order
ci:
    .ci/run
