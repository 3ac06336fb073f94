//! Our tables, and which of the shared ones this deployment has.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{
    PgPool,
    migrate::{Migrate as _, Migrator},
};

use super::{
    MIGRATIONS_TABLE,
    stored::{database, migration, mismatch},
};
use crate::service::ServiceError;

/// The migrations of our tables.
pub(super) fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("./migrations/postgres");
    migrator.dangerous_set_table_name(MIGRATIONS_TABLE);
    migrator
}

/// Version, description, and whether the database has it. A version that this program does not know is a newer one.
pub(super) async fn migrations(pool: &PgPool) -> Result<Vec<(i64, String, bool)>, ServiceError> {
    let is_new: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NULL")
        .bind(MIGRATIONS_TABLE)
        .fetch_one(pool)
        .await
        .map_err(database)?;
    let mut connection = pool.acquire().await.map_err(database)?;
    let applied = if is_new {
        Vec::new()
    } else {
        connection
            .list_applied_migrations(MIGRATIONS_TABLE)
            .await
            .map_err(migration)?
    };
    let known = migrator();
    if let Some(newer) = applied.iter().find(|done| !known.version_exists(done.version)) {
        return Err(mismatch(format!(
            "our tables were made by another version of the program, use that one or a newer one: migration {} is not \
             known here",
            newer.version
        )));
    }
    let has = |version| applied.iter().any(|done| done.version == version);
    Ok(known
        .iter()
        .map(|one| (one.version, one.description.to_string(), has(one.version)))
        .collect())
}

/// A table that another program may have made, and the columns that are used of it.
struct Needed {
    table: &'static str,
    columns: &'static [&'static str],
}

const CLIENTS: Needed = Needed {
    table: "clients",
    columns: &["id", "user_id", "name", "public_api_key", "allowed_domains", "status"],
};
const WIDGETS: Needed = Needed {
    table: "client_widgets",
    columns: &["client_id"],
};
const HOURLY: Needed = Needed {
    table: "usage_hourly",
    columns: &[
        "client_id",
        "date",
        "hour",
        "request_count",
        "overage_count",
        "total_tokens",
        "prompt_tokens",
        "completion_tokens",
        "cached_tokens",
        "cost_microcents",
        "latency_ms_total",
    ],
};
const BILLING: Needed = Needed {
    table: "billing_events",
    columns: &[
        "id",
        "client_id",
        "event_type",
        "amount_cents",
        "details",
        "status",
        "created_at",
    ],
};
const DOCUMENTS: Needed = Needed {
    table: "documents",
    columns: &[
        "id",
        "client_id",
        "status",
        "progress",
        "current_step",
        "error_message",
        "chunks_total",
        "chunks_processed",
        "qdrant_point_ids",
        "updated_at",
        "processed_at",
    ],
};
const CHAT_LOGS: Needed = Needed {
    table: "chat_logs",
    columns: &[
        "id",
        "client_id",
        "session_id",
        "role",
        "content",
        "sources",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "cached",
        "model",
        "latency_ms",
        "metadata",
        "trace_id",
        "created_at",
    ],
};
const USAGE_STATS: Needed = Needed {
    table: "usage_stats",
    columns: &[
        "id",
        "client_id",
        "date",
        "total_messages",
        "user_messages",
        "assistant_messages",
        "total_tokens",
        "prompt_tokens",
        "completion_tokens",
        "cached_tokens",
        "estimated_cost_cents",
        "unique_sessions",
        "avg_latency_ms",
        "p95_latency_ms",
        "updated_at",
    ],
};

/// What this deployment of the shared tables has.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each table is there or not, by itself")]
pub(super) struct Shape {
    pub(super) tier: bool,
    pub(super) widget_models: bool,
    pub(super) documents: bool,
    pub(super) chat_logs: bool,
    pub(super) usage_stats: bool,
}

type Columns = BTreeMap<String, BTreeSet<String>>;

impl Needed {
    fn missing(&self, found: &Columns) -> Option<String> {
        let Some(columns) = found.get(self.table) else {
            return Some(format!("table `{}`", self.table));
        };
        let missing = self.columns.iter().find(|column| !columns.contains(**column))?;
        Some(format!("column `{}.{missing}`", self.table))
    }

    fn is_there(&self, found: &Columns) -> bool {
        self.missing(found).is_none()
    }
}

impl Shape {
    pub(super) async fn read(pool: &PgPool) -> Result<Self, ServiceError> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT table_name::text, column_name::text FROM information_schema.columns
             WHERE table_schema = ANY (current_schemas(false))",
        )
        .fetch_all(pool)
        .await
        .map_err(database)?;
        let mut found = Columns::new();
        for (table, column) in rows {
            found.entry(table).or_default().insert(column);
        }
        for needed in [CLIENTS, WIDGETS, HOURLY, BILLING] {
            if let Some(missing) = needed.missing(&found) {
                return Err(mismatch(format!(
                    "{missing} is not there: name the database of the Express service in DATABASE_URL, with its \
                     migrations applied"
                )));
            }
        }
        let has = |table: &str, column: &str| found.get(table).is_some_and(|columns| columns.contains(column));
        Ok(Self {
            tier: has("clients", "tier"),
            widget_models: has("client_widgets", "model"),
            documents: DOCUMENTS.is_there(&found),
            chat_logs: CHAT_LOGS.is_there(&found),
            usage_stats: USAGE_STATS.is_there(&found),
        })
    }

    pub(super) fn gaps(self) -> Vec<String> {
        [
            (self.tier, "`clients.tier` is not there: every tenant counts as free"),
            (
                self.widget_models,
                "`client_widgets.model` and its neighbours are not there: each tenant has its tier's model unless \
                 `stepgraph tenant set` names one",
            ),
            (
                self.documents,
                "`documents` is not there as it should be: the dashboard does not see how far a document has come",
            ),
            (
                self.chat_logs,
                "`chat_logs` is not there as it should be: what is said is booked and not kept",
            ),
            (
                self.usage_stats,
                "`usage_stats` is not there as it should be: usage is booked by the hour alone",
            ),
        ]
        .into_iter()
        .filter(|(is_there, _)| !is_there)
        .map(|(_, what)| format!("{what}; apply the migrations of the Express service and start again"))
        .collect()
    }
}
