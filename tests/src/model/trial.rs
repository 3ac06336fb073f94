//! A case run on both sides, op by op, up to the first difference.

use stepgraph::Durability;

use super::{
    case::{Case, Does, Graph, Op},
    cut::{cut, kept, node_of},
    engine::{Came, Engine},
    mutation::Mutation,
    reference::Model,
    thread::{Left, Thread},
    view::{View, ended, traced},
};

/// Where the engine and the model part.
#[derive(Debug, Clone)]
pub(super) struct Difference {
    /// The op after which they do, by its number.
    pub(super) op: usize,
    pub(super) what: String,
    pub(super) model: Vec<String>,
    pub(super) engine: Vec<String>,
}

/// What was done, for whoever wants to read it.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) lines: Vec<String>,
    pub(super) mermaid: String,
}

/// Runs a case; `told` is filled if it is given.
pub(super) async fn run(case: &Case, mutation: Option<Mutation>, told: Option<&mut Told>) -> Result<(), Difference> {
    let engine = Engine::open(case).await;
    let mut trial = Trial {
        model: Model::of(case, mutation),
        case,
        mutation,
        told,
    };
    if let Some(told) = &mut trial.told {
        told.mermaid = engine.mermaid();
    }
    for (number, op) in case.script.iter().enumerate() {
        trial.step(&engine, number, op).await?;
    }
    Ok(())
}

struct Trial<'a, 'b> {
    case: &'a Case,
    model: Model<'a>,
    mutation: Option<Mutation>,
    told: Option<&'b mut Told>,
}

impl Trial<'_, '_> {
    async fn step(&mut self, engine: &Engine<'_>, number: usize, op: &Op) -> Result<(), Difference> {
        let count = self.model.thread.checkpoints.len();
        // The model first: a case that outgrows what it takes never comes to the engine.
        let before = self.model.thread.clone();
        let outcome = self.model.perform(op);
        let came = engine.perform(op, count).await;
        let seen = engine.view().await;
        let (mut of_model, mut of_engine) = (Vec::new(), Vec::new());
        let differ = |what: &str, model: Vec<String>, engine: Vec<String>| Difference {
            op: number,
            what: what.to_owned(),
            model,
            engine,
        };
        if came.crashed {
            let whole = std::mem::take(&mut self.model.thread);
            let cut = cut(self.model.graph, &before, &whole, &seen);
            self.model.thread = cut.map_err(|what| {
                let whole = View::of(self.model.graph, &whole, self.mutation);
                differ(&format!("the run was cut off: {what}"), whole.lines(), seen.lines())
            })?;
            if let Some(what) = self.lost_too_much(&came, &seen) {
                return Err(differ(&what, Vec::new(), seen.lines()));
            }
        } else {
            let heard =
                matches!(op, Op::Input { how, .. } | Op::Resume { how, .. } | Op::Rerun { how, .. } if how.heard);
            of_model.extend(ended(outcome.end.as_ref()));
            of_engine.extend(ended(came.end.as_ref()));
            of_model.extend(traced(&outcome.trace, heard));
            of_engine.extend(traced(&came.trace, heard));
            if let Some(broken) = came.broken_laws.first() {
                return Err(differ(broken, of_model, of_engine));
            }
        }
        self.settle(&seen)
            .map_err(|what| differ(&what, Vec::new(), seen.lines()))?;
        of_model.extend(View::of(self.model.graph, &self.model.thread, self.mutation).lines());
        of_engine.extend(seen.lines());
        if let Some(told) = &mut self.told {
            told.lines.push(format!(
                "op {number}: {op:?}{}",
                if came.crashed { " (cut off)" } else { "" }
            ));
            told.lines.extend(side_by_side(&of_model, &of_engine));
        }
        if of_model == of_engine {
            return Ok(());
        }
        Err(differ("they differ", of_model, of_engine))
    }

    /// Where only the store knows how much a step has left, the model learns it, if that may be.
    fn settle(&mut self, seen: &View) -> Result<(), String> {
        learn(self.model.graph, &mut self.model.thread, seen)
    }

    /// A run is never further ahead of its store than its durability says.
    fn lost_too_much(&self, came: &Came, seen: &View) -> Option<String> {
        let ahead = match self.case.ground.durability {
            Durability::Sync => 1,
            Durability::Async => 2,
            Durability::Exit => return None,
        };
        let newest = came.newest?;
        let kept = seen.head.as_ref().map_or(-1, |head| seen.history[head.at].step);
        (newest > kept + ahead).then(|| format!("step {newest} had begun, and only step {kept} is kept"))
    }
}

/// The same for a thread, and for those inside the tasks of its newest step.
fn learn(graph: &Graph, thread: &mut Thread, seen: &View) -> Result<(), String> {
    let Some((at, head)) = thread.head.zip(seen.head.as_ref()).filter(|(at, head)| head.at == *at) else {
        return Ok(());
    };
    let left = &mut thread.checkpoints[at].left;
    if left.unsure {
        *left = kept(graph, &Left::default(), left, head)?;
    }
    for task in &head.tasks {
        let hosts = graph.nodes.get(node_of(&task.id)).map(|node| &node.does);
        let inner = left.tasks.get_mut(&task.id).and_then(|left| left.inner.as_mut());
        if let (Some(Does::Host(graph)), Some(inner), Some(seen)) = (hosts, inner, &task.inner) {
            learn(graph, inner, seen).map_err(|what| format!("in `{}`: {what}", task.id))?;
        }
    }
    Ok(())
}

/// Two columns as lines: what both have once, what differs marked.
pub(super) fn side_by_side(model: &[String], engine: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    for at in 0..model.len().max(engine.len()) {
        match (model.get(at), engine.get(at)) {
            (Some(a), Some(b)) if a == b => lines.push(format!("      {a}")),
            (a, b) => {
                lines.extend(a.map(|a| format!("model {a}")));
                lines.extend(b.map(|b| format!("engine {b}")));
            }
        }
    }
    lines
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "after op {}: {}", self.op, self.what)?;
        let both = side_by_side(&self.model, &self.engine);
        let first = both
            .iter()
            .position(|line| !line.starts_with("      "))
            .unwrap_or_default();
        for line in both.iter().skip(first).take(6) {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}
