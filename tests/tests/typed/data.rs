//! What flows through a graph: reducers, views, sends, events, commands, graphs inside.

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stepgraph::{
    Append, Change, Command, Context, END, FromState, Graph, Keyed, Max, Route, START, State, Union, Upsert, View, to,
};

use super::script::{Line, Probe, Scripted, cases, said};

cases! {
    the_largest_value_wins: "reducer-max" => largest;
    messages_are_put_and_taken_out_by_their_ids: "reducer-messages-remove" => messages;
    a_caller_sees_the_part_that_is_shown: "schema-output-subset" => subset;
    a_map_and_its_reduction: "send-map-reduce" => map_reduce;
    what_nodes_emit_is_told_in_their_order: "stream-custom" => emitting;
    an_agent_calls_its_tool_until_it_is_done: "command-agent-tool-loop" => agent;
    a_graph_inside_shares_fields_with_the_one_around: "subgraph-shared-keys" => shared;
}

#[derive(State, Clone, Debug, Serialize, Deserialize)]
#[state(event = Value)]
struct Largest {
    #[state(input, reducer = Max)]
    x: i64,
}

impl Scripted for Largest {
    fn input(given: &Value) -> LargestInput {
        LargestInput::new(given["x"].as_i64().unwrap())
    }
}

fn largest(probe: &Probe) -> Graph<Largest> {
    let mut g = Graph::<Largest>::builder("largest");
    let [b, a, c] = [("b", 9), ("a", 3), ("c", 7)].map(|(name, x)| {
        let probe = probe.clone();
        g.node(name, move |_: Arc<Largest>| {
            probe.enter(name);
            async move { Ok(Largest::update().x(x)) }
        })
    });
    g.edge(START, a).edge(START, b).join([a, b], c).edge(c, END);
    g.build().unwrap()
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Message {
    id: String,
    text: String,
}

impl Keyed for Message {
    type Key = String;

    fn key(&self) -> &String {
        &self.id
    }
}

#[derive(State, Clone, Debug, Serialize, Deserialize)]
#[state(event = Value)]
struct Messages {
    #[state(input, reducer = Upsert)]
    g: Vec<Message>,
}

impl Scripted for Messages {
    fn input(given: &Value) -> MessagesInput {
        let change = |item: &Value| match item["remove"].as_bool() {
            Some(true) => Change::remove(item["id"].as_str().unwrap().to_owned()),
            _ => Change::put(serde_json::from_value(item.clone()).unwrap()),
        };
        MessagesInput::new(given["g"].as_array().unwrap().iter().map(change).collect::<Vec<_>>())
    }
}

fn messages(probe: &Probe) -> Graph<Messages> {
    let mut g = Graph::<Messages>::builder("messages");
    let probe = probe.clone();
    let a = g.node("a", move |_: Arc<Messages>| {
        probe.enter("a");
        let four = Message {
            id: "4".to_owned(),
            text: "four".to_owned(),
        };
        async move { Ok(Messages::update().g([Change::remove("1".to_owned()), Change::put(four)])) }
    });
    g.edge(START, a).edge(a, END);
    g.build().unwrap()
}

/// As [`Line`], of which a caller is shown a part.
#[derive(State, Clone, Debug, Serialize, Deserialize)]
#[state(event = Value)]
struct Shy {
    #[state(reducer = Append)]
    log: Vec<String>,
    #[state(input)]
    n: i64,
}

#[derive(View, Serialize)]
#[view(of = Shy)]
struct Shown {
    n: i64,
}

impl Scripted for Shy {
    fn input(given: &Value) -> ShyInput {
        ShyInput::new(given["n"].as_i64().unwrap())
    }

    fn output(self: &Arc<Self>) -> Value {
        serde_json::to_value(Shown::from_state(self)).unwrap()
    }
}

fn subset(probe: &Probe) -> Graph<Shy> {
    let mut g = Graph::<Shy>::builder("subset");
    let probe = probe.clone();
    let a = g.node("a", move |shy: Arc<Shy>| {
        probe.enter("a");
        async move { Ok(Shy::update().log(["a".to_owned()]).n(shy.n + 1)) }
    });
    g.edge(START, a).edge(a, END);
    g.build().unwrap()
}

#[derive(State, Clone, Debug, Serialize, Deserialize)]
#[state(event = Value)]
struct Plan {
    #[state(input)]
    items: Vec<u64>,
    #[state(reducer = Append)]
    log: Vec<String>,
}

impl Scripted for Plan {
    fn input(given: &Value) -> PlanInput {
        PlanInput::new(serde_json::from_value::<Vec<u64>>(given["items"].clone()).unwrap())
    }
}

fn map_reduce(probe: &Probe) -> Graph<Plan> {
    let mut g = Graph::<Plan>::builder("plan");
    let seen = probe.clone();
    let plan = g.node("plan", move |_: Arc<Plan>| {
        seen.enter("plan");
        async { Ok(Plan::update().items(vec![3, 1, 2])) }
    });
    let seen = probe.clone();
    let work = g.worker("w", move |item: u64| {
        seen.enter("w");
        async move { Ok(Plan::update().log([format!("w{item}")])) }
    });
    let seen = probe.clone();
    let reduce = g.node("reduce", move |_: Arc<Plan>| {
        seen.enter("reduce");
        async { Ok(Plan::update().log(["reduce".to_owned()])) }
    });
    g.edge(START, plan).edge(work, reduce).edge(reduce, END);
    g.fan_out(plan, work, |plan: &Plan| plan.items.clone());
    g.build().unwrap()
}

fn emitting(probe: &Probe) -> Graph<Line> {
    let mut g = Graph::<Line>::builder("emitting");
    let emits = |line: &Line, name| match name {
        "s" => vec![json!("s1"), json!("s2")],
        "b" => vec![json!("b1"), json!({"deep": [line.n]})],
        _ => vec![json!("a1")],
    };
    let [s, b, a] = ["s", "b", "a"].map(|name| {
        let probe = probe.clone();
        g.node(name, move |line: Arc<Line>, ctx: Context<Value>| {
            probe.enter(name);
            async move {
                for event in emits(&line, name) {
                    ctx.emit(event).await;
                }
                Ok(said(name))
            }
        })
    });
    let j = probe.says(&mut g, "j");
    g.edge(START, s).edge(s, a).edge(s, b).join([a, b], j).edge(j, END);
    g.build().unwrap()
}

#[derive(Route, Clone, Copy)]
enum Next {
    Tool,
    Done,
}

fn agent(probe: &Probe) -> Graph<Line> {
    let mut g = Graph::<Line>::builder("agent");
    let seen = probe.clone();
    let agent = g.router("agent", move |line: Arc<Line>| {
        seen.enter("agent");
        let goto = if line.n < 3 { Next::Tool } else { Next::Done };
        async move {
            Ok(Command {
                update: said("agent"),
                goto,
            })
        }
    });
    let seen = probe.clone();
    let tool = g.node("tool", move |line: Arc<Line>| {
        seen.enter("tool");
        async move { Ok(said("tool").n(line.n + 1)) }
    });
    g.edge(START, agent).edge(tool, agent);
    g.routes(agent, |next| match next {
        Next::Tool => to(tool),
        Next::Done => to(END),
    });
    g.build().unwrap()
}

#[derive(State, Clone, Debug, Serialize, Deserialize)]
#[state(event = Value)]
struct Shared {
    #[state(input)]
    x: i64,
    #[state(reducer = Union)]
    seen: BTreeSet<String>,
}

/// The state inside, which begins with what the one around has.
#[derive(State, Clone, Debug, Serialize, Deserialize)]
#[state(event = Value)]
struct Child {
    #[state(input)]
    x: i64,
    #[state(input, reducer = Union)]
    seen: BTreeSet<String>,
}

impl Scripted for Shared {
    fn input(given: &Value) -> SharedInput {
        SharedInput::new(given["x"].as_i64().unwrap())
    }
}

impl FromState<Shared> for ChildInput {
    fn from_state(around: &Arc<Shared>) -> Self {
        Self::new(around.x, around.seen.clone())
    }
}

impl From<Arc<Child>> for SharedUpdate {
    fn from(inside: Arc<Child>) -> Self {
        Shared::update().x(inside.x).seen(inside.seen.clone())
    }
}

fn child(probe: &Probe) -> Graph<Child> {
    let mut g = Graph::<Child>::builder("child");
    let [p, q] = ["p", "q"].map(|name| {
        let probe = probe.clone();
        g.node(name, move |child: Arc<Child>| {
            probe.enter(&format!("child.{name}"));
            let update = Child::update().seen([name.to_owned()]);
            async move { Ok(if name == "q" { update.x(child.x + 1) } else { update }) }
        })
    });
    g.edge(START, p).edge(p, q).edge(q, END);
    g.build().unwrap()
}

fn shared(probe: &Probe) -> Graph<Shared> {
    let mut g = Graph::<Shared>::builder("shared");
    let [a, z] = ["a", "z"].map(|name| {
        let probe = probe.clone();
        g.node(name, move |_: Arc<Shared>| {
            probe.enter(name);
            async move { Ok(Shared::update().seen([name.to_owned()])) }
        })
    });
    let s = g.node("s", child(probe).as_node::<ChildInput, Arc<Child>>());
    g.edge(START, a).edge(a, s).edge(s, z).edge(z, END);
    g.build().unwrap()
}
