//! A name that is given on with every run.

use std::{
    cmp::Ordering,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// So many bytes have room in the name itself: it takes no more of it than a shared text would.
const SHORT_BYTES_MAX: usize = 22;

/// A text that is copied often. A short one lies in the name itself: to copy it is no allocation, and no count that threads
/// take from one another.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// Never longer than it says; zeros behind it, so that what is equal is equal byte for byte.
    Short { length: u8, bytes: [u8; SHORT_BYTES_MAX] },
    /// Never short.
    Long(Arc<str>),
}

impl Name {
    #[inline]
    pub(super) fn new(text: &str) -> Self {
        let mut bytes = [0; SHORT_BYTES_MAX];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(room), Ok(length)) => {
                room.copy_from_slice(text.as_bytes());
                Self::Short { length, bytes }
            }
            _ => Self::Long(text.into()),
        }
    }

    #[inline]
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Self::Long(text) => text.as_bytes(),
        }
    }

    #[inline]
    pub(super) fn as_str(&self) -> &str {
        match self {
            // It was a text when it was put there.
            Self::Short { .. } => std::str::from_utf8(self.as_bytes()).unwrap_or_default(),
            Self::Long(text) => text,
        }
    }
}

impl Hash for Name {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.as_bytes());
        // What follows is not part of the name.
        state.write_u8(0xff);
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Around the length at which a name becomes shared, and one that is no ASCII.
    fn texts() -> Vec<String> {
        let lengths = (1..30).map(|length| "abcdefghijklmnopqrstuvwxyz0123456789".chars().take(length).collect());
        lengths.chain(["\u{e9}".repeat(11), "\u{e9}".repeat(12)]).collect()
    }

    #[test]
    fn a_name_is_the_text_that_it_was_made_of_however_long() {
        for text in texts() {
            let name = Name::new(&text);
            assert_eq!((name.as_str(), name.clone().as_str()), (text.as_str(), text.as_str()));
        }
    }

    #[test]
    fn names_are_equal_hashed_and_in_order_as_their_texts_are() {
        let (texts, names): (Vec<_>, Vec<_>) = texts().into_iter().map(|text| (text.clone(), Name::new(&text))).unzip();
        for (text, name) in texts.iter().zip(&names) {
            for (other_text, other) in texts.iter().zip(&names) {
                assert_eq!(
                    (name == other, name.cmp(other)),
                    (text == other_text, text.cmp(other_text))
                );
            }
        }
        let twice: HashSet<_> = names
            .iter()
            .cloned()
            .chain(texts.iter().map(|text| Name::new(text)))
            .collect();
        assert_eq!(twice.len(), texts.len());
    }

    #[test]
    fn a_name_takes_no_more_room_than_a_shared_text_with_a_mark() {
        assert_eq!(size_of::<Name>(), 24);
    }
}
