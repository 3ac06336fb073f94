//! What the updates of a step touched.

use super::{FieldSet, Mark};

/// The fields that the updates of one step touched, each with what was remembered of it before.
#[derive(Debug, Default)]
pub struct Changes {
    fields: FieldSet,
    marks: Vec<Mark>,
}

impl Changes {
    /// Notes that a field is about to be written; `mark` is asked at its first write of the step only.
    #[inline]
    pub fn touch(&mut self, field: usize, mark: impl FnOnce() -> Mark) {
        if self.fields.insert(field) {
            self.keep(field, mark());
        }
    }

    /// A field without a place for its mark is one that is written as a whole: most need none.
    #[inline]
    fn keep(&mut self, field: usize, mark: Mark) {
        if !mark.is_whole() && self.marks.len() <= field {
            self.marks.resize_with(field + 1, Mark::default);
        }
        if let Some(slot) = self.marks.get_mut(field) {
            *slot = mark;
        }
    }

    /// Notes that a field is set as a whole, whatever was noted of it before.
    #[inline]
    pub fn set(&mut self, field: usize) {
        self.touch(field, || Mark::WHOLE);
        if let Some(slot) = self.marks.get_mut(field) {
            *slot = Mark::WHOLE;
        }
    }

    /// The mark of a field, for notes on what is about to be written.
    #[inline]
    pub fn mark(&mut self, field: usize) -> Option<&mut Mark> {
        self.marks.get_mut(field)
    }

    /// Takes up what a later step has touched, so that both are written as one.
    pub(crate) fn absorb(&mut self, later: &mut Self) {
        for field in later.fields.iter() {
            let mark = later.marks.get_mut(field).map(std::mem::take).unwrap_or_default();
            if self.fields.insert(field) {
                self.keep(field, mark);
            } else if let Some(slot) = self.marks.get_mut(field) {
                slot.absorb(mark);
            }
        }
        later.clear();
    }

    /// The touched fields and their marks, lowest position first.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Mark)> + '_ {
        self.fields
            .iter()
            .map(|field| (field, self.marks.get(field).unwrap_or(&Mark::WHOLE)))
    }

    /// The touched fields.
    #[must_use]
    #[inline]
    pub const fn fields(&self) -> &FieldSet {
        &self.fields
    }

    /// Forgets everything, keeping the memory.
    #[inline]
    pub fn clear(&mut self) {
        self.fields.clear();
    }
}

/// Why a state cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A field does not serialise.
    #[error("the state cannot be encoded: {0}")]
    Encode(String),
    /// The stored bytes do not fit the fields of this state.
    #[error("the stored state does not fit this program: {0}; migrate it, or run it with the version that wrote it")]
    Decode(String),
    /// The stored state has a version that this state knows no way from.
    #[error(
        "the stored state has version {stored}, and this program knows version {known}: {}",
        if stored > known { "run the program that wrote it, or a newer one" }
        else { "say by `#[state(from = ..)]` what it was, and how it becomes the new state" }
    )]
    Version {
        /// The version that is stored.
        stored: u32,
        /// The version of this program's state.
        known: u32,
    },
}

impl StateError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Encode(_) => "state::encode",
            Self::Decode(_) => "state::decode",
            Self::Version { .. } => "state::version",
        }
    }
}
