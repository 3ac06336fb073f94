//! B3: a fan-out.

use std::{future::ready, sync::Arc};

use serde::{Deserialize, Serialize};
use stepgraph::{Append, END, Graph, START, State};

use crate::{
    chain::thread,
    floor,
    measure::Figures,
    settings::{Counted, Settings},
};

const ITEMS: u64 = 1_000;

#[derive(State, Clone, Debug, Serialize, Deserialize)]
struct Crowd {
    #[state(untracked)]
    counted: Counted,
    #[state(input)]
    items: u64,
    #[state(reducer = Append)]
    out: Vec<u64>,
    joined: usize,
}

fn graph() -> Graph<Crowd> {
    let mut g = Graph::<Crowd>::builder("crowd");
    let worker = g.worker("worker", |item: u64| ready(Ok(Crowd::update().out(vec![item]))));
    let joined = g.node("joined", |crowd: Arc<Crowd>| {
        ready(Ok(Crowd::update().joined(crowd.out.len())))
    });
    g.fan_out(START, worker, |crowd| 0..crowd.items);
    g.join([worker], joined).edge(joined, END);
    g.build().unwrap()
}

pub(crate) async fn crowd(settings: Settings) -> Vec<Figures> {
    let graph = graph();
    let run = || async {
        let outcome = graph.run(&thread(), CrowdInput { items: ITEMS }).await;
        let state = outcome.unwrap().done().unwrap();
        assert!(state.out.iter().copied().eq(0..ITEMS));
        assert_eq!(state.joined, state.out.len());
    };
    let items = usize::try_from(ITEMS).unwrap();
    let engine = || settings.repeat(run);
    let (time, floor) = settings.beside(engine, || floor::crowd(settings, items)).await;
    vec![Figures {
        steps: ITEMS,
        time,
        floor,
        counts: settings.count(|| ready(()), |()| run()),
        ..Figures::default()
    }]
}
