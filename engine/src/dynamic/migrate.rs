//! Channels of an older version become those of this one.

use std::{fmt, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{Channels, JsonState};
use crate::state::{State, StateError, same_version};

type Change = dyn Fn(u32, Map<String, Value>) -> Result<Map<String, Value>, String> + Send + Sync;

/// What a user has written to migrate an object.
#[derive(Clone)]
pub(super) struct Migrate(pub(super) Arc<Change>);

impl fmt::Debug for Migrate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Migrate(..)")
    }
}

impl Channels {
    /// An object of another version as one of this. A newer one is refused.
    pub(super) fn migrated(&self, from: u32, values: Map<String, Value>) -> Result<Map<String, Value>, StateError> {
        let here = JsonState::version(self);
        match &self.inner().migrate {
            Some(Migrate(migrate)) if from < here => migrate(from, values).map_err(StateError::Decode),
            Some(_) | None => same_version(from, here).map(|()| values),
        }
    }

    /// The same of writes, which must be to channels of this version.
    pub(super) fn migrated_writes<W: Serialize + DeserializeOwned>(
        &self,
        from: u32,
        writes: &W,
    ) -> Result<W, StateError> {
        let failed = |error: serde_json::Error| StateError::Decode(error.to_string());
        let Value::Object(values) = serde_json::to_value(writes).map_err(failed)? else {
            return Err(StateError::Decode("writes are stored that are no object".to_owned()));
        };
        let values = self.migrated(from, values)?;
        if let Some(name) = values.keys().find(|name| self.position(name).is_none()) {
            return Err(StateError::Decode(format!("there is no channel `{name}`")));
        }
        serde_json::from_value(Value::Object(values)).map_err(failed)
    }
}
