//! What a step may cost: no copy of the state, and few allocations.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support {
    pub(crate) mod threads;
}

use std::{
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use stepgraph::{END, FromState, Graph, Memory, START, State, Sum};
use support::threads::thread;

/// How often any state of this process was copied; the tests that read it take turns.
static COPIES: AtomicUsize = AtomicUsize::new(0);
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Counts its copies.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Counted;

impl Clone for Counted {
    fn clone(&self) -> Self {
        COPIES.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Chain {
    counted: Counted,
    #[state(reducer = Sum)]
    n: u64,
}

/// A view that copies one number.
struct Number(u64);

impl FromState<Chain> for Number {
    fn from_state(chain: &Arc<Chain>) -> Self {
        Self(chain.n)
    }
}

fn chain(steps: u64) -> Graph<Chain> {
    wired(steps, false)
}

/// A chain whose nodes say what they write, or do not.
fn wired(steps: u64, says: bool) -> Graph<Chain> {
    let mut g = Graph::<Chain>::builder("chain");
    let mut before = None;
    for step in 0..steps {
        let node = if step % 2 == 0 {
            g.node(format!("{step:03}"), |chain: Arc<Chain>| {
                ready(Ok(Chain::update().n(u64::from(chain.n < u64::MAX))))
            })
        } else {
            g.node(format!("{step:03}"), |Number(n): Number| async move {
                tokio::task::yield_now().await;
                Ok(Chain::update().n(u64::from(n < u64::MAX)))
            })
        };
        if says {
            g.writes(node, ["n"]);
        }
        match before.replace(node) {
            None => g.edge(START, node),
            Some(before) => g.edge(before, node),
        };
    }
    g.edge(before.unwrap(), END);
    g.build().unwrap()
}

#[tokio::test]
async fn a_chain_of_a_hundred_steps_copies_its_state_never() {
    let _turn = TURN.lock().await;
    for kept in [false, true] {
        let graph = if kept {
            chain(100).checkpointer(Memory::new())
        } else {
            chain(100)
        };
        let before = COPIES.load(Ordering::SeqCst);
        let state = graph
            .run(&thread("t"), ChainInput::new())
            .await
            .unwrap()
            .done()
            .unwrap();
        assert_eq!(
            (state.n, COPIES.load(Ordering::SeqCst) - before),
            (100, 0),
            "kept: {kept}"
        );
    }
}

#[tokio::test]
async fn a_step_side_by_side_copies_its_state_never_without_a_branch() {
    let _turn = TURN.lock().await;
    let mut g = Graph::<Chain>::builder("wide");
    for name in ["a", "b", "c"] {
        let node = g.node(name, |_: Arc<Chain>| async {
            tokio::task::yield_now().await;
            Ok(Chain::update().n(1_u64))
        });
        g.edge(START, node).edge(node, END);
    }
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let before = COPIES.load(Ordering::SeqCst);
    let state = graph
        .run(&thread("t"), ChainInput::new())
        .await
        .unwrap()
        .done()
        .unwrap();
    assert_eq!((state.n, COPIES.load(Ordering::SeqCst) - before), (3, 0));
}

/// Allocations of one step, told apart from those of the run by the difference of two lengths.
fn allocations_a_step(kept: bool, says: bool) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let run = |steps: u64| {
        let graph = if kept {
            wired(steps, says).checkpointer(Memory::new())
        } else {
            wired(steps, says)
        };
        let work = || {
            let run = async { graph.run(&thread("t"), ChainInput::new()).step_limit(1000).await };
            runtime.block_on(run).unwrap();
        };
        work();
        let measured = allocation_counter::measure(work);
        measured.count_total
    };
    (run(200) - run(100)).div_ceil(100)
}

#[test]
fn a_step_allocates_little() {
    let _turn = TURN.blocking_lock();
    let (alone, kept) = (allocations_a_step(false, false), allocations_a_step(true, false));
    println!("allocations a step: {alone} without a store, {kept} with the one in memory");
    assert!(alone <= 2, "{alone} allocations a step without a store");
    assert!(kept <= 3, "{kept} allocations a step with the store in memory");
}

/// Allocations of a run of one step, without those of its thread's name and of the runtime.
fn allocations_a_run(kept: bool) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = kept.then(|| Arc::new(Memory::new()));
    let mut graph = chain(1);
    if let Some(store) = store {
        graph = graph.shared_checkpointer(store);
    }
    let mut threads: Vec<_> = (0..99).map(|at| thread(&format!("t{at}"))).collect();
    let mut run = || {
        let thread = threads.pop().unwrap();
        let measured = allocation_counter::measure(|| {
            runtime
                .block_on(async { graph.run(&thread, ChainInput::new()).await })
                .unwrap();
        });
        measured.count_total
    };
    // Some make room in the tables of threads as well.
    (0..99).map(|_| run()).min().unwrap()
}

#[test]
fn a_run_allocates_little() {
    let _turn = TURN.blocking_lock();
    let (alone, kept) = (allocations_a_run(false), allocations_a_run(true));
    println!("allocations a run of one step: {alone} without a store, {kept} with the one in memory");
    assert!(alone <= 3, "{alone} allocations a run without a store");
    assert!(kept <= 7, "{kept} allocations a run with the store in memory");
}

#[test]
fn that_a_node_says_what_it_writes_costs_no_allocation() {
    let _turn = TURN.blocking_lock();
    for kept in [false, true] {
        assert_eq!(
            allocations_a_step(kept, true),
            allocations_a_step(kept, false),
            "kept: {kept}"
        );
    }
}
