//! An answer that was given is logged, whatever happens between the two.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use stepgraph::{Memory, RunId, TenantId, testing::FaultyStore};
use stepgraph_graphs::widget_chat;
use stepgraph_nodes::{
    Services,
    service::{ChatLog, ChatTurn, Client, Clients as _, ServiceError, Timestamp, embedded::SqliteRecords},
};
use stepgraph_server::{
    ChatCommand, ChatEvent, ChatEvents, ChatRunner as _,
    app::{GraphChat, Models, open_database},
    config::{Flags, Settings},
};
use stepgraph_tests::{House, tenant};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// A log that refuses so many turns, for good or for now.
struct Refusing {
    log: Arc<dyn ChatLog>,
    left: AtomicU32,
    for_good: bool,
}

#[async_trait]
impl ChatLog for Refusing {
    async fn write(&self, tenant: &TenantId, turn: &ChatTurn) -> Result<(), ServiceError> {
        let refuses = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match (refuses, self.for_good) {
            (Ok(_), true) => Err(ServiceError::Refused {
                service: "log",
                message: "not this one".to_owned(),
            }),
            (Ok(_), false) => Err(ServiceError::Unavailable {
                service: "log",
                message: "away".to_owned(),
                source: None,
            }),
            (Err(_), _) => self.log.write(tenant, turn).await,
        }
    }

    async fn session(&self, tenant: &TenantId, session: &str, limit: u32) -> Result<Vec<ChatTurn>, ServiceError> {
        self.log.session(tenant, session, limit).await
    }

    async fn delete_before(&self, tenant: &TenantId, at: Timestamp, limit: u32) -> Result<u64, ServiceError> {
        self.log.delete_before(tenant, at, limit).await
    }
}

struct Desk {
    chat: GraphChat,
    store: FaultyStore<Memory>,
    log: Arc<SqliteRecords>,
    client: Client,
    _folder: TempDir,
}

impl Desk {
    async fn new(refuses: u32, for_good: bool) -> Self {
        let folder = TempDir::new().unwrap();
        let house = House::open(folder.path()).await.unwrap();
        let records = open_database(&folder.path().join("records.db")).await.unwrap();
        let log = Arc::new(SqliteRecords::open(records).await.unwrap());
        let client = Client::new(tenant("acme"));
        log.put(&client).await.unwrap();
        let refusing = Refusing {
            log: Arc::clone(&log) as _,
            left: AtomicU32::new(refuses),
            for_good,
        };
        let services = Services {
            log: Arc::new(refusing),
            ..house.services
        };
        let store = FaultyStore::over(Memory::new());
        let graph = widget_chat(&services).unwrap().checkpointer(store.clone());
        let mut flags = Flags::default();
        flags.model = Some("scripted".to_owned());
        let models = Models::new(&Settings::load(&flags, []).unwrap()).unwrap();
        Self {
            chat: GraphChat::new(graph, Arc::new(models), Arc::clone(&log) as _),
            store,
            log,
            client,
            _folder: folder,
        }
    }

    /// Says it, and gives the answer, if there was one, and whether the run came to its end.
    async fn say(&self, message: &str) -> (Option<String>, bool) {
        let (events, mut heard) = ChatEvents::channel(100);
        let command = ChatCommand {
            trace: None,
            run: RunId::random(),
            repeat: false,
            client: self.client.clone(),
            session: "s".to_owned(),
            message: message.to_owned(),
            metadata: serde_json::Map::new(),
            asked_at: std::time::UNIX_EPOCH.into(),
            overage: false,
            budget: Duration::from_secs(28),
        };
        let ended = self.chat.run(command, events, CancellationToken::new()).await;
        let mut answer = None;
        while let Some(event) = heard.recv().await {
            if let ChatEvent::Answered(said) = event {
                answer = Some(said.text);
            }
        }
        (answer, ended.is_ok())
    }

    async fn logged(&self) -> Vec<String> {
        let turns = self.log.session(&self.client.tenant, "s", 10).await.unwrap();
        let mut logged: Vec<_> = turns.into_iter().map(|turn| turn.answer).collect();
        logged.sort();
        logged
    }
}

#[tokio::test]
async fn a_log_that_is_away_is_written_when_it_is_back() {
    let desk = Desk::new(2, false).await;
    assert_eq!(desk.say(r#"say:"one""#).await, (Some("one".to_owned()), true));
    assert_eq!(desk.logged().await, ["one"]);
}

#[tokio::test]
async fn the_next_message_of_a_session_gives_up_no_answer_that_is_not_logged() {
    let desk = Desk::new(1, true).await;
    assert_eq!(desk.say(r#"say:"one""#).await, (Some("one".to_owned()), false));
    assert_eq!(desk.logged().await, [""; 0]);
    assert_eq!(desk.say(r#"say:"two""#).await, (Some("two".to_owned()), true));
    assert_eq!(desk.logged().await, ["one", "two"]);
}

#[tokio::test]
async fn the_next_message_of_a_session_gives_up_a_question_without_an_answer() {
    let desk = Desk::new(0, false).await;
    assert_eq!(desk.say("fail:LLM_ERROR").await, (None, false));
    assert_eq!(desk.say(r#"say:"two""#).await, (Some("two".to_owned()), true));
    assert_eq!(desk.logged().await, ["two"]);
}

#[tokio::test]
async fn an_answer_is_logged_once_whichever_commit_its_thread_s_store_fails() {
    let mut settled = 0;
    for commit in 1..=12 {
        let desk = Desk::new(0, false).await;
        desk.store.fail_commit_at(commit);
        let (answer, ended) = desk.say(r#"say:"one""#).await;
        match answer {
            Some(_) => {
                assert!(ended, "commit {commit}");
                assert_eq!(desk.logged().await, ["one"], "commit {commit}");
                settled += desk.store.accidents();
            }
            None => assert_eq!(desk.logged().await, [""; 0], "commit {commit}"),
        }
    }
    assert!(settled > 0, "a commit has failed after an answer was given");
}
