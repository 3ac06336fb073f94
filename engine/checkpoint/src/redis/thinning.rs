//! Taking checkpoints out of a thread in calls of bounded work. Whether one that goes is the parent of one that stays is looked
//! up page by page, and the call that takes them out looks at what has come since. More than a call may take out go youngest
//! first, when those that stay stand on their own already: breaking off anywhere leaves a thread whose every checkpoint reads.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use stepgraph::{
    CheckpointError, Checkpointer as _, ThreadKey,
    checkpoint::{Page, Seq, Thinning},
};

use super::{
    Redis, code, outcome,
    script::{self, about},
    with_values,
};
use crate::{row::unavailable, value::rows::KeptParts};

/// How often the looking begins anew because the thread was claimed meanwhile.
const BEGINNINGS_MAX: u32 = 64;

type Rebased = (Seq, Vec<Arc<[u8]>>);

/// What a call does with the checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thin {
    Look,
    Take,
}

impl Redis {
    pub(super) async fn thin_in_pages(&self, key: &ThreadKey, thinning: Thinning) -> Result<(), CheckpointError> {
        let Thinning { rebased, mut removed } = thinning;
        let page = usize::try_from(self.at_once_max).unwrap_or(usize::MAX);
        if removed.len() <= page && rebased.len() <= page {
            return self.thin_once(key, &rebased, &removed).await;
        }
        self.refuse_what_is_used(key, &rebased, &removed).await?;
        for some in rebased.chunks(page) {
            self.thin_once(key, some, &[]).await?;
        }
        removed.sort_unstable_by_key(|seq| Reverse(*seq));
        for some in removed.chunks(page) {
            self.thin_once(key, &[], some).await?;
        }
        Ok(())
    }

    /// Takes out so many as a call may, all of them or none.
    async fn thin_once(&self, key: &ThreadKey, rebased: &[Rebased], removed: &[Seq]) -> Result<(), CheckpointError> {
        let (mut thin, mut seen, mut beginnings) = (Thin::Take, String::new(), 0);
        loop {
            let mut call = about(&script::THIN, &self.prefix, key);
            let word = match thin {
                Thin::Look => "look",
                Thin::Take => "take",
            };
            call.arg(word).arg(self.at_once_max).arg(&seen).arg(removed.len());
            for seq in removed {
                call.arg(seq.0);
            }
            for (seq, parts) in rebased {
                call.arg(seq.0);
                if thin == Thin::Look {
                    call.arg("").arg("");
                    continue;
                }
                let kept = KeptParts::of_parts(parts, self.keeping);
                call.arg(code::whole(&kept.bytes));
                with_values(&mut call, &kept);
            }
            let said: Vec<String> = self.call(&call).await?;
            thin = match said.first().map(String::as_str) {
                Some("more") => Thin::Look,
                Some("looked") => Thin::Take,
                _ => return outcome(key, None, &said).map(drop),
            };
            let new = said.into_iter().nth(1).unwrap_or_default();
            beginnings += u32::from(epoch(&new) != epoch(&seen));
            if beginnings > BEGINNINGS_MAX {
                let message =
                    format!("thread {key} is claimed again and again while it is looked through; thin it later");
                return Err(unavailable(message, None));
            }
            seen = new;
        }
    }

    /// Looks through all before anything of it goes: what then comes between is refused by the call that meets it.
    async fn refuse_what_is_used(
        &self,
        key: &ThreadKey,
        rebased: &[Rebased],
        removed: &[Seq],
    ) -> Result<(), CheckpointError> {
        let goes: HashSet<Seq> = removed.iter().copied().collect();
        let stands: BTreeSet<Seq> = rebased.iter().map(|(seq, _)| *seq).collect();
        let used = |seq| Err(CheckpointError::InUse { key: key.clone(), seq });
        let heads = self.branches(key).await?.into_iter().map(|branch| branch.head);
        let named = self.tags(key).await?.into_iter().map(|tag| tag.seq);
        if let Some(seq) = heads.chain(named).find(|seq| goes.contains(seq)) {
            return used(seq);
        }
        let oldest = removed.iter().min().copied();
        let mut page = Page {
            before: None,
            limit: self.at_once_max,
        };
        while page
            .before
            .is_none_or(|before| oldest.is_some_and(|oldest| before > oldest))
        {
            let infos = self.list(key, page).await?;
            let stays = infos
                .iter()
                .filter(|info| !goes.contains(&info.seq) && !stands.contains(&info.seq));
            let mut parents = stays.filter_map(|info| info.parent);
            if let Some(seq) = parents.find(|parent| goes.contains(parent)) {
                return used(seq);
            }
            let Some(last) = infos.last() else { break };
            page.before = Some(last.seq);
        }
        Ok(())
    }
}

/// The epoch in which the thread was looked through, as the script writes it.
fn epoch(seen: &str) -> &str {
    seen.split(',').next().unwrap_or_default()
}
