//! Limits over several processes: two servers of one database and one Redis count as one.

mod live {
    use std::{collections::BTreeMap, process::Command};

    use futures_util::{StreamExt as _, stream};
    use reqwest::{Client, Response, StatusCode};
    use serde_json::{Value, json};
    use sqlx::{Connection as _, PgConnection, Row as _};
    use stepgraph_live::{Fsync, Postgres, Redis};
    use stepgraph_nodes::service::tls;
    use uuid::Uuid;

    use crate::support::{Home, Ran, Running};

    const SCHEMA: &str = include_str!("../../../nodes/tests/support/express_schema.sql");
    const SECRET: &str = "the secret of both servers";
    const AT_ONCE: usize = 64;
    const TRIES_MAX: u32 = 4;

    /// Two servers, each with a data folder of its own.
    struct Pair {
        urls: [String; 2],
        _servers: [Running; 2],
        _homes: [Home; 2],
        _redis: Redis,
        http: Client,
        database: PgConnection,
    }

    async fn pair(tenants: &[(&str, &[&str])]) -> Pair {
        tls::install();
        let database = Postgres::shared().unwrap().database().await.unwrap();
        let mut connection = PgConnection::connect(&database).await.unwrap();
        sqlx::raw_sql(SCHEMA).execute(&mut connection).await.unwrap();
        let redis = Redis::start(Fsync::Always).unwrap();
        let homes = [Home::new(), Home::new()];
        let set = |command: &mut Command| {
            command
                .env("DATABASE_URL", &database)
                .env("REDIS_URL", redis.url())
                .env("INTERNAL_API_SECRET", SECRET);
        };
        for (tenant, settings) in tenants {
            let tier = if settings.is_empty() { "free" } else { "paid" };
            let add = ["tenant", "add", tenant, "--tier", tier, "--write-clients"];
            let set_all = [&["tenant", "set", tenant], *settings].concat();
            let changes: &[&[&str]] = if settings.is_empty() {
                &[&add]
            } else {
                &[&add, &set_all]
            };
            for arguments in changes {
                let mut command = homes[0].command(*arguments);
                set(&mut command);
                Ran::of(&mut command).ok();
            }
        }
        let start = |home: &Home| {
            let mut command = home.command(["serve", "--port", "0", "--model", "scripted", "--json"]);
            set(&mut command);
            let mut server = Running::of(&mut command);
            let ready: Value = serde_json::from_str(&server.line()).unwrap();
            (ready["url"].as_str().unwrap().to_owned(), server)
        };
        let ((one, first), (other, second)) = (start(&homes[0]), start(&homes[1]));
        Pair {
            urls: [one, other],
            _servers: [first, second],
            _homes: homes,
            _redis: redis,
            http: Client::new(),
            database: connection,
        }
    }

    /// An answer, as far as limits are concerned.
    struct Told {
        status: StatusCode,
        remaining: u64,
        reset: u64,
        has_retry_after: bool,
    }

    fn told(response: &Response) -> Told {
        let number = |name: &str| response.headers()[name].to_str().unwrap().parse().unwrap();
        Told {
            status: response.status(),
            remaining: number("x-ratelimit-remaining"),
            reset: number("x-ratelimit-reset"),
            has_retry_after: response.headers().contains_key("retry-after"),
        }
    }

    impl Pair {
        /// Sends messages of the tenant to both in turn, many at once.
        async fn send(&self, tenant: &str, messages: usize) -> Vec<Told> {
            let answers = stream::iter(0..messages).map(async |number| {
                let body =
                    json!({"clientId": tenant, "message": format!("say:\"{number}\""), "sessionId": Uuid::new_v4()});
                let url = format!("{}/chat", self.urls[number % 2]);
                let request = self.http.post(url).header("x-internal-secret", SECRET).json(&body);
                let response = request.send().await.unwrap();
                let told = told(&response);
                response.bytes().await.unwrap();
                told
            });
            answers.buffer_unordered(AT_ONCE).collect().await
        }

        /// The sums of what was booked, once so many messages are.
        async fn booked(&mut self, tenant: &str, messages: i64) -> BTreeMap<&'static str, i64> {
            loop {
                let row = sqlx::query(
                    "SELECT coalesce(sum(request_count), 0)::bigint AS requests, coalesce(sum(overage_count), 0)::bigint AS overage,
                       (SELECT count(*) FROM chat_logs WHERE client_id = $1 AND role = 'user') AS questions,
                       (SELECT count(*) FROM billing_events WHERE client_id = $1) AS bills,
                       (SELECT coalesce(sum((details->>'messages')::bigint), 0)::bigint FROM billing_events WHERE client_id = $1) AS billed,
                       (SELECT count(*) FROM stepgraph_usage_alerts WHERE client_id = $1) AS alerts
                     FROM usage_hourly WHERE client_id = $1",
                )
                .bind(tenant)
                .fetch_one(&mut self.database)
                .await
                .unwrap();
                let booked =
                    ["requests", "overage", "questions", "bills", "billed", "alerts"].map(|name| (name, row.get(name)));
                let booked = BTreeMap::from(booked);
                // The log is written behind the answer; it never waits for it.
                if booked["requests"] >= messages {
                    return booked;
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// The messages that each window has served and refused; a full hour may end in the middle of the test.
    fn by_window(told: &[Told]) -> BTreeMap<u64, (Vec<u64>, usize)> {
        let mut windows: BTreeMap<u64, (Vec<u64>, usize)> = BTreeMap::new();
        for told in told {
            let (served, refused) = windows.entry(told.reset).or_default();
            match told.status {
                StatusCode::OK => served.push(told.remaining),
                StatusCode::TOO_MANY_REQUESTS => {
                    assert!(told.has_retry_after);
                    *refused += 1;
                }
                other => panic!("answered {other}"),
            }
        }
        for (served, _) in windows.values_mut() {
            served.sort_unstable();
        }
        windows
    }

    /// Sends to all three tenants; `None` where a server lost sight of Redis, whose messages count in that process alone then.
    async fn sent(pair: &Pair) -> Option<[Vec<Told>; 3]> {
        let told = [
            pair.send("free", 160).await,
            pair.send("capped", 64).await,
            pair.send("charged", 64).await,
        ];
        for url in &pair.urls {
            let request = pair
                .http
                .get(format!("{url}/metrics"))
                .header("x-internal-secret", SECRET);
            let metrics = request.send().await.unwrap().text().await.unwrap();
            let alone = metrics
                .lines()
                .find_map(|line| line.strip_prefix("stepgraph_limits_counted_alone_total "));
            if alone.unwrap() != "0" {
                return None;
            }
        }
        Some(told)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_servers_serve_exactly_the_limit_and_book_what_they_serve() {
        // A machine that is too busy to let Redis answer within its second gets another chance.
        for _ in 0..TRIES_MAX {
            let mut pair = pair(&[
                ("free", &[]),
                ("capped", &["hourly-limit=20", "hard-cap=true"]),
                ("charged", &["hourly-limit=20"]),
            ])
            .await;
            if let Some([free, capped, charged]) = sent(&pair).await {
                check_refusing(&mut pair, "free", 100, &free).await;
                check_refusing(&mut pair, "capped", 20, &capped).await;
                check_charged(&mut pair, 20, &charged).await;
                return;
            }
        }
        panic!("Redis did not answer within its second in any of {TRIES_MAX} tries");
    }

    async fn check_refusing(pair: &mut Pair, tenant: &str, limit: u64, told: &[Told]) {
        let windows = by_window(told);
        let mut all = 0;
        for (served, refused) in windows.values() {
            let counted: Vec<u64> = (limit.saturating_sub(served.len() as u64)..limit).collect();
            assert_eq!(*served, counted, "each number is told once");
            assert!(
                *refused == 0 || served.len() as u64 == limit,
                "{refused} refused after {}",
                served.len()
            );
            all += served.len();
        }
        let all = i64::try_from(all).unwrap();
        let booked = pair.booked(tenant, all).await;
        assert_eq!((booked["requests"], booked["overage"], booked["bills"]), (all, 0, 0));
        assert_eq!(booked["questions"], all);
        if windows.len() == 1 {
            assert_eq!((all.unsigned_abs(), booked["alerts"]), (limit, 2));
        }
    }

    async fn check_charged(pair: &mut Pair, limit: usize, told: &[Told]) {
        let windows = by_window(told);
        let above: usize = windows
            .values()
            .map(|(served, _)| served.len().saturating_sub(limit))
            .sum();
        let (all, above) = (i64::try_from(told.len()).unwrap(), i64::try_from(above).unwrap());
        let booked = pair.booked("charged", all).await;
        assert_eq!(
            (booked["requests"], booked["overage"], booked["billed"]),
            (all, above, above)
        );
        if windows.len() == 1 {
            assert_eq!((above, booked["bills"], booked["alerts"]), (44, 1, 2));
        }
    }
}
