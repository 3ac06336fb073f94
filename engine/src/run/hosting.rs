//! A graph inside a task: on which thread it runs, how it begins, and what of it reaches the outside.

use std::{borrow::Cow, sync::Arc};

use uuid::Uuid;

use super::{
    Answers, Beginning, Cancel, OnBusy, OnPending, Options, Outcome, Run, SubgraphError, SubgraphMode,
    answer::open_questions,
    driver::RunEnd,
    error::RunError,
    event::{Hears, Inside, Sink},
    open::{open, prepare_with},
    subgraph::name,
};
use crate::{
    ask::Question,
    checkpoint::{At, RunStatus},
    graph::Graph,
    id::{RunId, ThreadKey},
    node::{Context, Emit, Emitter, InFlight, NodeError},
    state::State,
};

/// Runs a graph inside a task, on a thread inside the task's own; `key` tells several of one task apart.
pub(crate) async fn enter<S: State>(
    graph: &Graph<S>,
    ctx: &Context<S::Event>,
    key: &str,
    input: S::Input,
    mode: SubgraphMode,
) -> Result<RunEnd<S>, NodeError> {
    let call = Call { ctx, key, mode };
    if mode == SubgraphMode::Accumulating && ctx.task.run.store.is_none() {
        return Err(NodeError::terminal(SubgraphError::NoCheckpointer {
            graph: name(graph),
        }));
    }
    if let Some(notes) = &ctx.task.run.replay {
        if mode != SubgraphMode::Fresh {
            return Err(NodeError::terminal(SubgraphError::NotReplayed { graph: name(graph) }));
        }
        return super::replay::inside(graph, ctx, notes, call.thread(), input).await;
    }
    let beginning = call.beginning::<S>(input).await?;
    let run = call.inner(graph, beginning);
    if let Some(error) = run.missing() {
        return Err(NodeError::terminal(error));
    }
    let sink = ctx
        .emitter
        .clone()
        .map_or(Sink::Nobody, |emitter| Sink::Host(hosted(emitter, ctx.node())));
    // A cancellation reaches the inner run by itself; the host waits until it has kept what it has.
    let _in_flight = InFlight::enter(&ctx.task);
    let opened = open(prepare_with(run, sink)).await.map_err(|error| match error {
        RunError::Busy { .. } if mode == SubgraphMode::Accumulating => {
            NodeError::terminal(SubgraphError::SharedInStep {
                graph: name(graph),
                node: ctx.node(),
            })
        }
        other => failed_inside(other),
    })?;
    match Box::pin(opened.finish()).await.map_err(failed_inside)? {
        RunEnd::Outcome(Outcome::Asked(questions)) => Err(pass_on(ctx, key, questions)),
        RunEnd::Outcome(Outcome::Breakpoint(_)) => Err(NodeError::paused()),
        RunEnd::Outcome(Outcome::Drained) => Err(NodeError::drained()),
        RunEnd::Outcome(Outcome::Cancelled) => Err(NodeError::cancelled()),
        end => Ok(end),
    }
}

/// A graph's place inside a task.
struct Call<'a, E> {
    ctx: &'a Context<E>,
    key: &'a str,
    mode: SubgraphMode,
}

impl<E: Send + 'static> Call<'_, E> {
    fn inner<S: State<Event = E>>(&self, graph: &Graph<S>, beginning: Beginning<S>) -> Run<S> {
        let (ctx, outer) = (self.ctx, &self.ctx.task.run);
        let (accumulates, kept) = match self.mode {
            SubgraphMode::Fresh => (false, true),
            SubgraphMode::Accumulating => (true, true),
            SubgraphMode::Unkept => (false, false),
        };
        let budget = ctx.task.budget_inside(graph);
        let mut graph = graph.clone();
        let store = outer.store.as_ref().filter(|_| kept);
        graph.store = store.map(|handle| Arc::clone(&handle.store));
        let setting = Arc::make_mut(&mut graph.setting);
        setting.clock = Arc::clone(&outer.setting.clock);
        setting.busy = Arc::clone(&outer.setting.busy);
        let options = Options {
            run: Some(if accumulates { self.own_run() } else { outer.run_id() }),
            cancel: ctx.task.cancel_token().cloned().map(Cancel),
            reader_gone: outer.reader_gone.clone(),
            provided: outer.provided.clone(),
            recording: Some(outer.recording),
            // Whatever time the host has left, a graph inside keeps its own limit.
            time_limit: ctx.time_left().into_iter().chain(graph.parts.rules.deadline).min(),
            step_limit: outer.step_limit,
            durability: outer.store.as_ref().map(|handle| handle.durability).unwrap_or_default(),
            outer: Some(Box::new(ctx.task.clone())),
            budget,
            on_busy: OnBusy::Reject,
            // What an earlier task has left unfinished was given up with that task.
            on_pending: accumulates.then_some(OnPending::Discard),
            accumulates,
            concurrency: outer.limit.as_ref().map(|limit| limit.at_once),
            cache: outer.cache.clone(),
            held: ctx.task.held.clone().or_else(|| outer.held.clone()),
            ..Options::default()
        };
        Run {
            graph,
            key: self.thread(),
            beginning,
            step_limit: None,
            options: Some(Box::new(options)),
        }
    }

    /// The inner thread. A fresh one is different for every step and the same for every entry; one that accumulates is the
    /// same for all tasks of its node. No name of the one kind is one of the other: those of fresh ones end in an id.
    fn thread(&self) -> ThreadKey {
        let Self { ctx, key, mode } = self;
        let (id, colon) = (ctx.task.id(), if key.is_empty() { "" } else { ":" });
        ctx.task.run.key.child(&match mode {
            SubgraphMode::Accumulating => format!("{}{colon}{key}#", ctx.node()),
            // Nothing is kept without a store, but ids that inner nodes draw are made of the name.
            SubgraphMode::Fresh | SubgraphMode::Unkept if ctx.task.begins_at.is_nil() => {
                format!("{id}{colon}{key}@{}", ctx.task.step)
            }
            SubgraphMode::Fresh | SubgraphMode::Unkept => {
                format!("{id}{colon}{key}@{}", ctx.task.begins_at.simple())
            }
        })
    }

    /// The run of a task on a thread that others of its node use as well: its first half is of the step, its second of the
    /// task.
    fn own_run(&self) -> RunId {
        let task = &self.ctx.task;
        let outer = &task.run;
        let (at, node) = (task.begins_at, self.ctx.node());
        let step = format!(
            "{}\u{1f}{at}\u{1f}{}\u{1f}{node}\u{1f}{}",
            outer.key, task.step, self.key
        );
        let step = Uuid::new_v5(&outer.run_id().as_uuid(), step.as_bytes());
        let own = Uuid::new_v5(&step, task.id().as_bytes());
        let (high, low) = (step.as_u64_pair().0, own.as_u64_pair().1);
        RunId::from(Uuid::from_u64_pair(high, low))
    }

    /// New input, or the rest of what an earlier entry of this task has begun.
    async fn beginning<S: State>(&self, input: S::Input) -> Result<Beginning<S>, NodeError> {
        let outer = &self.ctx.task.run;
        let Some(handle) = outer.store.as_ref().filter(|_| self.mode != SubgraphMode::Unkept) else {
            return Ok(Beginning::Input(input));
        };
        let Some(begun) = handle.store.get(&self.thread(), At::Head).await? else {
            return Ok(Beginning::Input(input));
        };
        let run = begun.run.as_ref();
        if self.mode == SubgraphMode::Accumulating && run.is_none_or(|mark| mark.run != self.own_run()) {
            return Ok(Beginning::Input(input));
        }
        let asks = run.is_some_and(|mark| mark.status == RunStatus::Asked);
        if !asks {
            return Ok(Beginning::Resume(Answers::None));
        }
        let open: Vec<String> = open_questions(&begun.records).into_iter().map(|(_, q)| q.id).collect();
        let given = outer.journal.answers(&self.ctx.task.id()).into_iter();
        let prefix = prefix(self.key);
        let given = given.filter_map(|(name, answer)| Some((name.strip_prefix(&prefix)?.to_owned(), answer)));
        let answers: Vec<_> = given.filter(|(id, _)| open.contains(id)).collect();
        Ok(Beginning::Resume(if answers.is_empty() {
            Answers::None
        } else {
            Answers::Many(answers)
        }))
    }
}

/// Whether two runs on an accumulating thread are of different tasks of one step.
pub(super) fn share_a_step(one: RunId, other: RunId) -> bool {
    one != other && one.as_uuid().as_u64_pair().0 == other.as_uuid().as_u64_pair().0
}

/// What stands before the ids of inner questions where the host asks them.
fn prefix(key: &str) -> String {
    if key.is_empty() {
        String::new()
    } else {
        format!("{key}:")
    }
}

/// What the host makes of an inner failure: its policy retries it only if the inner node's error was worth it.
fn failed_inside(error: RunError) -> NodeError {
    match error {
        RunError::Checkpoint(error) if error.is_retryable() => NodeError::retryable(error),
        RunError::Node { retryable: true, .. }
        | RunError::Handler { retryable: true, .. }
        | RunError::StepTimeout { .. } => NodeError::retryable(error),
        RunError::TimeLimit { .. } => NodeError::time_limit(error),
        RunError::Budget { .. } => NodeError::over_budget(error),
        other => NodeError::terminal(other),
    }
}

/// The inner questions become the host's, each named by its inner id.
fn pass_on<E: Send + 'static>(ctx: &Context<E>, key: &str, questions: Vec<Question>) -> NodeError {
    let task = ctx.task.id();
    for inner in questions {
        let name = format!("{}{}", prefix(key), inner.id);
        let question = Question {
            id: format!("{task}@{}/{name}", ctx.task.step),
            node: format!("{}/{}", ctx.node(), inner.node),
            name,
            ..inner
        };
        ctx.task.run.journal.ask(&task, question);
    }
    NodeError::asked()
}

/// What happens inside leaves with the host's name on it.
struct Hosted<E> {
    outer: Emitter<E>,
    host: Cow<'static, str>,
}

impl<E: Send + 'static> Emit<E> for Hosted<E> {
    fn send(&self, node: Cow<'static, str>, event: E) {
        self.send_inside(Vec::new(), Inside::Custom { node, event });
    }

    fn send_inside(&self, mut hosts: Vec<Cow<'static, str>>, inside: Inside<E>) {
        hosts.push(self.host.clone());
        self.outer.out.send_inside(hosts, inside);
    }

    fn hears(&self) -> Hears {
        self.outer.out.hears()
    }
}

fn hosted<E: Send + 'static>(emitter: Emitter<E>, host: Cow<'static, str>) -> Emitter<E> {
    let gate = Arc::clone(&emitter.gate);
    Emitter {
        out: Arc::new(Hosted { outer: emitter, host }),
        gate,
    }
}
