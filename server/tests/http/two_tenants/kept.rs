//! What is kept, looked at in the stores themselves: every row of every table there is, as they list them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Row as _, SqlitePool};
use stepgraph_server::app::open_database;

use super::{Marks, NAMES, owner, world::Closed};

/// Rows that are of no tenant: an owner of all clients in the Express service's tables, workers of the queue.
const OF_NO_TENANT: [&str; 2] = ["users", "Workers"];

/// One thing that is kept, as text, with the tenant whose number it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    /// Its table, collection, or kind of key.
    pub(super) place: String,
    pub(super) text: String,
}

/// Where things are kept.
#[async_trait]
pub(super) trait Store {
    /// All there is.
    async fn all(&self) -> Vec<Kept>;

    /// How many things were in each place before there was a tenant.
    fn before(&self) -> &BTreeMap<String, usize>;
}

/// How many things are in each place.
pub(super) fn counted(all: &[Kept]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for kept in all.iter().filter(|kept| !OF_NO_TENANT.contains(&kept.place.as_str())) {
        *counts.entry(kept.place.clone()).or_default() += 1;
    }
    counts
}

/// What is of each tenant. A thing of both is a leak.
async fn of_each(store: &dyn Store, marks: &Marks) -> [Vec<Kept>; 2] {
    let mut found = [Vec::new(), Vec::new()];
    for kept in store.all().await {
        if let Some(of) = owner(&kept.place, &kept.text, marks) {
            found[of].push(kept);
        }
    }
    found
}

/// That nothing that is kept is of both.
pub(super) async fn check_apart(stores: &[&dyn Store], marks: &Marks) {
    for store in stores {
        for (of, kept) in of_each(*store, marks).await.iter().enumerate() {
            assert!(!kept.is_empty(), "nothing of {} is kept", NAMES[of]);
        }
    }
}

/// Erases one tenant: nothing is left of it, and all of the other. Then the other, and all is as it was before them: nothing
/// is left that names no tenant and was one's.
pub(super) async fn check_gone(stores: &[&dyn Store], closed: &Closed) {
    let mut stays = Vec::new();
    for store in stores {
        stays.push(of_each(*store, &closed.marks).await[1].len());
    }
    closed.command(&["tenant", "erase", NAMES[0], "--yes", "--write-clients"]);
    for (store, stays) in stores.iter().zip(stays) {
        let [gone, other] = of_each(*store, &closed.marks).await;
        assert_eq!(gone, [], "left of the erased tenant");
        assert_eq!(other.len(), stays, "the other tenant keeps all it had");
    }
    closed.command(&["tenant", "erase", NAMES[1], "--yes", "--write-clients"]);
    for store in stores {
        let all = store.all().await;
        let left: Vec<_> = all
            .iter()
            .filter(|kept| owner(&kept.place, &kept.text, &closed.marks).is_some())
            .collect();
        assert!(left.is_empty(), "left of the erased tenant: {left:?}");
        assert_eq!(counted(&all), *store.before());
    }
}

/// A file of `SQLite`.
pub(super) struct File {
    path: PathBuf,
    before: BTreeMap<String, usize>,
}

impl File {
    pub(super) async fn open(path: &Path) -> Self {
        let mut file = Self {
            path: path.to_owned(),
            before: BTreeMap::new(),
        };
        file.before = counted(&file.all().await);
        file
    }
}

#[async_trait]
impl Store for File {
    async fn all(&self) -> Vec<Kept> {
        let pool = open_database(&self.path).await.unwrap();
        let dangling = sqlx::query("PRAGMA foreign_key_check").fetch_all(&pool).await.unwrap();
        assert!(dangling.is_empty(), "{} rows belong to nothing", dangling.len());
        let all = rows(&pool).await;
        pool.close().await;
        all
    }

    fn before(&self) -> &BTreeMap<String, usize> {
        &self.before
    }
}

async fn rows(pool: &SqlitePool) -> Vec<Kept> {
    let list = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    let tables: Vec<String> = sqlx::query_scalar(list).fetch_all(pool).await.unwrap();
    let mut found = Vec::new();
    for place in &tables {
        let columns: Vec<String> = sqlx::query_scalar("SELECT name FROM pragma_table_info(?)")
            .bind(place)
            .fetch_all(pool)
            .await
            .unwrap();
        let blob = |text: &str| format!("coalesce(CAST({text} AS BLOB), x'')");
        let mut cells: Vec<String> = columns.iter().map(|name| blob(&format!("row.\"{name}\""))).collect();
        cells.extend(named(place, &columns, &tables).map(|name| blob(&name)));
        let statement = format!("SELECT {} FROM \"{place}\" row", cells.join(", "));
        for row in sqlx::query(AssertSqlSafe(statement)).fetch_all(pool).await.unwrap() {
            let text = (0..cells.len()).map(|cell| String::from_utf8_lossy(row.get::<&[u8], _>(cell)).into_owned());
            found.push(Kept {
                place: place.clone(),
                text: text.collect::<Vec<_>>().join("|"),
            });
        }
    }
    found
}

/// The name of the tenant whose number, or whose thread's, a row has in its place.
pub(super) fn named(place: &str, columns: &[String], tables: &[String]) -> Option<String> {
    let has = |name: &str| columns.iter().any(|column| column == name);
    let there_is = |name: &str| place != name && tables.iter().any(|table| table == name);
    if has("thread") && there_is("checkpoint_threads") {
        Some("(SELECT t.tenant FROM checkpoint_threads t WHERE t.number = row.thread)".to_owned())
    } else if has("tenant") && there_is("tenant") {
        Some("(SELECT t.name FROM tenant t WHERE t.id = row.tenant)".to_owned())
    } else {
        None
    }
}
