//! The parent: starts, lets die, starts again, and judges.

use std::{
    collections::BTreeSet,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Output,
    sync::Arc,
};

use futures_util::{StreamExt as _, stream};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use stepgraph::{
    Checkpointer, Durability, Memory, Outcome,
    checkpoint::{At, Seq},
};
use tokio::process::Command;

use super::{
    child::{thread, undisturbed},
    fate::{Fate, POINTS},
    graph::{Sure, input},
    ledger::Ledger,
    place::{DURABILITIES, Place, Servers, open},
    verdict::{Report, UNREACHED},
};
use crate::TestError;

const KILLED: i32 = 9;
/// How many cases run side by side.
const CASES_AT_ONCE: usize = 4;
/// In rounds beyond the first: how far into a run a process dies at most, and how often again.
const NTH_MAX: u32 = 4;
const DEATHS_MAX: u32 = 3;
/// How long a call that a process dies in has been under way, at most: two to this power.
const PAUSES_POWER_MAX: u32 = 12;

/// What to try.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// The program that becomes a child by `child` and its orders.
    pub program: PathBuf,
    /// The stores.
    pub places: Vec<Place>,
    /// How often the whole grid is gone through: once with the first coming to each point, then at random.
    pub rounds: u32,
    /// Of the random rounds.
    pub seed: u64,
}

/// One thread's life.
#[derive(Debug, Clone)]
struct Case {
    place: Place,
    mode: (&'static str, Durability),
    point: &'static str,
    round: u32,
    fates: Vec<Fate>,
}

impl Case {
    fn name(&self) -> String {
        format!("{}-{}-{}-{}", self.place.name(), self.mode.0, self.point, self.round)
    }

    fn shown(&self) -> String {
        let fates: Vec<_> = self
            .fates
            .iter()
            .map(|fate| {
                format!(
                    "{}#{}+{}",
                    fate.point.as_deref().unwrap_or_default(),
                    fate.nth,
                    fate.pauses
                )
            })
            .collect();
        format!("{} ({})", self.name(), fates.join(", then "))
    }

    /// Why its point cannot be come to, if it cannot.
    fn unreached(&self) -> Option<&'static str> {
        let mut left_out = UNREACHED.iter();
        left_out
            .find(|(point, mode, _)| *point == self.point && *mode == self.mode.0)
            .map(|(.., reason)| *reason)
    }
}

/// Where a case's process and its judge meet.
#[derive(Debug)]
struct Ground<'a> {
    program: &'a Path,
    address: &'a str,
    folder: &'a Path,
    expected: &'a str,
}

/// Goes through the grid.
///
/// # Errors
/// That there is no server to try it on, or no child to start.
pub async fn matrix(matrix: &Matrix) -> Result<Report, TestError> {
    let folder = tempfile::tempdir()?;
    let expected = calm(&folder.path().join("calm")).await?;
    let mut servers = Servers::default();
    let mut report = Report::default();
    for place in &matrix.places {
        let address = servers.address(*place, folder.path()).await?;
        // The tables are made once, not by each process.
        drop(open(*place, &address).await?);
        let ground = Ground {
            program: &matrix.program,
            address: &address,
            folder: folder.path(),
            expected: &expected,
        };
        let store = open(*place, &address).await?;
        let cases = cases(matrix, *place);
        let tried = cases.iter().map(|case| judge(case, &ground, &store));
        let tried: Vec<_> = stream::iter(tried).buffered(CASES_AT_ONCE).collect().await;
        for (case, found) in cases.iter().zip(tried) {
            enter(&mut report, case, found);
        }
    }
    report.left_out.sort();
    report.left_out.dedup();
    Ok(report)
}

fn enter(report: &mut Report, case: &Case, found: Result<u32, TestError>) {
    match (found, case.unreached()) {
        (Err(error), _) => report.failures.push(format!("{}: {error}", case.shown())),
        (Ok(0), Some(reason)) => report
            .left_out
            .push(format!("{} under {}: {reason}", case.point, case.mode.0)),
        (Ok(0), None) if case.round == 0 => report
            .failures
            .push(format!("{}: the point was not reached", case.shown())),
        (Ok(0), None) => report.survived += 1,
        (Ok(_), Some(_)) => report.failures.push(format!(
            "{}: the point was reached: take it off the list of those that are not",
            case.shown()
        )),
        (Ok(deaths), None) => report.killed += deaths,
    }
}

/// The state that a run without a crash comes to.
async fn calm(ledger: &Path) -> Result<String, TestError> {
    let graph = undisturbed(ledger)?.checkpointer(Memory::new());
    let thread = thread("calm")?;
    let Outcome::Asked(_) = graph.run(&thread, input()).await? else {
        return Err("the calm run asked nothing".into());
    };
    let state = graph.resume(&thread).answer::<Sure>(&true).await?.done();
    Ok(serde_json::to_string(&state.ok_or("the calm run did not end")?)?)
}

fn cases(matrix: &Matrix, place: Place) -> Vec<Case> {
    let mut cases = Vec::new();
    for round in 0..matrix.rounds {
        for mode in DURABILITIES {
            for (number, point) in (0_u64..).zip(POINTS) {
                let mut random = StdRng::seed_from_u64(matrix.seed ^ (u64::from(round) << 32) ^ number);
                let mut fates = vec![fate(point, round, &mut random)];
                let more = if round == 0 {
                    0
                } else {
                    random.random_range(0..DEATHS_MAX)
                };
                for _ in 0..more {
                    let point = POINTS.choose(&mut random).copied().unwrap_or(point);
                    fates.push(fate(point, round, &mut random));
                }
                cases.push(Case {
                    place,
                    mode,
                    point,
                    round,
                    fates,
                });
            }
        }
    }
    cases
}

/// In the first round the first coming to the point, in later ones any.
fn fate(point: &str, round: u32, random: &mut StdRng) -> Fate {
    Fate {
        point: Some(point.to_owned()),
        nth: if round == 0 {
            1
        } else {
            random.random_range(1..=NTH_MAX)
        },
        pauses: 1 << random.random_range(0..=PAUSES_POWER_MAX),
    }
}

/// Lets a process die as often as it is to, then live, and says how often it died.
async fn judge(case: &Case, ground: &Ground<'_>, store: &Arc<dyn Checkpointer>) -> Result<u32, TestError> {
    let ledger = Ledger::at(&ground.folder.join(case.name()));
    let (mut deaths, mut saved, mut saved_step) = (0, BTreeSet::new(), i64::MIN);
    let lives = case.fates.iter().cloned().chain([Fate::default()]);
    for fate in lives {
        let ran_before = ledger.lines().len();
        let output = start(case, ground, &fate).await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let died = output.status.signal() == Some(KILLED);
        if !died && !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("the process failed: {complaint}").into());
        }
        // Of what an earlier process was told to be saved, nothing is done again.
        check_steps(ledger.lines().get(ran_before..).unwrap_or_default(), saved_step)?;
        for line in said.lines().filter_map(|line| line.strip_prefix("saved ")) {
            let (seq, step) = line.split_once(' ').ok_or("a line without a step")?;
            saved.insert(seq.parse::<u64>()?);
            saved_step = saved_step.max(step.parse()?);
        }
        check_kept(case, store, &saved).await?;
        if died {
            deaths += 1;
            continue;
        }
        let last = said.lines().find_map(|line| line.strip_prefix("final "));
        if last != Some(ground.expected) {
            return Err(format!("it ended in {last:?}, should be {}", ground.expected).into());
        }
    }
    check_ledger(&ledger.lines())?;
    Ok(deaths)
}

async fn start(case: &Case, ground: &Ground<'_>, fate: &Fate) -> Result<Output, TestError> {
    let mut command = Command::new(ground.program);
    command.args(["child", "--store", case.place.name(), "--address", ground.address]);
    command.args(["--thread", &case.name(), "--durability", case.mode.0]);
    command.arg("--ledger").arg(ground.folder.join(case.name()));
    if let Some(point) = &fate.point {
        command.args([
            "--die",
            point,
            "--nth",
            &fate.nth.to_string(),
            "--pauses",
            &fate.pauses.to_string(),
        ]);
    }
    Ok(command.kill_on_drop(true).output().await?)
}

/// What was told to be saved is there.
async fn check_kept(case: &Case, store: &Arc<dyn Checkpointer>, saved: &BTreeSet<u64>) -> Result<(), TestError> {
    let thread = thread(&case.name())?;
    for seq in saved {
        if store.get(&thread, At::Seq(Seq(*seq))).await?.is_none() {
            return Err(format!("checkpoint {seq} was told to be saved and is not there").into());
        }
    }
    Ok(())
}

fn check_steps(lines: &[String], saved_step: i64) -> Result<(), TestError> {
    for line in lines {
        let Some((node, step)) = line.strip_prefix("ran ").and_then(|ran| ran.split_once(' ')) else {
            continue;
        };
        if step.parse::<i64>()? <= saved_step {
            return Err(format!("node `{node}` ran again in step {step}, when step {saved_step} was saved").into());
        }
    }
    Ok(())
}

/// A journaled effect is not done again and not doubted, a recorded task does not run again, and the parcel was sent once.
fn check_ledger(lines: &[String]) -> Result<(), TestError> {
    let first = |line: &str| lines.iter().position(|found| found == line);
    let last = |start: &str| lines.iter().rposition(|found| found.starts_with(start));
    for (kept, done) in [
        ("kept charge", "charged "),
        ("kept parcel", "sent "),
        ("kept parcel", "doubted "),
        ("recorded pack", "ran pack "),
    ] {
        if let (Some(kept_at), Some(done_at)) = (first(kept), last(done))
            && done_at > kept_at
        {
            return Err(format!("`{kept}`, and later `{done}` again:\n{}", lines.join("\n")).into());
        }
    }
    let keys: BTreeSet<_> = lines.iter().filter(|line| line.starts_with("charged ")).collect();
    let parcels = lines.iter().filter(|line| *line == "sent parcel").count();
    if keys.len() != 1 || parcels != 1 {
        return Err(format!("{} payments, {parcels} parcels:\n{}", keys.len(), lines.join("\n")).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.split(", ").map(ToOwned::to_owned).collect()
    }

    #[test]
    fn a_ledger_of_one_payment_and_one_parcel_passes_and_any_other_is_seen() {
        let good = "ran pack 1, recorded pack, charged k, charged k, kept charge, sent parcel, kept parcel";
        assert!(check_ledger(&lines(good)).is_ok());
        for (bad, fault) in [
            ("charged k, kept charge, charged k, sent parcel", "charged "),
            ("charged k, charged other, sent parcel", "2 payments"),
            ("charged k, sent parcel, sent parcel", "2 parcels"),
            ("charged k", "0 parcels"),
            ("charged k, sent parcel, kept parcel, doubted parcel", "doubted "),
            (
                "ran pack 1, recorded pack, ran pack 1, charged k, sent parcel",
                "ran pack ",
            ),
        ] {
            let found = check_ledger(&lines(bad)).unwrap_err().to_string();
            assert!(found.contains(fault), "{bad}: {found}");
        }
    }

    #[test]
    fn a_step_that_was_saved_may_not_run_again() {
        assert!(check_steps(&lines("ran pack 2, kept charge"), 1).is_ok());
        assert!(check_steps(&lines("ran pack 2, ran list 1"), 1).is_err());
    }

    #[test]
    fn a_point_that_is_not_reached_fails_in_the_first_round_unless_it_is_on_the_list() {
        let case = |point, mode| Case {
            place: Place::Sqlite,
            mode,
            point,
            round: 0,
            fates: Vec::new(),
        };
        let [sync, _, exit] = DURABILITIES;
        let mut report = Report::default();
        enter(&mut report, &case("in-node", sync), Ok(0));
        enter(&mut report, &case("after-output", exit), Ok(1));
        assert_eq!(report.failures.len(), 2, "{report}");
        enter(&mut report, &case("after-output", exit), Ok(0));
        enter(&mut report, &case("in-node", sync), Ok(1));
        assert_eq!((report.failures.len(), report.left_out.len(), report.killed), (2, 1, 1));
        assert!(!report.passed());
    }
}
