//! Drawings of a graph.

use std::fmt::Write;

mod text;
mod tool;

pub(super) use self::{
    text::ascii,
    tool::{dot, json},
};
use super::topology::{Kind, Place, Topology, Way};

/// A Mermaid flow chart: nodes in the order of their names, ways in the order of their declaration.
pub(super) fn mermaid(topology: &Topology) -> String {
    let mut out = String::from("flowchart TD\n    START([START])\n");
    for (at, name) in topology.names().iter().enumerate() {
        let (open, close) = match topology.kind(at) {
            Kind::Node => ("[", "]"),
            Kind::Router | Kind::Also => ("{{", "}}"),
            Kind::Worker => ("[[", "]]"),
            Kind::Handler => ("[/", "/]"),
            Kind::HandlerRouter => ("[\\", "\\]"),
            Kind::Open => ("(", ")"),
        };
        line(&mut out, format_args!("    n{at}{open}{}{close}", quoted(name)));
    }
    out.push_str("    END([END])\n");
    for (from, to, way) in &topology.ways {
        let (from, to) = (id(*from), id(*to));
        match way {
            Way::Always => line(&mut out, format_args!("    {from} --> {to}")),
            Way::Join => line(&mut out, format_args!("    {from} -->|join| {to}")),
            Way::JoinWhen(rule) => line(&mut out, format_args!("    {from} -->|{}| {to}", quoted(rule))),
            Way::Route(label) => line(&mut out, format_args!("    {from} -.->|{}| {to}", quoted(label))),
            Way::OnError => line(&mut out, format_args!("    {from} -.->|on error| {to}")),
            Way::FanOut => line(&mut out, format_args!("    {from} ==>|each| {to}")),
        }
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _written = writeln!(out, "{text}");
}

fn id(place: Place) -> String {
    match place {
        Place::Start => "START".to_owned(),
        Place::End => "END".to_owned(),
        Place::Node(node) => format!("n{node}"),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "#quot;"))
}
