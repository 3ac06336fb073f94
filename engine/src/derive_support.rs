//! What the expansions of the derives name. No part of the public face: it changes with the derives.

use std::fmt;

use rmp_serde::{Deserializer as Reader, Serializer as Writer, config::StructMapConfig};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor},
    ser::SerializeMap,
};

use crate::state::{Changes, Mark, StateError};
pub use crate::{
    run::StoredOutput,
    state::{
        present, shown_with as shown,
        writes::{FieldWrite, Writes},
    },
};
pub use serde;
pub use serde_json::Value;

type MapWriter<'a> =
    <&'a mut Writer<&'a mut Vec<u8>, StructMapConfig<rmp_serde::config::DefaultConfig>> as Serializer>::SerializeMap;

/// A state whose fields are written one by one.
pub trait WriteFields {
    /// Positions of the stored fields, ascending.
    const STORED: &'static [usize];

    /// Writes the effect of one stored field.
    fn write_field(&self, field: usize, mark: &Mark, out: &mut FieldWriter<'_>) -> Result<(), StateError>;
}

/// The fields of a state that is being read, each perhaps not there yet.
pub trait ReadFields {
    /// Applies a stored effect to the field of that name.
    fn read_field<'de, D: Deserializer<'de>>(&mut self, name: &str, effect: D) -> Result<(), D::Error>;
}

/// Writes fields into a map from name to effect.
pub struct FieldWriter<'a> {
    map: MapWriter<'a>,
}

impl fmt::Debug for FieldWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FieldWriter").finish_non_exhaustive()
    }
}

impl FieldWriter<'_> {
    /// Writes one field.
    pub fn field(&mut self, name: &'static str, effect: &impl Serialize) -> Result<(), StateError> {
        self.map
            .serialize_entry(name, effect)
            .map_err(|error| StateError::Encode(format!("field `{name}`: {error}")))
    }
}

impl FieldWriter<'_> {
    /// Writes one that is secret: an error of its type's might tell it.
    pub fn secret_field(&mut self, name: &'static str, effect: &impl Serialize) -> Result<(), StateError> {
        self.map
            .serialize_entry(name, effect)
            .map_err(|_| StateError::Encode(format!("field `{name}`, which is secret")))
    }
}

/// The names of a state's secret fields.
pub trait Secrets {
    /// Their names in stored forms.
    const SECRET: &'static [&'static str];
}

/// Whether a field of this name is secret.
#[must_use]
pub const fn is_secret<S: Secrets>(name: &str) -> bool {
    let mut rest = S::SECRET;
    while let [first, others @ ..] = rest {
        if same_name(first.as_bytes(), name.as_bytes()) {
            return true;
        }
        rest = others;
    }
    false
}

const fn same_name(mut a: &[u8], mut b: &[u8]) -> bool {
    while let ([first, rest @ ..], [other, others @ ..]) = (a, b) {
        if *first != *other {
            return false;
        }
        (a, b) = (rest, others);
    }
    a.is_empty() && b.is_empty()
}

/// The error of a secret value that cannot be read. The type's own might tell it.
#[must_use]
pub fn unfit_secret<E: Error>(_: E) -> E {
    E::custom("a secret value does not fit its type")
}

/// For a secret field of an input.
pub fn secret<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::deserialize(deserializer).map_err(unfit_secret)
}

/// For a secret field of an update.
pub fn present_secret<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    present(deserializer).map_err(unfit_secret)
}

/// Encodes every stored field.
pub fn encode<S: WriteFields>(state: &S) -> Result<Vec<u8>, StateError> {
    let mut bytes = Vec::new();
    encode_to(state, &mut bytes)?;
    Ok(bytes)
}

/// The same, behind what `out` holds.
pub fn encode_to<S: WriteFields>(state: &S, out: &mut Vec<u8>) -> Result<(), StateError> {
    let fields = S::STORED.iter().map(|field| (*field, &Mark::WHOLE));
    write(state, S::STORED.len(), fields, out)
}

/// Encodes the stored fields among `changes`.
pub fn encode_changes<S: WriteFields>(state: &S, changes: &Changes) -> Result<Vec<u8>, StateError> {
    let mut bytes = Vec::new();
    encode_changes_to(state, changes, &mut bytes)?;
    Ok(bytes)
}

/// The same, behind what `out` holds.
pub fn encode_changes_to<S: WriteFields>(state: &S, changes: &Changes, out: &mut Vec<u8>) -> Result<(), StateError> {
    // Up to the first field that is not stored, each has its own position there.
    let is_stored = |field: &usize| S::STORED.get(*field) == Some(field) || S::STORED.binary_search(field).is_ok();
    let stored = || changes.iter().filter(|(field, _)| is_stored(field));
    write(state, stored().count(), stored(), out)
}

fn write<'a, S: WriteFields>(
    state: &S,
    count: usize,
    fields: impl Iterator<Item = (usize, &'a Mark)>,
    bytes: &mut Vec<u8>,
) -> Result<(), StateError> {
    let failed = |error: rmp_serde::encode::Error| StateError::Encode(error.to_string());
    let mut writer = Writer::new(bytes).with_struct_map();
    let mut out = FieldWriter {
        map: writer.serialize_map(Some(count)).map_err(failed)?,
    };
    for (field, mark) in fields {
        state.write_field(field, mark, &mut out)?;
    }
    out.map.end().map_err(failed)
}

/// Reads the parts of a stored state, oldest first.
pub fn decode<F: ReadFields>(fields: &mut F, parts: &[&[u8]]) -> Result<(), StateError> {
    for part in parts {
        let mut reader = Reader::from_read_ref(part);
        reader
            .deserialize_map(Part(&mut *fields))
            .map_err(|error| StateError::Decode(error.to_string()))?;
        match IgnoredAny::deserialize(&mut reader) {
            Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => {}
            Ok(_) | Err(_) => return Err(StateError::Decode("bytes follow the last field".to_owned())),
        }
    }
    Ok(())
}

/// The error of a stored field that the state does not have.
#[must_use]
pub fn unknown_field<E: Error>() -> E {
    E::custom("it is stored, and this state has no such field")
}

/// The error of a version that a state cannot be read from.
pub const fn same_version(stored: u32, known: u32) -> Result<(), StateError> {
    crate::state::same_version(stored, known)
}

/// What a task gave back, read as it is.
pub fn decode_kept<U: DeserializeOwned>(body: &[u8]) -> Result<StoredOutput<U>, StateError> {
    crate::run::decode_record(body)
}

/// A field that must have been stored.
pub fn stored<T>(name: &'static str, value: Option<T>) -> Result<T, StateError> {
    value.ok_or_else(|| StateError::Decode(format!("field `{name}` is not stored")))
}

/// One part: a map from name to effect.
struct Part<'a, F>(&'a mut F);

impl<'de, F: ReadFields> Visitor<'de> for Part<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<&'de str>()? {
            map.next_value_seed(Effect { fields: self.0, name })?;
        }
        Ok(())
    }
}

/// The stored effect of one field.
struct Effect<'a, F> {
    fields: &'a mut F,
    name: &'a str,
}

impl<'de, F: ReadFields> DeserializeSeed<'de> for Effect<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, effect: D) -> Result<(), D::Error> {
        let name = self.name;
        self.fields
            .read_field(name, effect)
            .map_err(|error| D::Error::custom(format_args!("field `{name}`: {error}")))
    }
}
