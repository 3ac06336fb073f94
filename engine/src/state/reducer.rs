//! Reducers: how the updates of a step merge into a field, and what of it the store keeps.

use std::{any::Any, fmt, ops::AddAssign};

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

/// Merges updates into a field of type `T`.
///
/// Pure and deterministic: the same current value and update give the same result. A reducer of your own is a marker
/// type with one impl; the defaults of `mark`, `effect` and `restore` store the whole new value.
///
/// ```
/// use stepgraph::Reducer;
///
/// struct Longest;
/// impl Reducer<String> for Longest {
///     type Update = String;
///     const ID: &'static str = "longest";
///     const CONCURRENT: bool = true;
///     fn first(update: String) -> String { update }
///     fn reduce(current: &mut String, update: String) {
///         if update.len() > current.len() { *current = update }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot reduce a field of type `{T}`",
    label = "this reducer does not fit the field",
    note = "`Replace` fits every type, `Append` a `Vec`, `Sum` numbers, `Max` ordered types, `Union` sets, `MergeMap` maps, `Upsert` a `Vec` of `Keyed` items; or implement `Reducer<{T}>` for `{Self}`"
)]
pub trait Reducer<T> {
    /// What a node gives for the field.
    type Update;
    /// Name of the reducer in the graph's fingerprint: change it when the meaning of stored data changes.
    const ID: &'static str;
    /// Whether several tasks of one step may write the field.
    const CONCURRENT: bool;

    /// The value of a field that had none.
    fn first(update: Self::Update) -> T;

    /// Merges one update.
    fn reduce(current: &mut T, update: Self::Update);

    /// What must be remembered of the value before a step, to tell the step's effect afterwards.
    #[must_use]
    fn mark(_current: &T) -> Mark {
        Mark::WHOLE
    }

    /// Notes in the mark what an update is about to write, if the effect is to name what was written.
    fn note(_mark: &mut Mark, _update: &Self::Update) {}

    /// The effect of a step on the field, to be stored.
    fn effect(current: &T, _mark: &Mark) -> impl Serialize
    where
        T: Serialize,
    {
        Effect::<&T, ()>::Set(current)
    }

    /// Applies a stored effect; `None` is a field not yet known.
    fn restore<'de, D: Deserializer<'de>>(slot: &mut Option<T>, effect: D) -> Result<(), D::Error>
    where
        T: DeserializeOwned,
    {
        restore_whole(slot, effect)
    }
}

/// What was remembered of a field before a step, and noted of it during the step.
#[derive(Default)]
pub struct Mark(Remembered);

#[derive(Default)]
enum Remembered {
    #[default]
    Nothing,
    Len(usize),
    Notes(Box<dyn Notes>),
}

/// Notes of a type that their reducer alone knows.
trait Notes: Any + Send + Sync {
    /// Adds what was noted in a later step; whether they were of one type and few enough.
    fn join(&mut self, later: Box<dyn Notes>) -> bool;
}

impl<N: Send + Sync + 'static> Notes for Vec<N> {
    fn join(&mut self, later: Box<dyn Notes>) -> bool {
        let later: Box<dyn Any> = later;
        let Ok(later) = later.downcast::<Self>() else {
            return false;
        };
        let fits = self.len() + later.len() <= NOTES_MAX;
        if fits {
            self.extend(*later);
        }
        fits
    }
}

/// So many keys are noted of a field in one step; beyond them the whole value is stored.
pub const NOTES_MAX: usize = 1024;

impl Mark {
    /// Nothing: the effect is the whole new value.
    pub const WHOLE: Self = Self(Remembered::Nothing);

    /// The length of a list before the step.
    #[must_use]
    pub const fn len(len: usize) -> Self {
        Self(Remembered::Len(len))
    }

    /// Room for notes on what is written in the step, at most [`NOTES_MAX`] of them.
    #[must_use]
    pub fn notes<N: Send + Sync + 'static>() -> Self {
        Self(Remembered::Notes(Box::new(Vec::<N>::new())))
    }

    /// Adds notes, if this mark has room for such; too many make it [`WHOLE`](Self::WHOLE).
    pub fn add_notes<N: Send + Sync + 'static>(&mut self, notes: impl IntoIterator<Item = N>) {
        let Remembered::Notes(kept) = &mut self.0 else {
            return;
        };
        let kept: &mut dyn Any = &mut **kept;
        let Some(kept) = kept.downcast_mut::<Vec<N>>() else {
            return;
        };
        let room = NOTES_MAX.saturating_sub(kept.len());
        let mut notes = notes.into_iter();
        kept.extend(notes.by_ref().take(room));
        if notes.next().is_some() {
            *self = Self::WHOLE;
        }
    }

    /// What was noted in the step, in order, if notes of this type were kept.
    #[must_use]
    pub fn noted<N: Send + Sync + 'static>(&self) -> Option<&[N]> {
        match &self.0 {
            Remembered::Notes(notes) => {
                let notes: &dyn Any = &**notes;
                notes.downcast_ref::<Vec<N>>().map(Vec::as_slice)
            }
            Remembered::Nothing | Remembered::Len(_) => None,
        }
    }

    /// Whether nothing is remembered.
    #[inline]
    pub(super) const fn is_whole(&self) -> bool {
        matches!(self.0, Remembered::Nothing)
    }

    /// Makes it the mark of this step and a later one together.
    pub(super) fn absorb(&mut self, later: Self) {
        let whole = match (&mut self.0, later.0) {
            (Remembered::Len(_), Remembered::Len(_)) => false,
            (Remembered::Notes(notes), Remembered::Notes(later)) => !notes.join(later),
            (Remembered::Nothing | Remembered::Len(_) | Remembered::Notes(_), _) => true,
        };
        if whole {
            *self = Self::WHOLE;
        }
    }

    /// The length it was made from, if it was.
    #[must_use]
    pub const fn len_before(&self) -> Option<usize> {
        match self.0 {
            Remembered::Len(len) => Some(len),
            Remembered::Nothing | Remembered::Notes(_) => None,
        }
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Remembered::Nothing => f.write_str("Mark::WHOLE"),
            Remembered::Len(len) => write!(f, "Mark::len({len})"),
            Remembered::Notes(_) => f.write_str("Mark::notes(..)"),
        }
    }
}

/// The stored form of an effect.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Effect<T, A> {
    Set(T),
    Append(A),
    /// What was written, to be merged once more into the value before the step.
    Merge(A),
}

/// Restores an effect that is a whole value.
pub fn restore_whole<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    slot: &mut Option<T>,
    effect: D,
) -> Result<(), D::Error> {
    match Effect::<T, serde::de::IgnoredAny>::deserialize(effect)? {
        Effect::Set(value) => *slot = Some(value),
        Effect::Append(_) => {
            return Err(serde::de::Error::custom(
                "an appended tail is stored for a field that is replaced as a whole",
            ));
        }
        Effect::Merge(_) => {
            return Err(serde::de::Error::custom(
                "a merged part is stored for a field that is replaced as a whole",
            ));
        }
    }
    Ok(())
}

/// The newest write is the value; two writers in one step are an error that names both.
#[derive(Debug, Clone, Copy)]
pub struct Replace;

impl<T> Reducer<T> for Replace {
    type Update = T;
    const ID: &'static str = "replace";
    const CONCURRENT: bool = false;

    fn first(update: T) -> T {
        update
    }

    fn reduce(current: &mut T, update: T) {
        *current = update;
    }
}

/// Adds the items of each update at the end of a list. The store keeps only the new tail.
#[derive(Debug, Clone, Copy)]
pub struct Append;

impl<T: Serialize + DeserializeOwned> Reducer<Vec<T>> for Append {
    type Update = Vec<T>;
    const ID: &'static str = "append";
    const CONCURRENT: bool = true;

    fn first(update: Vec<T>) -> Vec<T> {
        update
    }

    fn reduce(current: &mut Vec<T>, update: Vec<T>) {
        current.extend(update);
    }

    fn mark(current: &Vec<T>) -> Mark {
        Mark::len(current.len())
    }

    fn effect(current: &Vec<T>, mark: &Mark) -> impl Serialize
    where
        Vec<T>: Serialize,
    {
        match mark.len_before().and_then(|len| current.get(len..)) {
            Some(tail) => Effect::<&[T], &[T]>::Append(tail),
            None => Effect::Set(current.as_slice()),
        }
    }

    fn restore<'de, D: Deserializer<'de>>(slot: &mut Option<Vec<T>>, effect: D) -> Result<(), D::Error>
    where
        Vec<T>: DeserializeOwned,
    {
        match (Effect::<Vec<T>, Vec<T>>::deserialize(effect)?, slot) {
            (Effect::Set(list), slot) => *slot = Some(list),
            (Effect::Append(tail), Some(list)) => list.extend(tail),
            (Effect::Append(_), None) => {
                return Err(serde::de::Error::custom("an appended tail is stored before any list"));
            }
            (Effect::Merge(_), _) => {
                return Err(serde::de::Error::custom("a merged part is stored for an appended list"));
            }
        }
        Ok(())
    }
}

/// Adds each update to the value.
#[derive(Debug, Clone, Copy)]
pub struct Sum;

impl<T: AddAssign> Reducer<T> for Sum {
    type Update = T;
    const ID: &'static str = "sum";
    const CONCURRENT: bool = true;

    fn first(update: T) -> T {
        update
    }

    fn reduce(current: &mut T, update: T) {
        *current += update;
    }
}

/// Keeps the largest of the value and the updates.
#[derive(Debug, Clone, Copy)]
pub struct Max;

impl<T: PartialOrd> Reducer<T> for Max {
    type Update = T;
    const ID: &'static str = "max";
    const CONCURRENT: bool = true;

    fn first(update: T) -> T {
        update
    }

    fn reduce(current: &mut T, update: T) {
        if update > *current {
            *current = update;
        }
    }
}
