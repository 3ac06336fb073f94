//! Writes to channels by name.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::state::{Field, FieldSet, SECRET, Update};

/// What is written to a channel. As JSON it is the value itself, or `{"__overwrite__": value}`.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Merged by the channel's reducer.
    Reduce(Value),
    /// The channel's new value; whatever else the step writes to it is dropped.
    Overwrite(Value),
}

const OVERWRITE: &str = "__overwrite__";

impl Write {
    /// What is written.
    #[must_use]
    pub const fn value(&self) -> &Value {
        match self {
            Self::Reduce(value) | Self::Overwrite(value) => value,
        }
    }
}

impl Serialize for Write {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Reduce(value) => value.serialize(serializer),
            Self::Overwrite(value) => BTreeMap::from([(OVERWRITE, value)]).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Write {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::Object(mut map) if map.len() == 1 && map.contains_key(OVERWRITE) => {
                Self::Overwrite(map.remove(OVERWRITE).unwrap_or_default())
            }
            value => Self::Reduce(value),
        })
    }
}

macro_rules! writes {
    ($(#[$docs:meta])* $name:ident) => {
        $(#[$docs])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(BTreeMap<String, Write>);

        impl $name {
            /// Writes nothing yet.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }

            /// Writes this, to be merged by the channel's reducer. A later write to the same channel replaces it.
            #[must_use]
            pub fn set(mut self, channel: impl Into<String>, value: Value) -> Self {
                self.0.insert(channel.into(), Write::Reduce(value));
                self
            }

            /// Makes this the channel's value, whatever else the step writes to it.
            #[must_use]
            pub fn overwrite(mut self, channel: impl Into<String>, value: Value) -> Self {
                self.0.insert(channel.into(), Write::Overwrite(value));
                self
            }

            /// The writes, by channel.
            pub fn iter(&self) -> impl Iterator<Item = (&str, &Write)> {
                self.0.iter().map(|(name, write)| (name.as_str(), write))
            }

            pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
                self.0.retain(|name, _| keep(name));
            }

        }

        impl From<Map<String, Value>> for $name {
            fn from(values: Map<String, Value>) -> Self {
                Self(values.into_iter().map(|(name, value)| (name, Write::Reduce(value))).collect())
            }
        }
    };
}

writes! {
    /// What a node of a dynamic graph writes, by channel.
    JsonUpdate
}
writes! {
    /// What a run of a dynamic graph is begun with, by channel.
    JsonInput
}

impl From<JsonInput> for JsonUpdate {
    fn from(input: JsonInput) -> Self {
        Self(input.0)
    }
}

impl JsonUpdate {
    pub(super) fn into_writes(self) -> impl Iterator<Item = (String, Write)> {
        self.0.into_iter()
    }
}

impl Update for JsonUpdate {
    fn touched(&self, fields: &[Field]) -> FieldSet {
        positions(fields, self.0.keys())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn overwritten(&self, fields: &[Field]) -> FieldSet {
        let overwrites = self.0.iter().filter(|(_, write)| matches!(write, Write::Overwrite(_)));
        positions(fields, overwrites.map(|(name, _)| name))
    }

    fn hide(&mut self, fields: &[Field]) {
        for field in fields.iter().filter(|field| field.secret) {
            if let Some(Write::Reduce(value) | Write::Overwrite(value)) = self.0.get_mut(field.name.as_ref()) {
                *value = SECRET.into();
            }
        }
    }

    fn forget(&mut self, fields: &[Field], field: usize) {
        if let Some(field) = fields.get(field) {
            self.0.remove(field.name.as_ref());
        }
    }
}

fn positions<'a>(fields: &[Field], names: impl Iterator<Item = &'a String>) -> FieldSet {
    let mut set = FieldSet::new();
    for name in names {
        if let Some(at) = fields.iter().position(|field| field.name == *name) {
            set.insert(at);
        }
    }
    set
}
