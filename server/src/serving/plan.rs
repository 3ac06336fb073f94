//! What a run's body means on a thread as it stands. No input and no output: values in, values out.

use serde_json::Value;
use stepgraph::{
    Answers, Cancel, OnBusy, OnPending, RunId,
    checkpoint::{At, RunStatus},
};
use uuid::Uuid;

use super::{
    body::{CommandBody, Multitask, Pending, RunBody, Several},
    served::{Begin, StateView, What},
    telling::Modes,
};
use crate::error::ApiError;

/// How a run is carried out.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) begin: Begin,
    /// The answers to give once the run has asked again: of a resume that begins at an older checkpoint.
    pub(crate) then: Option<Answers>,
    /// The questions that are answered.
    pub(crate) answered: Vec<String>,
}

impl Plan {
    /// Of a body on a thread whose newest state is `head`; `nodes` are those of the graph.
    pub(crate) fn of(
        body: &mut RunBody,
        head: Option<&StateView>,
        nodes: &[String],
        modes: Modes,
    ) -> Result<Self, ApiError> {
        let command = body.command.take();
        let resumed = head.and_then(|head| head.run.as_ref()).map(|mark| mark.run);
        let at = older(body.checkpoint()?, head);
        let (what, then, answered) = beginning(body.input.take(), command.as_ref(), head, at)?;
        let run = match (&what, at) {
            (What::GoOn(_), None) => resumed.unwrap_or_else(RunId::random),
            _ => RunId::random(),
        };
        let (update, goto) = match command {
            Some(CommandBody { update, goto, .. }) => (update, goto),
            None => (None, None),
        };
        if at.is_some() && (update.is_some() || goto.is_some()) {
            let message =
                "`update` and `goto` are for a thread's newest checkpoint: edit the older one by `POST ../state`";
            return Err(ApiError::unfit("not_built", message));
        }
        let begin = Begin {
            step_limit: limit(body.config.recursion_limit)?,
            on_busy: match body.multitask_strategy {
                Multitask::Reject => OnBusy::Reject,
                Multitask::Enqueue | Multitask::Interrupt | Multitask::Rollback => OnBusy::Wait,
            },
            on_pending: on_pending(body.on_pending, head),
            at,
            stop_before: stops("interrupt_before", body.interrupt_before.as_ref(), nodes)?,
            stop_after: stops("interrupt_after", body.interrupt_after.as_ref(), nodes)?,
            update: update.map(super::body::Writes::into_value),
            goto: goto
                .map(super::body::Destinations::nodes)
                .transpose()?
                .unwrap_or_default(),
            extras: modes.extras(),
            ..Begin::new(what, run, Cancel::new())
        };
        Ok(Self { begin, then, answered })
    }
}

/// The checkpoint to begin from, unless it is the newest: clients name that one as well.
fn older(named: Option<Uuid>, head: Option<&StateView>) -> Option<At> {
    named
        .filter(|id| head.is_none_or(|head| head.entry.id != *id))
        .map(At::Id)
}

type Beginning = (What, Option<Answers>, Vec<String>);

fn beginning(
    input: Option<Value>,
    command: Option<&CommandBody>,
    head: Option<&StateView>,
    at: Option<At>,
) -> Result<Beginning, ApiError> {
    match (input, command) {
        (Some(_), Some(_)) => Err(ApiError::unfit(
            "input_and_command",
            "send either `input`, for a new run, or `command`, to go on",
        )),
        (Some(input), None) => Ok((What::Input(input), None, Vec::new())),
        (None, command) => {
            if head.is_none() {
                return Err(ApiError::unfit(
                    "no_input",
                    "nothing has run on this thread yet: send `input`",
                ));
            }
            let nothing_else = command.is_none_or(|command| command.update.is_none() && command.goto.is_none());
            let answer = command.and_then(|command| command.resume.as_ref());
            Ok(match answer.filter(|answer| nothing_else || !answer.is_null()) {
                None => (What::GoOn(Answers::None), None, Vec::new()),
                // The question of back then is asked again first, on a branch of its own; then it is answered.
                Some(answer) if at.is_some() => (
                    What::GoOn(Answers::None),
                    Some(Answers::One(answer.clone())),
                    Vec::new(),
                ),
                Some(answer) => {
                    let (answers, answered) = answers(answer, head);
                    (What::GoOn(answers), None, answered)
                }
            })
        }
    }
}

/// Answers by question where every member is named like an open one; otherwise all of it answers the only question.
fn answers(answer: &Value, head: Option<&StateView>) -> (Answers, Vec<String>) {
    let open: Vec<&str> = head
        .map(|head| head.questions.iter().map(|question| question.id.as_str()).collect())
        .unwrap_or_default();
    match answer.as_object() {
        Some(members) if !members.is_empty() && members.keys().all(|id| open.contains(&id.as_str())) => {
            let given = members.iter().map(|(id, value)| (id.clone(), value.clone()));
            (Answers::Many(given.collect()), members.keys().cloned().collect())
        }
        _ => (
            Answers::One(answer.clone()),
            open.into_iter().map(str::to_owned).collect(),
        ),
    }
}

/// A question that waits is not dropped unless the caller says so. What was cut off, stopped or failed makes room.
fn on_pending(asked: Pending, head: Option<&StateView>) -> OnPending {
    let status = head.and_then(|head| head.run.as_ref()).map(|mark| mark.status);
    match (asked, status) {
        (Pending::Discard, _) | (_, Some(RunStatus::Stopped | RunStatus::Failed)) => OnPending::Discard,
        (Pending::Reject, Some(RunStatus::Running | RunStatus::Asked | RunStatus::Done) | None) => OnPending::Reject,
    }
}

fn limit(steps: Option<u32>) -> Result<Option<u32>, ApiError> {
    match steps {
        Some(0) => Err(ApiError::unfit(
            "recursion_limit",
            "`config.recursion_limit` must be at least 1",
        )),
        steps => Ok(steps),
    }
}

fn stops(name: &str, asked: Option<&Several>, nodes: &[String]) -> Result<Option<Vec<String>>, ApiError> {
    let asked = match asked {
        None => return Ok(None),
        Some(Several::One(all)) if all == "*" => return Ok(Some(nodes.to_vec())),
        Some(asked) => asked.as_slice(),
    };
    match asked.iter().find(|asked| !nodes.contains(asked)) {
        Some(unknown) => Err(ApiError::unfit(
            "unknown_node",
            format!("`{name}` names `{unknown}`, which is no node: there are {nodes:?}"),
        )),
        None => Ok((!asked.is_empty()).then(|| asked.to_vec())),
    }
}
