//! What a step's outputs make of the state, and where they lead: the synchronous part of a [barrier](super::barrier).

use std::{cell::Cell, sync::Arc};

use super::{
    barrier::{Leader, Unmerged},
    driver::Driver,
    guard::Doing,
    merge::merge,
    plan::{Departure, Tasks, plan, plan_lone},
    ways::Ways,
};
use crate::{
    graph::{Branch, Goto, Output, Parts, Payload, Topology, UnknownTarget},
    state::{Changes, State},
};

impl<S: State> Parts<S> {
    /// Where the only way on leads of a place of which nothing else says what follows: one list of edges, or the one of a
    /// branch. `None` if it is not such a place.
    #[inline]
    pub(super) fn ways_on(&self, node: usize, state: &S, ways: Option<&Ways>) -> Option<&[usize]> {
        let exits = self.topology.exits(node);
        match (exits.branches.as_slice(), exits.edges.as_slice()) {
            _ if !exits.fan_outs.is_empty() => None,
            ([], edges) => Some(edges),
            ([at], []) => {
                let Some(Branch::Routes(choose)) = self.branches.get(*at) else {
                    return None;
                };
                let route = choose(state);
                if let Some(ways) = ways {
                    ways.take(*at, route);
                }
                let targets = self.topology.branches.get(*at).and_then(|table| table.get(route));
                Some(targets.map(Vec::as_slice).unwrap_or_default())
            }
            _ => None,
        }
    }
}

impl<S: State> Driver<S> {
    /// The tasks that follow from START.
    pub(super) fn follow_start(&mut self) -> Result<(), Unmerged> {
        let topology = &self.shared.parts.topology;
        if topology.is_plain() && self.follow_one(topology.start()) {
            return Ok(());
        }
        let parts = Arc::clone(&self.shared.parts);
        let mut departure = Departure::of(parts.topology.start());
        self.route(&self.shared.state, &mut departure)?;
        let now = self.end_time(&[]);
        plan_lone(&parts.topology, &mut departure, &mut self.waiting, now, &mut self.tasks);
        Ok(())
    }

    /// The same as [`merge_and_plan`](Self::merge_and_plan) for one task, without its lists: most steps have one.
    pub(super) fn merge_lone(&mut self, output: &mut Output<S>, doing: &Cell<Doing>) -> Result<(), Unmerged> {
        let Some(node) = self.tasks.first().map(|task| task.node) else {
            return Ok(());
        };
        // A handler's ways on are followed instead of the failed node's, which has run all the same.
        let by = output.by.unwrap_or(node);
        self.cover(by, output);
        if let Some(field) = self.shared.parts.undeclared(by, &output.update) {
            return Err(Unmerged::Undeclared(0, by, field));
        }
        if output.leads_nowhere_itself() && self.shared.parts.topology.is_plain() {
            Arc::make_mut(&mut self.shared.state).take_in(&mut output.update, &mut self.changes);
            doing.set(Doing::LeadingOn(0));
            if self.follow_one(node) {
                return Ok(());
            }
            let mut departure = std::mem::take(&mut self.departure);
            departure.node = node;
            return self.follow(departure);
        }
        let mut departure = std::mem::take(&mut self.departure);
        let topology = &self.shared.parts.topology;
        if output.by.is_some() {
            self.waiting.rearm(topology, &std::iter::once(node));
        }
        departure.node = by;
        let routes = &topology.exits(by).routes;
        for targets in output.routes().filter_map(|route| routes.get(route)) {
            departure.chosen.extend_from_slice(targets);
        }
        lead(topology, output.take_goto(), &mut departure)
            .map_err(|target| Unmerged::Target(Leader::Task(0), target))?;
        Arc::make_mut(&mut self.shared.state).take_in(&mut output.update, &mut self.changes);
        doing.set(Doing::LeadingOn(0));
        self.follow(departure)
    }

    /// Follows the ways on of a step's only task.
    fn follow(&mut self, mut departure: Departure<Payload>) -> Result<(), Unmerged> {
        self.route(&self.shared.state, &mut departure)?;
        let now = self.end_time(&[]);
        let topology = &self.shared.parts.topology;
        plan_lone(topology, &mut departure, &mut self.waiting, now, &mut self.tasks);
        self.departure = departure;
        Ok(())
    }

    /// Follows the only way on of a place of which nothing else says what follows. Says whether there was such a way.
    pub(super) fn follow_one(&mut self, node: usize) -> bool {
        let (parts, ways) = (&self.shared.parts, self.shared.run.setting.ways.as_deref());
        let Some(targets) = parts.ways_on(node, &self.shared.state, ways) else {
            return false;
        };
        self.ended_at = None;
        match targets {
            [] => self.tasks.clear(),
            [node] => self.tasks.set_node(*node),
            many => self.tasks = Tasks::of_nodes(many),
        }
        true
    }

    /// Makes the updates of a step one state, and plans what follows.
    pub(super) fn merge_and_plan(&mut self, outputs: Vec<Output<S>>, doing: &Cell<Doing>) -> Result<(), Unmerged> {
        let parts = Arc::clone(&self.shared.parts);
        let fields = S::fields(&parts.shape);
        let crowd = outputs.len() > 1;
        let now = self.end_time(&outputs);
        let mut departures: Vec<Departure<Payload>> = Vec::with_capacity(outputs.len());
        let mut updates = Vec::with_capacity(outputs.len());
        for (at, (task, mut output)) in self.tasks.iter().zip(outputs).enumerate() {
            let by = output.by.unwrap_or(task.node);
            self.cover(by, &output);
            if let Some(field) = parts.undeclared(by, &output.update) {
                return Err(Unmerged::Undeclared(at, by, field));
            }
            let mut departure = Departure::of(by);
            if output.by.is_some() {
                self.waiting.rearm(&parts.topology, &std::iter::once(task.node));
            }
            let exits = parts.topology.exits(by);
            for targets in output.routes().filter_map(|route| exits.routes.get(route)) {
                departure.chosen.extend_from_slice(targets);
            }
            lead(&parts.topology, output.take_goto(), &mut departure)
                .map_err(|target| Unmerged::Target(Leader::Task(at), target))?;
            departure.cancelled = output.cancelled.is_some();
            if crowd && exits.is_conditional() && !departure.cancelled {
                // Routing sees the state at the step's start plus the task's own update, not its siblings'.
                let mut own = S::clone(&self.shared.state);
                doing.set(Doing::Merging(at));
                own.apply(output.update.clone(), &mut Changes::default());
                doing.set(Doing::LeadingOn(at));
                self.route(&own, &mut departure)?;
            }
            departures.push(departure);
            updates.push(output.update);
        }
        merge(
            Arc::make_mut(&mut self.shared.state),
            fields,
            updates,
            &mut self.changes,
            |at| doing.set(Doing::Merging(at)),
        )
        .map_err(Unmerged::Conflict)?;
        if let [departure] = departures.as_mut_slice()
            && !departure.cancelled
        {
            doing.set(Doing::LeadingOn(0));
            self.route(&self.shared.state, departure)?;
        }
        self.tasks = plan(&parts.topology, departures, &mut self.waiting, now).into();
        Ok(())
    }

    /// Marks, for a test that asks, that a node has given its output.
    fn cover(&self, node: usize, output: &Output<S>) {
        if let Some(ways) = self
            .shared
            .run
            .setting
            .ways
            .as_ref()
            .filter(|_| output.cancelled.is_none())
        {
            ways.leave(node, output.routes());
        }
    }

    /// Where branches and fan-outs lead from `state`.
    pub(crate) fn route(&self, state: &S, departure: &mut Departure<Payload>) -> Result<(), Unmerged> {
        let parts = &self.shared.parts;
        let topology = &parts.topology;
        let exits = topology.exits(departure.node);
        let node = departure.node;
        let unknown = |target| {
            let at = self.tasks.iter().position(|task| task.node == node);
            Unmerged::Target(at.map_or(Leader::Place(node), Leader::Task), target)
        };
        for at in &exits.branches {
            match parts.branches.get(*at) {
                Some(Branch::Routes(choose)) => {
                    let table = topology.branches.get(*at);
                    let route = choose(state);
                    if let Some(ways) = &self.shared.run.setting.ways {
                        ways.take(*at, route);
                    }
                    if let Some(targets) = table.and_then(|table| table.get(route)) {
                        departure.chosen.extend_from_slice(targets);
                    }
                }
                Some(Branch::Named(name)) => {
                    let led = name(state).and_then(|gotos| lead(topology, gotos, departure));
                    led.map_err(unknown)?;
                }
                None => {}
            }
        }
        for at in &exits.fan_outs {
            let (Some(fan_out), Some(worker)) = (parts.fan_outs.get(*at), topology.fan_outs.get(*at)) else {
                continue;
            };
            let payloads = (fan_out.spread)(state);
            if let Some(ways) = &self.shared.run.setting.ways {
                ways.send(*at, payloads.len());
            }
            if payloads.is_empty() {
                departure.idle.push(*worker);
            }
            departure
                .sends
                .extend(payloads.into_iter().map(|payload| (*worker, payload)));
        }
        Ok(())
    }
}

/// Leads on to places by name.
pub(super) fn lead(
    topology: &Topology,
    gotos: Vec<Goto>,
    departure: &mut Departure<Payload>,
) -> Result<(), UnknownTarget> {
    for Goto { to, payload } in gotos {
        let node = topology.find(&to).ok_or_else(|| UnknownTarget(to.into_owned()))?;
        match payload {
            None => departure.chosen.push(node),
            Some(payload) => departure.sends.push((node, payload)),
        }
    }
    Ok(())
}
