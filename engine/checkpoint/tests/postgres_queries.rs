//! How many statements each verb sends to PostgreSQL. Alone in its binary: it listens to everything sqlx says.

mod live {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use stepgraph::{
        Checkpointer, TenantId, ThreadId, ThreadKey,
        checkpoint::{
            At, CheckpointSource, Commit, NewCheckpoint, OutboxMessage, Page, Payload, RecordKind, RunMark, RunStatus,
            TaskRecord,
        },
    };
    use stepgraph_checkpoint::{Durability, Postgres, PostgresOptions};
    use tracing::{Event, Metadata, Subscriber, span};
    use uuid::Uuid;

    static STATEMENTS: AtomicUsize = AtomicUsize::new(0);

    /// Counts the statements that sqlx reports.
    struct Counter;

    impl Subscriber for Counter {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == "sqlx::query"
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, _: &Event<'_>) {
            STATEMENTS.fetch_add(1, Ordering::SeqCst);
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    async fn statements<T>(work: impl Future<Output = T>) -> (T, usize) {
        let before = STATEMENTS.load(Ordering::SeqCst);
        let value = work.await;
        (value, STATEMENTS.load(Ordering::SeqCst) - before)
    }

    fn step(number: i64) -> Commit {
        let record = |task: &str| TaskRecord {
            task: task.to_owned(),
            kind: RecordKind::Output,
            key: String::new(),
            body: b"update".as_slice().into(),
        };
        Commit {
            checkpoint: Some(NewCheckpoint {
                id: Uuid::from_u128(u128::from(number.unsigned_abs())),
                step: number,
                source: CheckpointSource::Step,
                payload: Payload::Delta(b"delta".as_slice().into()),
                frontier: b"next".as_slice().into(),
                fingerprint: Uuid::nil(),
                state_version: 1,
                created_at: chrono::DateTime::UNIX_EPOCH,
            }),
            parent: None,
            records: if number == 0 {
                Vec::new()
            } else {
                vec![record("a"), record("b")]
            },
            run: Some(RunMark {
                run: Uuid::nil().into(),
                graph: "graph".into(),
                status: RunStatus::Running,
                error: None,
            }),
            outbox: vec![OutboxMessage {
                id: Uuid::from_u128(u128::from(number.unsigned_abs())),
                topic: "topic".to_owned(),
                body: Vec::new(),
            }],
        }
    }

    #[tokio::test]
    async fn each_verb_is_one_statement_even_on_a_chain_of_a_thousand() {
        tracing::subscriber::set_global_default(Counter).unwrap();
        let url = stepgraph_live::Postgres::shared().unwrap().database().await.unwrap();
        let options = PostgresOptions::default().durability(Durability::Normal);
        let store = Postgres::open_with(&url, options).await.unwrap();
        let key = ThreadKey::new(TenantId::authenticated("acme").unwrap(), ThreadId::random());
        let (epoch, count) = statements(store.claim(&key)).await;
        let (epoch, mut head) = (epoch.unwrap(), None);
        assert_eq!(count, 1, "a claim");
        for number in 0..1000 {
            let (written, count) = statements(store.commit(&key, epoch, head, step(number))).await;
            head = written.unwrap();
            assert_eq!(count, 1, "a commit of a checkpoint, two records, a run and a message");
        }
        let mut large = step(1000);
        if let Some(new) = &mut large.checkpoint {
            new.payload = Payload::Delta(vec![7; 100_000].into());
        }
        let (written, count) = statements(store.commit(&key, epoch, head, large)).await;
        head = written.unwrap();
        assert_eq!(count, 1, "a commit with a large value");
        for at in [At::Head, At::Seq(head.unwrap()), At::Id(Uuid::from_u128(1000))] {
            let (found, count) = statements(store.get(&key, at)).await;
            assert_eq!(found.unwrap().unwrap().parts.len(), 1001);
            assert_eq!(count, 1, "a chain of a thousand with its records and a large value");
        }
        assert_eq!(statements(store.list(&key, Page::default())).await.1, 1, "a history");
        assert_eq!(statements(store.unfinished("graph", 10)).await.1, 1, "the unfinished");
        assert_eq!(statements(store.outbox("topic", 10)).await.1, 1, "the messages");
        assert_eq!(
            statements(store.acknowledge(&key, Uuid::nil())).await.1,
            1,
            "an acknowledgement"
        );
        assert_eq!(statements(store.delete(&key)).await.1, 1, "a deletion");
    }
}
