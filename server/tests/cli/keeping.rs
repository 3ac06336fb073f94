//! Threads on a server of their own, by `STEPGRAPH_CHECKPOINTS_URL`.

use super::support::{Home, Ran};

const SETTING: &str = "STEPGRAPH_CHECKPOINTS_URL";

#[test]
fn an_address_that_is_none_is_refused_without_showing_it() {
    let home = Home::with_tenant();

    let ran = Ran::of(home.command(["serve"]).env(SETTING, "mysql://u:hush@host/db")).refused();

    assert!(ran.stderr.contains("write it as postgres://"), "{ran:?}");
    assert!(!ran.stderr.contains("hush"), "{ran:?}");
}

mod live {
    use serde_json::Value;
    use sqlx::{Connection as _, PgConnection, SqliteConnection};
    use stepgraph_live::{Fsync, Postgres, Redis};

    use super::{Home, Ran, SETTING};

    fn wait<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(work)
    }

    fn ask(home: &Home, url: &str) -> Ran {
        let question = ["chat", "--tenant", "acme", "how long is the warranty?", "--json"];
        Ran::of(home.command(question).env(SETTING, url))
    }

    /// How many rows of checkpoints there are, by thread.
    async fn threads(url: &str) -> Vec<(String, i64)> {
        let mut connection = PgConnection::connect(url).await.unwrap();
        let count =
            "SELECT t.tenant, count(*) FROM checkpoint_threads t JOIN checkpoints c ON c.thread = t.number GROUP BY 1";
        sqlx::query_as(count).fetch_all(&mut connection).await.unwrap()
    }

    #[test]
    fn a_chat_s_thread_is_kept_in_postgres_and_not_in_the_data_folder() {
        let home = Home::with_tenant();
        let url = wait(Postgres::shared().unwrap().database()).unwrap();

        let answer = ask(&home, &url).ok();

        assert!(!answer.json().is_empty(), "{answer:?}");
        let threads = wait(threads(&url));
        assert!(
            matches!(threads.as_slice(), [(tenant, count)] if tenant == "acme" && *count > 1),
            "{threads:?}"
        );
        let in_folder = wait(async {
            let file = format!("sqlite://{}", home.data().join("stepgraph.db").display());
            let mut connection = SqliteConnection::connect(&file).await.unwrap();
            let tables = "SELECT count(*) FROM sqlite_master WHERE name = 'checkpoint_threads'";
            sqlx::query_scalar::<_, i64>(tables)
                .fetch_one(&mut connection)
                .await
                .unwrap()
        });
        assert_eq!(in_folder, 0);
    }

    #[test]
    fn a_chat_s_thread_is_kept_in_a_redis_that_waits_for_the_disk_and_in_no_other() {
        let home = Home::with_tenant();
        let (lasting, forgetful) = (
            Redis::start(Fsync::Always).unwrap(),
            Redis::start(Fsync::EverySecond).unwrap(),
        );

        ask(&home, &lasting.url()).ok();
        let refused = ask(&home, &forgetful.url());

        assert_eq!(refused.code, Some(1), "{refused:?}");
        let told: Value = serde_json::from_str(refused.stderr.lines().last().unwrap()).unwrap();
        assert!(told.to_string().contains("appendfsync always"), "{refused:?}");
    }

    #[test]
    fn doctor_looks_at_the_server_too() {
        let home = Home::with_tenant();
        let mut redis = Redis::start(Fsync::Always).unwrap();
        let url = redis.url();

        let well = Ran::of(home.command(["doctor"]).env(SETTING, &url)).ok();
        redis.kill().unwrap();
        let down = Ran::of(home.command(["doctor"]).env(SETTING, &url));

        assert!(well.stdout.contains("checkpoints"), "{well:?}");
        assert_eq!(down.code, Some(1), "{down:?}");
        assert!(down.stdout.contains("look after the server"), "{down:?}");
    }
}
