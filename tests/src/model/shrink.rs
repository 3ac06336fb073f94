//! A smaller case that still fails.

use super::{
    case::{Body, Case, Does, Graph, Op, Way},
    trial,
};

/// How many smaller cases are tried at most.
const TRIES_MAX: usize = 600;

/// Leaves out of a failing case what it fails without.
pub(super) async fn shrink(mut case: Case, fails: impl AsyncFn(&Case) -> bool) -> Case {
    let mut tries = 0;
    loop {
        let mut smaller = None;
        for candidate in candidates(&case) {
            tries += 1;
            if tries > TRIES_MAX {
                return case;
            }
            if fails(&candidate).await {
                smaller = Some(candidate);
                break;
            }
        }
        match smaller {
            Some(found) => case = found,
            None => return case,
        }
    }
}

/// Whether the engine and the model still part, or one of them panics.
pub(super) async fn parts(case: &Case) -> bool {
    trial::run(case, None, None).await.is_err()
}

fn candidates(case: &Case) -> Vec<Case> {
    let mut all = Vec::new();
    let mut try_one = |change: &dyn Fn(&mut Case)| {
        let mut changed = case.clone();
        change(&mut changed);
        all.push(changed);
    };
    for at in (0..case.script.len()).rev() {
        try_one(&|case| drop(case.script.remove(at)));
    }
    for name in case.graph.nodes.keys() {
        try_one(&|case| without(&mut case.graph, name));
    }
    for at in 0..case.graph.ways.len() {
        try_one(&|case| drop(case.graph.ways.remove(at)));
    }
    for (name, node) in &case.graph.nodes {
        match &node.does {
            Does::Host(_) => try_one(&|case| {
                let node = case.graph.nodes.get_mut(name).expect("the node");
                node.does = Does::Body(Body::default());
            }),
            Does::Body(body) => {
                for simple in simpler(body) {
                    try_one(&|case| {
                        let node = case.graph.nodes.get_mut(name).expect("the node");
                        node.does = Does::Body(simple.clone());
                    });
                }
            }
        }
        if node.deferred {
            try_one(&|case| case.graph.nodes.get_mut(name).expect("the node").deferred = false);
        }
        if node.attempts > 1 {
            try_one(&|case| case.graph.nodes.get_mut(name).expect("the node").attempts = 1);
        }
    }
    if !case.graph.before.is_empty() || !case.graph.after.is_empty() {
        try_one(&|case| {
            case.graph.before.clear();
            case.graph.after.clear();
        });
    }
    for at in 0..case.script.len() {
        if case.script[at].crash().is_some() {
            try_one(&|case| plain(&mut case.script[at]));
        }
    }
    all.retain(|case| case.graph.starts());
    all
}

/// The same op without a crash, and without places to stop.
fn plain(op: &mut Op) {
    if let Op::Input { how, .. } | Op::Resume { how, .. } | Op::Rerun { how, .. } = op {
        how.crash = None;
    }
}

fn simpler(body: &Body) -> Vec<Body> {
    let mut all = Vec::new();
    for at in 0..body.writes.len() {
        let mut simple = body.clone();
        simple.writes.remove(at);
        all.push(simple);
    }
    if body.fails.is_some() {
        all.push(Body {
            fails: None,
            ..body.clone()
        });
    }
    if body.goto.is_some() {
        all.push(Body {
            goto: None,
            ..body.clone()
        });
    }
    if !body.asks.is_empty() {
        all.push(Body {
            asks: Vec::new(),
            ..body.clone()
        });
    }
    if body.yields > 0 {
        all.push(Body {
            yields: 0,
            ..body.clone()
        });
    }
    all
}

/// The graph without a node and the ways that name it; branches that may lead there still may, and fail then.
fn without(graph: &mut Graph, name: &str) {
    graph.nodes.remove(name);
    graph.before.retain(|node| node != name);
    graph.after.retain(|node| node != name);
    graph.ways.retain(|way| match way {
        Way::Edge(from, to) => from != name && to != name,
        Way::Join(_, from, to) => !from.iter().any(|from| from == name) && to != name,
        Way::Branch { from, .. } => from != name,
    });
}

impl Graph {
    /// Whether anything leads out of START, which a graph must have.
    fn starts(&self) -> bool {
        self.ways.iter().any(|way| match way {
            Way::Edge(from, _) | Way::Branch { from, .. } => from == "START",
            Way::Join(_, from, _) => from.iter().any(|from| from == "START"),
        })
    }
}
