//! Facts of every store of records: the same on the embedded one and on a server.

#[path = "records/kept.rs"]
mod kept;

use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
pub(crate) use kept::*;
use serde_json::json;
use stepgraph::{RunId, TenantId};
use stepgraph_nodes::{
    language::Language,
    service::{ChatTurn, Client, ClientSettings, ClientStatus, Cost, ModelName, Rating, Records, Source, Tier, Usage},
};

/// Hands the names of all facts to a macro that makes a test of each.
macro_rules! every_fact {
    ($on:ident) => {
        $on! {
            a_client_is_found_by_its_key_and_keeps_it_when_changed
            every_setting_of_a_client_reads_back
            a_new_key_ends_the_old_one
            a_paused_client_is_found_as_paused
            clients_come_in_pages
            a_turn_reads_back_and_is_booked_once
            sixteen_writers_of_one_run_book_it_once
            the_day_and_its_hours_sum_their_turns
            messages_above_the_limit_are_billed_once_a_day
            the_last_rating_of_a_known_answer_counts
            old_turns_are_deleted_and_what_was_booked_stays
            a_document_goes_its_way_from_accepted_to_completed
            a_document_of_an_older_version_is_left_alone
            a_file_again_joins_and_a_failed_one_starts_anew
            documents_come_in_pages
            a_thread_is_made_once_and_changed
            an_alert_is_kept_once_and_given_to_one_sender_at_a_time
            an_alert_whose_sender_was_lost_is_given_to_another_and_old_ones_go
            a_name_stands_for_one_request_of_one_session_of_a_tenant
            of_many_who_name_a_request_at_once_one_has_it
            what_is_taken_out_is_all_there_is
            an_erased_tenant_leaves_no_row_and_the_other_all
        }
    };
}
pub(crate) use every_fact;

pub(crate) fn tenant(id: &str) -> TenantId {
    TenantId::authenticated(id).unwrap()
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

/// Makes the tenant; a store may not keep turns of one it does not know.
async fn made(records: &Records, id: &str) -> TenantId {
    let tenant = tenant(id);
    records.clients.put(&Client::new(tenant.clone())).await.unwrap();
    tenant
}

pub(crate) fn turn(run: RunId, session: &str, asked_at: &str) -> ChatTurn {
    ChatTurn {
        run,
        session: session.to_owned(),
        question: "how long is the warranty?".to_owned(),
        answer: "Two years.".to_owned(),
        sources: vec![Source {
            document_id: "manual".to_owned(),
            title: "Manual".to_owned(),
            excerpt: "The warranty lasts two years.".to_owned(),
            score: 0.5,
            chunk_index: 3,
        }],
        usage: Usage {
            prompt_tokens: 100,
            completion_tokens: 20,
            cached_tokens: 60,
            ..Usage::default()
        },
        cost: Cost::from_microcents(300_000),
        overage: false,
        model: ModelName::new("gpt-4o-mini"),
        latency: Duration::from_millis(120),
        degraded: true,
        asked_at: at(asked_at),
    }
}

fn every_setting() -> ClientSettings {
    ClientSettings {
        model: Some(ModelName::new("gpt-4o")),
        fallback_model: Some(ModelName::new("gpt-4o-mini")),
        system_prompt: Some("Be brief.".to_owned()),
        max_tokens: Some(700),
        temperature: Some(0.5),
        allowed_domains: vec!["example.com".to_owned(), "*.example.org".to_owned()],
        hourly_limit: Some(500),
        hard_cap: true,
        overage_cents_per_hundred: Some(25),
        alert_threshold_percent: Some(90),
        alert_email: Some("owner@example.com".to_owned()),
        alert_webhook: Some("https://example.com/alert".to_owned()),
        answer_only_from_documents: true,
        score_threshold: Some(0.25),
        search_limit: Some(6),
        language: Some(Language::parse("de").unwrap()),
        memory_tokens: Some(2_000),
        retention_days: Some(30),
        document_quota: Some(12),
    }
}

pub(crate) async fn a_client_is_found_by_its_key_and_keeps_it_when_changed(records: Records) {
    let clients = &records.clients;
    let first = Client {
        tier: Tier::Paid,
        unlimited: true,
        ..Client::new(tenant("a"))
    };
    let key = clients.put(&first).await.unwrap();
    let key_of_b = clients.put(&Client::new(tenant("b"))).await.unwrap();
    let changed = Client {
        tier: Tier::Free,
        unlimited: false,
        ..first
    };

    assert_eq!(clients.put(&changed).await.unwrap(), key);

    assert!(
        key.starts_with("pk_live_") && key.len() >= 40 && key != key_of_b,
        "{key}"
    );
    assert_eq!(clients.by_key(&key).await.unwrap(), Some(changed.clone()));
    assert_eq!(clients.by_id("a").await.unwrap(), Some(changed));
    assert_eq!(clients.by_key(&key_of_b).await.unwrap(), Some(Client::new(tenant("b"))));
    assert_eq!(clients.key(&tenant("a")).await.unwrap(), Some(key.clone()));
    for unknown in ["", "pk_live_", &key.to_uppercase(), &format!("{key} ")] {
        assert_eq!(clients.by_key(unknown).await.unwrap(), None, "{unknown}");
    }
}

pub(crate) async fn every_setting_of_a_client_reads_back(records: Records) {
    let a = made(&records, "a").await;
    let b = made(&records, "b").await;

    assert!(records.clients.set(&a, &every_setting()).await.unwrap());
    assert!(!records.clients.set(&tenant("nobody"), &every_setting()).await.unwrap());

    let read = |client: Option<Client>| client.unwrap().settings;
    assert_eq!(read(records.clients.by_id("a").await.unwrap()), every_setting());
    assert_eq!(
        read(records.clients.by_id(b.as_str()).await.unwrap()),
        ClientSettings::default()
    );
    assert_eq!(records.clients.by_id("nobody").await.unwrap(), None);
    records.clients.set(&a, &ClientSettings::default()).await.unwrap();
    assert_eq!(
        read(records.clients.by_id("a").await.unwrap()),
        ClientSettings::default()
    );
}

pub(crate) async fn a_new_key_ends_the_old_one(records: Records) {
    let a = made(&records, "a").await;
    let old = records.clients.key(&a).await.unwrap().unwrap();

    let new = records.clients.rotate_key(&a).await.unwrap().unwrap();

    assert_eq!(records.clients.by_key(&old).await.unwrap(), None);
    assert_eq!(records.clients.by_key(&new).await.unwrap().unwrap().tenant, a);
    assert_eq!(records.clients.rotate_key(&tenant("nobody")).await.unwrap(), None);
}

pub(crate) async fn a_paused_client_is_found_as_paused(records: Records) {
    let (a, b) = (made(&records, "a").await, made(&records, "b").await);
    let key = records.clients.key(&a).await.unwrap().unwrap();

    for status in [ClientStatus::Paused, ClientStatus::Disabled, ClientStatus::Active] {
        assert!(records.clients.set_status(&a, status).await.unwrap());
        assert_eq!(records.clients.by_key(&key).await.unwrap().unwrap().status, status);
        let other = records.clients.by_id(b.as_str()).await.unwrap().unwrap();
        assert_eq!(other.status, ClientStatus::Active);
    }
    let unknown = records
        .clients
        .set_status(&tenant("nobody"), ClientStatus::Paused)
        .await;
    assert!(!unknown.unwrap());
}

pub(crate) async fn clients_come_in_pages(records: Records) {
    for id in ["c", "a", "b"] {
        made(&records, id).await;
    }
    let page = async |after: Option<&str>| -> Vec<String> {
        let after = after.map(tenant);
        let clients = records.clients.page(after.as_ref(), 2).await.unwrap();
        clients.into_iter().map(|client| client.tenant.to_string()).collect()
    };

    assert_eq!(page(None).await, ["a", "b"]);
    assert_eq!(page(Some("b")).await, ["c"]);
    assert!(page(Some("c")).await.is_empty());
}

pub(crate) async fn a_turn_reads_back_and_is_booked_once(records: Records) {
    let (a, b) = (made(&records, "a").await, made(&records, "b").await);
    let written = ChatTurn {
        overage: true,
        ..turn(RunId::random(), "s", "2026-11-22T10:00:00.123456Z")
    };
    let again = ChatTurn {
        answer: "Something else.".to_owned(),
        ..written.clone()
    };

    records.log.write(&a, &written).await.unwrap();
    records.log.write(&a, &again).await.unwrap();

    assert_eq!(records.log.session(&a, "s", 10).await.unwrap(), [written]);
    let days = records
        .usage
        .days(&a, day("2026-11-22"), day("2026-11-22"))
        .await
        .unwrap();
    assert_eq!((days.len(), days[0].total_messages, days[0].total_tokens), (1, 2, 120));
    assert!(records.log.session(&b, "s", 10).await.unwrap().is_empty());
    assert!(records.usage.hours(&b, day("2026-11-22")).await.unwrap().is_empty());
}

pub(crate) async fn sixteen_writers_of_one_run_book_it_once(records: Records) {
    let a = made(&records, "a").await;
    let one = turn(RunId::random(), "s", "2026-11-22T10:00:00Z");
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..16 {
        let (log, a, one) = (records.log.clone(), a.clone(), one.clone());
        let other = ChatTurn {
            run: RunId::random(),
            ..one.clone()
        };
        writers.spawn(async move { log.write(&a, if number % 2 == 0 { &one } else { &other }).await });
    }
    for written in writers.join_all().await {
        written.unwrap();
    }

    let hours = records.usage.hours(&a, day("2026-11-22")).await.unwrap();
    assert_eq!((hours.len(), hours[0].request_count), (1, 9));
    let days = records
        .usage
        .days(&a, day("2026-11-22"), day("2026-11-22"))
        .await
        .unwrap();
    assert_eq!((days[0].total_messages, days[0].unique_sessions), (18, 1));
    assert_eq!(records.log.session(&a, "s", 100).await.unwrap().len(), 9);
}

pub(crate) async fn the_day_and_its_hours_sum_their_turns(records: Records) {
    let a = made(&records, "a").await;
    for minute in 0..40 {
        let session = if minute % 2 == 0 { "even" } else { "odd" };
        let asked_at = format!("2026-11-22T{:02}:{minute:02}:00Z", 22 + minute / 20);
        let turn = ChatTurn {
            latency: Duration::from_millis(10 * (minute + 1)),
            ..turn(RunId::random(), session, &asked_at)
        };
        records.log.write(&a, &turn).await.unwrap();
    }
    let next = turn(RunId::random(), "even", "2026-11-23T00:00:00Z");
    records.log.write(&a, &next).await.unwrap();

    let days = records
        .usage
        .days(&a, day("2026-11-01"), day("2026-11-22"))
        .await
        .unwrap();
    let [of_day] = days.as_slice() else { panic!("{days:?}") };
    assert_eq!(
        (of_day.total_messages, of_day.assistant_messages, of_day.unique_sessions),
        (80, 40, 2)
    );
    assert_eq!(
        (
            of_day.total_tokens,
            of_day.prompt_tokens,
            of_day.completion_tokens,
            of_day.cached_tokens
        ),
        (4800, 4000, 800, 2400)
    );
    // Forty turns of 0.3 cents each, rounded once and not forty times.
    assert_eq!(of_day.estimated_cost_cents, 12);
    assert_eq!((of_day.avg_latency_ms, of_day.p95_latency_ms), (205, 380));
    let hours = records.usage.hours(&a, day("2026-11-22")).await.unwrap();
    let counted: Vec<_> = hours.iter().map(|hour| (hour.hour, hour.request_count)).collect();
    assert_eq!(counted, [(22, 20), (23, 20)]);
    assert_eq!(
        (
            hours[0].prompt_tokens,
            hours[0].completion_tokens,
            hours[0].cached_tokens
        ),
        (2000, 400, 1200)
    );
    assert_eq!(hours[1].cost, Cost::from_microcents(6_000_000));
    assert_eq!(
        records
            .usage
            .days(&a, day("2026-11-22"), day("2026-11-23"))
            .await
            .unwrap()
            .len(),
        2
    );
}

pub(crate) async fn messages_above_the_limit_are_billed_once_a_day(records: Records) {
    let (a, b) = (made(&records, "a").await, made(&records, "b").await);
    let dear = ClientSettings {
        overage_cents_per_hundred: Some(500),
        ..ClientSettings::default()
    };
    records.clients.set(&b, &dear).await.unwrap();
    for (minute, tenant) in (0..30).flat_map(|minute| [(minute, &a), (minute, &b)]) {
        let over = ChatTurn {
            overage: minute >= 10,
            ..turn(RunId::random(), "s", &format!("2026-11-22T10:{minute:02}:00Z"))
        };
        records.log.write(tenant, &over).await.unwrap();
        records.log.write(tenant, &over).await.unwrap();
    }

    let hours = records.usage.hours(&a, day("2026-11-22")).await.unwrap();
    assert_eq!((hours[0].request_count, hours[0].overage_count), (30, 20));
    for (tenant, cents, rate) in [(&a, 2, 10), (&b, 100, 500)] {
        let events = records.usage.billing(tenant, 10).await.unwrap();
        let [event] = events.as_slice() else {
            panic!("{events:?}")
        };
        assert_eq!((event.event_type.as_str(), event.amount_cents), ("overage", cents));
        assert_eq!(
            serde_json::Value::from(event.details.clone()),
            json!({"date": "2026-11-22", "messages": 20, "centsPerHundred": rate})
        );
    }
    let next = ChatTurn {
        overage: true,
        ..turn(RunId::random(), "s", "2026-11-23T10:00:00Z")
    };
    records.log.write(&a, &next).await.unwrap();
    assert_eq!(records.usage.billing(&a, 10).await.unwrap().len(), 2);
    assert_eq!(records.usage.billing(&a, 1).await.unwrap().len(), 1);
}

pub(crate) async fn the_last_rating_of_a_known_answer_counts(records: Records) {
    let (a, b) = (made(&records, "a").await, made(&records, "b").await);
    let run = RunId::random();
    records
        .log
        .write(&a, &turn(run, "s", "2026-11-22T10:00:00Z"))
        .await
        .unwrap();
    let feedbacks = &records.feedbacks;

    assert!(feedbacks.rate(&a, run, Rating::Up, Some("thanks")).await.unwrap());
    assert!(feedbacks.rate(&a, run, Rating::Down, None).await.unwrap());
    assert!(
        !feedbacks.rate(&b, run, Rating::Up, None).await.unwrap(),
        "another tenant's"
    );
    assert!(!feedbacks.rate(&a, RunId::random(), Rating::Up, None).await.unwrap());

    let kept = feedbacks.rating(&a, run).await.unwrap().unwrap();
    assert_eq!((kept.run, kept.rating, kept.comment), (run, Rating::Down, None));
    assert_eq!(feedbacks.rating(&b, run).await.unwrap(), None);
}

pub(crate) async fn old_turns_are_deleted_and_what_was_booked_stays(records: Records) {
    let (a, b) = (made(&records, "a").await, made(&records, "b").await);
    let run = RunId::random();
    for tenant in [&a, &b] {
        records
            .log
            .write(tenant, &turn(run, "s", "2026-11-20T10:00:00Z"))
            .await
            .unwrap();
        records.feedbacks.rate(tenant, run, Rating::Up, None).await.unwrap();
        for date in ["2026-11-21", "2026-11-22"] {
            let turn = turn(RunId::random(), "s", &format!("{date}T10:00:00Z"));
            records.log.write(tenant, &turn).await.unwrap();
        }
    }

    let cut = at("2026-11-22T00:00:00Z");
    assert_eq!(records.log.delete_before(&a, cut, 1).await.unwrap(), 1);
    assert_eq!(
        records.feedbacks.rating(&a, run).await.unwrap(),
        None,
        "the oldest goes first"
    );
    assert_eq!(records.log.delete_before(&a, cut, 10).await.unwrap(), 1);
    assert_eq!(records.log.delete_before(&a, cut, 10).await.unwrap(), 0);

    assert_eq!(records.log.session(&a, "s", 10).await.unwrap().len(), 1);
    assert_eq!(records.log.session(&b, "s", 10).await.unwrap().len(), 3);
    assert!(records.feedbacks.rating(&b, run).await.unwrap().is_some());
    let days = records
        .usage
        .days(&a, day("2026-11-20"), day("2026-11-22"))
        .await
        .unwrap();
    assert_eq!(days.len(), 3);
}
