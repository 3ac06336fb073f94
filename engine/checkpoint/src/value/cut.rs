//! Where a payload is cut: around the large values that hold no other large one.

use std::ops::Range;

/// Values nested deeper are not looked into.
const DEPTH_MAX: u32 = 64;

/// Large values, one behind the other. Of lists and maps those that hold a large value are not among them, but what they
/// hold; nor is a whole map, since what changes least in it is told apart by what it holds. What is no `MessagePack` is one
/// value from its first byte to its last.
pub(super) fn large(payload: &[u8], from: usize) -> Vec<Range<usize>> {
    let mut walk = Walk {
        rest: payload,
        length: payload.len(),
        from,
        found: Vec::new(),
    };
    match walk.value(0) {
        Some(()) if walk.rest.is_empty() => walk.found,
        _ => vec![Range {
            start: 0,
            end: payload.len(),
        }],
    }
}

struct Walk<'p> {
    rest: &'p [u8],
    length: usize,
    from: usize,
    found: Vec<Range<usize>>,
}

impl Walk<'_> {
    const fn at(&self) -> usize {
        self.length - self.rest.len()
    }

    /// Goes over one value. `None` where the bytes are none.
    fn value(&mut self, depth: u32) -> Option<()> {
        let (start, before) = (self.at(), self.found.len());
        let inside = self.head()?;
        if depth == DEPTH_MAX {
            self.skip(inside)?;
        } else {
            for _ in 0..inside {
                self.value(depth + 1)?;
            }
        }
        let (end, holds_large) = (self.at(), self.found.len() > before);
        let is_whole_map = depth == 0 && inside > 0;
        if end - start >= self.from && !holds_large && !is_whole_map {
            self.found.push(start..end);
        }
        Some(())
    }

    /// Goes over so many values without looking for large ones. Each takes a byte at least, so that this ends.
    fn skip(&mut self, mut values: u64) -> Option<()> {
        while values > 0 {
            values = (values - 1).checked_add(self.head()?)?;
        }
        Some(())
    }

    /// Goes over a value that holds no other, or over the beginning of one that does, and says how many it holds.
    fn head(&mut self) -> Option<u64> {
        let marker = self.take(1)?.first().copied()?;
        match marker {
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => Some(0),
            0x80..=0x8f => Some(u64::from(marker & 0x0f) * 2),
            0x90..=0x9f => Some(u64::from(marker & 0x0f)),
            0xa0..=0xbf => self.pass(u64::from(marker & 0x1f)),
            0xc4 | 0xd9 => self.counted(1, 0),
            0xc5 | 0xda => self.counted(2, 0),
            0xc6 | 0xdb => self.counted(4, 0),
            0xc7 => self.counted(1, 1),
            0xc8 => self.counted(2, 1),
            0xc9 => self.counted(4, 1),
            0xcc | 0xd0 => self.pass(1),
            0xcd | 0xd1 => self.pass(2),
            0xce | 0xd2 | 0xca => self.pass(4),
            0xcf | 0xd3 | 0xcb => self.pass(8),
            // Of one's own types: a byte for the type, then 1, 2, 4, 8 or 16.
            0xd4..=0xd8 => self.pass(1 + (1 << (marker - 0xd4))),
            0xdc => self.number(2),
            0xdd => self.number(4),
            0xde => self.number(2).map(|entries| entries * 2),
            0xdf => self.number(4).map(|entries| entries * 2),
            0xc1 => None,
        }
    }

    /// Goes over bytes behind their length, which takes so many bytes itself.
    fn counted(&mut self, length: usize, type_bytes: u64) -> Option<u64> {
        let bytes = self.number(length)?;
        self.pass(bytes + type_bytes)
    }

    fn number(&mut self, bytes: usize) -> Option<u64> {
        let taken = self.take(bytes)?;
        Some(taken.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn pass(&mut self, bytes: u64) -> Option<u64> {
        self.take(usize::try_from(bytes).ok()?).map(|_| 0)
    }

    fn take(&mut self, bytes: usize) -> Option<&[u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: usize = 100;

    fn text(length: u8) -> Vec<u8> {
        let mut text = vec![0xd9, length];
        text.resize(2 + usize::from(length), b'x');
        text
    }

    fn cut(payload: &[u8]) -> Vec<Range<usize>> {
        large(payload, FROM)
    }

    #[test]
    fn a_large_field_is_cut_out_and_small_ones_are_not() {
        let payload = [&[0x82, 0xa1, b'a'][..], &text(98), &[0xa1, b'b'], &text(97)].concat();

        assert_eq!(cut(&payload), [Range { start: 3, end: 103 }]);
    }

    #[test]
    fn of_nested_values_the_innermost_large_ones_are_cut_out() {
        let list = [&[0x93][..], &text(100), &[0x01], &text(120)].concat();
        let payload = [&[0x81, 0xa1, b'a', 0x81, 0xa3, b's', b'e', b't'][..], &list].concat();

        assert_eq!(
            cut(&payload),
            [Range { start: 9, end: 111 }, Range { start: 112, end: 234 }]
        );
    }

    #[test]
    fn a_list_of_many_small_values_is_one_and_a_whole_map_of_them_is_none() {
        let list = [&[0x95][..], &text(30).repeat(5)].concat();
        let inside = [&[0x81, 0xa1, b'a'][..], &list].concat();
        let map = [&[0x83][..], &[&[0xa1, b'a'][..], &text(60)].concat().repeat(3)].concat();

        assert_eq!(
            cut(&inside),
            [Range {
                start: 3,
                end: inside.len()
            }]
        );
        assert_eq!(cut(&map), []);
    }

    #[test]
    fn every_form_of_a_value_is_gone_over() {
        let forms: [&[u8]; 27] = [
            &[0x05],
            &[0xff],
            &[0xc0],
            &[0xc2],
            &[0xc3],
            &[0xc4, 1, 9],
            &[0xc5, 0, 1, 9],
            &[0xc6, 0, 0, 0, 1, 9],
            &[0xc7, 1, 7, 9],
            &[0xc8, 0, 1, 7, 9],
            &[0xc9, 0, 0, 0, 1, 7, 9],
            &[0xca, 0, 0, 0, 0],
            &[0xcb, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0xcc, 1],
            &[0xcd, 0, 1],
            &[0xce, 0, 0, 0, 1],
            &[0xcf, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0xd0, 1],
            &[0xd1, 0, 1],
            &[0xd2, 0, 0, 0, 1],
            &[0xd3, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0xd4, 7, 9],
            &[0xd6, 7, 9, 9, 9, 9],
            &[0xdc, 0, 1, 0x05],
            &[0xdd, 0, 0, 0, 1, 0x05],
            &[0xde, 0, 1, 0x05, 0x05],
            &[0xdf, 0, 0, 0, 1, 0x05, 0x05],
        ];
        for form in forms {
            let payload = [&[0x92][..], form, &text(110)].concat();
            let start = 1 + form.len();
            assert_eq!(
                cut(&payload),
                [Range {
                    start,
                    end: start + 112
                }],
                "{form:02x?}"
            );
        }
    }

    #[test]
    fn what_is_no_messagepack_is_one_value() {
        for payload in [
            vec![0xc1; 120],
            [text(100), vec![0]].concat(),
            vec![0xdd; 5],
            text(99)[..50].to_vec(),
        ] {
            assert_eq!(
                cut(&payload),
                [Range {
                    start: 0,
                    end: payload.len()
                }],
                "{payload:02x?}"
            );
        }
    }

    #[test]
    fn a_value_nested_too_deep_is_cut_with_what_holds_it() {
        let payload = [&[0x91; 70][..], &text(100)].concat();

        assert_eq!(
            cut(&payload),
            [Range {
                start: 64,
                end: payload.len()
            }]
        );
    }
}
