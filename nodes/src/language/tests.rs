use proptest::prelude::*;

use super::*;

fn analyzer(code: &str) -> Analyzer {
    Analyzer::new(Language::parse(code).unwrap())
}

fn texts(code: &str, text: &str) -> Vec<String> {
    analyzer(code).terms(text).into_iter().map(|term| term.text).collect()
}

#[test]
fn a_code_is_read_in_any_case_and_without_its_region() {
    for (code, expected) in [
        ("en", "en"),
        ("PT-br", "pt"),
        ("zh_CN", "zh"),
        ("nb", "no"),
        ("nn-NO", "no"),
        ("UND", "und"),
    ] {
        assert_eq!(Language::parse(code).unwrap().code(), expected);
    }
}

#[test]
fn an_unknown_code_is_answered_with_those_there_are() {
    let message = Language::parse("xx-YY").unwrap_err().to_string();
    assert!(
        message.starts_with("`xx-YY` is not a supported language: use one of af, ak"),
        "{message}"
    );
    assert!(message.ends_with("zh, zu, or `und` for none"), "{message}");
}

#[test]
fn every_language_has_a_code_of_its_own_and_an_analyzer_that_loads() {
    let codes: Vec<&str> = Language::all().map(Language::code).collect();
    assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
    for language in Language::all() {
        assert_eq!(Language::parse(language.code()).unwrap(), language);
        assert_eq!(Analyzer::new(language).language(), language);
    }
}

#[test]
fn a_paragraph_tells_its_language() {
    let paragraphs = [
        (
            "en",
            "The kettle switches itself off as soon as the water boils, and keeps it warm for half an hour.",
        ),
        (
            "es",
            "El hervidor se apaga solo en cuanto hierve el agua y la mantiene caliente durante media hora.",
        ),
        (
            "de",
            "Der Kocher schaltet sich ab, sobald das Wasser kocht, und hält es eine halbe Stunde lang warm.",
        ),
        (
            "fr",
            "La bouilloire s'éteint dès que l'eau bout et la garde au chaud pendant une demi-heure environ.",
        ),
        (
            "ru",
            "Чайник выключается, как только вода закипает, и сохраняет её тёплой в течение получаса.",
        ),
        (
            "ar",
            "تنطفئ الغلاية من تلقاء نفسها بمجرد غليان الماء وتحافظ على دفئه لمدة نصف ساعة.",
        ),
        ("zh", "水一烧开，水壶就会自动关闭，并保温半小时。保修期为两年。"),
        ("ja", "お湯が沸くとケトルは自動的に切れ、三十分間保温します。"),
        (
            "ko",
            "물이 끓으면 주전자가 자동으로 꺼지고 삼십 분 동안 따뜻하게 유지됩니다.",
        ),
        ("th", "กาต้มน้ำจะปิดเองเมื่อน้ำเดือด และเก็บความร้อนไว้ได้ครึ่งชั่วโมง"),
    ];
    for (code, text) in paragraphs {
        assert_eq!(detect(text).code(), code, "{text}");
    }
}

#[test]
fn one_short_sentence_tells_its_language() {
    let sentences = [
        ("The pangolin weighs eleven kilos.", "en"),
        ("The capybara sings on tuesdays.", "en"),
        ("The lynx sleeps at noon, and hunts at night.", "en"),
        ("Shipping to Germany takes five days.", "en"),
        ("The warranty lasts 36 months.", "en"),
        ("Our office is closed on Sundays.", "en"),
        ("Blue widgets cost 12 euros each.", "en"),
        ("Die Garantie gilt für alle Geräte.", "de"),
        ("Das Pangolin wiegt elf Kilo.", "de"),
        ("Unser Büro ist sonntags geschlossen.", "de"),
        ("La garantie dure trente-six mois.", "fr"),
        ("Nos bureaux sont fermés le dimanche.", "fr"),
        ("La garantía dura treinta y seis meses.", "es"),
        ("El pangolín pesa once kilos.", "es"),
        ("Il bollitore si spegne quando l'acqua bolle.", "it"),
        ("A garantia dura trinta e seis meses.", "pt"),
        ("De garantie duurt zesendertig maanden.", "nl"),
        ("Гарантия действует тридцать шесть месяцев, а возврат возможен.", "ru"),
    ];
    let told = sentences.map(|(text, _)| (text, detect(text).code()));
    assert_eq!(told, sentences);
}

#[test]
fn a_text_that_does_not_tell_has_no_language() {
    for text in [
        "",
        "   ",
        "42",
        "KX-200",
        "Warranty",
        "4711;0815;2024-11-22;99.90;;;1200;3400",
        "KX-200 Ottermere Thermostat Walnut KX-300",
    ] {
        assert_eq!(detect(text), Language::UNDETERMINED, "{text}");
    }
}

#[test]
fn a_long_text_is_judged_by_its_middle_and_end_too() {
    let cover = "Guía rápida del hervidor y de todas sus piezas, para toda la familia. ".repeat(40);
    let body =
        "The kettle switches itself off as soon as the water boils, and keeps it warm for half an hour. ".repeat(400);
    assert_eq!(detect(&format!("{cover}{body}")).code(), "en");
    assert_eq!(detect(&format!("{body}{cover}")).code(), "en");
    assert!(
        samples(&body)
            .iter()
            .all(|window| window.chars().count() == WINDOW_CHARS)
    );
}

#[test]
fn words_of_one_stem_meet_in_every_language_that_has_a_stemmer() {
    let pairs = [
        ("da", "garantier", "garanti"),
        ("de", "Lieferungen", "Lieferung"),
        ("el", "εγγυήσεις", "εγγύησης"),
        ("en", "warranties", "warranty"),
        ("es", "garantías", "garantía"),
        ("fi", "takuuta", "takuut"),
        ("fr", "livraisons", "livraison"),
        ("hu", "csomagok", "csomag"),
        ("it", "garanzie", "garanzia"),
        ("nl", "leveringen", "levering"),
        ("no", "pakkene", "pakker"),
        ("pt", "garantias", "garantia"),
        ("ro", "garanțiile", "garanție"),
        ("ru", "гарантии", "гарантия"),
        ("sv", "garantierna", "garantier"),
        ("tr", "garantiler", "garanti"),
    ];
    for (code, one, other) in pairs {
        assert_eq!(texts(code, one), texts(code, other), "{code}");
        assert_ne!(texts("und", one), texts("und", other), "{code}");
    }
}

#[test]
fn stop_words_are_those_of_the_language() {
    assert_eq!(texts("en", "the kettle and its lid"), ["kettl", "lid"]);
    assert_eq!(texts("de", "der Kocher und sein Deckel"), ["koch", "deckel"]);
    assert_eq!(texts("und", "the kettle"), ["the", "kettle"]);
}

#[test]
fn an_elided_article_leaves_the_word() {
    assert_eq!(texts("fr", "l'avion d’Air"), texts("fr", "avion air"));
    assert_eq!(texts("en", "Tesla's don't"), ["tesla"]);
}

#[test]
fn signs_and_case_separate_words_and_nothing_else() {
    assert_eq!(
        texts("und", "Super_Bowl-50, v2.1 (KX200)"),
        ["super", "bowl", "50", "v2", "1", "kx200"]
    );
    assert_eq!(texts("hi", "वारंटी अवधि").len(), 2);
}

#[test]
fn compatibility_forms_and_invisible_characters_do_not_hide_a_word() {
    assert_eq!(
        texts("und", "\u{FEFF}war\u{AD}ranty eﬃcient ２０２４ STRASSE"),
        ["warranty", "efficient", "2024", "strasse"]
    );
}

#[test]
fn accents_left_out_find_the_word_where_they_do_not_make_it() {
    assert_eq!(texts("es", "canción"), texts("es", "cancion"));
    assert_eq!(texts("fr", "élève"), texts("fr", "eleve"));
    assert_ne!(texts("vi", "bán"), texts("vi", "bàn"));
    assert_ne!(texts("und", "мой"), texts("und", "мои"));
}

#[test]
fn scripts_without_spaces_are_cut_into_pairs() {
    assert_eq!(
        texts("zh", "保修期 iPhone手机2年"),
        ["保修", "修期", "iphone", "手机", "2", "年"]
    );
    assert_eq!(texts("ja", "水を沸かす"), ["水を", "を沸", "沸か", "かす"]);
    assert_eq!(texts("ko", "보증 기간은"), ["보증", "기간", "간은"]);
    assert_eq!(texts("th", "น้ำ"), texts("und", "น้ำ"));
    assert!(texts("th", "รับประกัน").iter().all(|pair| pair.chars().count() == 2));
}

#[test]
fn pairs_of_grammar_do_not_bear_the_meaning_of_a_question() {
    let bearing = |code, text| -> Vec<String> {
        let terms = analyzer(code).terms(text).into_iter();
        terms.filter(|term| term.bears_meaning).map(|term| term.text).collect()
    };
    assert_eq!(bearing("zh", "水壶的保修期"), ["水壶", "保修", "修期"]);
    assert_eq!(bearing("ja", "保証ですか"), ["保証", "証で"]);
    assert_eq!(bearing("en", "what is the warranty"), ["warranti"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_upsets_any_analyzer(text in "\\PC{0,40}|[a-zà-žа-яёα-ωάώء-ي஀-௿ \u{300}-\u{310}]{0,60}") {
        ANALYZERS.with(|analyzers| {
            for term in analyzers.iter().flat_map(|analyzer| analyzer.terms(&text)) {
                prop_assert!(!term.text.is_empty() && !term.text.contains(char::is_whitespace), "{term:?}");
            }
            Ok(())
        })?;
    }
}

thread_local! {
    /// Those that can differ: one for each stemmer, and none.
    static ANALYZERS: Vec<Analyzer> = {
        let stemmed = Language::all().filter(|language| language.entry().is_some_and(|entry| entry.stemmer.is_some()));
        stemmed.chain([Language::UNDETERMINED]).map(Analyzer::new).collect()
    };
}
