//! Prices, in numbers that add up.

use chrono::NaiveDate;
use serde::{Deserialize, Deserializer, de::Error};

use crate::service::{Cost, Usage};

/// Digits behind the point that a price in dollars may have: three of a thousandth of a cent.
const DIGITS: usize = 5;

/// What a model costs, as of a day.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Prices {
    /// The day on which the provider listed them.
    #[serde(deserialize_with = "day")]
    pub as_of: NaiveDate,
    /// Of prompts.
    input: Price,
    /// Of what the provider has read before; as of prompts where it makes no difference.
    cached: Option<Price>,
    /// Of what the provider keeps to read it again; as of prompts where it makes no difference.
    cache_write: Option<Price>,
    /// Of answers.
    output: Price,
}

/// Thousandths of a millionth of a cent for one token, which is what a million tokens cost in thousandths of a cent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Price(u64);

impl Prices {
    /// What these tokens cost.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> Cost {
        let read = usage.cached_tokens.min(usage.prompt_tokens);
        let written = usage.cache_write_tokens.min(usage.prompt_tokens - read);
        let parts = [
            (usage.prompt_tokens - read - written, self.input),
            (read, self.cached.unwrap_or(self.input)),
            (written, self.cache_write.unwrap_or(self.input)),
            (usage.completion_tokens, self.output),
        ];
        let sum = parts.iter().fold(0_u64, |sum, (tokens, price)| {
            sum.saturating_add(tokens.saturating_mul(price.0))
        });
        Cost::from_microcents(sum.saturating_add(500) / 1000)
    }
}

fn day<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NaiveDate, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|_| D::Error::custom(format!("`{text}` is no day: write it as \"2026-01-31\"")))
}

impl<'de> Deserialize<'de> for Price {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The shortest text of a number is the one it was written as.
        let text = match Written::deserialize(deserializer)? {
            Written::Whole(number) => number.to_string(),
            Written::Broken(number) => number.to_string(),
        };
        parse(&text).ok_or_else(|| {
            D::Error::custom(format!(
                "`{text}` is no price: write dollars for a million tokens, with at most {DIGITS} digits behind the point"
            ))
        })
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Whole(u64),
    Broken(f64),
}

fn parse(text: &str) -> Option<Price> {
    let (whole, broken) = text.split_once('.').unwrap_or((text, ""));
    let is_number = broken.len() <= DIGITS && (whole.len() + broken.len() > 0);
    let digits = format!("{whole}{broken:0<DIGITS$}");
    let is_number = is_number && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok().map(Price)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_read_exactly() {
        for (text, thousandths_of_a_cent) in [
            ("3", 300_000),
            ("0.15", 15_000),
            ("0.005", 500),
            ("0.00001", 1),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Some(Price(thousandths_of_a_cent)), "{text}");
        }
        for text in ["", ".", "-1", "1e9", "0.000001", "1.2.3", "NaN", "inf"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
