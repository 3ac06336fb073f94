use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    bm25::{Scored, Totals, Wanted},
    fusion::Best,
    postings::Posting,
    *,
};

fn tenant(name: &str) -> TenantId {
    TenantId::authenticated(name).unwrap()
}

fn id(document: usize) -> DocumentId {
    DocumentId::new(format!("document-{document}"))
}

fn chunks(texts: &[String], dense: bool) -> Vec<Chunk> {
    let chunk = |(index, text): (u32, &String)| Chunk {
        index,
        title: "lamp".to_owned(),
        text: text.clone(),
        dense: dense.then(|| vec![1.0 + f32::from(u8::try_from(text.len()).unwrap()), 1.0]),
    };
    (0..).zip(texts).map(chunk).collect()
}

fn base(dense: bool) -> KnowledgeBase {
    KnowledgeBase {
        language: "en".to_owned(),
        embedding: dense.then(|| (ModelName::new("mini"), 2)),
    }
}

/// All that ranking reads of a tenant, by document and index instead of chunk ids.
#[derive(Debug, PartialEq)]
struct Ranked {
    totals: Totals,
    postings: BTreeMap<(String, String, i64), (u16, u32)>,
    vectors: BTreeMap<(String, i64), Vec<u8>>,
}

async fn ranked(store: &SqliteVectors, tenant: &TenantId) -> Ranked {
    let mut connection = store.readers.acquire().await.unwrap();
    let stored = read::tenant(&mut connection, tenant).await.unwrap().unwrap();
    let names: Vec<(i64, String, i64)> = sqlx::query_as("SELECT id, document, chunk_index FROM chunk WHERE tenant = ?")
        .bind(stored.id)
        .fetch_all(&mut *connection)
        .await
        .unwrap();
    let names: BTreeMap<i64, (String, i64)> = names.into_iter().map(|(id, name, index)| (id, (name, index))).collect();
    let rows: Vec<(String, i64, Vec<u8>)> =
        sqlx::query_as("SELECT term, block, entries FROM posting WHERE tenant = ? ORDER BY term, block")
            .bind(stored.id)
            .fetch_all(&mut *connection)
            .await
            .unwrap();
    let mut found = BTreeMap::new();
    for (term, block, entries) in rows {
        let entries: Vec<Posting> = postings::unpack(&entries).collect();
        assert!(!entries.is_empty(), "an empty row of `{term}` was left");
        assert!(entries.is_sorted_by(|a, b| a.slot < b.slot), "{entries:?}");
        for entry in entries {
            let chunk = postings::chunk_at(u32::try_from(block).unwrap(), entry.slot);
            let (name, index) = names[&i64::from(chunk)].clone();
            found.insert((term.clone(), name, index), (entry.occurrences, entry.length));
        }
    }
    let vectors: Vec<(i64, Vec<u8>)> = sqlx::query_as("SELECT chunk, components FROM vector WHERE tenant = ?")
        .bind(stored.id)
        .fetch_all(&mut *connection)
        .await
        .unwrap();
    Ranked {
        totals: stored.totals,
        postings: found,
        vectors: vectors
            .into_iter()
            .map(|(chunk, bytes)| (names[&chunk].clone(), bytes))
            .collect(),
    }
}

#[derive(Debug, Clone)]
enum Change {
    Replace(usize, Vec<String>),
    ReplaceMany(Vec<(usize, Vec<String>)>),
    Delete(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let texts = || proptest::collection::vec("(red|blue|lamp|shade|the|switches){0,6}", 0..4);
    let texts = move || texts().prop_map(|texts| texts.into_iter().map(|text| spaced(&text)).collect::<Vec<_>>());
    prop_oneof![
        (0..4_usize, texts()).prop_map(|(document, texts)| Change::Replace(document, texts)),
        proptest::collection::vec((0..4_usize, texts()), 0..4).prop_map(Change::ReplaceMany),
        (0..4_usize).prop_map(Change::Delete),
    ]
}

fn spaced(text: &str) -> String {
    ["red", "blue", "lamp", "shade", "the", "switches"]
        .iter()
        .fold(text.to_owned(), |text, word| text.replace(word, &format!("{word} ")))
}

async fn statistics_equal_a_fresh_count(changes: Vec<Change>, padding: usize, dense: bool) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteVectors::open(folder.path().join("vectors.db")).await.unwrap();
    let (edited, fresh) = (tenant("changed"), tenant("fresh"));
    for tenant in [&edited, &fresh] {
        store.prepare(tenant, &base(dense)).await.unwrap();
    }
    // Chunks that come and go first, so that the rest falls over the border between two rows of a term.
    let padding = chunks(&vec!["red lamp".to_owned(); padding], dense);
    store.replace(&edited, &id(9), &padding).await.unwrap();
    let mut expected: BTreeMap<usize, Vec<Chunk>> = BTreeMap::new();
    for change in changes {
        match change {
            Change::Replace(document, texts) => {
                let chunks = chunks(&texts, dense);
                store.replace(&edited, &id(document), &chunks).await.unwrap();
                expected.insert(document, chunks);
            }
            Change::ReplaceMany(documents) => {
                let documents: Vec<_> = documents.iter().map(|(n, texts)| (*n, chunks(texts, dense))).collect();
                let named: Vec<_> = documents.iter().map(|(n, chunks)| (id(*n), chunks.clone())).collect();
                store.replace_many(&edited, &named).await.unwrap();
                expected.extend(documents);
            }
            Change::Delete(document) => {
                let count = store.delete(&edited, &id(document)).await.unwrap();
                let had = expected.remove(&document).unwrap_or_default();
                assert_eq!(count, u64::try_from(had.len()).unwrap());
            }
        }
    }
    store.delete(&edited, &id(9)).await.unwrap();
    for (document, chunks) in &expected {
        store.replace(&fresh, &id(*document), chunks).await.unwrap();
    }
    assert_eq!(ranked(&store, &edited).await, ranked(&store, &fresh).await);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn after_any_changes_the_statistics_equal_a_fresh_count(
        changes in proptest::collection::vec(change(), 0..8),
        padding in 250..256_usize,
        dense in any::<bool>(),
    ) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(statistics_equal_a_fresh_count(changes, padding, dense));
    }
}

#[tokio::test]
async fn the_same_content_again_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteVectors::open(folder.path().join("vectors.db")).await.unwrap();
    let tenant = tenant("acme");
    store.prepare(&tenant, &base(true)).await.unwrap();
    let texts = ["red lamp".to_owned(), "blue lamp".to_owned()];
    let written = async || -> Vec<i64> {
        let ids = sqlx::query_scalar("SELECT id FROM chunk ORDER BY id");
        ids.fetch_all(&store.readers).await.unwrap()
    };
    store.replace(&tenant, &id(1), &chunks(&texts, true)).await.unwrap();
    let first = written().await;
    store.replace(&tenant, &id(1), &chunks(&texts, true)).await.unwrap();
    assert_eq!(written().await, first, "chunk ids are new for each write");

    let mut turned = chunks(&texts, true);
    turned[1].dense = Some(vec![0.0, 1.0]);
    store.replace(&tenant, &id(1), &turned).await.unwrap();
    assert_ne!(written().await, first, "another vector is another content");
}

#[tokio::test]
async fn a_dropped_write_leaves_nothing_and_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteVectors::open(folder.path().join("vectors.db")).await.unwrap();
    let tenant = tenant("acme");
    store.prepare(&tenant, &base(false)).await.unwrap();
    let blocker = store.writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let chunks = chunks(&["red lamp".to_owned()], false);
    let document = id(1);
    let mut write = Box::pin(store.replace(&tenant, &document, &chunks));
    let waiting =
        std::future::poll_fn(|context| std::task::Poll::Ready(write.as_mut().poll(context).is_pending())).await;
    assert!(waiting);
    drop(write);
    drop(blocker);
    assert_eq!(store.count(&tenant).await.unwrap(), 0);
    store.replace(&tenant, &document, &chunks).await.unwrap();
    assert_eq!(store.count(&tenant).await.unwrap(), 1);
}

#[tokio::test]
async fn the_dense_weight_is_bounded_and_moves_the_order() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteVectors::open(folder.path().join("vectors.db")).await.unwrap();
    for weight in [-0.1, 1.1, f32::NAN] {
        let refused = store.clone().with_dense_weight(weight).unwrap_err();
        assert!(matches!(refused, ServiceError::Refused { .. }), "{refused}");
    }
    let tenant = tenant("acme");
    store.prepare(&tenant, &base(true)).await.unwrap();
    let mut all = chunks(&["red".to_owned(), "red shade".to_owned(), "blue".to_owned()], true);
    all[0].dense = Some(vec![0.0, 1.0]);
    all[1].dense = Some(vec![1.0, 0.0]);
    all[2].dense = Some(vec![1.0, 0.1]);
    store.replace(&tenant, &id(1), &all).await.unwrap();
    let query = SearchQuery {
        text: "red".to_owned(),
        dense: Some(vec![1.0, 0.0]),
        limit: 1,
    };
    let first = async |store: &SqliteVectors| store.search(&tenant, &query).await.unwrap()[0].chunk_index;
    assert_eq!(first(&store).await, 1, "first and second beat first and third");
    assert_eq!(
        first(&store.clone().with_dense_weight(0.4).unwrap()).await,
        0,
        "words decide"
    );
    let refused = SqliteVectors::open(folder.path().join("no/such/folder.db"))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("data folder"), "{refused}");
}

#[tokio::test]
async fn a_word_of_many_rows_of_the_index_is_found_in_each_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteVectors::open(folder.path().join("vectors.db")).await.unwrap();
    let tenant = tenant("acme");
    store.prepare(&tenant, &base(false)).await.unwrap();
    // Four that have all that is asked for, in four rows of the index, among 1,100 that have half of it.
    let both = [0, 300, 700, 1_099];
    let texts: Vec<String> = (0..1_100)
        .map(|index| if both.contains(&index) { "red shade" } else { "red" }.to_owned())
        .collect();
    store.replace(&tenant, &id(1), &chunks(&texts, false)).await.unwrap();

    let query = |limit| SearchQuery {
        text: "red shade".to_owned(),
        dense: None,
        limit,
    };
    let best = store.search(&tenant, &query(4)).await.unwrap();
    let all = store.search(&tenant, &query(2_000)).await.unwrap();

    assert_eq!(best.iter().map(|hit| hit.chunk_index).collect::<Vec<_>>(), both);
    assert_eq!(all.len(), texts.len());
}

fn row(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let postings = entries.iter().map(|(slot, occurrences, length)| Posting {
        slot: *slot,
        occurrences: *occurrences,
        length: *length,
    });
    postings.flat_map(Posting::pack).collect()
}

#[test]
fn scores_are_those_worked_out_by_hand() {
    // Four chunks of 10 terms on average; two hold the first term, none the second.
    let totals = Totals { chunks: 4, terms: 40 };
    let held = Wanted {
        bears_meaning: true,
        blocks: vec![(0, 8), (2, 8)],
        entries: row(&[(1, 1, 10), (0, 3, 20)]),
    };
    let unknown = Wanted {
        bears_meaning: true,
        ..Wanted::default()
    };
    let wanted = [held, unknown];
    let scored: Vec<Scored> = bm25::score(totals, &wanted).collect();
    // idf: ln(2.5 / 2.5 + 1) = ln 2 for the first, ln(4.5 / 0.5 + 1) = ln 10 for the second.
    // Coverage counts them among 50 chunks: ln(48.5 / 2.5 + 1) and ln(50.5 / 0.5 + 1).
    let coverage = 20.4_f32.ln() / (20.4_f32.ln() + 102_f32.ln());
    let expected = [
        (1, 2_f32.ln() * 2.5 / 2.5, coverage),
        (512, 2_f32.ln() * 7.5 / (3.0 + 1.5 * 1.75), coverage),
    ];
    assert_eq!(scored.len(), 2);
    for (scored, (chunk, score, coverage)) in scored.iter().zip(expected) {
        assert_eq!(scored.chunk, chunk);
        assert!(
            (scored.score - score).abs() < 1e-6 && (scored.coverage - coverage).abs() < 1e-6,
            "{scored:?}"
        );
    }
}

fn scored(list: &[(u32, f32)]) -> Vec<Scored> {
    let scored = |(chunk, score): &(u32, f32)| Scored {
        chunk: *chunk,
        score: *score,
        coverage: 0.5,
        similarity: (*score < 1.0).then_some(*score),
    };
    list.iter().map(scored).collect()
}

#[test]
fn a_cut_among_equals_is_left_to_the_caller() {
    let list = scored(&[(1, 2.0), (2, 5.0), (3, 2.0), (4, 1.0)]);
    let Best { sure, tied } = fusion::best(list.clone(), 2);
    assert_eq!(sure, scored(&[(2, 5.0)]));
    assert_eq!(
        tied.iter()
            .map(|scored| scored.chunk)
            .collect::<std::collections::BTreeSet<_>>(),
        [1, 3].into()
    );
    assert_eq!(fusion::best(list, 0), Best::default());
}

proptest! {
    #[test]
    fn the_best_of_a_long_list_are_those_of_the_whole_list_sorted(
        scores in prop::collection::vec(0_u16..2_000, 0..6_000),
        few in any::<bool>(),
        limit in 1_usize..1_500,
    ) {
        // Few different scores give many equals at the cut.
        let list: Vec<(u32, f32)> = (0..).zip(scores.iter().map(|score| f32::from(if few { score % 5 } else { *score }))).collect();
        let Best { sure, tied } = fusion::best(scored(&list), limit);

        let mut sorted = scored(&list);
        sorted.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.chunk.cmp(&b.chunk)));
        let whole = sorted.len() <= limit;
        let last = sorted.get(limit - 1).map(|last| last.score);
        let is_sure = |scored: &&Scored| whole || last.is_some_and(|last| scored.score > last);
        prop_assert_eq!(sure, sorted.iter().filter(is_sure).copied().collect::<Vec<_>>());
        let equals = sorted.iter().filter(|scored| !whole && Some(scored.score) == last);
        let ids = |list: &[Scored]| list.iter().map(|scored| scored.chunk).collect::<std::collections::BTreeSet<_>>();
        prop_assert_eq!(ids(&tied), ids(&equals.copied().collect::<Vec<_>>()));
    }
}

#[test]
fn fusion_adds_reciprocal_ranks_and_equals_share_theirs() {
    let sparse = scored(&[(1, 9.0), (2, 5.0), (3, 5.0)]);
    let fused = fusion::fuse(&sparse, scored(&[(2, 0.9), (4, 0.1)]), 0.5, 100);
    let expected = [
        (1, 1.0 / 61.0, 0.5, None),
        (2, 1.0 / 62.0 + 0.5 / 61.0, 0.5, Some(0.9)),
        (3, 1.0 / 62.0, 0.5, None),
        (4, 0.5 / 62.0, 0.0, Some(0.1)),
    ];
    assert_eq!(fused.len(), expected.len());
    for (fused, (chunk, score, coverage, similarity)) in fused.iter().zip(expected) {
        assert_eq!((fused.chunk, fused.similarity), (chunk, similarity));
        assert!((f64::from(fused.score) - score).abs() < 1e-8, "{fused:?}");
        assert!((fused.coverage - coverage).abs() < f32::EPSILON, "{fused:?}");
    }
}
