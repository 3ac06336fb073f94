//! The suite finds what is wrong with stores that are wrong on purpose.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use stepgraph::{
    CheckpointError, Checkpointer, Memory, Namespace, TenantId, ThreadKey,
    checkpoint::{AroundStore, At, Branch, Checkpoint, CheckpointInfo, Commit, Epoch, OutboxMessage, Page, Seq},
};
use stepgraph_checkpoint::conformance::{self, Verdict};
use uuid::Uuid;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    MixesTenants,
    MixesNamespaces,
    TakesAnyEpoch,
    TakesAnyHead,
    SendsInSpiteOfConflict,
    LosesRecords,
    LosesRuns,
    ReadsTheNewestPartOnly,
    CutsLongStates,
    ListsOldestFirst,
    IgnoresLimits,
    IgnoresBranches,
    ForgetsWhereABranchWas,
    ForgetsInnerThreads,
    DeletesNothing,
    AcknowledgesNothing,
    AcknowledgesForAnybody,
}

/// A fault, and one of the facts that it breaks.
const FAULTS: [(Fault, &str); 17] = [
    (Fault::MixesTenants, "a_tenant_cannot_get_anothers_checkpoint"),
    (Fault::MixesNamespaces, "graphs_of_a_nest_are_kept_apart"),
    (Fault::TakesAnyEpoch, "a_commit_under_an_old_epoch_is_fenced"),
    (Fault::TakesAnyHead, "of_a_hundred_writers_on_one_head_exactly_one_wins"),
    (Fault::SendsInSpiteOfConflict, "a_conflict_writes_nothing"),
    (Fault::LosesRecords, "records_come_back_with_their_checkpoint"),
    (Fault::LosesRuns, "a_run_comes_back_with_every_status"),
    (
        Fault::ReadsTheNewestPartOnly,
        "deltas_come_in_order_behind_their_snapshot",
    ),
    (Fault::CutsLongStates, "a_large_value_reads_as_it_was_written"),
    (Fault::ListsOldestFirst, "a_history_is_listed_newest_first"),
    (Fault::IgnoresLimits, "the_unfinished_are_cut_at_the_limit"),
    (Fault::IgnoresBranches, "a_branch_makes_an_old_checkpoint_the_head"),
    (
        Fault::ForgetsWhereABranchWas,
        "a_branch_that_was_left_stays_where_it_was",
    ),
    (Fault::ForgetsInnerThreads, "inner_graphs_are_listed_by_name"),
    (Fault::DeletesNothing, "deleting_takes_a_thread_with_all_its_graphs"),
    (Fault::AcknowledgesNothing, "an_acknowledged_message_is_forgotten"),
    (
        Fault::AcknowledgesForAnybody,
        "a_tenant_cannot_acknowledge_anothers_message",
    ),
];

struct Broken {
    inner: Memory,
    fault: Fault,
}

impl Broken {
    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn key(&self, key: &ThreadKey) -> ThreadKey {
        let mut key = key.clone();
        if self.has(Fault::MixesTenants) {
            key.tenant = TenantId::authenticated("everybody").unwrap();
        }
        if self.has(Fault::MixesNamespaces) {
            key.namespace = Namespace::ROOT;
        }
        key
    }

    fn limit(&self, limit: u32) -> u32 {
        if self.has(Fault::IgnoresLimits) {
            u32::MAX
        } else {
            limit
        }
    }
}

#[async_trait]
impl Checkpointer for Broken {
    async fn claim(&self, key: &ThreadKey) -> Result<Epoch, CheckpointError> {
        self.inner.claim(&self.key(key)).await
    }

    async fn commit(
        &self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        mut commit: Commit,
    ) -> Result<Option<Seq>, CheckpointError> {
        let key = &self.key(key);
        if self.has(Fault::LosesRecords) {
            commit.records.clear();
        }
        if self.has(Fault::LosesRuns) {
            commit.run = None;
        }
        let epoch = if self.has(Fault::TakesAnyEpoch) {
            self.inner.claim(key).await?
        } else {
            epoch
        };
        match self.inner.commit(key, epoch, expected, commit.clone()).await {
            Err(CheckpointError::Conflict { found, .. }) if self.has(Fault::TakesAnyHead) => {
                self.inner.commit(key, epoch, found, commit).await
            }
            Err(CheckpointError::Conflict { found, .. }) if self.has(Fault::SendsInSpiteOfConflict) => {
                let outbox = Commit {
                    outbox: commit.outbox,
                    ..Commit::default()
                };
                self.inner.commit(key, epoch, found, outbox).await?;
                Err(CheckpointError::Conflict {
                    key: key.clone(),
                    expected,
                    found,
                })
            }
            outcome => outcome,
        }
    }

    async fn get(&self, key: &ThreadKey, at: At) -> Result<Option<Checkpoint>, CheckpointError> {
        let mut found = self.inner.get(&self.key(key), at).await?;
        if let Some(checkpoint) = &mut found
            && self.has(Fault::CutsLongStates)
        {
            for part in checkpoint.parts.iter_mut().filter(|part| part.len() > 65_535) {
                *part = part.get(..65_535).unwrap_or_default().into();
            }
        }
        if let Some(checkpoint) = &mut found
            && self.has(Fault::ReadsTheNewestPartOnly)
        {
            checkpoint.parts.drain(..checkpoint.parts.len() - 1);
        }
        Ok(found)
    }

    async fn list(&self, key: &ThreadKey, page: Page) -> Result<Vec<CheckpointInfo>, CheckpointError> {
        let mut found = self.inner.list(&self.key(key), page).await?;
        if self.has(Fault::ListsOldestFirst) {
            found.reverse();
        }
        Ok(found)
    }

    async fn branch(&self, key: &ThreadKey, epoch: Epoch, from: Seq, name: &str) -> Result<(), CheckpointError> {
        if self.has(Fault::IgnoresBranches) {
            return Ok(());
        }
        self.inner.branch(&self.key(key), epoch, from, name).await
    }

    async fn branches(&self, key: &ThreadKey) -> Result<Vec<Branch>, CheckpointError> {
        let mut found = self.inner.branches(&self.key(key)).await?;
        if self.has(Fault::ForgetsWhereABranchWas) {
            found.retain(|branch| branch.current);
        }
        Ok(found)
    }

    async fn inner(&self, key: &ThreadKey, after: &Namespace, limit: u32) -> Result<Vec<Namespace>, CheckpointError> {
        if self.has(Fault::ForgetsInnerThreads) {
            return Ok(Vec::new());
        }
        self.inner.inner(&self.key(key), after, self.limit(limit)).await
    }

    async fn delete(&self, key: &ThreadKey) -> Result<(), CheckpointError> {
        if self.has(Fault::DeletesNothing) {
            return Ok(());
        }
        self.inner.delete(&self.key(key)).await
    }

    async fn unfinished(&self, graph: &str, limit: u32) -> Result<Vec<ThreadKey>, CheckpointError> {
        self.inner.unfinished(graph, self.limit(limit)).await
    }

    async fn outbox(&self, topic: &str, limit: u32) -> Result<Vec<(ThreadKey, OutboxMessage)>, CheckpointError> {
        self.inner.outbox(topic, self.limit(limit)).await
    }

    async fn acknowledge(&self, key: &ThreadKey, message: Uuid) -> Result<(), CheckpointError> {
        if self.has(Fault::AcknowledgesNothing) {
            return Ok(());
        }
        if self.has(Fault::AcknowledgesForAnybody) {
            for (owner, waiting) in self.inner.outbox("topic", u32::MAX).await? {
                if waiting.id == message {
                    self.inner.acknowledge(&owner, message).await?;
                }
            }
        }
        self.inner.acknowledge(&self.key(key), message).await
    }
}

#[tokio::test]
async fn every_fault_breaks_the_fact_that_forbids_it() {
    for (fault, fact) in FAULTS {
        let report = conformance::check(async || Broken {
            inner: Memory::new(),
            fault,
        })
        .await;
        assert!(
            report.failed().any(|name| name == fact),
            "{fault:?} went unseen by {fact}:\n{report}"
        );
        assert!(!report.passed());
    }
}

#[tokio::test]
async fn a_fact_left_out_is_named_with_its_reason() {
    let name = conformance::names().next().unwrap();
    let report = conformance::check_except(async || Memory::new(), &[(name, "not today")]).await;
    assert!(report.passed());
    assert_eq!(report.skipped().collect::<Vec<_>>(), [name]);
    assert_eq!(report.executed().count() + 1, conformance::names().count());
    assert!(
        report
            .verdicts()
            .any(|(_, verdict)| *verdict == Verdict::Skipped("not today".to_owned()))
    );
    assert!(report.to_string().ends_with("0 failed, 1 skipped"), "{report}");
}

#[tokio::test]
async fn leaving_out_a_fact_that_does_not_exist_fails() {
    let report = conformance::check_except(async || Memory::new(), &[("misspelt", "not today")]).await;
    assert_eq!(report.failed().collect::<Vec<_>>(), ["misspelt"]);
    assert!(!report.passed());
}

#[test]
fn no_two_facts_have_one_name() {
    let names: Vec<_> = conformance::names().collect();
    let distinct: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(distinct.len(), names.len());
    assert!(names.len() >= 40);
}

/// A store whose handle takes with it what it kept.
#[tokio::test]
async fn a_store_that_forgets_with_its_handle_is_seen() {
    let report = conformance::check_kept(async |_: &str| Memory::new()).await;
    let failed: Vec<_> = report.failed().collect();
    for fact in [
        "what_was_committed_is_read_after_reopening",
        "a_writer_goes_on_under_its_epoch_after_reopening",
        "epochs_grow_over_reopening",
        "a_commit_is_read_at_once_through_another_opening",
    ] {
        assert!(failed.contains(&fact), "{fact} went unseen:\n{report}");
    }
    let left_out: Vec<_> = conformance::kept_names()
        .map(|name| (name, "it keeps nothing"))
        .collect();
    let report = conformance::check_kept_except(async |_: &str| Memory::new(), &left_out).await;
    assert_eq!(report.skipped().count(), left_out.len());
    assert!(!report.passed(), "nothing was checked");
    let report = conformance::check_kept_except(async |_: &str| Memory::new(), &[("misspelt", "not today")]).await;
    assert!(report.failed().any(|name| name == "misspelt"));
}

/// A store in memory, and the bytes of all states that it was given.
#[derive(Default)]
struct Whole(Memory, AtomicU64);

#[async_trait]
impl AroundStore for Whole {
    fn within(&self) -> &dyn Checkpointer {
        &self.0
    }

    async fn commit(
        &self,
        key: &ThreadKey,
        epoch: Epoch,
        expected: Option<Seq>,
        commit: Commit,
    ) -> Result<Option<Seq>, CheckpointError> {
        let bytes = commit.checkpoint.as_ref().map_or(0, |new| new.payload.bytes().len());
        self.1.fetch_add(bytes as u64, Ordering::Relaxed);
        self.0.commit(key, epoch, expected, commit).await
    }
}

#[tokio::test]
async fn a_store_that_keeps_each_state_whole_is_seen() {
    let make = async || Whole::default();
    let report = conformance::check_sizes(make, async |store: &Whole| store.1.load(Ordering::Relaxed)).await;
    assert_eq!(
        report.failed().collect::<Vec<_>>(),
        conformance::size_names().collect::<Vec<_>>(),
        "{report}"
    );
}
