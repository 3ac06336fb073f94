//! From glyphs on a page to lines of text.

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
}

/// Shares of the font's height.
const SPACE: f64 = 0.15;
const CELL: f64 = 1.5;
const OVERLAP: f64 = 0.5;
const SHIFT: f64 = 0.5;
const PARAGRAPH: f64 = 1.75;

/// The text of a page.
pub(super) fn text(glyphs: &[Glyph]) -> String {
    let mut out = String::new();
    let mut previous: Option<(&Glyph, Vec2)> = None;
    for glyph in glyphs {
        let along = direction(glyph).or(previous.map(|(_, along)| along)).unwrap_or(Vec2::new(1.0, 0.0));
        if let Some((before, line)) = previous {
            gap(before, line, glyph, along, &mut out);
        }
        if let Some(text) = &glyph.text {
            out.push_str(text);
        }
        previous = Some((glyph, along));
    }
    out
}

fn gap(before: &Glyph, line: Vec2, glyph: &Glyph, along: Vec2, out: &mut String) {
    let size = before.size.max(glyph.size).max(0.01);
    let step = glyph.from - before.to;
    let (ahead, aside) = (step.dot(line) / size, step.cross(line).abs() / size);
    if line.dot(along) > 0.9 && aside < SHIFT && ahead > -OVERLAP {
        if ahead > CELL {
            end(out, '\t');
        } else if ahead > SPACE {
            end(out, ' ');
        }
    } else if aside > PARAGRAPH {
        end(out, '\n');
        out.push('\n');
    } else {
        end(out, '\n');
    }
}

fn end(out: &mut String, with: char) {
    if !out.ends_with(char::is_whitespace) {
        out.push(with);
    }
}

fn direction(glyph: &Glyph) -> Option<Vec2> {
    let step = glyph.to - glyph.from;
    let length = step.hypot();
    (length > 1e-3).then(|| step / length)
}
