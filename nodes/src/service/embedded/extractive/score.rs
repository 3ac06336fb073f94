//! Choosing the sentences that support an answer.
//!
//! A sentence is judged by the share of the question's terms that it holds, weighted by how rare they are in the passages;
//! a term above the sentence (its heading, the question it answers) or beside it counts in part. A term that no passage
//! holds weighs most, so that a question about something else finds no support.

use std::collections::{HashMap, HashSet};

use super::{
    sentences::{self, Sentence},
    terms::Terms,
};
use crate::service::Passage;

/// Share of the question's weight that the best sentence must hold.
const SUPPORT_MIN: f32 = 0.40;

/// A further sentence must hold that share of the best one's support ...
const FURTHER_SUPPORT_SHARE: f32 = 0.6;

/// ... and that share of the question that the sentences before it do not hold.
const FURTHER_NEWS_MIN: f32 = 0.2;

/// Most sentences of an answer.
const SENTENCES_MAX: usize = 3;

/// What a term counts that stands not in the sentence but in the heading or question above it, in a neighbour, or elsewhere
/// in the passage or its title.
const ABOVE: f32 = 0.8;
const BESIDE: f32 = 0.5;
const AROUND: f32 = 0.3;

/// What is left of a sentence's support when the question asks for an amount and it holds none.
const WITHOUT_AMOUNT: f32 = 0.8;

/// What each rank of its passage takes from a sentence: retrieval has an opinion, too.
const RANK_COST: f32 = 0.01;

/// Bytes of the passages by which their language is told.
const SAMPLE_BYTES: usize = 4000;

/// The sentences of an answer in reading order; none when nothing supports one.
pub(super) fn choose(question: &str, passages: &[Passage]) -> Vec<Sentence> {
    let terms = Terms::like(&sample(passages));
    let mut seen = HashSet::new();
    let asked: Vec<String> = terms
        .of(question)
        .into_iter()
        .filter(|term| seen.insert(term.clone()))
        .collect();
    let candidates = candidates(&terms, passages);
    let weights = weights(&asked, &candidates);
    let judged: Vec<Judged<'_>> = candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| candidate.sentence.answers)
        .map(|(index, candidate)| {
            judge(
                index,
                candidate,
                neighbours(&candidates, index),
                &asked,
                &weights,
                question,
            )
        })
        .collect();
    let mut chosen = select(&judged, &weights);
    chosen.sort_by_key(|judged| judged.index);
    chosen.into_iter().map(|judged| judged.sentence.clone()).collect()
}

/// A sentence with the terms of its surroundings.
struct Candidate {
    sentence: Sentence,
    own: HashSet<String>,
    above: HashSet<String>,
    passage: std::rc::Rc<HashSet<String>>,
}

/// A sentence with its support.
struct Judged<'a> {
    index: usize,
    sentence: &'a Sentence,
    /// For each term asked for, how far the sentence holds it.
    held: Vec<f32>,
    support: f32,
}

fn sample(passages: &[Passage]) -> String {
    let mut sample = String::new();
    for passage in passages {
        if sample.len() >= SAMPLE_BYTES {
            break;
        }
        sample.push_str(&passage.text);
        sample.push('\n');
    }
    sample
}

fn candidates(terms: &Terms, passages: &[Passage]) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for (number, passage) in passages.iter().enumerate() {
        let around: HashSet<String> = terms
            .of(&passage.title)
            .into_iter()
            .chain(terms.of(&passage.text))
            .collect();
        let around = std::rc::Rc::new(around);
        candidates.extend(
            sentences::split(number, &passage.text)
                .into_iter()
                .map(|sentence| Candidate {
                    own: terms.of(&sentence.text).into_iter().collect(),
                    above: terms.of(&sentence.under).into_iter().collect(),
                    passage: std::rc::Rc::clone(&around),
                    sentence,
                }),
        );
    }
    candidates
}

/// How much each term asked for says: the rarer in the passages, the more.
fn weights(asked: &[String], candidates: &[Candidate]) -> Vec<f32> {
    let mut frequency: HashMap<&str, f32> = HashMap::new();
    let mut all = 0.0;
    for candidate in candidates {
        all += 1.0;
        for term in &candidate.own {
            *frequency.entry(term).or_default() += 1.0;
        }
    }
    asked
        .iter()
        .map(|term| {
            let held = frequency.get(term.as_str()).copied().unwrap_or_default();
            (1.0_f32 + (all - held + 0.5) / (held + 0.5)).ln()
        })
        .collect()
}

fn neighbours(candidates: &[Candidate], index: usize) -> [Option<&Candidate>; 2] {
    let here = candidates.get(index).map(|candidate| candidate.sentence.passage);
    let beside = |at: Option<usize>| {
        at.and_then(|at| candidates.get(at))
            .filter(|beside| Some(beside.sentence.passage) == here)
    };
    [beside(index.checked_sub(1)), beside(index.checked_add(1))]
}

fn judge<'a>(
    index: usize,
    candidate: &'a Candidate,
    neighbours: [Option<&Candidate>; 2],
    asked: &[String],
    weights: &[f32],
    question: &str,
) -> Judged<'a> {
    let credit = |term: &String| {
        if candidate.own.contains(term) {
            1.0
        } else if candidate.above.contains(term) {
            ABOVE
        } else if neighbours.iter().flatten().any(|beside| beside.own.contains(term)) {
            BESIDE
        } else if candidate.passage.contains(term) {
            AROUND
        } else {
            0.0
        }
    };
    let held: Vec<f32> = asked.iter().map(credit).collect();
    // A sentence that neither holds nor stands under anything asked for is only near an answer.
    let touches = held.iter().any(|&held| held >= ABOVE);
    let amount = if asks_for_amount(question) && !holds_amount(&candidate.sentence.text) {
        WITHOUT_AMOUNT
    } else {
        1.0
    };
    let support = if touches { share(&held, weights) * amount } else { 0.0 };
    Judged {
        index,
        sentence: &candidate.sentence,
        held,
        support,
    }
}

/// The weighted share that `held` is of all that is asked for.
fn share(held: &[f32], weights: &[f32]) -> f32 {
    let all: f32 = weights.iter().sum();
    let sum: f32 = held.iter().zip(weights).map(|(held, weight)| held * weight).sum();
    if all > 0.0 { sum / all } else { 0.0 }
}

fn select<'a, 'b>(judged: &'b [Judged<'a>], weights: &[f32]) -> Vec<&'b Judged<'a>> {
    let mut ranked: Vec<(f32, &Judged<'a>)> = judged
        .iter()
        .filter(|judged| judged.support >= SUPPORT_MIN)
        .map(|judged| (judged.support - RANK_COST * rank(judged.sentence.passage), judged))
        .collect();
    ranked.sort_by(|(a, first), (b, second)| b.total_cmp(a).then(first.index.cmp(&second.index)));
    let mut chosen: Vec<&Judged<'a>> = Vec::new();
    let mut held: Vec<f32> = vec![0.0; weights.len()];
    for (_, next) in ranked {
        let news: Vec<f32> = next
            .held
            .iter()
            .zip(&held)
            .map(|(new, old)| (new - old).max(0.0))
            .collect();
        let enough = chosen.first().is_none_or(|best| {
            next.support >= best.support * FURTHER_SUPPORT_SHARE && share(&news, weights) >= FURTHER_NEWS_MIN
        });
        if enough && chosen.len() < SENTENCES_MAX {
            held = next.held.iter().zip(&held).map(|(new, old)| new.max(*old)).collect();
            chosen.push(next);
        }
    }
    with_antecedents(chosen, judged)
}

/// Adds the sentence before one that begins with a word pointing back to it.
fn with_antecedents<'a, 'b>(chosen: Vec<&'b Judged<'a>>, judged: &'b [Judged<'a>]) -> Vec<&'b Judged<'a>> {
    let mut whole: Vec<&Judged<'a>> = Vec::new();
    for sentence in chosen {
        if points_back(&sentence.sentence.text) {
            let before = judged.iter().find(|before| {
                before.index + 1 == sentence.index && before.sentence.passage == sentence.sentence.passage
            });
            whole.extend(before.filter(|_| whole.len() + 1 < SENTENCES_MAX));
        }
        if whole.len() < SENTENCES_MAX {
            whole.push(sentence);
        }
    }
    whole.sort_by_key(|sentence| sentence.index);
    whole.dedup_by_key(|sentence| sentence.index);
    whole
}

fn points_back(text: &str) -> bool {
    let first = text.split_whitespace().next().unwrap_or_default().to_lowercase();
    matches!(
        first.as_str(),
        "it" | "its" | "this" | "these" | "they" | "their" | "those" | "he" | "she" | "his" | "her"
    )
}

/// The rank as a number to reckon with; passages are few.
fn rank(passage: usize) -> f32 {
    f32::from(u16::try_from(passage).unwrap_or(u16::MAX))
}

fn asks_for_amount(question: &str) -> bool {
    const BEGINNINGS: &str = "how long|how many|how much|how old|how often|how far|how big|how heavy|how tall|how fast|how large|how high|\
        cuánto|cuánta|cuántos|cuántas|wie lange|wie viel|wie viele|wie oft|wie hoch|combien|quanto|quanta|quanti|when |what time|in what year|\
        what year|wann|cuándo|quand|quando";
    let question = question.to_lowercase();
    BEGINNINGS
        .split('|')
        .any(|beginning| question.contains(beginning.trim_start()))
}

fn holds_amount(sentence: &str) -> bool {
    const NUMBERS: &str = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen \
        nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion half dozen once twice lifetime daily \
        weekly monthly yearly annually uno una dos tres cuatro cinco seis siete ocho nueve diez ein eine zwei drei vier fünf sechs zehn zwölf \
        un une deux trois quatre cinq six dix monday tuesday wednesday thursday friday saturday sunday";
    sentence.chars().any(char::is_numeric)
        || sentence
            .to_lowercase()
            .split(|c: char| !c.is_alphabetic())
            .any(|word| NUMBERS.split_whitespace().any(|number| number == word))
}
