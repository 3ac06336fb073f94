//! B4: a large state of which each step changes little.

use std::{future::ready, sync::Arc};

use serde::{Deserialize, Serialize};
use stepgraph::{END, Graph, Route, START, State};

use crate::{
    chain::thread,
    floor,
    measure::Figures,
    settings::{Counted, Settings},
};

const STEPS: usize = 100;

/// Declares the state, its input and the update of one field by its number.
macro_rules! wide {
    ($($at:literal $field:ident)*) => {
        #[derive(State, Clone, Debug, Serialize, Deserialize)]
        struct Wide {
            #[state(untracked)]
            counted: Counted,
            n: usize,
            $(#[state(input)] $field: String,)*
        }

        fn input() -> WideInput {
            WideInput { $($field: "x".repeat(2048),)* }
        }

        fn replaced(at: usize, text: String) -> WideUpdate {
            match at {
                $($at => Wide::update().$field(text),)*
                _ => Wide::update(),
            }
        }
    };
}

wide! {
    0 f00 1 f01 2 f02 3 f03 4 f04 5 f05 6 f06 7 f07 8 f08 9 f09
    10 f10 11 f11 12 f12 13 f13 14 f14 15 f15 16 f16 17 f17 18 f18 19 f19
    20 f20 21 f21 22 f22 23 f23 24 f24 25 f25 26 f26 27 f27 28 f28 29 f29
    30 f30 31 f31 32 f32 33 f33 34 f34 35 f35 36 f36 37 f37 38 f38 39 f39
    40 f40 41 f41 42 f42 43 f43 44 f44 45 f45 46 f46 47 f47 48 f48 49 f49
}

#[derive(Route, Clone, Copy, Debug)]
enum Next {
    Again,
    Enough,
}

fn filler(n: usize) -> String {
    let letter = u8::try_from(n % 26).unwrap_or_default() + b'a';
    char::from(letter).to_string().repeat(2048)
}

fn graph() -> Graph<Wide> {
    let mut g = Graph::<Wide>::builder("wide");
    let node = g.node("replace", |wide: Arc<Wide>| {
        ready(Ok(replaced(wide.n % 50, filler(wide.n)).n(wide.n + 1)))
    });
    g.edge(START, node);
    g.branch(
        node,
        |wide| if wide.n < STEPS { Next::Again } else { Next::Enough },
        move |next| match next {
            Next::Again => stepgraph::to(node),
            Next::Enough => stepgraph::to(END),
        },
    );
    g.build().unwrap()
}

pub(crate) async fn wide(settings: Settings) -> Vec<Figures> {
    let (graph, first) = (graph(), input());
    let run = || async {
        let outcome = graph.run(&thread(), first.clone()).step_limit(1_000).await;
        let state = outcome.unwrap().done().unwrap();
        assert_eq!((state.n, &state.f49), (STEPS, &filler(STEPS - 1)));
    };
    let engine = || settings.repeat(run);
    let (time, floor) = settings
        .beside(engine, || floor::wide(settings, 50, STEPS, filler))
        .await;
    vec![Figures {
        steps: u64::try_from(STEPS).unwrap(),
        time,
        floor,
        counts: settings.count(|| ready(()), |()| run()),
        ..Figures::default()
    }]
}
