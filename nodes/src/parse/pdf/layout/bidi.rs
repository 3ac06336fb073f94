//! Lines with text from right to left: drawn from left to right, they are turned into the order they are read in.

use std::ops::Range;

/// A part of a line and where it starts along it.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) text: String,
    pub(super) at: f64,
}

/// Whether the second may belong to the same text from right to left as the first.
pub(super) fn continues_right_to_left(before: &str, text: &str) -> bool {
    is_right_to_left(text) || (is_right_to_left(before) && direction(text).is_none())
}

/// Whether the first letter is of a script written from right to left.
fn is_right_to_left(text: &str) -> bool {
    direction(text) == Some(Direction::Right)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Left,
    Right,
}

/// `None` for spaces and punctuation, which go with what is around them.
fn direction(text: &str) -> Option<Direction> {
    text.chars().find_map(|c| match c {
        '\u{590}'..='\u{65f}'
        | '\u{66e}'..='\u{6ef}'
        | '\u{6fa}'..='\u{8ff}'
        | '\u{fb1d}'..='\u{fdff}'
        | '\u{fe70}'..='\u{fefe}' => Some(Direction::Right),
        c if c.is_alphanumeric() => Some(Direction::Left),
        _ => None,
    })
}

/// The line as it is read.
pub(super) fn logical(mut line: Vec<Item>) -> String {
    let right: Vec<f64> = line
        .iter()
        .filter(|item| is_right_to_left(&item.text))
        .map(|item| item.at)
        .collect();
    let steps = right.iter().zip(right.iter().skip(1));
    let forward = steps.clone().filter(|(before, after)| after > before).count();
    // Drawn mostly backwards, it is drawn as it is read already.
    if !right.is_empty() && forward * 2 >= right.len().saturating_sub(1) {
        let left = line
            .iter()
            .filter(|item| direction(&item.text) == Some(Direction::Left))
            .count();
        if left > right.len() {
            turn_runs(&mut line, Direction::Right);
        } else {
            line.reverse();
            turn_runs(&mut line, Direction::Left);
        }
    }
    line.iter().map(|item| item.text.as_str()).collect()
}

/// Reverses each stretch from the first to the last item of a direction with none of the other between.
fn turn_runs(line: &mut [Item], of: Direction) {
    let mut runs = Vec::new();
    let mut open: Option<Range<usize>> = None;
    for (index, item) in line.iter().enumerate() {
        match direction(&item.text) {
            Some(direction) if direction == of => open.get_or_insert(index..index).end = index + 1,
            Some(_) => runs.extend(open.take()),
            None => {}
        }
    }
    runs.extend(open);
    for run in runs {
        if let Some(run) = line.get_mut(run) {
            run.reverse();
        }
    }
}
