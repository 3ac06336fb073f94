//! Plain text: which encoding it is in.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, ISO_2022_JP, UTF_16BE, UTF_16LE};

use super::{Limit, ParseError, ParseLimits, Parsed, hygiene};
use crate::{prompt::visible, service::FileType};

/// Bytes at the start that are looked at to tell UTF-16 without a mark.
const PARITY_SAMPLE: usize = 4096;
/// So few unreadable characters are forgiven in the shortest text; beyond, one in a hundred.
const UNREADABLE_FORGIVEN: usize = 8;

/// The text of a file that is text and nothing else.
pub(super) fn parse(bytes: &[u8], limits: &ParseLimits) -> Result<Parsed, ParseError> {
    let text = decode(bytes)?;
    if text.len() > limits.text_bytes_max {
        return Err(ParseError::LimitExceeded(Limit::TextBytes(limits.text_bytes_max)));
    }
    Ok(Parsed {
        file_type: FileType::Txt,
        text,
        pages: Vec::new(),
        records: None,
    })
}

/// The bytes as text, cleaned; never empty.
///
/// Marks first (UTF-32 before UTF-16, whose mark it begins with), then what their bytes give away although they are
/// valid as something else (UTF-16 without a mark, ISO-2022-JP), then UTF-8, then the likeliest of the old encodings.
pub(super) fn decode(bytes: &[u8]) -> Result<String, ParseError> {
    let text = match bytes {
        [0xFF, 0xFE, 0, 0, rest @ ..] => utf32(rest, u32::from_le_bytes),
        [0, 0, 0xFE, 0xFF, rest @ ..] => utf32(rest, u32::from_be_bytes),
        _ => match Encoding::for_bom(bytes) {
            Some((encoding, mark)) => encoding
                .decode_without_bom_handling(bytes.get(mark..).unwrap_or_default())
                .0
                .into_owned(),
            None => unmarked(bytes),
        },
    };
    if !readable(&text) {
        return Err(ParseError::UnsupportedEncoding);
    }
    let text = hygiene::clean(text);
    if text.trim().is_empty() {
        Err(ParseError::Empty)
    } else if visible(&text).trim().is_empty() {
        Err(ParseError::NoText)
    } else {
        Ok(text)
    }
}

fn utf32(bytes: &[u8], number: fn([u8; 4]) -> u32) -> String {
    let (characters, rest) = bytes.as_chunks::<4>();
    let tail = (!rest.is_empty()).then_some(char::REPLACEMENT_CHARACTER);
    let decoded = characters
        .iter()
        .map(|c| char::from_u32(number(*c)).unwrap_or(char::REPLACEMENT_CHARACTER));
    decoded.chain(tail).collect()
}

fn unmarked(bytes: &[u8]) -> String {
    if let Some(encoding) = utf16_by_parity(bytes) {
        return encoding.decode_without_bom_handling(bytes).0.into_owned();
    }
    if bytes.is_ascii()
        && [b"\x1b$".as_slice(), b"\x1b(J"]
            .iter()
            .any(|escape| bytes.windows(escape.len()).any(|w| w == *escape))
    {
        return ISO_2022_JP.decode_without_bom_handling(bytes).0.into_owned();
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.to_owned();
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    detector.feed(bytes, true);
    detector
        .guess(None, Utf8Detection::Allow)
        .decode_without_bom_handling(bytes)
        .0
        .into_owned()
}

/// In UTF-16 the high bytes of Latin, Greek, Cyrillic, Hebrew, Arabic or Thai letters are all below 0x20, where other
/// encodings keep their controls: so nearly every second byte is one, and few of the others.
fn utf16_by_parity(bytes: &[u8]) -> Option<&'static Encoding> {
    let sample = bytes.get(..PARITY_SAMPLE).unwrap_or(bytes);
    let (pairs, _) = sample.as_chunks::<2>();
    let control = |byte: u8| byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r');
    let first = pairs.iter().filter(|[first, _]| control(*first)).count();
    let second = pairs.iter().filter(|[_, second]| control(*second)).count();
    let nearly_all = |count: usize| count * 10 > pairs.len() * 7;
    match (nearly_all(first), nearly_all(second)) {
        (true, false) if second * 4 < first => Some(UTF_16BE),
        (false, true) if first * 4 < second => Some(UTF_16LE),
        _ => None,
    }
}

/// Whether a text has next to no characters that no text has: NUL and other controls, and what could not be decoded.
fn readable(text: &str) -> bool {
    let unreadable = |c: &char| matches!(c, '\0'..='\u{8}' | '\u{e}'..='\u{1a}' | '\u{1c}'..='\u{1f}' | '\u{7f}'..='\u{84}' | '\u{86}'..='\u{9f}' | '\u{fffd}');
    let (all, bad) = text.chars().fold((0_usize, 0_usize), |(all, bad), c| {
        (all + 1, bad + usize::from(unreadable(&c)))
    });
    bad <= UNREADABLE_FORGIVEN.min(all / 4) || bad * 100 <= all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn each_encoding_gives_the_same_words() {
        let words = "Der Käufer zahlt binnen zehn Tagen, größere Mengen später.";
        let utf32: Vec<u8> = [0xFF, 0xFE, 0, 0]
            .into_iter()
            .chain(words.chars().flat_map(|c| u32::from(c).to_le_bytes()))
            .collect();
        let marked: Vec<u8> = [0xFE, 0xFF].into_iter().chain(utf16(words, u16::to_be_bytes)).collect();
        let cases = [
            words.as_bytes().to_vec(),
            [b"\xef\xbb\xbf".as_slice(), words.as_bytes()].concat(),
            utf16(words, u16::to_le_bytes),
            utf16(words, u16::to_be_bytes),
            marked,
            utf32,
            encoding_rs::WINDOWS_1252.encode(words).0.into_owned(),
        ];
        for (case, bytes) in cases.iter().enumerate() {
            assert_eq!(decode(bytes).unwrap(), words, "case {case}");
        }
    }

    #[test]
    fn old_encodings_of_other_scripts_are_told_apart() {
        for (encoding, words) in [
            (
                encoding_rs::KOI8_R,
                "Срок доставки составляет пять рабочих дней по всей стране.",
            ),
            (encoding_rs::SHIFT_JIS, "返品は購入から三十日以内に限り受け付けます。"),
            (encoding_rs::ISO_2022_JP, "返品は購入から三十日以内に限り受け付けます。"),
            (encoding_rs::EUC_KR, "환불은 영업일 기준 오 일 이내에 처리됩니다."),
        ] {
            assert_eq!(decode(&encoding.encode(words).0).unwrap(), words, "{}", encoding.name());
        }
    }

    #[test]
    fn utf16_without_a_mark_is_seen_in_other_scripts_too() {
        for words in [
            "Срок доставки — пять рабочих дней.",
            "Η αποστολή διαρκεί πέντε ημέρες.",
            "المدة خمسة أيام عمل",
        ] {
            assert_eq!(decode(&utf16(words, u16::to_le_bytes)).unwrap(), words);
            assert_eq!(decode(&utf16(words, u16::to_be_bytes)).unwrap(), words);
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_rather_than_guessed() {
        let noise: Vec<u8> = (0_u32..8192)
            .map(|i| u8::try_from((i * i * 31 + i * 7 + (i >> 3)) % 256).unwrap())
            .collect();
        assert_eq!(decode(&noise), Err(ParseError::UnsupportedEncoding));
    }

    #[test]
    fn a_few_stray_bytes_do_not_spoil_a_text() {
        assert_eq!(
            decode(b"Refund policy:\0 thirty days.\0\0 Contact support.\n").unwrap(),
            "Refund policy: thirty days. Contact support.\n"
        );
        let odd: Vec<u8> = [0xFF, 0xFE]
            .into_iter()
            .chain(utf16("Shipping takes five days", u16::to_le_bytes))
            .chain([0x41])
            .collect();
        assert!(decode(&odd).unwrap().starts_with("Shipping takes five days"));
    }

    #[test]
    fn white_space_alone_is_empty() {
        assert_eq!(decode(b" \n\t\r\n "), Err(ParseError::Empty));
    }

    #[test]
    fn what_nobody_sees_is_no_text() {
        assert_eq!(
            decode("\u{200b}\u{2060}\n\u{e0041}".as_bytes()),
            Err(ParseError::NoText)
        );
        assert!(decode("\u{200b}a".as_bytes()).is_ok());
    }
}
