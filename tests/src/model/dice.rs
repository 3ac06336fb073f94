//! Numbers from a seed: the same on every machine, and for ever.

/// A small generator of numbers (splitmix64): a seed must mean the same case whatever library is used elsewhere.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, and without, `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        let end = end.max(1) as u64;
        usize::try_from(self.next() % end).unwrap_or_default()
    }

    /// From `low` to `high`, both included.
    pub(super) fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high + 1 - low)
    }

    /// So many times of a hundred.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(super) fn number(&mut self, low: i64, high: i64) -> i64 {
        let width = usize::try_from(high - low).unwrap_or_default();
        low + i64::try_from(self.below(width + 1)).unwrap_or_default()
    }

    pub(super) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let at = self.below(of.len());
        &of[at]
    }

    /// One of several kinds, each as often as its weight says.
    pub(super) fn weighted<T: Copy>(&mut self, kinds: &[(usize, T)]) -> T {
        let sum = kinds.iter().map(|(weight, _)| weight).sum();
        let mut left = self.below(sum);
        for (weight, kind) in kinds {
            if left < *weight {
                return *kind;
            }
            left -= weight;
        }
        kinds[0].1
    }
}
