//! A hit is an output like any other: it is kept, arrives at joins and leads on.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use stepgraph::{Command, END, Graph, Memory, NodeError, START, State, checkpoint::At, to};

use super::{HOUR, Runs, Way, Work, ask, log, support::threads::thread};

/// `keeps`, which is cached, beside `breaks`, which fails while broken; both join in `both`.
fn joined(runs: &Runs, broken: &Arc<AtomicUsize>) -> Graph<Work> {
    let (runs, broken) = (runs.clone(), Arc::clone(broken));
    let mut g = Graph::<Work>::builder("joined");
    let keeps = g.node("keeps", move |_: Arc<Work>| {
        let run = runs.up();
        async move { Ok(Work::update().log([format!("run {run}")])) }
    });
    let breaks = g.node("breaks", move |_: Arc<Work>| {
        let broken = broken.load(Ordering::SeqCst) > 0;
        async move {
            if broken {
                Err(NodeError::terminal("broken"))
            } else {
                Ok(())
            }
        }
    });
    let both = g.node("both", |_: Arc<Work>| async {
        Ok(Work::update().log(["both".to_owned()]))
    });
    g.cache(keeps, HOUR, |work| work.question.clone());
    g.edge(START, keeps)
        .edge(START, breaks)
        .join([keeps, breaks], both)
        .edge(both, END);
    g.build().unwrap()
}

#[tokio::test]
async fn a_hit_beside_a_failure_is_kept_and_arrives_at_joins_like_a_run() {
    let (runs, broken) = (Runs::default(), Arc::new(AtomicUsize::new(0)));
    let graph = joined(&runs, &broken).checkpointer(Memory::new());
    assert_eq!(log(&graph, &thread("first"), "why").await, ["run 1", "both"]);
    broken.store(1, Ordering::SeqCst);
    graph.run(&thread("t"), ask("why")).await.unwrap_err();
    let snapshot = graph.state(&thread("t"), At::Head).await.unwrap().unwrap();
    assert_eq!(
        snapshot.state.log,
        ["run 1"],
        "what the cache gave is kept with the unfinished step"
    );
    graph.clear_cache("keeps").await.unwrap();
    broken.store(0, Ordering::SeqCst);
    let state = graph.resume(&thread("t")).await.unwrap().done().unwrap();
    assert_eq!(
        (state.log, runs.get()),
        (vec!["run 1".to_owned(), "both".to_owned()], 1)
    );
}

#[tokio::test]
async fn what_a_node_chose_besides_its_edges_is_chosen_again_by_a_hit() {
    let runs = Runs::default();
    let count = runs.clone();
    let mut g = Graph::<Work>::builder("also");
    let choose = g.router_also("choose", move |work: Arc<Work>| {
        count.up();
        let goto = (work.question.len() > 5).then_some(Way::Long);
        async move {
            Ok(Command {
                update: Work::update(),
                goto,
            })
        }
    });
    let [always, long] = ["always", "long"].map(|name| {
        g.node(name, move |_: Arc<Work>| async move {
            Ok(Work::update().log([name.to_owned()]))
        })
    });
    g.edge(START, choose)
        .edge(choose, always)
        .edge(always, END)
        .edge(long, END);
    g.routes(choose, |way| match way {
        Way::Short => to(END),
        Way::Long => to(long),
    });
    g.cache(choose, HOUR, |work| work.question.clone());
    let graph = g.build().unwrap();
    for round in 1..=2 {
        assert_eq!(log(&graph, &thread("t"), "why").await, ["always"]);
        assert_eq!(log(&graph, &thread("t"), "why not").await, ["always", "long"]);
        assert_eq!(runs.get(), 2, "round {round}");
    }
}
