//! For a terminal.

use std::collections::VecDeque;

use super::{Kind, Place, Topology, Way, line};

/// Every place in the order in which runs reach it, with its ways on. What no way leads to stands at the end.
pub(in crate::graph) fn ascii(topology: &Topology) -> String {
    let mut out = String::new();
    for place in ranked(topology) {
        let kind = match place {
            Place::Node(node) => match topology.kind(node) {
                Kind::Router | Kind::Also => " (router)",
                Kind::Worker => " (worker)",
                Kind::Handler | Kind::HandlerRouter => " (handler)",
                Kind::Node | Kind::Open => "",
            },
            Place::Start | Place::End => "",
        };
        line(&mut out, format_args!("{}{kind}", topology.label(place)));
        for (_, to, way) in topology.ways.iter().filter(|(from, ..)| *from == place) {
            let arrow = match way {
                Way::Always => "-->".to_owned(),
                Way::Join => "--join-->".to_owned(),
                Way::JoinWhen(rule) => format!("--{rule}-->"),
                Way::Route(label) => format!("..{label}..>"),
                Way::OnError => "..on error..>".to_owned(),
                Way::FanOut => "==each==>".to_owned(),
            };
            line(&mut out, format_args!("  {arrow} {}", topology.label(*to)));
        }
    }
    out
}

/// START and the nodes by their distance from it, nodes of one distance by their ways' order.
fn ranked(topology: &Topology) -> Vec<Place> {
    let mut seen = vec![false; topology.names().len()];
    let (mut ranked, mut next) = (Vec::new(), VecDeque::from([Place::Start]));
    while let Some(place) = next.pop_front() {
        ranked.push(place);
        for (_, to, _) in topology.ways.iter().filter(|(from, ..)| *from == place) {
            if let Place::Node(node) = to
                && let Some(seen) = seen.get_mut(*node)
                && !std::mem::replace(seen, true)
            {
                next.push_back(*to);
            }
        }
    }
    let unseen = seen.iter().enumerate().filter(|(_, seen)| !**seen);
    ranked.extend(unseen.map(|(node, _)| Place::Node(node)));
    ranked
}
