//! Tenants never mix: thousands of random operations of two tenants that name everything alike, over every route of the
//! whole server. Whatever one of them is answered, and whatever is kept, sent, counted or logged of it, is looked through
//! for the other: with everything embedded, and on a PostgreSQL, a Redis, a Qdrant and a provider of models.

mod caller;
mod hearers;
mod kept;
mod servers;
mod watched;
mod world;

use std::{env, str::FromStr};

use futures_util::future::join_all;
use serde_json::Value;

use self::{
    caller::Caller,
    kept::{Store, check_apart, check_gone},
    servers::Servers,
    watched::Lines,
    world::{Closed, World},
};

/// Operations of both tenants together, unless `STEPGRAPH_TENANT_OPERATIONS` says otherwise.
const OPERATIONS: usize = 10_000;
/// The same where each takes several servers.
const OPERATIONS_ON_SERVERS: usize = 4_000;
/// Callers of each tenant at once, each with documents and sessions of its own.
const CALLERS: usize = 4;
const NAMES: [&str; 2] = ["acmealpha", "globexbeta"];
/// A word in every text of the tenant.
const WORDS: [&str; 2] = ["zebraheron", "walrusotter"];
/// What the ids of a tenant's traces begin with.
const TRACES: [&str; 2] = ["a11ce0a11ce0a11c", "b0b0b0b0fafafafa"];
/// Routes that know no tenant.
const OF_NOBODY: [&str; 7] = [
    "get /",
    "get /health",
    "get /ok",
    "get /info",
    "get /metrics",
    "get /docs",
    "get /openapi.json",
];

/// What is looked for where it must not be: name, word, trace, key.
type Marks = [[String; 4]; 2];

fn assert_apart(place: &str, of: usize, text: &str, marks: &Marks) {
    for mark in &marks[1 - of] {
        assert!(
            !text.contains(mark),
            "`{mark}` shows to {}, in {place}: {text}",
            NAMES[of]
        );
    }
}

/// Whose text this is, by the marks in it. One of both is a leak, one of nobody is `None`.
fn owner(place: &str, text: &str, marks: &Marks) -> Option<usize> {
    let of = (0..2).find(|of| marks[*of].iter().any(|mark| text.contains(mark)))?;
    assert_apart(place, of, text, marks);
    Some(of)
}

fn setting<T: FromStr>(name: &str, default: T) -> T
where
    T::Err: std::fmt::Debug,
{
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// How many operations there are to be, where `default` are by default.
fn operations(default: usize) -> usize {
    setting("STEPGRAPH_TENANT_OPERATIONS", default)
}

/// Lets both tenants do so many operations, and looks at all that came of it while the server lives.
async fn walk(world: &World, lines: &Lines, operations: usize) {
    let seed = setting("STEPGRAPH_TENANT_SEED", 1);
    println!("{operations} operations, STEPGRAPH_TENANT_SEED={seed}");
    let callers = (0..2).flat_map(|of| (0..CALLERS).map(move |number| (of, number)));
    let mut callers: Vec<_> = callers
        .map(|(of, number)| Caller::new(world, of, number, seed))
        .collect();
    let each = operations.div_ceil(callers.len());
    join_all(callers.iter_mut().map(|caller| caller.operations(each))).await;

    every_route_was_called(world).await;
    world.cache.check();
    metrics_and_lines_name_one_tenant_each(world, lines).await;
    world.hearers.until_alerts_came().await;
    world.whole.server.drain().await;
    world.hearers.check(&world.marks);
}

/// Leaves a job of each waiting, looks at what is kept, takes it out, and erases one tenant and then the other.
async fn look_and_erase(closed: &Closed, stores: &[&dyn Store]) {
    closed.leave_jobs().await;
    check_apart(stores, &closed.marks).await;
    for of in 0..2 {
        let exported = closed.command(&["tenant", "export", NAMES[of]]);
        assert_eq!(owner("an export", &exported, &closed.marks), Some(of));
        assert!(exported.contains(WORDS[of]), "{exported}");
    }
    check_gone(stores, closed).await;
}

async fn every_route_was_called(world: &World) {
    let api: Value = serde_json::from_str(&world.read("/openapi.json").await).unwrap();
    let called = world.called.lock().unwrap();
    for (path, operations) in api["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let operation = format!("{method} {path}");
            let known = called.contains(&operation) || OF_NOBODY.contains(&operation.as_str());
            assert!(known, "no tenant calls `{operation}`: add it to the operations");
        }
    }
}

async fn metrics_and_lines_name_one_tenant_each(world: &World, lines: &Lines) {
    let metrics = world.read("/metrics").await;
    let logged = lines.text();
    assert!(NAMES.iter().all(|name| metrics.contains(name) && logged.contains(name)));
    for line in metrics.lines().chain(logged.lines()) {
        owner("a label or a line", line, &world.marks);
        for [_name, word, _trace, key] in &world.marks {
            assert!(!line.contains(word) && !line.contains(key), "{line}");
        }
    }
    assert!(
        !TRACES.iter().any(|trace| metrics.contains(trace)),
        "a trace is no label"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_two_tenants_do_neither_is_shown_kept_sent_counted_or_logged_with_the_other() {
    let (lines, folder) = (Lines::collected(), tempfile::tempdir().unwrap());
    let (operations, scripted) = (operations(OPERATIONS), ("STEPGRAPH_MODEL", "scripted".to_owned()));
    let mut world = World::on(folder.path(), &[scripted], operations).await;
    let file = async |name| kept::File::open(&folder.path().join(name)).await;
    let (records, vectors) = (file("stepgraph.db").await, file("vectors.db").await);
    world.admit().await;

    walk(&world, &lines, operations).await;

    look_and_erase(&world.close(), &[&records, &vectors]).await;
}

mod live {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whatever_two_tenants_do_on_servers_neither_is_shown_kept_sent_counted_or_logged_with_the_other() {
        let (lines, folder) = (Lines::collected(), tempfile::tempdir().unwrap());
        let (operations, servers) = (operations(OPERATIONS_ON_SERVERS), Servers::start().await);
        let mut world = World::on(folder.path(), &servers.environment(), operations).await;
        let jobs = kept::File::open(&folder.path().join("stepgraph.db")).await;
        let (records, threads) = (servers.records().await, servers.threads().await);
        let (keys, points) = (servers.keys().await, servers.points().await);
        world.admit().await;

        walk(&world, &lines, operations).await;

        servers.check_all_traced();
        let closed = world.close();
        look_and_erase(&closed, &[&jobs, &records, &threads, &keys, &points]).await;
        servers.check_sent(&closed.marks);
    }
}
