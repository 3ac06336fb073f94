//! Where time and ids come from.

use std::{
    cell::{Cell, RefCell},
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use rand::{RngCore, SeedableRng, rngs::StdRng};
use uuid::{Builder, Uuid};

/// Gives the time and fresh ids. The engine asks nothing else for either, so that a test can hand it recorded ones.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time of day.
    fn now(&self) -> DateTime<Utc>;

    /// A fresh `UUIDv7`.
    fn id(&self) -> Uuid;

    /// Both at once, for what begins: a clock that is slow to read may read itself once.
    fn id_and_now(&self) -> (Uuid, DateTime<Utc>) {
        (self.id(), self.now())
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        date_and_time(since_epoch())
    }

    fn id(&self) -> Uuid {
        id_at(since_epoch())
    }

    fn id_and_now(&self) -> (Uuid, DateTime<Utc>) {
        let since = since_epoch();
        (id_at(since), date_and_time(since))
    }
}

fn date_and_time(since: Duration) -> DateTime<Utc> {
    thread_local! {
        // A day is looked up in the calendar once.
        static TODAY: Cell<(u64, NaiveDate)> = const { Cell::new((0, NaiveDate::MIN)) };
    }
    let (day, second) = (since.as_secs() / DAY_SECONDS, since.as_secs() % DAY_SECONDS);
    let (known, mut date) = TODAY.get();
    if known != day {
        let days = Days::new(day);
        date = DateTime::UNIX_EPOCH
            .date_naive()
            .checked_add_days(days)
            .unwrap_or_default();
        TODAY.set((day, date));
    }
    let second = u32::try_from(second).unwrap_or_default();
    let time = NaiveTime::from_num_seconds_from_midnight_opt(second, since.subsec_nanos());
    date.and_time(time.unwrap_or_default()).and_utc()
}

fn id_at(since: Duration) -> Uuid {
    thread_local! {
        // Asking the system for each id costs more than the rest of a short run's beginning.
        static RANDOM: RefCell<StdRng> = RefCell::new(StdRng::from_seed(seed()));
    }
    let mut random = [0; 10];
    RANDOM.with_borrow_mut(|rng| rng.fill_bytes(&mut random));
    let (milliseconds, count) = tick(since);
    let [high, low, ..] = &mut random;
    [*high, *low] = count.to_be_bytes();
    Builder::from_unix_timestamp_millis(milliseconds, &random).into_uuid()
}

const DAY_SECONDS: u64 = 24 * 60 * 60;

#[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The millisecond, and a number of 12 bits that grows within it: later ids sort behind earlier ones, as RFC 9562
/// (6.2, method 1) has it. When the numbers of a millisecond are used up, those of the next follow.
fn tick(now: Duration) -> (u64, u16) {
    static LAST: AtomicU64 = AtomicU64::new(0);
    const BITS: u32 = 12;
    let milliseconds = u64::try_from(now.as_millis()).unwrap_or_default();
    let next = |last: u64| (milliseconds << BITS).max(last + 1);
    let before = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
    let tick = next(before.unwrap_or_default());
    let count = u16::try_from(tick % (1 << BITS)).unwrap_or_default();
    (tick >> BITS, count)
}

/// Randomness of the system's own.
fn seed() -> [u8; 32] {
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    let mut seed = [0; 32];
    let bytes = first.as_bytes().iter().chain(second.as_bytes());
    for (slot, byte) in seed.iter_mut().zip(bytes) {
        *slot = *byte;
    }
    seed
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_time_is_that_of_the_calendar() {
        for _ in 0..2 {
            let (before, now) = (since_epoch(), SystemClock.now());
            let said = u64::try_from(now.timestamp_micros()).unwrap();
            assert!((before.as_micros()..=since_epoch().as_micros()).contains(&u128::from(said)));
        }
    }

    #[test]
    fn ids_are_of_version_7_and_never_the_same() {
        let draw = || (0..1000).map(|_| SystemClock.id()).collect::<Vec<_>>();
        let mut ids = draw();
        ids.extend(std::thread::spawn(draw).join().unwrap());
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 2000);
    }

    #[test]
    fn an_id_and_the_time_that_were_read_at_once_are_of_the_same_millisecond() {
        for _ in 0..100 {
            let (id, now) = SystemClock.id_and_now();
            let (seconds, nanoseconds) = id.get_timestamp().unwrap().to_unix();
            let milliseconds = seconds * 1_000 + u64::from(nanoseconds / 1_000_000);
            // Ids that are drawn faster than a millisecond has numbers are of those that follow.
            assert!(milliseconds >= u64::try_from(now.timestamp_millis()).unwrap());
        }
    }

    #[test]
    fn later_ids_sort_behind_earlier_ones_even_within_a_millisecond() {
        let ids: Vec<_> = (0..10_000).map(|_| SystemClock.id()).collect();
        assert!(ids.is_sorted());
    }
}
