//! Fields and sets of fields.

use std::borrow::Cow;

/// A field of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Field {
    /// Its name.
    pub name: Cow<'static, str>,
    /// Name of its reducer, part of the graph's fingerprint.
    pub reducer: Cow<'static, str>,
    /// Whether several tasks of one step may write it.
    pub concurrent: bool,
    /// Whether its value is for nodes and the store alone, and hidden wherever a state is shown.
    pub secret: bool,
}

impl Field {
    /// A field whose names are known when the program is compiled.
    #[must_use]
    pub const fn fixed(name: &'static str, reducer: &'static str, concurrent: bool) -> Self {
        Self {
            name: Cow::Borrowed(name),
            reducer: Cow::Borrowed(reducer),
            concurrent,
            secret: false,
        }
    }

    /// The same, with a value that is hidden wherever a state is shown.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// A field whose names are known when the program runs.
    pub fn named(name: impl Into<Cow<'static, str>>, reducer: impl Into<Cow<'static, str>>, concurrent: bool) -> Self {
        Self {
            name: name.into(),
            reducer: reducer.into(),
            concurrent,
            secret: false,
        }
    }
}

/// A set of fields of one state, by their position. The first 64 need no allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    first: u64,
    rest: Vec<u64>,
}

impl FieldSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            first: 0,
            rest: Vec::new(),
        }
    }

    /// Adds a field; says whether it was new.
    #[inline]
    pub fn insert(&mut self, field: usize) -> bool {
        let bit = 1_u64 << (field % 64);
        let word = match field / 64 {
            0 => &mut self.first,
            n => {
                if self.rest.len() < n {
                    self.rest.resize(n, 0);
                }
                let Some(word) = self.rest.get_mut(n - 1) else {
                    return false;
                };
                word
            }
        };
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// Whether a field is in the set.
    #[must_use]
    #[inline]
    pub fn contains(&self, field: usize) -> bool {
        let word = match field / 64 {
            0 => self.first,
            n => self.rest.get(n - 1).copied().unwrap_or(0),
        };
        word >> (field % 64) & 1 == 1
    }

    /// Whether no field is in it.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first == 0 && self.rest.iter().all(|word| *word == 0)
    }

    /// Takes all fields out, keeping the memory.
    #[inline]
    pub fn clear(&mut self) {
        self.first = 0;
        if !self.rest.is_empty() {
            self.rest.fill(0);
        }
    }

    /// The fields, lowest position first.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        std::iter::once(self.first)
            .chain(self.rest.iter().copied())
            .enumerate()
            .flat_map(|(at, mut word)| {
                std::iter::from_fn(move || {
                    if word == 0 {
                        return None;
                    }
                    let bit = word.trailing_zeros() as usize;
                    word &= word - 1;
                    Some(at * 64 + bit)
                })
            })
    }
}

#[cfg(test)]
mod tests {
    use super::FieldSet;

    #[test]
    fn fields_beyond_the_first_word_are_kept_in_order() {
        let mut set = FieldSet::new();
        for field in [200, 3, 64, 63, 3] {
            set.insert(field);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [3, 63, 64, 200]);
        assert!(set.contains(64) && !set.contains(65) && !set.contains(1000));
        set.clear();
        assert!(set.is_empty());
    }
}
