//! The supported languages: what detects, stems and stops each.

use rust_stemmers::Algorithm;
use whatlang::Lang;

/// What is known of a language.
pub(crate) struct Entry {
    /// ISO 639-1.
    pub(crate) code: &'static str,
    /// What the detector calls it; `None` where it can only be set.
    pub(crate) detected: Option<Lang>,
    /// Its Snowball stemmer, where there is one.
    pub(crate) stemmer: Option<Algorithm>,
    /// Whether `stop_words` has a list under the code.
    pub(crate) has_stop_words: bool,
}

const fn entry(code: &'static str, detected: Option<Lang>, stemmer: Option<Algorithm>, has_stop_words: bool) -> Entry {
    Entry {
        code,
        detected,
        stemmer,
        has_stop_words,
    }
}

/// By code.
pub(crate) const ENTRIES: &[Entry] = &[
    entry("af", Some(Lang::Afr), None, true),
    entry("ak", Some(Lang::Aka), None, false),
    entry("am", Some(Lang::Amh), None, false),
    entry("ar", Some(Lang::Ara), Some(Algorithm::Arabic), true),
    entry("az", Some(Lang::Aze), None, true),
    entry("be", Some(Lang::Bel), None, false),
    entry("bg", Some(Lang::Bul), None, true),
    entry("bn", Some(Lang::Ben), None, true),
    entry("ca", Some(Lang::Cat), None, true),
    entry("cs", Some(Lang::Ces), None, true),
    entry("cy", Some(Lang::Cym), None, false),
    entry("da", Some(Lang::Dan), Some(Algorithm::Danish), true),
    entry("de", Some(Lang::Deu), Some(Algorithm::German), true),
    entry("el", Some(Lang::Ell), Some(Algorithm::Greek), true),
    entry("en", Some(Lang::Eng), Some(Algorithm::English), true),
    entry("eo", Some(Lang::Epo), None, true),
    entry("es", Some(Lang::Spa), Some(Algorithm::Spanish), true),
    entry("et", Some(Lang::Est), None, true),
    entry("eu", None, None, true),
    entry("fa", Some(Lang::Pes), None, true),
    entry("fi", Some(Lang::Fin), Some(Algorithm::Finnish), true),
    entry("fr", Some(Lang::Fra), Some(Algorithm::French), true),
    entry("ga", None, None, true),
    entry("gl", None, None, true),
    entry("gu", Some(Lang::Guj), None, true),
    entry("he", Some(Lang::Heb), None, true),
    entry("hi", Some(Lang::Hin), None, true),
    entry("hr", Some(Lang::Hrv), None, true),
    entry("hu", Some(Lang::Hun), Some(Algorithm::Hungarian), true),
    entry("hy", Some(Lang::Hye), None, true),
    entry("id", Some(Lang::Ind), None, true),
    entry("it", Some(Lang::Ita), Some(Algorithm::Italian), true),
    entry("ja", Some(Lang::Jpn), None, true),
    entry("jv", Some(Lang::Jav), None, false),
    entry("ka", Some(Lang::Kat), None, false),
    entry("kk", None, None, true),
    entry("km", Some(Lang::Khm), None, false),
    entry("kn", Some(Lang::Kan), None, false),
    entry("ko", Some(Lang::Kor), None, true),
    entry("ku", None, None, true),
    entry("la", Some(Lang::Lat), None, true),
    entry("lt", Some(Lang::Lit), None, true),
    entry("lv", Some(Lang::Lav), None, true),
    entry("mk", Some(Lang::Mkd), None, false),
    entry("ml", Some(Lang::Mal), None, false),
    entry("mr", Some(Lang::Mar), None, true),
    entry("ms", None, None, true),
    entry("my", Some(Lang::Mya), None, false),
    entry("ne", Some(Lang::Nep), None, true),
    entry("nl", Some(Lang::Nld), Some(Algorithm::Dutch), true),
    entry("no", Some(Lang::Nob), Some(Algorithm::Norwegian), true),
    entry("or", Some(Lang::Ori), None, false),
    entry("pa", Some(Lang::Pan), None, false),
    entry("pl", Some(Lang::Pol), None, true),
    entry("pt", Some(Lang::Por), Some(Algorithm::Portuguese), true),
    entry("ro", Some(Lang::Ron), Some(Algorithm::Romanian), true),
    entry("ru", Some(Lang::Rus), Some(Algorithm::Russian), true),
    entry("si", Some(Lang::Sin), None, false),
    entry("sk", Some(Lang::Slk), None, true),
    entry("sl", Some(Lang::Slv), None, true),
    entry("sn", Some(Lang::Sna), None, false),
    entry("so", None, None, true),
    entry("sr", Some(Lang::Srp), None, false),
    entry("sv", Some(Lang::Swe), Some(Algorithm::Swedish), true),
    entry("sw", None, None, true),
    entry("ta", Some(Lang::Tam), Some(Algorithm::Tamil), false),
    entry("te", Some(Lang::Tel), None, false),
    entry("tg", None, None, true),
    entry("th", Some(Lang::Tha), None, true),
    entry("tk", Some(Lang::Tuk), None, false),
    entry("tl", Some(Lang::Tgl), None, true),
    entry("tr", Some(Lang::Tur), Some(Algorithm::Turkish), true),
    entry("uk", Some(Lang::Ukr), None, true),
    entry("ur", Some(Lang::Urd), None, true),
    entry("uz", Some(Lang::Uzb), None, false),
    entry("vi", Some(Lang::Vie), None, true),
    entry("yi", Some(Lang::Yid), None, false),
    entry("yo", None, None, true),
    entry("zh", Some(Lang::Cmn), None, true),
    entry("zu", Some(Lang::Zul), None, true),
];
