//! The least that the same work can cost: the node bodies through boxed futures and an index, without a graph.

use std::{
    collections::HashMap,
    future::Future,
    hint::black_box,
    pin::Pin,
    sync::{Arc, Mutex},
};

use serde::{Deserialize, Serialize};

use crate::{
    measure::{Spent, concurrent, once},
    settings::Settings,
};

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Node<S> = Arc<dyn for<'a> Fn(&'a mut S) -> BoxFuture<'a, ()> + Send + Sync>;

#[derive(Default)]
struct Number {
    n: u64,
}

/// A chain of `nodes`, or one node again and again, until so many steps are done.
pub(crate) async fn chain(settings: Settings, nodes: usize, steps: u64) -> Spent {
    let node = || -> Node<Number> { Arc::new(|s| Box::pin(async move { s.n = black_box(s.n + 1) })) };
    let nodes: Vec<_> = (0..nodes).map(|_| node()).collect();
    settings
        .repeat(|| async {
            let mut state = Number::default();
            let mut at = 0;
            while state.n < steps {
                if let Some(node) = nodes.get(at) {
                    node(&mut state).await;
                }
                if nodes.len() > 1 {
                    at += 1;
                }
            }
            assert_eq!(state.n, steps);
        })
        .await
}

/// A task for each item, collected in order.
pub(crate) async fn crowd(settings: Settings, items: usize) -> Spent {
    settings
        .repeat(|| async {
            let mut set = tokio::task::JoinSet::new();
            for item in 0..items {
                set.spawn(async move { (item, item) });
            }
            let mut out = Vec::with_capacity(items);
            while let Some(ended) = set.join_next().await {
                out.push(ended.unwrap());
            }
            out.sort_unstable();
            let out: Vec<_> = out.into_iter().map(|(_, item)| item).collect();
            assert_eq!(out.len(), items);
        })
        .await
}

struct Wide {
    n: usize,
    fields: Vec<String>,
}

/// One field of many replaced in each step.
pub(crate) async fn wide(settings: Settings, fields: usize, steps: usize, filler: fn(usize) -> String) -> Spent {
    let node: Node<Wide> = Arc::new(move |s| {
        Box::pin(async move {
            let at = s.n % s.fields.len();
            if let Some(field) = s.fields.get_mut(at) {
                *field = filler(s.n);
            }
            s.n += 1;
        })
    });
    let first: Vec<_> = (0..fields).map(|_| "x".repeat(2048)).collect();
    settings
        .repeat(|| async {
            let mut state = Wide {
                n: 0,
                fields: first.clone(),
            };
            while state.n < steps {
                node(&mut state).await;
            }
            black_box(&state.fields);
        })
        .await
}

/// The chat's state.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Chat {
    question: String,
    docs: Vec<String>,
    answer: String,
    logged: u32,
}

fn chat_nodes() -> [Node<Chat>; 3] {
    [
        Arc::new(|s| Box::pin(async move { s.docs = ["d1", "d2", "d3"].map(str::to_owned).to_vec() })),
        Arc::new(|s| Box::pin(async move { "the answer".clone_into(&mut s.answer) })),
        Arc::new(|s| Box::pin(async move { s.logged = 1 })),
    ]
}

/// Chats of three nodes, 64 at a time; with `kept`, the state is encoded into a map after each step.
pub(crate) async fn chats(settings: Settings, runs: usize, question: &'static str, kept: bool) -> Spent {
    let map: Arc<Mutex<HashMap<usize, Vec<Vec<u8>>>>> = Arc::default();
    let nodes = Arc::new(chat_nodes());
    let job = move |at: usize| {
        let (nodes, map) = (Arc::clone(&nodes), Arc::clone(&map));
        async move {
            let mut state = Chat {
                question: question.to_owned(),
                ..Chat::default()
            };
            let save = |state: &Chat| {
                if kept {
                    let bytes = serde_json::to_vec(state).unwrap();
                    map.lock().unwrap().entry(at).or_default().push(bytes);
                }
            };
            save(&state);
            for node in nodes.iter() {
                node(&mut state).await;
                save(&state);
            }
            assert_eq!(black_box(&state).logged, 1);
        }
    };
    if kept {
        once(concurrent(runs, 64, job)).await
    } else {
        settings.repeat(|| concurrent(runs, 64, job.clone())).await
    }
}
