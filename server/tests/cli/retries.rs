//! What a repeat of a message is: the five rules of retries, against the program over HTTP, with all that is embedded and
//! with servers of their own for records, threads and counters.

use std::process::Command;

use futures_util::future::join_all;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};
use stepgraph_live::{Fsync, Postgres, Redis};
use stepgraph_nodes::service::tls;
use uuid::Uuid;

use crate::support::{Home, Ran, Running};

const SCHEMA: &str = include_str!("../../../nodes/tests/support/express_schema.sql");
const SECRET: &str = "the secret of the servers";
/// Messages in an hour that the tenant may send.
const LIMIT: u64 = 100;

/// Servers that one tenant is served by.
struct House {
    homes: Vec<Home>,
    servers: Vec<Server>,
    more: Vec<(&'static str, String)>,
    http: Client,
    _redis: Option<Redis>,
}

struct Server {
    url: String,
    running: Running,
}

/// What a message was answered with.
#[derive(Debug)]
struct Told {
    status: StatusCode,
    trace: String,
    text: Value,
    remaining: u64,
}

async fn told(response: Response) -> Told {
    let (status, headers) = (response.status(), response.headers().clone());
    let body: Value = response.json().await.unwrap();
    let remaining = headers
        .get("x-ratelimit-remaining")
        .unwrap_or_else(|| panic!("without headers of the limit: {body}"));
    Told {
        status,
        trace: body["traceId"].as_str().unwrap().to_owned(),
        text: body["response"].clone(),
        remaining: remaining.to_str().unwrap().parse().unwrap(),
    }
}

impl House {
    /// One server that keeps everything in its folder.
    fn embedded() -> Self {
        Self::open(1, Vec::new(), None)
    }

    /// Servers that share a PostgreSQL and a Redis.
    async fn shared(servers: usize) -> Self {
        let database = Postgres::shared().unwrap().database().await.unwrap();
        let mut connection = PgConnection::connect(&database).await.unwrap();
        sqlx::raw_sql(SCHEMA).execute(&mut connection).await.unwrap();
        let threads = Postgres::shared().unwrap().database().await.unwrap();
        let redis = Redis::start(Fsync::Always).unwrap();
        let more = vec![
            ("DATABASE_URL", database),
            ("STEPGRAPH_CHECKPOINTS_URL", threads),
            ("REDIS_URL", redis.url()),
        ];
        Self::open(servers, more, Some(redis))
    }

    fn open(servers: usize, more: Vec<(&'static str, String)>, redis: Option<Redis>) -> Self {
        tls::install();
        let homes: Vec<Home> = (0..servers).map(|_| Home::new()).collect();
        let mut house = Self {
            homes,
            servers: Vec::new(),
            more,
            http: Client::new(),
            _redis: redis,
        };
        let mut add = vec!["tenant", "add", "acme"];
        if !house.more.is_empty() {
            add.push("--write-clients");
        }
        Ran::of(&mut house.command(0, &add)).ok();
        house.servers = (0..servers).map(|number| house.start(number)).collect();
        house
    }

    fn command(&self, number: usize, arguments: &[&str]) -> Command {
        let mut command = self.homes[number].command(arguments);
        command
            .env("INTERNAL_API_SECRET", SECRET)
            .envs(self.more.iter().map(|(name, value)| (*name, value)));
        command
    }

    fn start(&self, number: usize) -> Server {
        let mut command = self.command(number, &["serve", "--port", "0", "--model", "scripted", "--json"]);
        let mut running = Running::of(&mut command);
        let ready: Value = serde_json::from_str(&running.line()).unwrap();
        Server {
            url: ready["url"].as_str().unwrap().to_owned(),
            running,
        }
    }

    fn request(
        &self,
        number: usize,
        path: &str,
        session: Uuid,
        message: &str,
        name: Option<&str>,
    ) -> reqwest::RequestBuilder {
        let body = json!({"clientId": "acme", "message": message, "sessionId": session});
        let url = format!("{}{path}", self.servers[number].url);
        let request = self.http.post(url).header("x-internal-secret", SECRET).json(&body);
        match name {
            Some(name) => request.header("idempotency-key", name),
            None => request,
        }
    }

    async fn say(&self, session: Uuid, message: &str) -> Told {
        told(self.request(0, "/chat", session, message, None).send().await.unwrap()).await
    }

    async fn say_named(&self, number: usize, session: Uuid, message: &str, name: &str) -> Told {
        told(
            self.request(number, "/chat", session, message, Some(name))
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    /// Begins to read an answer, and goes away when its run has begun.
    async fn leave(&self, session: Uuid, message: &str, name: Option<&str>) -> String {
        let request = self.request(0, "/chat/stream", session, message, name);
        let mut stream = request.send().await.unwrap();
        let first = stream.chunk().await.unwrap().unwrap();
        let first = std::str::from_utf8(&first).unwrap();
        let data = first
            .strip_prefix("event: start\ndata: ")
            .unwrap_or_else(|| panic!("{first}"));
        let start: Value = serde_json::from_str(data.lines().next().unwrap()).unwrap();
        start["traceId"].as_str().unwrap().to_owned()
    }

    /// One number out of the records.
    async fn number(&self, query: String) -> i64 {
        let query = AssertSqlSafe(query);
        if let Some((_, url)) = self.more.iter().find(|(name, _)| *name == "DATABASE_URL") {
            let mut connection = PgConnection::connect(url).await.unwrap();
            sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
        } else {
            let file = self.homes[0].data().join("stepgraph.db");
            let options = SqliteConnectOptions::new().filename(file).read_only(true);
            let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
            sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
        }
    }

    /// Waits until so many questions of the session are logged; the log is written behind the answer.
    async fn logged(&self, session: Uuid, questions: i64) {
        let query = format!("SELECT count(*) FROM chat_logs WHERE role = 'user' AND session_id = '{session}'");
        while self.number(query.clone()).await < questions {
            tokio::task::yield_now().await;
        }
    }

    /// Ends the servers politely, so that all is written that was to be, and says what is booked: questions in the log and
    /// requests in the hour.
    async fn booked(mut self) -> (i64, i64) {
        for server in self.servers.drain(..) {
            assert_eq!(server.running.signal("TERM").code, Some(0));
        }
        let questions = self
            .number("SELECT count(*) FROM chat_logs WHERE role = 'user'".to_owned())
            .await;
        let requests = "SELECT CAST(coalesce(sum(request_count), 0) AS bigint) FROM usage_hourly";
        (questions, self.number(requests.to_owned()).await)
    }
}

/// What is to be so of all answers to one request.
fn are_one(answers: &[Told]) {
    for answer in answers {
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!((&answer.trace, &answer.text), (&answers[0].trace, &answers[0].text));
        assert_eq!(answer.remaining, LIMIT - 1, "{answer:?}");
    }
}

/// The first rule.
async fn equal_messages_at_once_have_one_run(house: House) {
    let session = Uuid::new_v4();

    let answers = join_all((0..8).map(|_| house.say(session, "slow:300:once"))).await;

    are_one(&answers);
    assert_eq!(answers[0].text, "once");
    assert_eq!(house.booked().await, (1, 1));
}

/// The second rule.
async fn a_repeat_after_a_failure_goes_on_with_its_run(house: House) {
    let session = Uuid::new_v4();

    let failed = house.say(session, "flaky:LLM_ERROR:a").await;
    let repeated = house.say(session, "flaky:LLM_ERROR:a").await;

    assert_eq!(failed.status, StatusCode::BAD_GATEWAY);
    assert_eq!(
        (repeated.status, &repeated.text),
        (StatusCode::OK, &json!("recovered a"))
    );
    assert_eq!(failed.trace, repeated.trace);
    assert_eq!((failed.remaining, repeated.remaining), (LIMIT - 1, LIMIT - 1));
    assert_eq!(house.booked().await, (1, 1));
}

/// The third rule.
async fn an_equal_message_after_a_delivered_answer_is_a_new_one(house: House) {
    let session = Uuid::new_v4();

    let (first, second) = (
        house.say(session, "say:\"a\"").await,
        house.say(session, "say:\"a\"").await,
    );

    assert_ne!(first.trace, second.trace);
    assert_eq!((first.remaining, second.remaining), (LIMIT - 1, LIMIT - 2));
    assert_eq!(house.booked().await, (2, 2));
}

/// The fourth rule.
async fn an_answer_that_did_not_arrive_is_told_again(house: House) {
    let session = Uuid::new_v4();
    let trace = house.leave(session, "slow:1000:kept", None).await;
    house.logged(session, 1).await;

    let repeated = house.say(session, "slow:1000:kept").await;
    let new = house.say(session, "slow:1000:kept").await;

    assert_eq!((&repeated.trace, &repeated.text), (&trace, &json!("kept")));
    assert_ne!(new.trace, trace, "it has arrived now");
    assert_eq!(house.booked().await, (2, 2));
}

/// The fifth rule.
async fn a_named_request_is_answered_once(house: House) {
    let session = Uuid::new_v4();
    let failed = house.say_named(0, session, "flaky:LLM_ERROR:b", "order-7").await;
    assert_eq!(failed.status, StatusCode::BAD_GATEWAY);

    let mut answers = Vec::new();
    for message in ["flaky:LLM_ERROR:b", "flaky:LLM_ERROR:b", "say:\"other words\""] {
        answers.push(house.say_named(0, session, message, "order-7").await);
    }
    let streamed = house.request(0, "/chat/stream", session, "say:\"x\"", Some("order-7"));
    let streamed = streamed.send().await.unwrap().text().await.unwrap();
    let other = house.say_named(0, session, "say:\"other words\"", "order-8").await;

    are_one(&answers);
    assert_eq!(
        (&answers[0].trace, &answers[0].text),
        (&failed.trace, &json!("recovered b"))
    );
    assert!(streamed.contains(&failed.trace), "{streamed}");
    assert_eq!((&other.text, other.remaining), (&json!("other words"), LIMIT - 2));
    assert_eq!(house.booked().await, (2, 2));
}

async fn a_named_request_is_known_after_the_next_start(mut house: House) {
    let session = Uuid::new_v4();
    let first = house.say_named(0, session, "say:\"a\"", "order-7").await;
    let server = house.servers.remove(0);
    assert_eq!(server.running.signal("TERM").code, Some(0));
    let again = house.start(0);
    house.servers.push(again);

    let repeated = house.say_named(0, session, "say:\"a\"", "order-7").await;

    assert_eq!((&repeated.trace, &repeated.text), (&first.trace, &json!("a")));
    assert_eq!(house.booked().await, (1, 1));
}

async fn a_named_request_whose_server_was_killed_has_the_one_run(mut house: House) {
    let session = Uuid::new_v4();
    let trace = house.leave(session, "slow:1500:after all", Some("order-7")).await;
    house.servers.remove(0).running.kill();
    let again = house.start(0);
    house.servers.push(again);

    let repeated = house.say_named(0, session, "slow:1500:after all", "order-7").await;

    assert_eq!((&repeated.trace, &repeated.text), (&trace, &json!("after all")));
    assert_eq!(house.booked().await, (1, 1));
}

/// One test for each rule.
macro_rules! rules {
    ($house:expr) => {
        rules! { $house;
            equal_messages_at_once_have_one_run
            a_repeat_after_a_failure_goes_on_with_its_run
            an_equal_message_after_a_delivered_answer_is_a_new_one
            an_answer_that_did_not_arrive_is_told_again
            a_named_request_is_answered_once
            a_named_request_is_known_after_the_next_start
            a_named_request_whose_server_was_killed_has_the_one_run
        }
    };
    ($house:expr; $($rule:ident)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $rule() {
            super::$rule($house.await).await;
        })+
    };
}

mod embedded {
    rules!(std::future::ready(super::House::embedded()));
}

mod live {
    use super::*;

    rules!(super::House::shared(1));

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_named_request_has_one_run_at_whichever_server_it_arrives() {
        let house = House::shared(2).await;
        let session = Uuid::new_v4();

        let at_once = (0..16).map(|number| house.say_named(number % 2, session, "slow:500:once", "order-7"));
        let mut answers = join_all(at_once).await;
        answers.push(house.say_named(1, session, "slow:500:once", "order-7").await);

        are_one(&answers);
        assert_eq!(house.booked().await, (1, 1));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_named_request_that_failed_at_one_server_goes_on_at_another() {
        let house = House::shared(2).await;
        let session = Uuid::new_v4();

        // Each server's model fails once.
        let mut told = Vec::new();
        for server in [0, 1, 0] {
            told.push(house.say_named(server, session, "flaky:LLM_ERROR:c", "order-7").await);
        }

        let statuses: Vec<u16> = told.iter().map(|told| told.status.as_u16()).collect();
        assert_eq!(statuses, [502, 502, 200]);
        assert!(told.iter().all(|other| other.trace == told[0].trace), "{told:?}");
        assert!(told.iter().all(|told| told.remaining == LIMIT - 1), "{told:?}");
        assert_eq!(house.booked().await, (1, 1));
    }
}
