//! The body of a case's node: its ops, run one after the other.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
};

use serde::Serialize;
use serde_json::{Map, Value, json};
use stepgraph::{
    Ask, Context, Graph, NodeError,
    dynamic::{Goto, JsonInput, JsonState, JsonUpdate, Leave, Reply, TaskInput},
};

use super::expr::{Scope, truth};

/// What lives outside the graphs of a case.
#[derive(Default)]
pub(super) struct Counters {
    /// How often each node's ops were started in this step of the script.
    pub(super) runs: BTreeMap<String, u64>,
    failures: HashMap<String, u64>,
    /// Nodes that were given an answer in this step of the script.
    pub(super) answered: BTreeSet<String>,
}

impl Counters {
    /// Another step of the script begins; failures are counted on.
    pub(super) fn begin(&mut self) {
        self.runs.clear();
        self.answered.clear();
    }
}

/// A node of a case.
pub(super) struct Node {
    pub(super) path: String,
    pub(super) name: String,
    pub(super) ops: Vec<Value>,
    /// The failure kinds that are tried again; all if `None`.
    pub(super) retried: Option<Vec<String>>,
    pub(super) counters: Arc<Mutex<Counters>>,
    pub(super) callable: HashMap<String, Graph<JsonState>>,
}

/// A failure that a case asks for.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) path: String,
    kind: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failure in {}", self.kind, self.path)
    }
}

impl std::error::Error for Failure {}

/// A question of a case: any JSON, answered by any JSON.
#[derive(Serialize)]
#[serde(transparent)]
struct AnyQuestion(Value);

impl Ask for AnyQuestion {
    type Answer = Value;
    const NAME: &'static str = "question";
}

/// One entry of a node.
struct Entry {
    node: Arc<Node>,
    ctx: Context<Value>,
    channels: Map<String, Value>,
    variables: BTreeMap<String, Value>,
    reply: Reply,
    asked: u32,
    called: u32,
}

/// Runs a node's ops.
pub(super) async fn run(node: Arc<Node>, input: TaskInput, ctx: Context<Value>) -> Result<Reply, NodeError> {
    let ops = node.ops.clone();
    *node.counters.lock().unwrap().runs.entry(node.path.clone()).or_default() += 1;
    let mut entry = Entry {
        channels: input.to_object(),
        node,
        ctx,
        variables: BTreeMap::new(),
        reply: Reply::default(),
        asked: 0,
        called: 0,
    };
    entry.all(&ops).await?;
    Ok(entry.reply)
}

impl Entry {
    fn eval(&self, expr: &Value) -> Value {
        let scope = Scope {
            channels: &self.channels,
            variables: &self.variables,
        };
        scope.eval(expr)
    }

    fn all<'a>(&'a mut self, ops: &'a [Value]) -> Pin<Box<dyn Future<Output = Result<(), NodeError>> + Send + 'a>> {
        Box::pin(async move {
            for op in ops {
                if self.reply.leave.is_some() {
                    break;
                }
                self.one(op).await?;
            }
            Ok(())
        })
    }

    async fn one(&mut self, op: &Value) -> Result<(), NodeError> {
        let text = |key: &str| op[key].as_str().unwrap_or_default().to_owned();
        match op["op"].as_str().unwrap_or_default() {
            "set" => {
                let update = std::mem::take(&mut self.reply.update);
                self.reply.update = update.set(text("ch"), self.eval(&op["value"]));
            }
            "overwrite" => {
                let update = std::mem::take(&mut self.reply.update);
                self.reply.update = update.overwrite(text("ch"), self.eval(&op["value"]));
            }
            "let" => {
                let value = self.eval(&op["value"]);
                self.variables.insert(text("var"), value);
            }
            "emit" => {
                let event = json!({"node": self.node.name, "data": self.eval(&op["value"])});
                self.ctx.emit(event).await;
            }
            "interrupt" => {
                let name = format!("{}", self.asked);
                self.asked += 1;
                let answer = self.ctx.ask_as(&name, AnyQuestion(self.eval(&op["value"])))?;
                self.node
                    .counters
                    .lock()
                    .unwrap()
                    .answered
                    .insert(self.node.path.clone());
                self.variables.insert(text("into"), answer);
            }
            "fail" => self.fail(op)?,
            "goto" => {
                let gotos = self.destinations(&op["to"]);
                self.reply.goto.extend(gotos);
            }
            "parent" => {
                let mut update = JsonUpdate::new();
                for (channel, expr) in op["update"].as_object().into_iter().flatten() {
                    update = update.set(channel, self.eval(expr));
                }
                let goto = self.destinations(&op["to"]);
                self.reply.leave = Some(Leave { update, goto });
            }
            "call" => {
                let graph = self.node.callable[&text("graph")].clone();
                let key = format!("{}", self.called);
                self.called += 1;
                let input = self.eval(&op["input"]).as_object().cloned().unwrap_or_default();
                let state = self.ctx.call(&graph, &key, JsonInput::from(input)).await?;
                self.variables.insert(text("into"), state.output().into());
            }
            "if" => {
                let way = if truth(&self.eval(&op["cond"])) { "then" } else { "else" };
                let ops = op[way].as_array().cloned().unwrap_or_default();
                self.all(&ops).await?;
            }
            other => panic!("unknown op `{other}`"),
        }
        Ok(())
    }

    fn fail(&self, op: &Value) -> Result<(), NodeError> {
        if let Some(first) = op["first"].as_u64() {
            let key = op.get("key").map(|key| self.eval(key)).unwrap_or_default();
            let key = format!("{} {key}", self.node.path);
            let mut counters = self.node.counters.lock().unwrap();
            let reached = counters.failures.entry(key).or_default();
            *reached += 1;
            if *reached > first {
                return Ok(());
            }
        }
        let kind = op["kind"].as_str().unwrap_or("fatal").to_owned();
        let retried = self.node.retried.as_ref().is_none_or(|kinds| kinds.contains(&kind));
        let failure = Failure {
            path: self.node.path.clone(),
            kind,
        };
        Err(if retried {
            NodeError::retryable(failure)
        } else {
            NodeError::terminal(failure)
        })
    }

    fn destinations(&self, to: &Value) -> Vec<Goto> {
        destinations(to, &self.channels, &self.variables)
    }
}

/// What a list of destinations means.
pub(super) fn destinations(
    to: &Value,
    channels: &Map<String, Value>,
    variables: &BTreeMap<String, Value>,
) -> Vec<Goto> {
    let mut gotos = Vec::new();
    for destination in to.as_array().into_iter().flatten() {
        let scope = Scope { channels, variables };
        if let Some(name) = destination.as_str() {
            gotos.push(Goto::Node(name.to_owned()));
            continue;
        }
        let node = destination["send"].as_str().unwrap_or_default().to_owned();
        let Some(each) = destination.get("each") else {
            gotos.push(Goto::Send(node, scope.eval(&destination["arg"])));
            continue;
        };
        for (index, item) in scope.eval(each).as_array().into_iter().flatten().enumerate() {
            let mut variables = variables.clone();
            variables.insert("item".to_owned(), item.clone());
            variables.insert("index".to_owned(), index.into());
            let scope = Scope {
                channels,
                variables: &variables,
            };
            gotos.push(Goto::Send(node.clone(), scope.eval(&destination["arg"])));
        }
    }
    gotos
}
