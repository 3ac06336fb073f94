//! The contract of [`VectorStore`]. Each check uses tenants of its own, so that all run on one store.

use stepgraph::TenantId;
use stepgraph_nodes::service::{
    Chunk, DocumentId, Hit, KnowledgeBase, ModelName, SearchQuery, ServiceError, VectorStore, point_id,
};

/// Panics with the first thing the store does wrong.
pub(crate) async fn check(store: &dyn VectorStore) {
    store.ping().await.unwrap();
    the_first_preparation_holds(store).await;
    nothing_is_stored_unprepared(store).await;
    a_document_is_its_last_content(store).await;
    a_bulk_is_the_documents_in_turn(store).await;
    a_deleted_document_is_gone(store).await;
    an_erased_tenant_leaves_nothing(store).await;
    tenants_never_meet(store).await;
    a_neighbour_changes_no_score(store).await;
    hits_are_ordered_and_limited(store).await;
    coverage_is_the_share_of_meaning(store).await;
    words_meet_by_their_stem(store).await;
    scripts_without_spaces_are_found(store).await;
    titles_are_searched(store).await;
    vectors_must_fit(store).await;
    vectors_find_what_words_do_not(store).await;
    writers_and_readers_do_not_fail_each_other(store).await;
}

pub(crate) async fn fill(store: &dyn VectorStore) {
    let tenant = prepared(store, "kept", "en").await;
    store
        .replace(&tenant, &id("manual"), &texts(&["The warranty lasts two years."]))
        .await
        .unwrap();
}

pub(crate) async fn is_filled(store: &dyn VectorStore) {
    let tenant = tenant("kept");
    assert_eq!(found(store, &tenant, "warranty").await, ["manual/0"]);
    assert_eq!(store.knowledge_base(&tenant).await.unwrap(), Some(base("en")));
}

async fn the_first_preparation_holds(store: &dyn VectorStore) {
    let tenant = tenant("first-preparation");
    assert_eq!(store.knowledge_base(&tenant).await.unwrap(), None);
    assert_eq!(store.prepare(&tenant, &base("es")).await.unwrap(), base("es"));
    assert_eq!(
        store.prepare(&tenant, &base("en")).await.unwrap(),
        base("es"),
        "the language is fixed"
    );
    let refused = store.prepare(&tenant, &embedded("en", "mini", 2)).await.unwrap_err();
    assert!(matches!(refused, ServiceError::Mismatch { .. }), "{refused}");
    assert!(refused.to_string().contains("anew"), "{refused}");
    assert_eq!(store.knowledge_base(&tenant).await.unwrap(), Some(base("es")));
    let unknown = store.prepare(&tenant, &base("xx")).await.unwrap_err();
    assert!(matches!(unknown, ServiceError::Refused { .. }), "{unknown}");
}

async fn an_erased_tenant_leaves_nothing(store: &dyn VectorStore) {
    let (gone, stays) = (
        prepared(store, "erased", "en").await,
        prepared(store, "not-erased", "en").await,
    );
    for tenant in [&gone, &stays] {
        let chunks = texts(&["The warranty lasts two years.", "The kettle boils."]);
        store.replace(tenant, &id("manual"), &chunks).await.unwrap();
    }
    assert_eq!(store.erase(&gone).await.unwrap(), 2);
    assert_eq!(store.count(&gone).await.unwrap(), 0);
    assert_eq!(store.knowledge_base(&gone).await.unwrap(), None);
    assert_eq!(found(store, &stays, "warranty").await, ["manual/0"]);
    assert_eq!(store.erase(&gone).await.unwrap(), 0);
}

async fn nothing_is_stored_unprepared(store: &dyn VectorStore) {
    let tenant = tenant("unprepared");
    let refused = store.replace(&tenant, &id("a"), &texts(&["text"])).await.unwrap_err();
    assert!(
        matches!(refused, ServiceError::Refused { .. }) && refused.to_string().contains("prepare"),
        "{refused}"
    );
    assert_eq!(found(store, &tenant, "text").await, [""; 0]);
    assert_eq!(store.count(&tenant).await.unwrap(), 0);
    assert_eq!(store.delete(&tenant, &id("a")).await.unwrap(), 0);
}

async fn a_document_is_its_last_content(store: &dyn VectorStore) {
    let tenant = prepared(store, "last-content", "en").await;
    let old = texts(&["apples in autumn", "pears in winter", "plums in summer"]);
    let points = store.replace(&tenant, &id("fruit"), &old).await.unwrap();
    assert_eq!(points, [0, 1, 2].map(|index| point_id(&tenant, &id("fruit"), index)));
    assert_eq!(store.replace(&tenant, &id("fruit"), &old).await.unwrap(), points);
    assert_eq!(store.count(&tenant).await.unwrap(), 3);

    let new = store
        .replace(&tenant, &id("fruit"), &texts(&["apples in spring", "cherries"]))
        .await
        .unwrap();
    assert_eq!(new, points[..2]);
    assert_eq!(store.count(&tenant).await.unwrap(), 2);
    assert_eq!(found(store, &tenant, "pears winter plums summer autumn").await, [""; 0]);
    assert_eq!(found(store, &tenant, "spring").await, ["fruit/0"]);

    assert!(store.replace(&tenant, &id("fruit"), &[]).await.unwrap().is_empty());
    assert_eq!(store.count(&tenant).await.unwrap(), 0);

    let twice = [texts(&["a"]), texts(&["b"])].concat();
    let refused = store.replace(&tenant, &id("fruit"), &twice).await.unwrap_err();
    assert!(
        matches!(refused, ServiceError::Refused { .. }),
        "two chunks of one index: {refused}"
    );
}

async fn a_bulk_is_the_documents_in_turn(store: &dyn VectorStore) {
    let tenant = prepared(store, "bulk", "en").await;
    let documents = [
        (id("one"), texts(&["copper", "silver"])),
        (id("two"), texts(&["gold"])),
        (id("one"), texts(&["tin"])),
    ];
    let points = store.replace_many(&tenant, &documents).await.unwrap();
    assert_eq!(points.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1]);
    assert_eq!(points[1], [point_id(&tenant, &id("two"), 0)]);
    assert_eq!(store.count(&tenant).await.unwrap(), 2);
    assert_eq!(found(store, &tenant, "copper silver").await, [""; 0]);
    assert_eq!(found(store, &tenant, "tin").await, ["one/0"]);

    let broken = [
        (id("three"), texts(&["zinc"])),
        (id("four"), [texts(&["a"]), texts(&["b"])].concat()),
    ];
    store.replace_many(&tenant, &broken).await.unwrap_err();
    assert_eq!(found(store, &tenant, "zinc").await, [""; 0], "all or nothing");
}

async fn a_deleted_document_is_gone(store: &dyn VectorStore) {
    let tenant = prepared(store, "deletion", "en").await;
    store
        .replace(&tenant, &id("a"), &texts(&["harbour lights", "harbour walls"]))
        .await
        .unwrap();
    store
        .replace(&tenant, &id("b"), &texts(&["harbour birds"]))
        .await
        .unwrap();
    assert_eq!(store.delete(&tenant, &id("a")).await.unwrap(), 2);
    assert_eq!(found(store, &tenant, "harbour").await, ["b/0"]);
    assert_eq!(store.delete(&tenant, &id("a")).await.unwrap(), 0);
    assert_eq!(store.count(&tenant).await.unwrap(), 1);
}

async fn tenants_never_meet(store: &dyn VectorStore) {
    let (ours, theirs) = (
        prepared(store, "ours", "en").await,
        prepared(store, "theirs", "de").await,
    );
    let same = texts(&["The contract ends in June.", "The contract is renewed by letter."]);
    let our_points = store.replace(&ours, &id("contract"), &same).await.unwrap();
    let their_points = store.replace(&theirs, &id("contract"), &same).await.unwrap();
    assert!(
        our_points.iter().all(|point| !their_points.contains(point)),
        "point ids tell tenants apart"
    );
    store
        .replace(&ours, &id("secret"), &texts(&["The contract costs a fortune."]))
        .await
        .unwrap();

    assert_eq!(store.count(&theirs).await.unwrap(), 2);
    assert_eq!(found(store, &theirs, "contract fortune").await.len(), 2);
    assert!(
        !found(store, &theirs, "contract fortune")
            .await
            .contains(&"secret/0".to_owned())
    );
    assert_eq!(store.delete(&theirs, &id("secret")).await.unwrap(), 0);
    assert_eq!(store.delete(&theirs, &id("contract")).await.unwrap(), 2);
    assert_eq!(found(store, &theirs, "contract").await, [""; 0]);
    assert_eq!(store.count(&ours).await.unwrap(), 3);
    assert_eq!(store.knowledge_base(&ours).await.unwrap(), Some(base("en")));
    assert_eq!(store.knowledge_base(&theirs).await.unwrap(), Some(base("de")));
}

async fn a_neighbour_changes_no_score(store: &dyn VectorStore) {
    let (quiet, busy) = (
        prepared(store, "quiet", "en").await,
        prepared(store, "busy", "en").await,
    );
    let chunks = texts(&[
        "The pump is loud at night.",
        "The pump is quiet and small, as the sheet says.",
    ]);
    store.replace(&quiet, &id("pump"), &chunks).await.unwrap();
    let before = search(store, &quiet, "loud pump", 10).await;
    for number in 0..20 {
        let document = id(&format!("pump-{number}"));
        store
            .replace(&busy, &document, &texts(&["loud pump, loud pump", "pump"]))
            .await
            .unwrap();
    }
    assert_eq!(search(store, &quiet, "loud pump", 10).await, before);
}

async fn hits_are_ordered_and_limited(store: &dyn VectorStore) {
    let tenant = prepared(store, "order", "en").await;
    let document = |name: &str, chunks: &[&str]| (id(name), texts(chunks));
    let documents = [
        document("b", &["blue paint", "blue paint"]),
        document("a", &["blue paint", "something else", "blue paint"]),
        document("c", &["blue blue paint"]),
    ];
    store.replace_many(&tenant, &documents).await.unwrap();
    let all = found(store, &tenant, "blue").await;
    assert_eq!(
        all,
        ["c/0", "a/0", "a/2", "b/0", "b/1"],
        "best first, equals by document, then index"
    );
    for limit in 0..=6 {
        let some = search(store, &tenant, "blue", limit).await;
        let expected = &all[..all.len().min(usize::try_from(limit).unwrap())];
        assert_eq!(some.iter().map(place).collect::<Vec<_>>(), expected, "limit {limit}");
        assert!(some.is_sorted_by(|a, b| a.score >= b.score), "{some:?}");
    }
}

async fn coverage_is_the_share_of_meaning(store: &dyn VectorStore) {
    let tenant = prepared(store, "coverage", "en").await;
    let chunks = texts(&["The lamp has a warranty.", "The lamp is green.", "The lamp is heavy."]);
    store.replace(&tenant, &id("lamp"), &chunks).await.unwrap();
    let coverage = async |question: &str| search(store, &tenant, question, 1).await[0].coverage;
    assert!(
        (coverage("Does the lamp have a warranty?").await - 1.0).abs() < 1e-6,
        "stop words do not count"
    );
    let half = coverage("warranty of the zeppelin").await;
    assert!(
        (0.2..0.5).contains(&half),
        "an unknown word is rarer than any known: {half}"
    );
    let common = coverage("lamp zeppelin").await;
    assert!(
        common > 0.0 && common < half,
        "a word that all chunks hold supports less: {common}"
    );
    assert_eq!(search(store, &tenant, "zeppelin", 1).await, []);
    assert_eq!(search(store, &tenant, "is the of", 1).await, []);
    assert_eq!(search(store, &tenant, "", 1).await, []);
}

async fn words_meet_by_their_stem(store: &dyn VectorStore) {
    for (language, text, question) in [
        ("en", "All warranties cover batteries.", "battery warranty"),
        ("es", "Las garantías cubren las baterías.", "¿garantía de la batería?"),
        ("de", "Die Lieferungen kommen dienstags.", "Wann kommt meine Lieferung?"),
        ("ru", "Гарантии не распространяются на батареи.", "гарантия на батарею"),
    ] {
        let tenant = prepared(store, &format!("stem-{language}"), language).await;
        store.replace(&tenant, &id("text"), &texts(&[text])).await.unwrap();
        assert_eq!(found(store, &tenant, question).await, ["text/0"], "{language}");
        let plain = prepared(store, &format!("plain-{language}"), "und").await;
        store.replace(&plain, &id("text"), &texts(&[text])).await.unwrap();
        assert!(
            search(store, &plain, question, 1)
                .await
                .iter()
                .all(|hit| hit.coverage < 0.9),
            "{language}"
        );
    }
}

async fn scripts_without_spaces_are_found(store: &dyn VectorStore) {
    for (language, texts_of_one, question) in [
        ("zh", ["水壶的保修期为两年。", "请勿将水壶浸入水中。"], "保修多久？"),
        (
            "ja",
            ["保証期間は二年です。", "本体を水に浸さないでください。"],
            "保証は何年ですか",
        ),
        (
            "ko",
            ["보증 기간은 이 년입니다.", "제품을 물에 담그지 마십시오."],
            "보증이 얼마나 되나요",
        ),
        ("th", ["รับประกันสินค้าสองปี", "ห้ามจุ่มกาต้มน้ำลงในน้ำ"], "ประกันกี่ปี"),
        ("und", ["水壶的保修期为两年。", "请勿将水壶浸入水中。"], "保修多久？"),
    ] {
        let tenant = prepared(store, &format!("unspaced-{language}"), language).await;
        store
            .replace(&tenant, &id("text"), &texts(&texts_of_one))
            .await
            .unwrap();
        let first = found(store, &tenant, question).await;
        assert_eq!(first.first().map(String::as_str), Some("text/0"), "{language}");
    }
}

async fn titles_are_searched(store: &dyn VectorStore) {
    let tenant = prepared(store, "titles", "en").await;
    let titled = |title: &str, text: &str| {
        let mut chunks = texts(&[text]);
        title.clone_into(&mut chunks[0].title);
        chunks
    };
    let same = "Press the button for three seconds.";
    store
        .replace(&tenant, &id("a"), &titled("Toaster_manual", same))
        .await
        .unwrap();
    store
        .replace(&tenant, &id("b"), &titled("Kettle_manual", same))
        .await
        .unwrap();
    assert_eq!(
        found(store, &tenant, "how long to press the kettle's button").await,
        ["b/0", "a/0"]
    );
    assert_eq!(search(store, &tenant, "kettle", 1).await[0].title, "Kettle_manual");
}

async fn vectors_must_fit(store: &dyn VectorStore) {
    let sparse = prepared(store, "no-vectors", "en").await;
    let with = with_vectors(&[("text", vec![1.0, 0.0])]);
    let refused = store.replace(&sparse, &id("a"), &with).await.unwrap_err();
    assert!(matches!(refused, ServiceError::Mismatch { .. }), "{refused}");

    let tenant = tenant("vectors-fit");
    store.prepare(&tenant, &embedded("en", "mini", 2)).await.unwrap();
    for vector in [vec![1.0], vec![1.0, 0.0, 0.0]] {
        let refused = store
            .replace(&tenant, &id("a"), &with_vectors(&[("text", vector)]))
            .await
            .unwrap_err();
        assert!(matches!(refused, ServiceError::Mismatch { .. }), "{refused}");
    }
    let refused = store.replace(&tenant, &id("a"), &texts(&["text"])).await.unwrap_err();
    assert!(matches!(refused, ServiceError::Mismatch { .. }), "{refused}");
    let refused = store
        .replace(&tenant, &id("a"), &with_vectors(&[("text", vec![0.0, f32::NAN])]))
        .await
        .unwrap_err();
    assert!(matches!(refused, ServiceError::Refused { .. }), "{refused}");
    for (tenant, dense) in [(&tenant, vec![1.0]), (&sparse, vec![1.0, 0.0])] {
        let refused = store
            .search(tenant, &question("text", Some(dense), 1))
            .await
            .unwrap_err();
        assert!(matches!(refused, ServiceError::Mismatch { .. }), "{refused}");
    }
}

async fn vectors_find_what_words_do_not(store: &dyn VectorStore) {
    let (tenant, other) = (tenant("vectors"), self::tenant("vectors-of-another"));
    for tenant in [&tenant, &other] {
        store.prepare(tenant, &embedded("en", "mini", 2)).await.unwrap();
    }
    let chunks = with_vectors(&[
        ("The cat sleeps.", vec![9.0, 0.5]),
        ("A dog barks.", vec![0.1, 0.2]),
        ("Feline naps are long.", vec![0.2, 0.01]),
    ]);
    store.replace(&tenant, &id("pets"), &chunks).await.unwrap();
    store
        .replace(&other, &id("cars"), &with_vectors(&[("cat", vec![1.0, 0.0])]))
        .await
        .unwrap();
    let ask = async |text: &str, dense: Option<Vec<f32>>| {
        let hits = store.search(&tenant, &question(text, dense, 3)).await.unwrap();
        hits.iter().map(place).collect::<Vec<_>>()
    };
    assert_eq!(ask("cat", None).await, ["pets/0"], "words alone");
    assert_eq!(
        ask("cat", Some(vec![1.0, 0.0])).await,
        ["pets/0", "pets/2", "pets/1"],
        "both lists agree on the first"
    );
    assert_eq!(
        ask("zeppelin", Some(vec![0.0, 2.0])).await,
        ["pets/1", "pets/0", "pets/2"],
        "direction, not length"
    );
    let fused = store
        .search(&tenant, &question("cat", Some(vec![1.0, 0.0]), 3))
        .await
        .unwrap();
    assert_eq!(
        fused.iter().map(|hit| hit.coverage > 0.0).collect::<Vec<_>>(),
        [true, false, false]
    );
    let similar: Vec<_> = fused.iter().map(|hit| hit.similarity.unwrap()).collect();
    for (similar, expected) in similar.iter().zip([0.998_46, 0.998_75, 0.447_21]) {
        assert!((similar - expected).abs() < 1e-4, "{similar} is not {expected}");
    }
    let by_words = store.search(&tenant, &question("cat", None, 3)).await.unwrap();
    assert_eq!(by_words[0].similarity, None);
    assert_eq!(store.delete(&tenant, &id("pets")).await.unwrap(), 3);
    assert_eq!(ask("cat", Some(vec![1.0, 0.0])).await, [""; 0]);
}

async fn writers_and_readers_do_not_fail_each_other(store: &dyn VectorStore) {
    let tenant = prepared(store, "crowd", "en").await;
    let write = async |number: u32| {
        let document = id(&format!("note-{}", number % 4));
        store
            .replace(
                &tenant,
                &document,
                &texts(&["shared words", &format!("number {number}")]),
            )
            .await
            .unwrap();
    };
    let read = async || {
        let hits = search(store, &tenant, "shared", 10).await;
        assert!(
            hits.len() <= 4 && hits.iter().all(|hit| hit.chunk_index == 0),
            "{hits:?}"
        );
    };
    let turns = (0..24).map(|number| async move {
        tokio::join!(write(number), read());
    });
    futures_util::future::join_all(turns).await;
    assert_eq!(store.count(&tenant).await.unwrap(), 8);
    assert_eq!(found(store, &tenant, "shared").await.len(), 4);
}

fn tenant(name: &str) -> TenantId {
    TenantId::authenticated(name).unwrap()
}

fn id(name: &str) -> DocumentId {
    DocumentId::new(name)
}

fn base(language: &str) -> KnowledgeBase {
    KnowledgeBase {
        language: language.to_owned(),
        embedding: None,
    }
}

fn embedded(language: &str, model: &str, length: u32) -> KnowledgeBase {
    KnowledgeBase {
        embedding: Some((ModelName::new(model), length)),
        ..base(language)
    }
}

async fn prepared(store: &dyn VectorStore, name: &str, language: &str) -> TenantId {
    let tenant = tenant(name);
    store.prepare(&tenant, &base(language)).await.unwrap();
    tenant
}

fn texts(texts: &[&str]) -> Vec<Chunk> {
    let chunk = |(index, text): (u32, &&str)| Chunk {
        index,
        title: String::new(),
        text: (*text).to_owned(),
        dense: None,
    };
    (0..).zip(texts).map(chunk).collect()
}

fn with_vectors(pairs: &[(&str, Vec<f32>)]) -> Vec<Chunk> {
    let mut chunks = texts(&pairs.iter().map(|(text, _)| *text).collect::<Vec<_>>());
    for (chunk, (_, vector)) in chunks.iter_mut().zip(pairs) {
        chunk.dense = Some(vector.clone());
    }
    chunks
}

fn question(text: &str, dense: Option<Vec<f32>>, limit: u32) -> SearchQuery {
    SearchQuery {
        text: text.to_owned(),
        dense,
        limit,
    }
}

async fn search(store: &dyn VectorStore, tenant: &TenantId, text: &str, limit: u32) -> Vec<Hit> {
    store.search(tenant, &question(text, None, limit)).await.unwrap()
}

async fn found(store: &dyn VectorStore, tenant: &TenantId, text: &str) -> Vec<String> {
    search(store, tenant, text, 100).await.iter().map(place).collect()
}

fn place(hit: &Hit) -> String {
    format!("{}/{}", hit.document_id.as_str(), hit.chunk_index)
}
