//! The XML of a Word part as text.

use quick_xml::{
    Reader, XmlVersion,
    events::{BytesRef, BytesStart, Event},
};

use super::{Limit, ParseError, ParseLimits, over};

/// A link from one part to another.
pub(super) struct Relation {
    pub(super) kind: String,
    pub(super) target: String,
}

/// The relations listed in a part; targets are resolved against `folder`.
pub(super) fn relations(xml: &str, folder: &str, limits: &ParseLimits) -> Result<Vec<Relation>, ParseError> {
    let mut found = Vec::new();
    walk(xml, limits, |step| {
        if let Step::Open("Relationship", element) = step
            && let (Some(kind), Some(target)) = (attribute(element, "Type"), attribute(element, "Target"))
        {
            let target = match target.strip_prefix('/') {
                Some(absolute) => absolute.to_owned(),
                None if folder.is_empty() => target,
                None => format!("{folder}/{target}"),
            };
            found.push(Relation { kind, target });
        }
        Ok(())
    })?;
    Ok(found)
}

/// Appends what a reader of the part sees: a line a paragraph, a blank line before a heading, tabs between cells and a
/// line a row. Deleted and moved-away text and fallbacks for old programs are left out.
pub(super) fn text(xml: &str, limits: &ParseLimits, out: &mut String) -> Result<(), ParseError> {
    let mut writer = Writer {
        out,
        unseen: 0,
        in_text: false,
    };
    walk(xml, limits, |step| {
        writer.step(&step);
        if writer.out.len() > limits.text_bytes_max {
            return Err(over(Limit::TextBytes(limits.text_bytes_max)));
        }
        Ok(())
    })?;
    writer.line();
    Ok(())
}

enum Step<'s> {
    Open(&'s str, &'s BytesStart<'s>),
    Close(&'s str),
    Text(&'s str),
}

struct Writer<'o> {
    out: &'o mut String,
    /// How many elements of unseen content are open.
    unseen: usize,
    in_text: bool,
}

impl Writer<'_> {
    fn step(&mut self, step: &Step<'_>) {
        match *step {
            Step::Open("del" | "moveFrom" | "Fallback", _) => self.unseen += 1,
            Step::Close("del" | "moveFrom" | "Fallback") => self.unseen = self.unseen.saturating_sub(1),
            _ if self.unseen > 0 => {}
            Step::Open(name, element) => self.open(name, element),
            Step::Close(name) => self.close(name),
            Step::Text(text) if self.in_text => self.out.push_str(text),
            Step::Text(_) => {}
        }
    }

    fn open(&mut self, name: &str, element: &BytesStart<'_>) {
        match name {
            "t" => self.in_text = true,
            "tab" | "ptab" if !is_tab_stop(element) => self.out.push('\t'),
            "br" | "cr" => self.out.push('\n'),
            "noBreakHyphen" => self.out.push('\u{2011}'),
            "sym" => self.out.extend(symbol(element)),
            "pStyle" if attribute(element, "w:val").is_some_and(|style| is_heading(&style)) => self.heading(),
            "outlineLvl" => self.heading(),
            _ => {}
        }
    }

    fn close(&mut self, name: &str) {
        match name {
            "t" => self.in_text = false,
            "p" | "tr" => self.line(),
            "tc" => {
                let end = self.out.trim_end_matches('\n').len();
                self.out.truncate(end);
                self.out.push('\t');
            }
            _ => {}
        }
    }

    /// Ends a line that has anything in it.
    fn line(&mut self) {
        let end = self.out.trim_end_matches(['\t', ' ']).len();
        self.out.truncate(end);
        if !self.out.is_empty() && !self.out.ends_with('\n') {
            self.out.push('\n');
        }
    }

    /// Starts a section: a blank line, unless the heading stands in the middle of a line.
    fn heading(&mut self) {
        if self.out.ends_with('\n') && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }
}

/// A `tab` with a position defines a tab stop of the paragraph's style and is no character.
fn is_tab_stop(element: &BytesStart<'_>) -> bool {
    attribute(element, "w:pos").is_some()
}

fn is_heading(style: &str) -> bool {
    let style = style.to_ascii_lowercase();
    ["heading", "title", "berschrift", "titre", "titulo"]
        .iter()
        .any(|word| style.contains(word))
}

/// A character of a symbol font; those fonts keep theirs in the private area, where the text says nothing.
fn symbol(element: &BytesStart<'_>) -> Option<char> {
    let code = u32::from_str_radix(&attribute(element, "w:char")?, 16).ok()?;
    char::from_u32(code).filter(|c| !('\u{E000}'..='\u{F8FF}').contains(c))
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let attribute = element.try_get_attribute(name).ok()??;
    attribute
        .normalized_value(XmlVersion::Implicit1_0)
        .ok()
        .map(std::borrow::Cow::into_owned)
}

/// Goes through a part without recursion and without ever following an entity of its own.
fn walk(
    xml: &str,
    limits: &ParseLimits,
    mut visit: impl FnMut(Step<'_>) -> Result<(), ParseError>,
) -> Result<(), ParseError> {
    let mut reader = Reader::from_str(xml);
    let mut depth = 0_usize;
    loop {
        match reader
            .read_event()
            .map_err(|error| ParseError::corrupt(error.to_string()))?
        {
            Event::Start(element) => {
                depth += 1;
                if depth > limits.xml_depth_max {
                    return Err(over(Limit::Depth));
                }
                visit(Step::Open(element.local_name().into_inner(), &element))?;
            }
            Event::Empty(element) => {
                visit(Step::Open(element.local_name().into_inner(), &element))?;
                visit(Step::Close(element.local_name().into_inner()))?;
            }
            Event::End(element) => {
                depth = depth.saturating_sub(1);
                visit(Step::Close(element.local_name().into_inner()))?;
            }
            Event::Text(text) => visit(Step::Text(&text.xml10_content()))?,
            Event::CData(text) => visit(Step::Text(&text.xml10_content()))?,
            Event::GeneralRef(entity) => visit(Step::Text(resolve(&entity)?.encode_utf8(&mut [0; 4])))?,
            Event::DocType(_) => return Err(ParseError::corrupt("it declares entities of its own")),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof if depth > 0 => return Err(ParseError::corrupt("it ends in the middle")),
            Event::Eof => return Ok(()),
        }
    }
}

fn resolve(entity: &BytesRef<'_>) -> Result<char, ParseError> {
    let unknown = || ParseError::corrupt(format!("unknown entity `{}`", &**entity));
    if let Some(character) = entity.resolve_char_ref().map_err(|_| unknown())? {
        return Ok(character);
    }
    match &**entity {
        "amp" => Ok('&'),
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "quot" => Ok('"'),
        "apos" => Ok('\''),
        _ => Err(unknown()),
    }
}
