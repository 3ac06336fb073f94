//! One death after the other.

use std::collections::BTreeMap;

use serde_json::Value;

use super::ground::{Heard, Product, TENANTS};

/// What is heard before, during and after each outage.
const MANY: usize = 30;
/// Refusals while there are no records: each is waited for as long as a connection to them is.
const MANY_REFUSED: usize = 12;

fn accepted(heard: &Heard) -> bool {
    heard.status == 200
}

fn all_accepted(heard: &[Heard], when: &str) {
    let slowest = heard.iter().map(|heard| heard.took).max();
    println!("{when}: {} answers, the slowest took {slowest:?}", heard.len());
    let refused = heard.iter().find(|heard| !accepted(heard));
    assert!(refused.is_none(), "{when}: {refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chat_outlives_the_death_of_each_server_and_no_accepted_answer_is_lost() {
    let mut product = Product::start().await;
    product.until_health_is("healthy", true, true).await;
    let load = product.load();
    let before = load.hear(MANY, accepted).await;
    all_accepted(&before, "all are there");
    assert!(before.iter().all(|heard| heard.sources == 1), "{before:?}");

    product.redis.kill().unwrap();
    product.until_health_is("degraded", true, false).await;
    let without = load.hear(MANY, accepted).await;
    all_accepted(&without, "without a cache");
    product.redis.start_again().unwrap();
    product.until_health_is("healthy", true, true).await;
    all_accepted(&load.hear(MANY, accepted).await, "the cache is back");

    product.qdrant.kill().unwrap();
    product.until_health_is("degraded", false, true).await;
    let degraded = load.hear(MANY, accepted).await;
    all_accepted(&degraded, "without a search");
    product.qdrant.start_again().unwrap();
    product.until_health_is("healthy", true, true).await;
    let found = load.hear(MANY, |heard| heard.sources == 1).await;
    all_accepted(&found, "the search is back");

    product.postgres.kill().unwrap();
    product.until_health_is("unhealthy", true, true).await;
    // Without records nobody knows whose a message is: it is refused in a way that its sender may repeat.
    let refused = load.hear(MANY_REFUSED, |heard| !accepted(heard)).await;
    product.postgres.start_again().unwrap();
    product.until_health_is("healthy", true, true).await;
    load.hear(MANY, accepted).await;
    for heard in refused.iter().filter(|heard| !accepted(heard)) {
        let known = match heard.code.as_str() {
            "SERVICE_UNAVAILABLE" => heard.status == 503 && heard.waits,
            "TIMEOUT" => heard.status == 504,
            _ => false,
        };
        assert!(known, "{heard:?}");
    }
    println!("without records: {} messages refused", refused.len());

    let heard = load.end().await;
    let answers: Vec<Heard> = heard.into_iter().filter(accepted).collect();
    product.until_logged(&answers).await;
    each_answer_is_logged_and_booked_once(&product, &answers, &degraded).await;
    product.end().await;
}

async fn each_answer_is_logged_and_booked_once(product: &Product, answers: &[Heard], degraded: &[Heard]) {
    let rows = product.rows().await;
    for answer in answers {
        let roles: Vec<_> = rows[&answer.trace]
            .iter()
            .map(|(tenant, role, _)| (tenant.as_str(), role.as_str()))
            .collect();
        assert_eq!(
            roles,
            [(answer.tenant, "user"), (answer.tenant, "assistant")],
            "{answer:?}"
        );
    }
    let said = |answer: &Heard| {
        rows[&answer.trace]
            .iter()
            .any(|(_, _, metadata)| metadata["degraded"] == Value::Bool(true))
    };
    assert!(
        degraded.iter().all(said),
        "an answer without a search says so in its row"
    );
    let marked = answers.iter().filter(|answer| said(answer)).count();
    assert!(
        marked < answers.len() / 2,
        "{marked} of {} answers say that they are degraded",
        answers.len()
    );
    assert!(
        answers
            .iter()
            .filter(|answer| said(answer))
            .all(|answer| answer.sources == 0)
    );

    // A run whose caller was refused may have come to its end all the same: what is in the log is what is booked.
    let mut logged: BTreeMap<&str, i64> = BTreeMap::new();
    for said in rows.values() {
        assert_eq!(said.len(), 2, "{said:?}");
        *logged.entry(&said[0].0).or_default() += 1;
    }
    let mut connection = product.connection().await;
    for tenant in TENANTS {
        let hours = "SELECT sum(request_count)::bigint FROM usage_hourly WHERE client_id = $1";
        let hours: i64 = sqlx::query_scalar(hours)
            .bind(tenant)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        let days = "SELECT sum(assistant_messages)::bigint FROM usage_stats WHERE client_id = $1";
        let days: i64 = sqlx::query_scalar(days)
            .bind(tenant)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(
            (hours, days),
            (logged[tenant], logged[tenant]),
            "what is booked for {tenant}"
        );
    }
}
