//! `stepgraph graph`: the graphs the product runs.

use clap::Subcommand;
use serde_json::json;
use stepgraph_graphs::{SHIPPED, Shipped};

use super::{
    CliError, Ending, Session,
    output::{Output, Style},
};

/// What `graph` can do.
#[derive(Debug, Subcommand)]
pub(super) enum GraphCommand {
    /// Name the graphs there are
    List,
    /// Draw a graph as a Mermaid flow chart, which Markdown pages show as a picture
    Draw {
        /// Name of the graph, as `graph list` has it
        name: String,
    },
}

pub(super) fn run(command: &GraphCommand, session: &Session) -> Result<Ending, CliError> {
    match command {
        GraphCommand::List => list(session.output),
        GraphCommand::Draw { name } => draw(name, session.output),
    }
}

fn list(output: Output) -> Result<Ending, CliError> {
    if output.is_json() {
        for Shipped { name, about, .. } in SHIPPED {
            output.json(&json!({ "name": name, "about": about }))?;
        }
    } else {
        let row = |graph: &Shipped| {
            vec![
                (Style::Plain, graph.name.to_owned()),
                (Style::Plain, graph.about.to_owned()),
            ]
        };
        output.table(&["graph", "what it does"], &SHIPPED.iter().map(row).collect::<Vec<_>>())?;
    }
    Ok(Ending::Done)
}

fn draw(name: &str, output: Output) -> Result<Ending, CliError> {
    let known = || SHIPPED.iter().map(|graph| graph.name).collect::<Vec<_>>().join(", ");
    let graph = SHIPPED.iter().find(|graph| graph.name == name);
    let graph = graph.ok_or_else(|| CliError::NoGraph {
        name: name.to_owned(),
        known: known(),
    })?;
    if output.is_json() {
        output.json(&json!({ "name": graph.name, "mermaid": graph.drawing }))?;
    } else {
        output.line(graph.drawing.trim_end())?;
    }
    Ok(Ending::Done)
}
