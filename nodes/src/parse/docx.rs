//! Word documents: a zip archive of XML parts.

mod archive;
mod body;

use super::{Limit, ParseError, ParseLimits, Parsed, hygiene};
use crate::{prompt::visible, service::FileType};
use archive::Archive;

/// The relationship that leads from the package to its main part, in both spellings of the standard.
const MAIN_PART: &str = "/officeDocument";

/// The text of the body in its order, then of foot- and endnotes.
pub(super) fn parse(bytes: &[u8], limits: &ParseLimits) -> Result<Parsed, ParseError> {
    let mut archive = Archive::open(bytes, limits)?;
    let not_word = || ParseError::UnsupportedType {
        found: "a zip archive without a Word document".to_owned(),
    };
    let relations = archive.part("_rels/.rels")?.ok_or_else(not_word)?;
    let main = body::relations(&relations, "", limits)?;
    let main = main
        .into_iter()
        .find(|relation| relation.kind.ends_with(MAIN_PART))
        .ok_or_else(not_word)?
        .target;
    if let Some(found) = other_office_type(&main) {
        return Err(ParseError::UnsupportedType {
            found: found.to_owned(),
        });
    }
    let document = archive
        .part(&main)?
        .ok_or_else(|| ParseError::corrupt("its main part is missing"))?;
    let mut text = String::new();
    body::text(&document, limits, &mut text)?;

    let (folder, name) = main.rsplit_once('/').unwrap_or(("", &main));
    let relations = archive.part(&format!("{folder}/_rels/{name}.rels"))?;
    for note in relations
        .map(|xml| body::relations(&xml, folder, limits))
        .transpose()?
        .unwrap_or_default()
    {
        if (note.kind.ends_with("/footnotes") || note.kind.ends_with("/endnotes"))
            && let Some(notes) = archive.part(&note.target)?
        {
            body::text(&notes, limits, &mut text)?;
        }
    }
    let text = hygiene::clean(text);
    let trimmed = text.trim();
    if visible(trimmed).trim().is_empty() {
        return Err(ParseError::NoText);
    }
    Ok(Parsed {
        file_type: FileType::Docx,
        text: trimmed.to_owned(),
        pages: Vec::new(),
        records: None,
    })
}

fn other_office_type(main: &str) -> Option<&'static str> {
    [
        ("xl/", "an Excel workbook"),
        ("ppt/", "a PowerPoint presentation"),
        ("visio/", "a Visio drawing"),
    ]
    .into_iter()
    .find(|(folder, _)| main.starts_with(folder))
    .map(|(_, name)| name)
}

fn over(limit: Limit) -> ParseError {
    ParseError::LimitExceeded(limit)
}
