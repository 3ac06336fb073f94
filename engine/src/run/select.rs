//! Parts of a thread's history: which checkpoints, and which fields of their states.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::{error::RunError, open::decode, read::HistoryEntry};
use crate::{
    checkpoint::{At, CheckpointInfo, CheckpointSource, Page, Seq},
    graph::Graph,
    id::{RunId, ThreadKey},
    state::{SECRET, State},
    tree,
};

/// Checkpoints asked of the store at once.
const SCAN_PAGE: u32 = 256;

/// Most checkpoints that one call looks through; the page then ends early, and its cursor goes on from there.
const SCAN_MAX: u32 = 10_000;

/// Which checkpoints of a history are wanted, and which fields of their states. Everything that is said must hold.
///
/// ```
/// use stepgraph::{Selection, checkpoint::CheckpointSource};
///
/// let selection = Selection::all().source(CheckpointSource::Step).steps(10..=20).fields(["answer"]);
/// # let _ = selection;
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Selection {
    source: Option<CheckpointSource>,
    run: Option<RunId>,
    steps: Option<RangeInclusive<i64>>,
    fields: Vec<String>,
}

impl Selection {
    /// Every checkpoint, no field.
    pub fn all() -> Self {
        Self::default()
    }

    /// Those written for this reason.
    pub const fn source(mut self, source: CheckpointSource) -> Self {
        self.source = Some(source);
        self
    }

    /// Those written by this run.
    pub const fn run(mut self, run: RunId) -> Self {
        self.run = Some(run);
        self
    }

    /// Those at the end of these steps.
    pub const fn steps(mut self, steps: RangeInclusive<i64>) -> Self {
        self.steps = Some(steps);
        self
    }

    /// With these fields of the state. A state is read only where fields are wanted.
    pub fn fields<N: Into<String>>(mut self, fields: impl IntoIterator<Item = N>) -> Self {
        self.fields.extend(fields.into_iter().map(Into::into));
        self
    }

    fn holds(&self, info: &CheckpointInfo) -> bool {
        self.source.is_none_or(|source| source == info.source)
            && self.run.is_none_or(|run| info.run == Some(run))
            && self.steps.as_ref().is_none_or(|steps| steps.contains(&info.step))
    }

    /// Whether it leaves checkpoints out.
    const fn is_limited(&self) -> bool {
        self.source.is_some() || self.run.is_some() || self.steps.is_some()
    }
}

/// A checkpoint that was selected.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Selected {
    /// What is known of the checkpoint.
    pub entry: HistoryEntry,
    /// The fields that were asked for, as they are stored, `"[secret]"` for one that is secret; empty when none were.
    pub fields: Map<String, Value>,
}

/// Selected checkpoints, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct SelectedPage {
    /// The checkpoints; fewer than were asked for when the search had looked through very many.
    pub selected: Vec<Selected>,
    /// Where the next page begins, if anything may follow: pass it as [`Page::before`].
    pub next: Option<Seq>,
}

impl<S: State> Graph<S> {
    /// The checkpoints of a thread's history that a selection names, newest first, with the fields it names. Like
    /// [`history`](Self::history), it reads no state unless fields are asked for; then one for each checkpoint it gives.
    ///
    /// ```
    /// # use stepgraph::{Graph, Selection, State, ThreadKey, checkpoint::Page};
    /// # async fn work<S: State>(graph: Graph<S>, thread: &ThreadKey) -> Result<(), stepgraph::RunError> {
    /// let mut page = Page::default();
    /// loop {
    ///     let found = graph.select(thread, &Selection::all().fields(["answer"]), page).await?;
    ///     for at in &found.selected {
    ///         println!("{} {}", at.entry.step, at.fields["answer"]);
    ///     }
    ///     let Some(next) = found.next else { break };
    ///     page.before = Some(next);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`state`](Self::state); [`RunError::UnknownField`] for a field that the state does not store.
    pub async fn select(
        &self,
        thread: &ThreadKey,
        selection: &Selection,
        page: Page,
    ) -> Result<SelectedPage, RunError> {
        let known = S::fields(&self.parts.shape);
        if let Some(field) = selection
            .fields
            .iter()
            .find(|name| known.iter().all(|field| field.name != **name))
        {
            return Err(self.unknown_field(field));
        }
        let (store, wanted) = (self.kept()?, usize::try_from(page.limit).unwrap_or(usize::MAX));
        let mut found = SelectedPage::default();
        let (mut before, mut scanned) = (page.before, 0);
        while found.selected.len() < wanted && scanned < SCAN_MAX {
            let limit = if selection.is_limited() {
                SCAN_PAGE
            } else {
                page.limit.min(SCAN_PAGE)
            };
            let infos = store.list(thread, Page { before, limit }).await?;
            scanned += limit;
            let is_last = infos.len() < usize::try_from(limit).unwrap_or(usize::MAX);
            for info in infos {
                if found.selected.len() == wanted {
                    found.next = before;
                    return Ok(found);
                }
                before = Some(info.seq);
                if selection.holds(&info) {
                    found.selected.push(Selected {
                        entry: HistoryEntry::of(&info, &self.parts.topology)?,
                        fields: self.fields_at(thread, info.seq, &selection.fields).await?,
                    });
                }
            }
            if is_last {
                return Ok(found);
            }
        }
        found.next = before;
        Ok(found)
    }

    /// Some fields of the state at a checkpoint. In a snapshot each is an effect that sets the whole of it.
    async fn fields_at(&self, thread: &ThreadKey, seq: Seq, fields: &[String]) -> Result<Map<String, Value>, RunError> {
        if fields.is_empty() {
            return Ok(Map::new());
        }
        let checkpoint = self.kept()?.get(thread, At::Seq(seq)).await?;
        let checkpoint = checkpoint.ok_or_else(|| RunError::NoCheckpoint {
            thread: Box::new(thread.clone()),
            at: At::Seq(seq).to_string(),
        })?;
        let Value::Object(mut all) = tree::shown(&decode::<S>(&self.parts.shape, &checkpoint)?.encode()?) else {
            return Ok(Map::new());
        };
        let is_secret = |name: &String| {
            S::fields(&self.parts.shape)
                .iter()
                .any(|field| field.secret && field.name == *name)
        };
        let stored = |name: &String| {
            let whole = all
                .get_mut(name)
                .and_then(|effect| effect.get_mut("set"))
                .map(Value::take);
            let whole = whole.ok_or_else(|| self.unknown_field(name))?;
            Ok((name.clone(), if is_secret(name) { SECRET.into() } else { whole }))
        };
        fields.iter().map(stored).collect()
    }

    fn unknown_field(&self, field: &str) -> RunError {
        RunError::UnknownField {
            graph: self.name().to_owned(),
            field: field.to_owned(),
        }
    }
}
