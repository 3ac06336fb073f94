//! Rows of separated values.

use super::{Limit, ParseError, ParseLimits, Parsed, Row, Table, text};
use crate::service::FileType;

const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// The rows of a file and their text: one line a row, `header: value; header: value`.
pub(super) fn parse(bytes: &[u8], limits: &ParseLimits) -> Result<Parsed, ParseError> {
    let decoded = text::decode(bytes)?;
    let (delimiter, body) = delimiter(&decoded);
    let mut reader = ::csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .flexible(true)
        .has_headers(false)
        .from_reader(body.as_bytes());
    let mut header = None;
    let mut table = Table {
        header: Vec::new(),
        rows: Vec::new(),
    };
    let (mut text, mut cells) = (String::new(), 0_usize);
    for record in reader.records() {
        let record = record.map_err(|error| ParseError::corrupt(error.to_string()))?;
        cells += record.len();
        if cells > limits.cells_max {
            return Err(ParseError::LimitExceeded(Limit::Cells(limits.cells_max)));
        }
        let values: Vec<String> = record.iter().map(str::to_owned).collect();
        if header.is_none() {
            header = Some(values);
            continue;
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let start = text.len();
        write_row(header.as_deref().unwrap_or_default(), &values, &mut text);
        if text.len() > limits.text_bytes_max {
            return Err(ParseError::LimitExceeded(Limit::TextBytes(limits.text_bytes_max)));
        }
        table.rows.push(Row {
            values,
            at: start..text.len(),
        });
    }
    table.header = header.unwrap_or_default();
    if text.is_empty() {
        // A header alone is all there is to say.
        text = table.header.join("; ");
    }
    if text.trim().is_empty() {
        return Err(ParseError::NoText);
    }
    Ok(Parsed {
        file_type: FileType::Csv,
        text,
        pages: Vec::new(),
        records: Some(table),
    })
}

/// Writes the cells that hold something, each under its column's name. Cells beyond the header stand by themselves.
fn write_row(header: &[String], values: &[String], out: &mut String) {
    let start = out.len();
    for (column, value) in values.iter().enumerate().filter(|(_, value)| !value.trim().is_empty()) {
        if out.len() > start {
            out.push_str("; ");
        }
        if let Some(name) = header
            .get(column)
            .map(|name| name.trim())
            .filter(|name| !name.is_empty())
        {
            out.push_str(name);
            out.push_str(": ");
        }
        out.push_str(value.trim());
    }
}

/// What separates the cells, and the text they start at: said by a `sep=` line, else what stands most often in the
/// first line with anything in it, outside quotes.
fn delimiter(text: &str) -> (u8, &str) {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    if let [b's', b'e', b'p', b'=', said] = first.trim_end_matches('\r').as_bytes()
        && said.is_ascii()
    {
        return (*said, rest);
    }
    let mut counts = [0_usize; DELIMITERS.len()];
    let (mut quoted, mut blank) = (false, true);
    for byte in text.bytes() {
        match byte {
            b'"' => (quoted, blank) = (!quoted, false),
            b'\n' | b'\r' if !quoted && !blank => break,
            _ if quoted => {}
            _ => {
                blank &= byte.is_ascii_whitespace() && byte != b'\t';
                for (count, _) in counts
                    .iter_mut()
                    .zip(DELIMITERS)
                    .filter(|(_, delimiter)| *delimiter == byte)
                {
                    *count += 1;
                }
            }
        }
    }
    let most = counts.iter().copied().max().unwrap_or(0);
    let best = DELIMITERS
        .into_iter()
        .zip(counts)
        .find(|(_, count)| *count == most && most > 0);
    (best.map_or(b',', |(delimiter, _)| delimiter), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Parsed {
        parse(text.as_bytes(), &ParseLimits::default()).unwrap()
    }

    #[test]
    fn the_delimiter_is_seen_in_the_header() {
        for delimiter in [',', ';', '\t', '|'] {
            let parsed = read(&format!(
                "\nname{delimiter}\"price, net; plain|tab\t\"\nLamp{delimiter}12\n"
            ));
            assert_eq!(parsed.text, "name: Lamp; price, net; plain|tab: 12", "{delimiter:?}");
        }
        assert_eq!(read("sep=;\na;b\n1,5;2\n").text, "a: 1,5; b: 2");
    }

    #[test]
    fn ragged_rows_keep_every_cell() {
        let parsed = read("a,b,c\n1,2\n1,2,3,4,5\n\n,,\n");
        let table = parsed.records.unwrap();
        assert_eq!(
            table.rows.iter().map(|row| row.values.len()).collect::<Vec<_>>(),
            [2, 5, 3]
        );
        assert_eq!(parsed.text, "a: 1; b: 2\na: 1; b: 2; c: 3; 4; 5\n");
    }

    #[test]
    fn rows_know_where_they_lie_in_the_text() {
        let parsed = read("q,a\n\"two\nlines\",yes\nplain,no\n");
        let table = parsed.records.as_ref().unwrap();
        let rows: Vec<_> = table
            .rows
            .iter()
            .map(|row| parsed.text.get(row.at.clone()).unwrap())
            .collect();
        assert_eq!(rows, ["q: two\nlines; a: yes", "q: plain; a: no"]);
        assert_eq!(
            table.records().next().unwrap().collect::<Vec<_>>(),
            [("q", "two\nlines"), ("a", "yes")]
        );
    }

    #[test]
    fn a_table_with_too_many_cells_is_refused() {
        let limits = ParseLimits {
            cells_max: 5,
            ..ParseLimits::default()
        };
        assert_eq!(
            parse(b"a,b\n1,2\n3,4\n", &limits),
            Err(ParseError::LimitExceeded(Limit::Cells(5)))
        );
    }
}
