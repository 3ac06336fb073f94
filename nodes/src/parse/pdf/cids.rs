//! Fonts for Chinese, Japanese and Korean that do not say what their glyphs mean, but number them as one of Adobe's
//! character collections does.

use hayro_cmap::{BfString, CMap, CMapName, CidFamily, load_embedded};
use hayro_syntax::object::{Array, Dict, Name, Object, Stream, String as PdfString};

/// From the codes of a font over numbers in a collection to characters.
pub(super) struct Cids {
    encoding: CMap,
    unicode: CMap,
}

impl Cids {
    /// For a composite font without a map of its own to Unicode.
    pub(super) fn of_font(font: &Dict<'_>) -> Option<Self> {
        if font.contains_key("ToUnicode") || font.get::<Name<'_>>("Subtype")?.as_str() != "Type0" {
            return None;
        }
        let descendant = font.get::<Array<'_>>("DescendantFonts")?.iter::<Dict<'_>>().next()?;
        let system = descendant.get::<Dict<'_>>("CIDSystemInfo")?;
        let (registry, ordering) = (
            system.get::<PdfString<'_>>("Registry")?,
            system.get::<PdfString<'_>>("Ordering")?,
        );
        let family = CidFamily::from_registry_ordering(registry.as_bytes(), ordering.as_bytes());
        let unicode = CMap::parse(load_embedded(family.ucs2_cmap()?)?, load_embedded)?;
        let encoding = match font.get::<Object<'_>>("Encoding")? {
            Object::Name(name) => match CMapName::from_bytes(name.as_ref()) {
                CMapName::IdentityH => CMap::identity_h(),
                CMapName::IdentityV => CMap::identity_v(),
                known => CMap::parse(load_embedded(known)?, load_embedded)?,
            },
            Object::Stream(stream) => parse_stream(&stream)?,
            _ => return None,
        };
        Some(Self { encoding, unicode })
    }

    pub(super) fn meaning(&self, code: u32, length: usize) -> Option<String> {
        let cid = self.encoding.lookup_cid_code(code, u8::try_from(length).ok()?)?;
        match self.unicode.lookup_bf_string(cid)? {
            BfString::Char(c) => Some(c.to_string()),
            BfString::String(text) => Some(text),
        }
    }
}

fn parse_stream(stream: &Stream<'_>) -> Option<CMap> {
    CMap::parse(&stream.decoded_data().ok()?, load_embedded)
}
