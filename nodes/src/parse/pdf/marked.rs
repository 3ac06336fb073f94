//! Marked content: passages that say what they mean in other words, and layers that are switched off.

use std::collections::HashSet;

use hayro_syntax::{
    object::{Array, Dict, Name, Object, ObjectIdentifier, String as PdfString},
    page::Resources,
};

use super::layout::Glyph;

/// Nested marks beyond which they are only counted.
const MARKS_MAX: usize = 1_024;

/// The layers (optional content groups) that are off when the document is opened.
#[derive(Debug, Default)]
pub(super) struct Layers {
    off: HashSet<ObjectIdentifier>,
}

impl Layers {
    pub(super) fn of_catalog(catalog: Option<&Dict<'_>>) -> Self {
        let mut off = HashSet::new();
        let properties = catalog.and_then(|catalog| catalog.get::<Dict<'_>>("OCProperties"));
        if let Some((properties, config)) = properties.and_then(|all| Some((all.clone(), all.get::<Dict<'_>>("D")?))) {
            if config
                .get::<Name<'_>>("BaseState")
                .is_some_and(|base| base.as_str() == "OFF")
            {
                off.extend(references(&properties, "OCGs"));
            }
            for on in references(&config, "ON") {
                off.remove(&on);
            }
            off.extend(references(&config, "OFF"));
        }
        Self { off }
    }

    /// Whether a form or an annotation belongs to a layer that is off.
    pub(super) fn hides(&self, dict: &Dict<'_>) -> bool {
        !self.off.is_empty()
            && dict
                .get::<Dict<'_>>("OC")
                .is_some_and(|group| self.group_is_off(&group))
    }

    fn group_is_off(&self, group: &Dict<'_>) -> bool {
        if group.obj_id().is_some_and(|id| self.off.contains(&id)) {
            return true;
        }
        // A membership dictionary: shown as long as one of its groups is on.
        let mut members: Vec<_> = group.get_ref("OCGs").map(ObjectIdentifier::from).into_iter().collect();
        members.extend(references(group, "OCGs"));
        let known = members.iter().filter(|id| self.off.contains(id)).count();
        known > 0 && known + 1 >= members.len()
    }
}

fn references(dict: &Dict<'_>, key: &str) -> Vec<ObjectIdentifier> {
    let Some(array) = dict.get::<Array<'_>>(key) else {
        return Vec::new();
    };
    array
        .raw_iter()
        .filter_map(|item| item.as_obj_ref())
        .map(ObjectIdentifier::from)
        .collect()
}

enum Mark {
    Plain,
    Hidden,
    /// The passage's glyphs, from this one on, mean this text.
    Means(String, usize),
}

/// The marks open at a point of a content stream.
#[derive(Default)]
pub(super) struct Marks {
    open: Vec<Mark>,
    uncounted: u64,
    hidden: u32,
}

impl Marks {
    pub(super) fn hidden(&self) -> bool {
        self.hidden > 0
    }

    pub(super) fn begin_plain(&mut self) {
        self.push(Mark::Plain);
    }

    pub(super) fn begin(
        &mut self,
        tag: &Name<'_>,
        properties: &Object<'_>,
        resources: &Resources<'_>,
        layers: &Layers,
        glyphs: usize,
    ) {
        let dict = match properties {
            Object::Dict(dict) => Some(dict.clone()),
            Object::Name(name) => resources.properties.get::<Dict<'_>>(name),
            _ => None,
        };
        let mark = match dict {
            Some(dict) if tag.as_str() == "OC" && layers.group_is_off(&dict) => Mark::Hidden,
            Some(dict) => match dict.get::<PdfString<'_>>("ActualText") {
                Some(text) => Mark::Means(text_string(text.as_bytes()), glyphs),
                None => Mark::Plain,
            },
            None => Mark::Plain,
        };
        self.push(mark);
    }

    pub(super) fn end(&mut self, glyphs: &mut [Glyph]) {
        if self.uncounted > 0 {
            self.uncounted -= 1;
            return;
        }
        match self.open.pop() {
            Some(Mark::Hidden) => self.hidden -= 1,
            Some(Mark::Means(text, start)) => {
                // Said once, at the first glyph; the others keep their places and say nothing.
                let mut text = Some(text);
                for glyph in glyphs.iter_mut().skip(start) {
                    glyph.text = Some(text.take().unwrap_or_default());
                }
            }
            Some(Mark::Plain) | None => {}
        }
    }

    fn push(&mut self, mark: Mark) {
        if self.open.len() >= MARKS_MAX {
            self.uncounted += 1;
            return;
        }
        if matches!(mark, Mark::Hidden) {
            self.hidden += 1;
        }
        self.open.push(mark);
    }
}

/// A text string of the document itself: UTF-16 or UTF-8 with a mark, else close enough to Latin-1.
pub(super) fn text_string(bytes: &[u8]) -> String {
    match bytes {
        [0xFE, 0xFF, rest @ ..] => encoding_rs::UTF_16BE.decode_without_bom_handling(rest).0.into_owned(),
        [0xFF, 0xFE, rest @ ..] => encoding_rs::UTF_16LE.decode_without_bom_handling(rest).0.into_owned(),
        [0xEF, 0xBB, 0xBF, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        _ => encoding_rs::WINDOWS_1252
            .decode_without_bom_handling(bytes)
            .0
            .into_owned(),
    }
}
