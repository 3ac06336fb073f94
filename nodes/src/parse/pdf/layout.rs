//! From glyphs on a page to lines of text.
//!
//! Glyphs are taken in the order they are drawn, which is the order of reading in nearly all documents (columns
//! included): each continues the line of the one before it, or starts a new one.

mod bidi;

use hayro_font::kurbo::{Point, Vec2};

/// A glyph as it stands on the page (y grows downwards).
#[derive(Debug, Clone)]
pub(super) struct Glyph {
    /// What it means, where the document says so.
    pub(super) text: Option<String>,
    /// Where its base line starts.
    pub(super) from: Point,
    /// Where its base line ends.
    pub(super) to: Point,
    /// The font's height on the page.
    pub(super) size: f64,
}

impl Glyph {
    /// Whether it can be seen on a page of this size.
    pub(super) fn is_on_page(&self, width: f64, height: f64) -> bool {
        let middle = self.from.midpoint(self.to);
        (0.0..=width).contains(&middle.x) && (0.0..=height + self.size / 4.0).contains(&middle.y)
    }

    fn direction(&self) -> Option<Vec2> {
        let step = self.to - self.from;
        let length = step.hypot();
        (length > 1e-3).then(|| step / length)
    }

    fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }
}

/// Shares of the font's height: a gap that is a space, one between cells of a table, how far a glyph may run into the
/// one before, how far up or down an index stands, how far the next line of a paragraph is away at most, and how near
/// a second drawing of a glyph lies that only makes it bolder.
const SPACE: f64 = 0.15;
const CELL: f64 = 1.5;
const OVERLAP: f64 = 0.5;
const SHIFT: f64 = 0.5;
const PARAGRAPH: f64 = 1.75;
const SAME_PLACE: f64 = 0.12;

/// How a glyph follows the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Again,
    Joined,
    Space,
    Cell,
    Line,
    Paragraph,
}

/// The text of a page.
pub(super) fn text(glyphs: &[Glyph]) -> String {
    let mut page = PageText::default();
    let mut previous: Option<(&Glyph, Vec2)> = None;
    for glyph in glyphs {
        let along = glyph
            .direction()
            .or(previous.map(|(_, along)| along))
            .unwrap_or(Vec2::new(1.0, 0.0));
        match previous.map_or(Step::Joined, |(before, line)| step(before, line, glyph, along)) {
            Step::Again => continue,
            Step::Joined => {}
            Step::Space => page.separate(" "),
            Step::Cell => page.separate("\t"),
            Step::Line => page.end_line(""),
            Step::Paragraph => page.end_line("\n"),
        }
        page.line.push(bidi::Item {
            text: spelt_out(glyph.text()),
            at: glyph.from.to_vec2().dot(along),
        });
        previous = Some((glyph, along));
    }
    page.end_line("");
    page.out
}

/// A page being written, line by line.
#[derive(Default)]
struct PageText {
    out: String,
    line: Vec<bidi::Item>,
    last: (String, f64),
}

impl PageText {
    fn separate(&mut self, with: &str) {
        if self
            .line
            .last()
            .is_some_and(|item| !item.text.ends_with(char::is_whitespace))
        {
            let at = self.line.last().map_or(0.0, |item| item.at);
            self.line.push(bidi::Item {
                text: with.to_owned(),
                at,
            });
        }
    }

    /// Writes the line, unless it is the one before drawn a second time, for a shadow or bolder letters.
    fn end_line(&mut self, after: &str) {
        let at = self.line.first().map_or(0.0, |item| item.at);
        let text = bidi::logical(std::mem::take(&mut self.line));
        let text = text.trim_end();
        if !text.is_empty() && (self.last.0 != text || (self.last.1 - at).abs() > 2.0) {
            self.out.push_str(text);
            self.out.push('\n');
        }
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push_str(after);
        }
        self.last = (text.to_owned(), at);
    }
}

fn step(before: &Glyph, line: Vec2, glyph: &Glyph, along: Vec2) -> Step {
    let size = before.size.max(glyph.size).max(0.01);
    if before.text == glyph.text && (glyph.from - before.from).hypot() < SAME_PLACE * size {
        return Step::Again;
    }
    let step = glyph.from - before.to;
    let (ahead, aside) = (step.dot(line) / size, step.cross(line).abs() / size);
    if line.dot(along) > 0.9 && aside < SHIFT {
        // Letters from right to left may be drawn in the order they are read: each ends where the last began.
        let behind = (before.from - glyph.to).dot(line) / size;
        if ahead < 0.0 && behind > -OVERLAP && bidi::continues_right_to_left(before.text(), glyph.text()) {
            return gap(behind);
        }
        if ahead > -OVERLAP {
            return gap(ahead);
        }
    }
    if aside > PARAGRAPH { Step::Paragraph } else { Step::Line }
}

fn gap(share: f64) -> Step {
    if share > CELL {
        Step::Cell
    } else if share > SPACE {
        Step::Space
    } else {
        Step::Joined
    }
}

/// Letters that are one glyph for looks only, spelt out so that words are found.
fn spelt_out(text: &str) -> String {
    match text {
        "\u{fb00}" => "ff",
        "\u{fb01}" => "fi",
        "\u{fb02}" => "fl",
        "\u{fb03}" => "ffi",
        "\u{fb04}" => "ffl",
        "\u{fb05}" | "\u{fb06}" => "st",
        other => other,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A word drawn from `x` on, each letter half as wide as high.
    fn word(text: &str, x: f64, y: f64, size: f64) -> Vec<Glyph> {
        let mut x = x;
        text.chars()
            .map(|c| {
                let from = Point::new(x, y);
                x += size / 2.0;
                Glyph {
                    text: Some(c.to_string()),
                    from,
                    to: Point::new(x, y),
                    size,
                }
            })
            .collect()
    }

    #[test]
    fn gaps_are_spaces_cells_lines_and_paragraphs() {
        let words = [
            ("two", 0.0, 0.0),
            ("words", 18.0, 0.0),
            ("cell", 100.0, 0.0),
            ("next", 0.0, 12.0),
            ("far", 0.0, 60.0),
        ];
        let glyphs: Vec<_> = words
            .into_iter()
            .flat_map(|(text, x, y)| word(text, x, y, 10.0))
            .collect();
        assert_eq!(text(&glyphs), "two words\tcell\nnext\n\nfar\n");
    }

    #[test]
    fn an_index_stays_on_its_line() {
        let glyphs = [word("E=mc", 0.0, 0.0, 10.0), word("2", 20.5, -3.5, 6.0)].concat();
        assert_eq!(text(&glyphs), "E=mc2\n");
    }

    #[test]
    fn letters_drawn_twice_are_read_once() {
        let once = word("bold", 0.0, 0.0, 10.0);
        let twice: Vec<_> = once.iter().flat_map(|glyph| [glyph.clone(), glyph.clone()]).collect();
        assert_eq!(text(&twice), "bold\n");
        assert_eq!(text(&[once.clone(), once].concat()), "bold\n");
    }

    #[test]
    fn text_up_the_margin_is_one_line() {
        let glyphs: Vec<_> = word("turned", 0.0, 0.0, 10.0)
            .into_iter()
            .map(|glyph| {
                let turn = |p: Point| Point::new(p.y, -p.x);
                Glyph {
                    from: turn(glyph.from),
                    to: turn(glyph.to),
                    ..glyph
                }
            })
            .collect();
        assert_eq!(text(&glyphs), "turned\n");
    }

    #[test]
    fn right_to_left_text_is_read_from_the_right_however_it_is_drawn() {
        let as_read = "שלום עולם";
        let as_seen: String = as_read.chars().rev().collect();
        assert_eq!(text(&word(&as_seen, 0.0, 0.0, 10.0)), format!("{as_read}\n"));
        let mut right_to_left = word(&as_seen, 0.0, 0.0, 10.0);
        right_to_left.reverse();
        assert_eq!(text(&right_to_left), format!("{as_read}\n"));
    }

    #[test]
    fn numbers_inside_right_to_left_text_keep_their_order() {
        let as_seen = "12 ריחמ";
        assert_eq!(text(&word(as_seen, 0.0, 0.0, 10.0)), "מחיר 12\n");
    }
}
