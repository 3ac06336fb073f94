//! When a join leads on.

use std::{borrow::Cow, time::Duration};

/// When a join leads on: once all of its sources have finished, any, so many, or such a part of them; at the latest after
/// some time; and whether it waits for the others.
///
/// ```
/// use std::time::Duration;
/// use stepgraph::JoinRule;
///
/// let two_of_them = JoinRule::quorum(2).cancel_others();
/// let what_there_is = JoinRule::all().within(Duration::from_secs(5));
/// assert_ne!(two_of_them, what_there_is);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use = "a rule is given to `join_when`"]
pub struct JoinRule {
    count: Count,
    pub(crate) within: Option<Duration>,
    pub(crate) cancel_others: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Count {
    All,
    Any,
    Quorum(usize),
    Fraction(f64),
}

/// How far a product of a fraction and a number may be off: two thirds of three are two.
const ROUNDING: f64 = 1e-9;

impl JoinRule {
    /// Once every source has finished.
    pub const fn all() -> Self {
        Self::of(Count::All)
    }

    /// Once one source has finished.
    pub const fn any() -> Self {
        Self::of(Count::Any)
    }

    /// Once so many sources have finished.
    pub const fn quorum(sources: usize) -> Self {
        Self::of(Count::Quorum(sources))
    }

    /// Once such a part of the sources has finished, from 0 to 1 and rounded up: half of three sources are two. It takes at
    /// least one.
    pub const fn fraction(part: f64) -> Self {
        Self::of(Count::Fraction(part))
    }

    const fn of(count: Count) -> Self {
        Self {
            count,
            within: None,
            cancel_others: false,
        }
    }

    /// Leads on after this time with whoever has finished by then, be it nobody. The time counts from the beginning of the
    /// step in which the first source ran. Sources that still run when it has passed, or wait for an answer, are cancelled.
    /// If nothing is left to run before, it leads on at once.
    pub const fn within(mut self, limit: Duration) -> Self {
        self.within = Some(limit);
        self
    }

    /// As soon as enough sources have finished, cancels those that still run in the same step or wait for an answer there.
    /// They count as not finished, and nothing follows from them.
    pub const fn cancel_others(mut self) -> Self {
        self.cancel_others = true;
        self
    }

    /// How many of so many sources it takes.
    pub(crate) fn needed(&self, sources: usize) -> usize {
        match self.count {
            Count::All => sources,
            Count::Any => 1,
            Count::Quorum(needed) => needed,
            Count::Fraction(part) => {
                let number = |n: usize| u32::try_from(n).map_or(f64::INFINITY, f64::from);
                let wanted = part * number(sources);
                (1..sources)
                    .find(|n| number(*n) + ROUNDING >= wanted)
                    .unwrap_or(sources)
            }
        }
    }

    /// Why a join of so many sources can never do what the rule says.
    pub(crate) fn problem(&self, sources: usize) -> Option<String> {
        match self.count {
            Count::Quorum(0) => return Some("waits for none of its sources: name at least one".to_owned()),
            Count::Quorum(needed) if needed > sources => {
                return Some(format!(
                    "waits for {needed} of {sources} source(s): name fewer, or add sources"
                ));
            }
            Count::Fraction(part) if !(0.0..=1.0).contains(&part) => {
                return Some(format!(
                    "waits for {part} of its sources: a part is a number from 0 to 1"
                ));
            }
            Count::All | Count::Any | Count::Quorum(_) | Count::Fraction(_) => {}
        }
        if self.within == Some(Duration::ZERO) {
            return Some("gives its sources no time: let `within` be longer than nothing".to_owned());
        }
        (self.cancel_others && sources > 0 && self.needed(sources) == sources).then(|| {
            "waits for all its sources, so that no others are left to cancel: take `cancel_others` out".to_owned()
        })
    }

    /// The rule as it is written down beside a join's progress; `None` if it is the plain one.
    pub(crate) fn stored(&self, sources: usize) -> Option<Cow<'static, str>> {
        let label = self.label(sources)?;
        Some(match self.within {
            None => label,
            Some(limit) => format!("{label}, {limit:?}").into(),
        })
    }

    /// The rule in a drawing; `None` if it is the plain one.
    pub(crate) fn label(&self, sources: usize) -> Option<Cow<'static, str>> {
        let count: Cow<'static, str> = match self.count {
            Count::All if self.within.is_none() => return None,
            Count::All => "all".into(),
            Count::Any => "any".into(),
            Count::Quorum(_) | Count::Fraction(_) => format!("{} of {sources}", self.needed(sources)).into(),
        };
        Some(match (self.within.is_some(), self.cancel_others) {
            (false, false) => count,
            (true, false) => format!("{count}, in time").into(),
            (false, true) => format!("{count}, others cancelled").into(),
            (true, true) => format!("{count}, in time, others cancelled").into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_is_rounded_up_and_takes_at_least_one_source() {
        let needed = |part: f64, sources| JoinRule::fraction(part).needed(sources);
        assert_eq!((needed(0.5, 3), needed(0.5, 4), needed(2.0 / 3.0, 3)), (2, 2, 2));
        assert_eq!((needed(0.0, 3), needed(1.0, 3), needed(0.07, 100)), (1, 3, 7));
    }

    #[test]
    fn a_rule_that_cannot_hold_says_why() {
        let problem = |rule: JoinRule, sources| rule.problem(sources).unwrap_or_default();
        for (rule, says) in [
            (JoinRule::quorum(0), "none of its sources"),
            (JoinRule::quorum(4), "4 of 3"),
            (JoinRule::fraction(1.5), "1.5"),
            (JoinRule::fraction(-0.1), "-0.1"),
            (JoinRule::fraction(f64::NAN), "NaN"),
            (JoinRule::any().within(Duration::ZERO), "no time"),
            (JoinRule::all().cancel_others(), "no others"),
            (JoinRule::quorum(3).cancel_others(), "no others"),
        ] {
            assert!(problem(rule, 3).contains(says), "{rule:?}: {}", problem(rule, 3));
        }
        for rule in [
            JoinRule::all(),
            JoinRule::any().cancel_others(),
            JoinRule::quorum(3),
            JoinRule::fraction(0.0),
        ] {
            assert_eq!(rule.problem(3), None, "{rule:?}");
        }
    }
}
