//! Chat sessions over the real graphs and stores: turns, memory, tenants.

use std::sync::Arc;

use stepgraph::{
    RunError,
    checkpoint::{At, Page},
};
use stepgraph_nodes::service::{SearchQuery, embedded::Extractive};
use stepgraph_tests::{House, session, settings, tenant};

const KETTLE: &str = "The kettle holds two litres of water. The warranty lasts 36 months from the date of purchase.";
const BICYCLE: &str = "The bicycle has eleven gears. Parcels are delivered within three working days.";

#[tokio::test]
async fn an_answer_quotes_the_sentence_and_names_its_document() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path()).await.unwrap();
    let acme = tenant("acme");
    house.ingest_text(&acme, "kettle", KETTLE).await.unwrap();

    let state = house
        .ask(&session(&acme, "s1"), "how long is the warranty?")
        .await
        .unwrap();

    let answer = state.answer().unwrap();
    assert!(answer.text.contains("36 months"), "{}", answer.text);
    assert_eq!(
        answer
            .sources
            .iter()
            .map(|source| source.title.as_str())
            .collect::<Vec<_>>(),
        ["kettle"]
    );
}

#[tokio::test]
async fn a_question_without_support_gets_the_fallback_and_no_sources() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path()).await.unwrap();
    let acme = tenant("acme");
    house.ingest_text(&acme, "kettle", KETTLE).await.unwrap();

    let state = house
        .ask(&session(&acme, "s1"), "who won the football world cup in 1998?")
        .await
        .unwrap();

    let answer = state.answer().unwrap();
    assert_eq!(answer.text, stepgraph_graphs::FALLBACK);
    assert!(answer.sources.is_empty());
}

#[tokio::test]
async fn a_second_turn_has_its_own_sources_and_answer_and_remembers_both_messages() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path()).await.unwrap();
    let acme = tenant("acme");
    house.ingest_text(&acme, "kettle", KETTLE).await.unwrap();
    house.ingest_text(&acme, "bicycle", BICYCLE).await.unwrap();
    let thread = session(&acme, "s1");

    house.ask(&thread, "how long is the warranty?").await.unwrap();
    let second = house
        .ask(&thread, "how many gears does the bicycle have?")
        .await
        .unwrap();

    let answer = second.answer().unwrap();
    assert!(
        answer.text.contains("eleven gears") && !answer.text.contains("36 months"),
        "{}",
        answer.text
    );
    assert_eq!(
        answer
            .sources
            .iter()
            .map(|source| source.title.as_str())
            .collect::<Vec<_>>(),
        ["bicycle"]
    );
    let said: Vec<_> = second
        .messages()
        .iter()
        .map(|message| message.content.as_str())
        .collect();
    assert_eq!(said.len(), 4);
    assert_eq!(
        (said[0], said[2]),
        ("how long is the warranty?", "how many gears does the bicycle have?")
    );
    assert_eq!(house.services.log.session(&acme, "s1", 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn two_tenants_with_the_same_document_and_session_never_meet() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path()).await.unwrap();
    let (acme, evil) = (tenant("acme"), tenant("evil"));
    house
        .ingest_text(&acme, "doc", "The secret of acme is the blue lantern.")
        .await
        .unwrap();
    house
        .ingest_text(&evil, "doc", "The secret of evil is the red lantern.")
        .await
        .unwrap();

    for (own, other, colour, foreign) in [(&acme, &evil, "blue", "red"), (&evil, &acme, "red", "blue")] {
        let state = house
            .ask(&session(own, "same"), "what is the secret lantern?")
            .await
            .unwrap();
        let shown = serde_json::to_string(&state).unwrap();
        assert!(shown.contains(colour) && !shown.contains(foreign), "{shown}");

        let query = SearchQuery {
            text: format!("{foreign} lantern"),
            dense: None,
            limit: 100,
        };
        let hits = house.services.vectors.search(own, &query).await.unwrap();
        assert!(hits.iter().all(|hit| !hit.text.contains(foreign)), "{hits:?}");
        assert_eq!(house.services.vectors.count(own).await.unwrap(), 1);

        let log = house.services.log.session(own, "same", 100).await.unwrap();
        assert!(log.iter().all(|turn| !turn.answer.contains(foreign)));
        let history = house
            .chat
            .history(&session(own, "same"), Page::default())
            .await
            .unwrap();
        let foreign_history = house
            .chat
            .history(&session(other, "same"), Page::default())
            .await
            .unwrap();
        assert!(
            history
                .iter()
                .all(|entry| foreign_history.iter().all(|foreign| foreign.id != entry.id))
        );
    }
}

#[tokio::test]
async fn one_tenant_neither_reads_nor_deletes_what_is_anothers() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path()).await.unwrap();
    let (acme, evil) = (tenant("acme"), tenant("evil"));
    for tenant in [&acme, &evil] {
        house.ingest_text(tenant, "doc", KETTLE).await.unwrap();
        house
            .ask(&session(tenant, "same"), "how long is the warranty?")
            .await
            .unwrap();
    }

    // A checkpoint of one tenant cannot be read by its id under the other.
    let own = house
        .chat
        .state(&session(&acme, "same"), At::Head)
        .await
        .unwrap()
        .unwrap();
    assert!(
        house
            .chat
            .state(&session(&evil, "same"), At::Id(own.entry.id))
            .await
            .unwrap()
            .is_none()
    );

    house
        .services
        .vectors
        .delete(&acme, &stepgraph_nodes::service::DocumentId::new("doc"))
        .await
        .unwrap();
    assert_eq!(house.services.vectors.count(&acme).await.unwrap(), 0);
    assert_eq!(house.services.vectors.count(&evil).await.unwrap(), 1);
    assert_eq!(
        house
            .services
            .documents
            .list(&evil, 10, None)
            .await
            .unwrap()
            .documents
            .len(),
        1
    );
}

#[test]
fn no_input_or_update_can_name_a_tenant() {
    // The tenant belongs to the run: input and update have no field for it, and refuse one that is made up.
    let input =
        serde_json::json!({"question": "q", "session": "s", "asked_at": "2026-01-01T00:00:00Z", "tenant": "evil"});
    let refused = serde_json::from_value::<stepgraph_graphs::ChatStateInput>(input).unwrap_err();
    assert!(refused.to_string().contains("unknown field `tenant`"), "{refused}");
    let update = serde_json::json!({"question": "q", "tenant": "evil"});
    let refused =
        serde_json::from_value::<<stepgraph_graphs::ChatState as stepgraph::State>::Update>(update).unwrap_err();
    assert!(refused.to_string().contains("unknown field `tenant`"), "{refused}");
}

#[tokio::test]
async fn a_chat_run_without_its_settings_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path()).await.unwrap();
    let thread = session(&tenant("acme"), "s1");
    let run = house.message(&thread, "hello", Arc::new(Extractive));
    drop(run);

    let input = stepgraph_graphs::ChatStateInput {
        question: "hello".into(),
        session: "s1".into(),
        asked_at: std::time::UNIX_EPOCH.into(),
        open_ended: false,
        overage: false,
        rewrites: false,
        trace: None,
    };
    let error = house.chat.run(&thread, input.clone()).await.unwrap_err();

    assert!(matches!(error, RunError::Missing { .. }), "{error}");
    assert!(house.chat.state(&thread, At::Head).await.unwrap().is_none());
    let again = house
        .chat
        .run(&thread, input)
        .provide(settings(Arc::new(Extractive)))
        .await;
    assert!(again.is_ok());
}
