//! Scripts that write no spaces between words, told by character.

/// A script whose runs are cut into bigrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unspaced {
    /// Han and Kana, which Japanese mixes inside one word.
    HanKana,
    /// Hangul: spaced, but particles cling to words, and bigrams see through them.
    Hangul,
    /// Thai.
    Thai,
    /// Lao, Khmer and Burmese.
    SouthEastAsian,
}

/// The script of a character that is cut into bigrams, `None` for all others.
pub(super) const fn unspaced(c: char) -> Option<Unspaced> {
    match c {
        '\u{3005}'..='\u{3007}'
        | '\u{3041}'..='\u{3096}'
        | '\u{309D}'..='\u{30FA}'
        | '\u{30FC}'..='\u{30FF}'
        | '\u{31F0}'..='\u{31FF}'
        | '\u{3400}'..='\u{4DBF}'
        | '\u{4E00}'..='\u{9FFF}'
        | '\u{F900}'..='\u{FAFF}'
        | '\u{20000}'..='\u{323AF}' => Some(Unspaced::HanKana),
        '\u{1100}'..='\u{11FF}' | '\u{3131}'..='\u{318E}' | '\u{AC00}'..='\u{D7A3}' => Some(Unspaced::Hangul),
        '\u{0E01}'..='\u{0E3A}' | '\u{0E40}'..='\u{0E4E}' => Some(Unspaced::Thai),
        '\u{0E81}'..='\u{0ECD}' | '\u{1000}'..='\u{103F}' | '\u{1780}'..='\u{17D3}' => Some(Unspaced::SouthEastAsian),
        _ => None,
    }
}

/// Whether a character is Hiragana, which in Japanese writes endings and particles.
pub(super) const fn is_hiragana(c: char) -> bool {
    matches!(c, '\u{3041}'..='\u{309F}')
}

/// How many letters a character counts for when asking whether a text is long enough to have a language: a Han
/// character or a Hangul syllable says as much as several letters.
pub(super) const fn letters(c: char) -> usize {
    match unspaced(c) {
        Some(Unspaced::HanKana | Unspaced::Hangul) => 3,
        Some(Unspaced::Thai | Unspaced::SouthEastAsian) | None => 1,
    }
}
