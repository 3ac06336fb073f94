//! The graph that is killed: tasks side by side, effects of two classes, a loop, a question; and in its state a long text, and
//! another that is written anew in each round, so that checkpoints hold large values, new ones and ones from before.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stepgraph::{Append, Ask, BuildErrors, Context, END, Effect, Graph, Route, START, State, Sum, to};

use super::{fate::Reaper, ledger::Ledger};

/// How often the loop goes round.
const ROUNDS: u64 = 3;
/// How often everything else may go on while a task waits: so that its sibling has ended, and is recorded, before.
const SIBLING_PAUSES: u32 = 20_000;

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Errand {
    #[state(input)]
    goods: u64,
    #[state(input)]
    terms: String,
    label: Option<String>,
    #[state(reducer = Append)]
    lines: Vec<String>,
    #[state(reducer = Sum)]
    rounds: u64,
    receipt: Option<String>,
    parcel: Option<String>,
    approved: Option<bool>,
}

pub(super) fn input() -> ErrandInput {
    ErrandInput {
        goods: 3,
        terms: long("terms"),
    }
}

/// A text that stores take for a large value.
fn long(about: &str) -> String {
    let line = |at: u32| format!("{about} {:08x}", at.wrapping_mul(0x9e37_79b9));
    (0..1_000).map(line).collect::<Vec<_>>().join("\n")
}

#[derive(Serialize, Ask)]
#[ask(name = "sure", answer = bool)]
pub(super) struct Sure;

#[derive(Route, Clone, Copy)]
enum After {
    Again,
    Enough,
}

/// What the nodes need from outside.
#[derive(Clone)]
pub(super) struct World {
    pub(super) reaper: Arc<Reaper>,
    pub(super) ledger: Ledger,
}

impl World {
    /// A node has begun.
    fn enter(&self, ctx: &Context<()>) {
        self.ledger.write("ran", &format!("{} {}", ctx.node(), ctx.step()));
        self.reaper.at("in-node");
    }
}

fn line(text: impl Into<String>) -> ErrandUpdate {
    Errand::update().lines([text.into()])
}

/// Takes a payment under its key: asked twice with one key, it is made once.
async fn pay(world: World, ctx: Context<()>) -> Result<ErrandUpdate, stepgraph::NodeError> {
    world.enter(&ctx);
    for _ in 0..SIBLING_PAUSES {
        if world.ledger.has("recorded pack") {
            break;
        }
        tokio::task::yield_now().await;
    }
    world.reaper.at("in-sibling");
    let at = world.clone();
    let charge = Effect::idempotent(move |key| {
        let at = at.clone();
        async move {
            at.reaper.at("in-charge-before-it-is-made");
            at.ledger.write("charged", key.as_str());
            at.reaper.at("in-charge-after-it-was-made");
            Ok("receipt 1".to_owned())
        }
    });
    let receipt: String = ctx.once("charge", charge).await?;
    world.ledger.write("kept", "charge");
    world.reaper.at("in-node-after-the-charge");
    Ok(line("paid").receipt(receipt))
}

/// Sends a parcel: nobody could tell a second one from the first.
async fn send(world: World, ctx: Context<()>) -> Result<ErrandUpdate, stepgraph::NodeError> {
    world.enter(&ctx);
    let at = world.clone();
    let parcel = Effect::other(move || {
        let at = at.clone();
        async move {
            at.reaper.at("in-parcel-before-it-is-sent");
            at.ledger.write("sent", "parcel");
            at.reaper.at("in-parcel-after-it-was-sent");
            Ok("parcel 1".to_owned())
        }
    });
    let parcel: String = ctx.once("parcel", parcel).await?;
    world.ledger.write("kept", "parcel");
    world.reaper.at("in-node-after-the-parcel");
    Ok(line("sent").parcel(parcel))
}

pub(super) fn errand(world: &World) -> Result<Graph<Errand>, BuildErrors> {
    let mut g = Graph::<Errand>::builder("errand");
    let (at, beside, paying, sending, rounding, asking) = (
        world.clone(),
        world.clone(),
        world.clone(),
        world.clone(),
        world.clone(),
        world.clone(),
    );
    let list = g.node("list", move |_: Arc<Errand>, ctx: Context<()>| {
        at.enter(&ctx);
        async { Ok(line("listed")) }
    });
    let pack = g.node("pack", move |errand: Arc<Errand>, ctx: Context<()>| {
        beside.enter(&ctx);
        async move { Ok(line(format!("packed {}", errand.goods))) }
    });
    let pay = g.node("pay", move |_: Arc<Errand>, ctx: Context<()>| pay(paying.clone(), ctx));
    let send = g.node("send", move |_: Arc<Errand>, ctx: Context<()>| {
        send(sending.clone(), ctx)
    });
    let round = g.node("round", move |errand: Arc<Errand>, ctx: Context<()>| {
        rounding.enter(&ctx);
        // What was there two rounds ago is there again.
        let label = long(if errand.rounds.is_multiple_of(2) { "even" } else { "odd" });
        async { Ok(line("round").rounds(1_u64).label(label)) }
    });
    let ask = g.node("ask", move |_: Arc<Errand>, ctx: Context<()>| {
        asking.enter(&ctx);
        async move { Ok(line("asked").approved(ctx.ask(Sure)?)) }
    });
    g.edge(START, list).edge(list, pack).edge(list, pay);
    g.join([pack, pay], send).edge(send, round);
    g.branch(
        round,
        |errand: &Errand| {
            if errand.rounds < ROUNDS {
                After::Again
            } else {
                After::Enough
            }
        },
        |after| match after {
            After::Again => to(round),
            After::Enough => to(ask),
        },
    );
    g.edge(ask, END);
    g.build()
}
