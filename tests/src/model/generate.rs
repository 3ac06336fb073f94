//! A case from a seed.

use std::collections::{BTreeMap, BTreeSet};

use stepgraph::Durability;

use super::{
    case::{
        Body, Case, Command, Condition, Crash, Does, FailKind, Fails, Goto, Graph, Ground, How, Items, Node, OnItem,
        Op, Pending, Reducer, Reply, Rule, Way, Write,
    },
    dice::Dice,
};

/// How deep graphs may lie inside each other.
const DEPTH_MAX: usize = 2;

/// The channels there are; a name is always of the same kind, so that graphs inside each other fit.
const CHANNELS: [(&str, Reducer); 8] = [
    ("last", Reducer::Last),
    ("log", Reducer::Append),
    ("map", Reducer::MapMerge),
    ("msgs", Reducer::Messages),
    ("n", Reducer::Add),
    ("other", Reducer::Last),
    ("set", Reducer::Union),
    ("top", Reducer::Max),
];

/// The case of a seed.
pub(super) fn case(seed: u64) -> Case {
    let mut dice = Dice::new(seed);
    let durability = dice.weighted(&[(70, Durability::Sync), (18, Durability::Async), (12, Durability::Exit)]);
    let file = dice.chance(4);
    let graph = graph(&mut dice, 0, "g");
    let mut broken = BTreeSet::new();
    breakable(&graph, &mut broken);
    let script = script(&mut dice, &graph);
    Case {
        graph,
        ground: Ground { file, durability },
        broken: broken.into_iter().collect(),
        script,
    }
}

fn breakable(graph: &Graph, found: &mut BTreeSet<String>) {
    for (name, node) in &graph.nodes {
        match &node.does {
            Does::Body(body) if body.fails.as_ref().is_some_and(|fails| fails.until_mended) => {
                found.insert(name.clone());
            }
            Does::Body(_) => {}
            Does::Host(inner) => breakable(inner, found),
        }
    }
}

/// What is decided before the nodes of a graph are.
struct Plan {
    channels: Vec<String>,
    names: Vec<String>,
}

fn graph(dice: &mut Dice, depth: usize, name: &str) -> Graph {
    let most = if depth == 0 { 6 } else { 3 };
    let count = dice.between(1, most);
    let prefix = if depth == 0 { String::new() } else { format!("{name}_") };
    let names: Vec<String> = ('a'..='f')
        .take(count)
        .map(|letter| format!("{prefix}{letter}"))
        .collect();
    let mut channels: BTreeMap<String, Reducer> = BTreeMap::new();
    for (name, reducer) in CHANNELS {
        // A list that goes in and comes out again doubles each time.
        let doubles = matches!(reducer, Reducer::Append) && depth > 0;
        if name == "n" || (!doubles && dice.chance(60)) {
            channels.insert(name.to_owned(), reducer);
        }
    }
    let plan = Plan {
        channels: channels.keys().cloned().collect(),
        names,
    };
    let nodes = plan
        .names
        .iter()
        .map(|name| (name.clone(), node(dice, &plan, &channels, name, depth)));
    let nodes: BTreeMap<_, _> = nodes.collect();
    let ways = ways(dice, &plan);
    let stops = |dice: &mut Dice| plan.names.iter().filter(|_| dice.chance(5)).cloned().collect();
    Graph {
        name: name.to_owned(),
        before: stops(dice),
        after: stops(dice),
        channels,
        nodes,
        ways,
    }
}

fn node(dice: &mut Dice, plan: &Plan, channels: &BTreeMap<String, Reducer>, name: &str, depth: usize) -> Node {
    let host = depth < DEPTH_MAX && dice.chance(if depth == 0 { 12 } else { 8 });
    let lists: Vec<&String> = channels
        .iter()
        .filter(|(_, reducer)| matches!(reducer, Reducer::Append | Reducer::Union))
        .map(|(name, _)| name)
        .collect();
    let on_item = match dice.below(6) {
        0 => OnItem::Skip,
        1 if !lists.is_empty() => OnItem::Collect((*dice.pick(&lists)).clone()),
        _ => OnItem::Fail,
    };
    Node {
        deferred: dice.chance(10),
        attempts: if dice.chance(20) {
            u32::try_from(dice.between(2, 3)).unwrap_or(2)
        } else {
            1
        },
        on_item,
        does: if host {
            Does::Host(graph(dice, depth + 1, name))
        } else {
            Does::Body(body(dice, plan))
        },
    }
}

fn body(dice: &mut Dice, plan: &Plan) -> Body {
    let questions = dice.weighted(&[(82, 0_usize), (13, 1), (5, 2)]);
    let asks: Vec<String> = ["q", "r"].iter().take(questions).map(ToString::to_string).collect();
    let fails = dice.chance(18).then(|| {
        let kind = dice.weighted(&[
            (20, FailKind::Terminal),
            (70, FailKind::Retryable),
            (10, FailKind::Unfit),
        ]);
        Fails {
            kind,
            attempts: dice.weighted(&[(50, 1), (25, 2), (25, u32::MAX)]),
            until_mended: dice.chance(75),
            after_asking: dice.chance(30),
        }
    });
    let mut writes = some_writes(dice, plan, 3);
    for question in &asks {
        if dice.chance(60)
            && let Some(write) = writes.first_mut()
        {
            write.base = Some(format!("?{question}"));
        }
    }
    if dice.chance(70) && writes.iter().all(|write| write.channel != "n") {
        writes.push(Write {
            channel: "n".to_owned(),
            base: None,
            plus: 1,
            outright: false,
        });
    }
    Body {
        yields: dice.weighted(&[(50, 0), (25, 1), (25, 3)]),
        together: asks.len() > 1 && dice.chance(50),
        asks,
        fails,
        writes,
        goto: dice.chance(8).then(|| (condition(dice, plan), gotos(dice, plan))),
    }
}

/// Writes to channels, each once.
fn some_writes(dice: &mut Dice, plan: &Plan, most: usize) -> Vec<Write> {
    let mut writes: Vec<Write> = Vec::new();
    for _ in 0..dice.between(0, most) {
        let channel = dice.pick(&plan.channels).clone();
        // Most steps should not be of two who write what takes one write.
        let rare = matches!(channel.as_str(), "last" | "other") && dice.chance(60);
        if rare || channel == "n" || writes.iter().any(|write| write.channel == channel) {
            continue;
        }
        writes.push(Write {
            channel,
            base: dice.chance(60).then(|| base(dice, plan)),
            plus: dice.number(0, 9),
            outright: dice.chance(6),
        });
    }
    writes
}

fn base(dice: &mut Dice, plan: &Plan) -> String {
    if dice.chance(15) {
        "item".to_owned()
    } else {
        dice.pick(&plan.channels).clone()
    }
}

fn condition(dice: &mut Dice, plan: &Plan) -> Condition {
    match dice.below(6) {
        0 => Condition::Always,
        1..=3 => Condition::Below("n".to_owned(), dice.number(1, 8)),
        _ => {
            let divisor = dice.number(2, 3);
            Condition::Rest(dice.pick(&plan.channels).clone(), divisor, dice.number(0, divisor - 1))
        }
    }
}

fn gotos(dice: &mut Dice, plan: &Plan) -> Vec<Goto> {
    let one = |dice: &mut Dice| match dice.below(50) {
        0 => Goto::Node("nowhere".to_owned()),
        1..=10 => Goto::End,
        _ => Goto::Node(dice.pick(&plan.names).clone()),
    };
    (0..dice.weighted(&[(70, 1), (30, 2)])).map(|_| one(dice)).collect()
}

fn ways(dice: &mut Dice, plan: &Plan) -> Vec<Way> {
    let start = "START".to_owned();
    let mut ways = vec![Way::Edge(start.clone(), dice.pick(&plan.names).clone())];
    if dice.chance(45) {
        ways.push(Way::Edge(start.clone(), dice.pick(&plan.names).clone()));
    }
    if dice.chance(15) {
        ways.push(branch(dice, plan, start.clone()));
    }
    for (at, name) in plan.names.iter().enumerate() {
        for _ in 0..dice.weighted(&[(15, 0), (60, 1), (25, 2)]) {
            match dice.below(10) {
                0..=4 => {
                    let ahead = plan
                        .names
                        .get(at + 1..)
                        .filter(|ahead| !ahead.is_empty() && !dice.clone().chance(5));
                    let to = dice.pick(ahead.unwrap_or(&plan.names)).clone();
                    ways.push(Way::Edge(name.clone(), to));
                }
                5 => ways.push(Way::Edge(name.clone(), "END".to_owned())),
                6 => ways.push(fan_out(dice, plan, name.clone())),
                _ => ways.push(branch(dice, plan, name.clone())),
            }
        }
    }
    for _ in 0..dice.weighted(&[(50, 0), (35, 1), (15, 2)]) {
        ways.push(join(dice, plan));
    }
    ways
}

fn branch(dice: &mut Dice, plan: &Plan, from: String) -> Way {
    let cases = (0..dice.between(1, 2)).map(|_| (condition(dice, plan), gotos(dice, plan)));
    let cases = cases.collect();
    Way::Branch {
        from,
        cases,
        otherwise: if dice.chance(60) {
            vec![Goto::End]
        } else {
            gotos(dice, plan)
        },
        labelled: dice.chance(20),
    }
}

/// Sends items, while the count is low: what is sent may send again.
fn fan_out(dice: &mut Dice, plan: &Plan, from: String) -> Way {
    let items = match dice.below(3) {
        0 => Items::Numbers(dice.number(0, 3)),
        _ => Items::Of(dice.pick(&plan.channels).clone()),
    };
    let sent = vec![Goto::Send(dice.pick(&plan.names).clone(), items)];
    Way::Branch {
        from,
        cases: vec![(Condition::Below("n".to_owned(), dice.number(2, 4)), sent)],
        otherwise: if dice.chance(50) {
            vec![Goto::End]
        } else {
            vec![Goto::Node(dice.pick(&plan.names).clone())]
        },
        labelled: false,
    }
}

fn join(dice: &mut Dice, plan: &Plan) -> Way {
    let mut from: Vec<String> = Vec::new();
    for _ in 0..dice.between(1, 3) {
        let source = if dice.chance(6) {
            "START".to_owned()
        } else {
            dice.pick(&plan.names).clone()
        };
        if !from.contains(&source) {
            from.push(source);
        }
    }
    let rule = match dice.below(4) {
        0 => Rule::Any,
        1 => Rule::Quorum(dice.between(1, from.len())),
        _ => Rule::All,
    };
    let to = if dice.chance(8) {
        "END".to_owned()
    } else {
        dice.pick(&plan.names).clone()
    };
    Way::Join(rule, from, to)
}

const KINDS: [(usize, Kind); 12] = [
    (44, Kind::Resume),
    (10, Kind::Command),
    (4, Kind::Strange),
    (10, Kind::Input),
    (3, Kind::InputAt),
    (6, Kind::Rerun),
    (3, Kind::RerunTold),
    (8, Kind::Update),
    (4, Kind::UpdateAt),
    (6, Kind::Fork),
    (3, Kind::Switch),
    (9, Kind::Mend),
];

#[derive(Debug, Clone, Copy)]
enum Kind {
    Resume,
    Command,
    Strange,
    Input,
    InputAt,
    Rerun,
    RerunTold,
    Update,
    UpdateAt,
    Fork,
    Switch,
    Mend,
}

/// How often a thread is gone on with at the end, so that most come to one.
const LAST: usize = 3;

fn script(dice: &mut Dice, graph: &Graph) -> Vec<Op> {
    let plan = Plan {
        channels: graph.channels.keys().cloned().collect(),
        names: graph.nodes.keys().cloned().collect(),
    };
    let limit = u32::try_from(dice.between(3, 12)).unwrap_or(3);
    let mut script = vec![input(dice, &plan, limit, None)];
    for _ in 0..dice.between(1, 7) {
        let kind = dice.weighted(&KINDS);
        script.push(op(dice, &plan, limit, kind));
    }
    script.push(Op::Mend);
    for _ in 0..LAST {
        script.push(Op::Resume {
            reply: Reply::All,
            command: None,
            how: How {
                limit,
                before: Some(Vec::new()),
                after: Some(Vec::new()),
                crash: None,
                heard: dice.chance(50),
            },
        });
    }
    script
}

fn op(dice: &mut Dice, plan: &Plan, limit: u32, kind: Kind) -> Op {
    let place = dice.below(1000);
    match kind {
        Kind::Resume => Op::Resume {
            reply: dice.weighted(&[(75, Reply::All), (10, Reply::First), (15, Reply::None)]),
            command: None,
            how: how(dice, plan, limit),
        },
        Kind::Command => Op::Resume {
            reply: dice.weighted(&[(70, Reply::All), (30, Reply::None)]),
            command: Some(command(dice, plan)),
            how: how(dice, plan, limit),
        },
        Kind::Strange => Op::Resume {
            reply: dice.weighted(&[(50, Reply::One), (50, Reply::Unknown)]),
            command: None,
            how: how(dice, plan, limit),
        },
        Kind::Input => input(dice, plan, limit, None),
        Kind::InputAt => input(dice, plan, limit, Some(place)),
        Kind::Rerun | Kind::RerunTold => Op::Rerun {
            at: place,
            command: matches!(kind, Kind::RerunTold).then(|| command(dice, plan)),
            how: how(dice, plan, limit),
        },
        Kind::Update | Kind::UpdateAt => Op::Update {
            at: matches!(kind, Kind::UpdateAt).then_some(place),
            node: match dice.below(10) {
                0..=2 => None,
                3 => Some("START".to_owned()),
                4 if dice.chance(30) => Some("nowhere".to_owned()),
                _ => Some(dice.pick(&plan.names).clone()),
            },
            writes: some_writes(dice, plan, 2),
        },
        Kind::Fork => Op::Fork {
            at: place,
            name: dice.pick(&["x", "y", "z"]).to_string(),
        },
        Kind::Switch => Op::Switch {
            name: dice.pick(&["main", "x", "y"]).to_string(),
        },
        Kind::Mend => Op::Mend,
    }
}

fn input(dice: &mut Dice, plan: &Plan, limit: u32, at: Option<usize>) -> Op {
    let mut writes = some_writes(dice, plan, 2);
    for write in &mut writes {
        write.outright = false;
    }
    Op::Input {
        writes,
        pending: dice.weighted(&[
            (20, Pending::Reject),
            (35, Pending::Discard),
            (45, Pending::CommitFinished),
        ]),
        at,
        how: how(dice, plan, limit),
    }
}

fn command(dice: &mut Dice, plan: &Plan) -> Command {
    let goto = match dice.below(4) {
        0 => Vec::new(),
        1 => vec![Goto::Send(
            dice.pick(&plan.names).clone(),
            Items::Numbers(dice.number(1, 2)),
        )],
        _ if dice.chance(5) => vec![Goto::Node("nowhere".to_owned())],
        _ => vec![Goto::Node(dice.pick(&plan.names).clone())],
    };
    Command {
        writes: some_writes(dice, plan, 2),
        goto,
    }
}

fn how(dice: &mut Dice, plan: &Plan, limit: u32) -> How {
    let crash = dice.chance(30).then(|| {
        let number = dice.between(1, 8) as u64;
        match dice.below(3) {
            0 => Crash::Refuse(number),
            1 => Crash::Lose(number),
            _ => Crash::Drop(number * 2 + dice.below(12) as u64),
        }
    });
    let stops = |dice: &mut Dice| {
        dice.chance(12).then(|| {
            plan.names
                .iter()
                .filter(|_| dice.chance(25))
                .cloned()
                .collect::<Vec<_>>()
        })
    };
    How {
        limit,
        before: stops(dice),
        after: stops(dice),
        crash,
        heard: dice.chance(50),
    }
}
