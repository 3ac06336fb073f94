//! What an update of a derived state holds: the fields it writes, and no room for those it does not.

use std::fmt;

use serde::{Serializer, ser::SerializeStruct};

use super::FieldSet;

/// What an update writes to one field: a variant for each field, then one for each field that can be overwritten.
pub trait FieldWrite {
    /// The names of the variants, in their order.
    const NAMES: &'static [&'static str];
    /// How many of them are fields; those that follow overwrite one.
    const FIELDS: usize;

    /// Position of the variant.
    fn place(&self) -> usize;

    /// Position of the field.
    fn field(&self) -> usize;

    /// Writes the value into a map.
    fn write<S: SerializeStruct>(&self, name: &'static str, out: &mut S) -> Result<(), S::Error>;
}

/// The writes of an update, one of a kind, in no order that means anything. Most updates write one field or two, for which
/// there is room here: an update is moved with its node's future, and a state may have many fields.
#[derive(Clone)]
pub struct Writes<W> {
    first: Option<W>,
    second: Option<W>,
    more: Vec<W>,
}

impl<W> Default for Writes<W> {
    #[inline]
    fn default() -> Self {
        Self {
            first: None,
            second: None,
            more: Vec::new(),
        }
    }
}

impl<W: FieldWrite> Writes<W> {
    #[inline]
    fn iter(&self) -> impl Iterator<Item = &W> {
        self.first.iter().chain(&self.second).chain(&self.more)
    }

    /// What is written at a place.
    fn get(&self, place: usize) -> Option<&W> {
        self.iter().find(|write| write.place() == place)
    }

    /// Writes this, instead of what is written at its place.
    #[inline]
    pub fn set(&mut self, write: W) {
        let place = write.place();
        let is_here = |known: &Option<W>| known.as_ref().is_some_and(|known| known.place() == place);
        if is_here(&self.first) {
            self.first = Some(write);
        } else if is_here(&self.second) {
            self.second = Some(write);
        } else if let Some(known) = self.more.iter_mut().find(|known| known.place() == place) {
            *known = write;
        } else if self.first.is_none() {
            self.first = Some(write);
        } else if self.second.is_none() {
            self.second = Some(write);
        } else {
            self.more.push(write);
        }
    }

    /// Takes one out, until none is left.
    #[inline]
    pub fn pop(&mut self) -> Option<W> {
        self.first
            .take()
            .or_else(|| self.second.take())
            .or_else(|| self.more.pop())
    }

    /// Takes out what is written to a field, in either way.
    pub fn forget(&mut self, field: usize) {
        self.first.take_if(|write| write.field() == field);
        self.second.take_if(|write| write.field() == field);
        self.more.retain(|write| write.field() != field);
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first.is_none() && self.second.is_none() && self.more.is_empty()
    }

    /// The fields that are written.
    pub fn touched(&self) -> FieldSet {
        fields(self.iter())
    }

    /// The fields that are overwritten.
    pub fn overwritten(&self) -> FieldSet {
        fields(self.iter().filter(|write| write.place() >= W::FIELDS))
    }

    /// With their names, in the order of these.
    fn named(&self) -> impl Iterator<Item = (&'static str, &W)> {
        let names = W::NAMES.iter().enumerate();
        names.filter_map(|(place, name)| Some((*name, self.get(place)?)))
    }

    /// As the fields of a struct of this name.
    pub fn serialize<S: Serializer>(&self, name: &'static str, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct(name, self.iter().count())?;
        for (name, write) in self.named() {
            write.write(name, &mut out)?;
        }
        out.end()
    }

    /// Names the fields, and tells none of their values: they may be secret.
    pub fn show(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct(name);
        for (name, _) in self.named() {
            shown.field(name, &format_args!(".."));
        }
        shown.finish()
    }
}

fn fields<'a, W: FieldWrite + 'a>(writes: impl Iterator<Item = &'a W>) -> FieldSet {
    let mut fields = FieldSet::new();
    for write in writes {
        fields.insert(write.field());
    }
    fields
}

impl<W> fmt::Debug for Writes<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writes").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two fields, and one that can be overwritten.
    #[derive(Debug, Clone, PartialEq)]
    enum Small {
        A(u8),
        B(u8),
        C(u8),
        OverwriteB(u8),
    }

    impl FieldWrite for Small {
        const NAMES: &'static [&'static str] = &["a", "b", "c", "overwrite_b"];
        const FIELDS: usize = 3;

        fn place(&self) -> usize {
            match self {
                Self::A(_) => 0,
                Self::B(_) => 1,
                Self::C(_) => 2,
                Self::OverwriteB(_) => 3,
            }
        }

        fn field(&self) -> usize {
            match self {
                Self::A(_) => 0,
                Self::B(_) | Self::OverwriteB(_) => 1,
                Self::C(_) => 2,
            }
        }

        fn write<S: SerializeStruct>(&self, name: &'static str, out: &mut S) -> Result<(), S::Error> {
            let (Self::A(value) | Self::B(value) | Self::C(value) | Self::OverwriteB(value)) = self;
            out.serialize_field(name, value)
        }
    }

    fn writes(all: impl IntoIterator<Item = Small>) -> Writes<Small> {
        let mut writes = Writes::default();
        for write in all {
            writes.set(write);
        }
        writes
    }

    fn json(writes: &Writes<Small>) -> String {
        let mut bytes = Vec::new();
        writes
            .serialize("Small", &mut serde_json::Serializer::new(&mut bytes))
            .unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_write_takes_the_place_of_an_earlier_one_wherever_that_lies() {
        let all = [Small::C(3), Small::B(2), Small::A(1), Small::OverwriteB(4)];
        let mut written = writes(all);
        for again in [Small::C(7), Small::B(6), Small::A(5), Small::OverwriteB(8)] {
            written.set(again);
        }
        assert_eq!(json(&written), r#"{"a":5,"b":6,"c":7,"overwrite_b":8}"#);
    }

    #[test]
    fn what_is_forgotten_leaves_room_for_what_follows() {
        let mut written = writes([Small::B(1), Small::C(2), Small::OverwriteB(3), Small::A(4)]);
        assert_eq!(written.overwritten().iter().collect::<Vec<_>>(), [1]);
        written.forget(1);
        assert_eq!(written.touched().iter().collect::<Vec<_>>(), [0, 2]);
        written.set(Small::B(5));
        written.forget(0);
        assert_eq!(json(&written), r#"{"b":5,"c":2}"#);
    }

    #[test]
    fn each_is_taken_out_once() {
        let all = [Small::A(1), Small::B(2), Small::C(3), Small::OverwriteB(4)];
        let mut written = writes(all.clone());
        let mut taken: Vec<_> = std::iter::from_fn(|| written.pop()).collect();
        taken.sort_by_key(FieldWrite::place);
        assert_eq!(taken, all);
        assert!(written.is_empty());
    }
}
