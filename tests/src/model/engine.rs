//! The engine's side of a case: the same script, on a real store.

use std::{
    future::{IntoFuture, poll_fn},
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
};

use futures_util::StreamExt;
use stepgraph::{
    Answers, AsNode, Checkpointer, EventKind, Extra, Memory, Run, RunError, RunEvent, Snapshot, TenantId, ThreadId,
    ThreadKey,
    checkpoint::{At, CheckpointSource, Page, RecordKind, RunStatus, Seq},
    dynamic::{Goto, JsonState},
};
use tempfile::TempDir;

use super::{
    build::{Built, World, build, destinations_of, input, update},
    case::{Case, Command, Crash, Does, Graph, Ground, How, Object, Op, Pending},
    reference::{Given, given, written},
    run::{End, Fault, Trace},
    store::Fragile,
    thread::{Question, Source, Status},
    view::{Entry, Head, TaskView, View},
};

/// A case's thread on the engine.
pub(super) struct Engine<'a> {
    case: &'a Case,
    built: Built,
    store: Arc<Fragile>,
    key: ThreadKey,
    world: Arc<Mutex<World>>,
    _folder: Option<TempDir>,
}

/// What an op has come to.
pub(super) struct Came {
    pub(super) end: Option<End>,
    pub(super) trace: Trace,
    /// Whether it was cut off.
    pub(super) crashed: bool,
    /// What events said that was not so.
    pub(super) broken_laws: Vec<String>,
    /// The highest step that a node was entered in.
    pub(super) newest: Option<i64>,
}

impl<'a> Engine<'a> {
    pub(super) async fn open(case: &'a Case) -> Self {
        let (store, folder): (Arc<dyn Checkpointer>, _) = if let Ground { file: false, .. } = case.ground {
            (Arc::new(Memory::new()), None)
        } else {
            let folder = tempfile::tempdir().unwrap();
            let store = stepgraph_checkpoint::Sqlite::open(folder.path().join("threads.db")).await;
            (Arc::new(store.unwrap()), Some(folder))
        };
        let store = Arc::new(Fragile::over(store));
        let world = Arc::new(Mutex::new(World {
            broken: case.broken.iter().cloned().collect(),
            ..World::default()
        }));
        let mut built = build(&case.graph, "", &world);
        keep_in(&mut built, &store);
        Self {
            case,
            built,
            store,
            key: ThreadKey::new(TenantId::authenticated("model").unwrap(), ThreadId::new("t").unwrap()),
            world,
            _folder: folder,
        }
    }

    pub(super) fn mermaid(&self) -> String {
        self.built.graph.mermaid()
    }

    /// Carries out an op; `count` is how many checkpoints there are.
    pub(super) async fn perform(&self, op: &Op, count: usize) -> Came {
        let at = |at: &usize| At::Seq(Seq((at % count.max(1)) as u64 + 1));
        let graph = &self.built.graph;
        let case = &self.case.graph;
        let done = match op {
            Op::Input {
                writes,
                pending,
                at: from,
                how,
            } => {
                let given = written(case, writes, "input", &Object::new());
                let mut run = graph.run(&self.key, input(&given)).on_pending(match pending {
                    Pending::Reject => stepgraph::OnPending::Reject,
                    Pending::Discard => stepgraph::OnPending::Discard,
                    Pending::CommitFinished => stepgraph::OnPending::CommitFinished,
                });
                if let Some(from) = from {
                    run = run.at(at(from));
                }
                return self.carry_out(run, how).await;
            }
            Op::Resume { reply, command, how } => {
                let open = self.open_questions().await;
                let answers = match given(*reply, &open) {
                    Given::None => Answers::None,
                    Given::One(value) => Answers::One(value),
                    Given::Many(answers) => Answers::Many(answers),
                };
                let run = told(graph.resume(&self.key).answers(answers), command.as_ref(), case);
                return self.carry_out(run, how).await;
            }
            Op::Rerun { at: from, command, how } => {
                let run = told(graph.rerun_from(&self.key, at(from)), command.as_ref(), case);
                return self.carry_out(run, how).await;
            }
            Op::Update { at: from, node, writes } => {
                let from = from.as_ref().map_or(At::Head, at);
                let as_node = match node.as_deref() {
                    None => AsNode::Last,
                    Some("START") => AsNode::Start,
                    Some(name) => AsNode::Named(name.to_owned()),
                };
                let written = update(&written(case, writes, "edit", &Object::new()));
                graph.update(&self.key, from, written, as_node).await.map(drop)
            }
            Op::Fork { at: from, name } => graph.fork(&self.key, at(from), name).await.map(drop),
            Op::Switch { name } => graph.switch(&self.key, name).await.map(drop),
            Op::Mend => {
                self.world.lock().unwrap().broken.clear();
                Ok(())
            }
        };
        Came {
            end: done.err().map(|error| End::Failed(fault(&error))),
            trace: Trace::default(),
            crashed: false,
            broken_laws: Vec::new(),
            newest: None,
        }
    }

    /// The ids of the open questions.
    async fn open_questions(&self) -> Vec<String> {
        let Some(Snapshot { questions, .. }) = self.built.graph.state(&self.key, At::Head).await.unwrap() else {
            return Vec::new();
        };
        // As the store has them: by task, then by id.
        let mut ids: Vec<(String, String)> = questions
            .into_iter()
            .map(|question| {
                (
                    question.id.split('@').next().unwrap_or_default().to_owned(),
                    question.id,
                )
            })
            .collect();
        ids.sort();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    async fn carry_out(&self, run: Run<JsonState>, how: &How) -> Came {
        let mut run = run.step_limit(how.limit).durability(self.case.ground.durability);
        if let Some(nodes) = &how.before {
            run = run.stop_before(nodes.clone());
        }
        if let Some(nodes) = &how.after {
            run = run.stop_after(nodes.clone());
        }
        {
            let mut world = self.world.lock().unwrap();
            world.entries.clear();
            world.newest = None;
        }
        self.store.prepare(how.crash);
        let mut laws = Laws::default();
        let ended = match how.crash {
            Some(Crash::Drop(polls)) => dropped(run, how.heard, polls, &mut laws).await,
            Some(Crash::Refuse(_) | Crash::Lose(_)) | None if how.heard => Some(heard(run, &mut laws).await),
            Some(Crash::Refuse(_) | Crash::Lose(_)) | None => Some(run.await),
        };
        // What was spawned by a run that is gone has no more to say.
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        let crashed = self.store.was_down() || ended.is_none();
        if crashed && self.case.ground.file {
            // What the run had handed to the file's writer is written, whoever waits for it: this stands behind it.
            self.store.claim(&self.key).await.unwrap();
        }
        let end = ended.map(end_of);
        if !crashed && how.heard {
            laws.at_end(end.as_ref());
        }
        let mut world = self.world.lock().unwrap();
        Came {
            end,
            crashed,
            newest: world.newest,
            trace: Trace {
                steps: laws.steps,
                gave: laws.gave,
                entries: std::mem::take(&mut world.entries),
            },
            broken_laws: laws.broken,
        }
    }

    /// The thread as it is seen.
    pub(super) async fn view(&self) -> View {
        view(&self.built, &self.case.graph, &self.store, &self.key).await
    }
}

fn keep_in(built: &mut Built, store: &Arc<Fragile>) {
    built.graph = built
        .graph
        .clone()
        .shared_checkpointer(Arc::clone(store) as Arc<dyn Checkpointer>);
    built.inner.values_mut().for_each(|inner| keep_in(inner, store));
}

fn told(run: Run<JsonState>, command: Option<&Command>, case: &Graph) -> Run<JsonState> {
    let Some(command) = command else { return run };
    let told = run.update(update(&written(case, &command.writes, "told", &Object::new())));
    destinations_of(command).into_iter().fold(told, |run, goto| match goto {
        Goto::Node(name) => run.goto(name),
        Goto::Send(name, value) => run.send(name, value),
        Goto::End => run,
    })
}

type Ended = Result<stepgraph::Outcome<JsonState>, RunError>;

/// Runs until it has ended, or was polled so often.
async fn dropped(run: Run<JsonState>, listens: bool, polls: u64, laws: &mut Laws) -> Option<Ended> {
    let mut left = polls;
    let mut running: std::pin::Pin<Box<dyn Future<Output = Ended> + '_>> = if listens {
        Box::pin(heard(run, laws))
    } else {
        Box::pin(run.into_future())
    };
    let mut running = pin!(&mut running);
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        running.as_mut().poll(cx).map(Some)
    })
    .await
}

/// What the events of a run say.
#[derive(Default)]
struct Laws {
    heard: u64,
    steps: Vec<String>,
    gave: Vec<String>,
    step: i64,
    folded: Option<Object>,
    saved: Option<Object>,
    broken: Vec<String>,
}

async fn heard(run: Run<JsonState>, laws: &mut Laws) -> Ended {
    let extras = [Extra::Values, Extra::Checkpoints, Extra::Payloads, Extra::Inside];
    let mut events = run.stream_with(extras);
    loop {
        match events.next().await {
            Some(Ok(RunEvent::Event(event))) => laws.hear(event),
            Some(Ok(RunEvent::Ended(outcome))) => return Ok(outcome),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error),
            None => panic!("a stream ended without an outcome"),
        }
    }
}

impl Laws {
    fn hear(&mut self, event: stepgraph::Event<JsonState>) {
        self.heard += 1;
        if event.seq != self.heard {
            self.broken
                .push(format!("event {} came as number {}", event.seq, self.heard));
        }
        if !event.path.is_empty() {
            return;
        }
        match event.kind {
            EventKind::Step { step, tasks } => {
                self.step = step;
                let ids: Vec<_> = tasks.into_iter().map(|task| task.task).collect();
                self.steps.push(format!("{step}: {}", ids.join(" ")));
            }
            EventKind::Update { task, .. } => self.gave.push(format!("{} {task}", self.step)),
            EventKind::Values { state, .. } => self.folded = Some(object(&state)),
            EventKind::Saved { state, .. } => self.saved = state.map(|state| object(&state)),
            _ => {}
        }
    }

    /// The events of a run that has come to its end give its state.
    fn at_end(&mut self, end: Option<&End>) {
        let Some(End::Done(state) | End::Stalled(state, _)) = end else {
            return;
        };
        for (what, folded) in [("values", &self.folded), ("checkpoints", &self.saved)] {
            if folded.as_ref().is_some_and(|folded| folded != state) {
                self.broken.push(format!(
                    "the {what} told fold to {folded:?}, the run ended with {state:?}"
                ));
            }
        }
    }
}

fn object(state: &JsonState) -> Object {
    state.to_object().into_iter().collect()
}

fn end_of(ended: Ended) -> End {
    use stepgraph::{Outcome, Stop};
    let names = |nodes: &[std::borrow::Cow<'static, str>]| nodes.join(",");
    match ended {
        Ok(Outcome::Done(state)) => End::Done(object(&state)),
        Ok(Outcome::Stalled { state, waiting }) => {
            let waiting = waiting.into_iter().map(|join| (join.to, join.missing));
            End::Stalled(object(&state), waiting.collect())
        }
        Ok(Outcome::Asked(questions)) => End::Asked(
            questions
                .into_iter()
                .map(|question| Question {
                    id: question.id,
                    node: question.node,
                    name: question.name,
                    payload: question.payload,
                })
                .collect(),
        ),
        Ok(Outcome::Breakpoint(Stop::Before(nodes))) => End::Paused(format!("before {}", names(&nodes))),
        Ok(Outcome::Breakpoint(Stop::After(nodes))) => End::Paused(format!("after {}", names(&nodes))),
        Ok(Outcome::Breakpoint(Stop::Inside)) => End::Paused("inside".to_owned()),
        Ok(other) => End::Failed(Fault::new("unexpected outcome", format!("{other:?}"))),
        Err(error) => End::Failed(fault(&error)),
    }
}

fn fault(error: &RunError) -> Fault {
    let detail = match error {
        RunError::Node {
            node,
            task,
            step,
            attempts,
            ..
        } => format!("node {node} task {task} step {step} attempts {attempts}"),
        RunError::Conflict {
            field,
            first,
            second,
            step,
            ..
        } => format!("{field} by {first} and {second} step {step}"),
        RunError::UnknownTarget { from, target, step, .. } => format!("{target} from {from} step {step}"),
        RunError::StepLimit { limit, .. } => limit.to_string(),
        RunError::Pending { tasks, .. } => tasks.clone(),
        RunError::UnknownQuestion { id, .. } => id.clone(),
        RunError::UnknownNode { node, .. } => node.clone(),
        RunError::AmbiguousUpdate { candidates, .. } => candidates.join(","),
        RunError::BranchExists { name, .. } | RunError::UnknownBranch { name, .. } => name.clone(),
        RunError::AmbiguousAnswer { .. } | RunError::UnknownThread { .. } | RunError::NoCheckpoint { .. } => {
            String::new()
        }
        other => other.to_string(),
    };
    Fault::new(error.code(), detail)
}

const ALL: Page = Page {
    before: None,
    limit: u32::MAX,
};

fn position(seq: Seq) -> usize {
    usize::try_from(seq.0).unwrap() - 1
}

/// A thread and, for hosts that have not finished, the threads inside it.
async fn view(built: &Built, spec: &Graph, store: &Arc<Fragile>, key: &ThreadKey) -> View {
    let graph = &built.graph;
    let mut history = Vec::new();
    let mut entries = graph.history(key, ALL).await.unwrap();
    entries.reverse();
    for entry in entries {
        let state = graph.state(key, At::Seq(entry.seq)).await.unwrap().unwrap().state;
        history.push(Entry {
            parent: entry.parent.map(position),
            step: entry.step,
            source: match entry.source {
                CheckpointSource::Input => Source::Input,
                CheckpointSource::Step => Source::Step,
                CheckpointSource::Update => Source::Update,
                CheckpointSource::Fork => Source::Fork,
            },
            next: entry.next,
            state: object(&state),
        });
    }
    let branches = graph.branches(key).await.unwrap();
    let snapshot = graph.state(key, At::Head).await.unwrap();
    let status = snapshot.as_ref().and_then(|snapshot| snapshot.run.as_ref());
    View {
        status: status.map(|mark| match mark.status {
            RunStatus::Running => Status::Running,
            RunStatus::Asked => Status::Asked,
            RunStatus::Stopped => Status::Stopped,
            RunStatus::Done => Status::Done,
            RunStatus::Failed => Status::Failed,
        }),
        head: match snapshot {
            None => None,
            Some(snapshot) => Some(head(built, spec, store, key, snapshot).await),
        },
        history,
        branches: branches
            .into_iter()
            .map(|branch| (branch.name, position(branch.head)))
            .collect(),
    }
}

async fn head(
    built: &Built,
    spec: &Graph,
    store: &Arc<Fragile>,
    key: &ThreadKey,
    snapshot: Snapshot<JsonState>,
) -> Head {
    let kept = store.get(key, At::Head).await.unwrap().unwrap();
    let answers = kept
        .records
        .iter()
        .filter(|record| record.kind == RecordKind::Answer && !record.body.is_empty());
    let commands = kept.records.iter().filter(|record| record.kind == RecordKind::Command);
    let mut tasks = Vec::new();
    for task in snapshot.tasks {
        let inner = match (
            spec.nodes.get(&task.node).map(|node| &node.does),
            built.inner.get(&task.node),
        ) {
            (Some(Does::Host(inner)), Some(built)) if !task.finished => {
                let child = key.child(&format!("{}@{}", task.task, snapshot.entry.id.simple()));
                let inner = Box::pin(view(built, inner, store, &child)).await;
                Some(inner).filter(|inner| inner.head.is_some())
            }
            _ => None,
        };
        tasks.push(TaskView {
            id: task.task,
            finished: task.finished,
            failed: task.error.map(|failure| failure.attempts),
            retrying: task.retrying.map(|retrying| retrying.failed),
            questions: task.questions.into_iter().map(|question| question.id).collect(),
            inner,
        });
    }
    let mut questions: Vec<_> = snapshot
        .questions
        .into_iter()
        .map(|question| format!("{} of {}: {}", question.id, question.node, question.payload))
        .collect();
    questions.sort();
    let answered = answers.map(|record| (record.task.clone(), record.key.clone()));
    let mut answered: Vec<_> = answered.collect();
    answered.sort();
    Head {
        at: position(snapshot.entry.seq),
        state: object(&snapshot.state),
        next: snapshot.entry.next,
        tasks,
        questions,
        answered,
        commands: commands.count(),
    }
}
