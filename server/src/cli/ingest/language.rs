//! The language of a knowledge base: told by the user, set by the tenant, or told by the first documents with sentences in
//! them.

use std::path::Path;

use stepgraph::TenantId;
use stepgraph_nodes::{
    language::{Language, detect},
    parse::parse_bytes,
    service::{FileType, KnowledgeBase},
};

use super::{
    super::{CliError, output::say},
    collect::Input,
};
use crate::app::Installation;

/// How many documents are read to tell the language, spread over all of them.
const DOCUMENTS_READ_MAX: usize = 7;

/// Fixes the language that was asked for. All documents of a knowledge base are stemmed alike, so the first one stays.
pub(super) async fn fix(installation: &Installation, tenant: &TenantId, language: Language) -> Result<(), CliError> {
    let kept = prepare(installation, tenant, language).await?;
    if kept == language.code() {
        return Ok(());
    }
    Err(CliError::Language {
        tenant: tenant.to_string(),
        kept,
        asked: language.code().to_owned(),
    })
}

/// Takes the language that the tenant has set, else tells it from the text, unless it is fixed already.
pub(super) async fn choose(installation: &Installation, tenant: &TenantId, inputs: &[Input]) -> Result<(), CliError> {
    let client = installation.records.clients.by_id(tenant.as_str()).await?;
    match client.and_then(|client| client.settings.language) {
        Some(language) => prepare(installation, tenant, language).await.map(drop),
        None => tell(installation, tenant, inputs).await,
    }
}

/// Tells the language by what most of a few documents are written in, unless it is fixed already. Left to the ingestion
/// itself, whichever document comes through first would decide, and that may be a table of numbers.
async fn tell(installation: &Installation, tenant: &TenantId, inputs: &[Input]) -> Result<(), CliError> {
    if installation.vectors.knowledge_base(tenant).await?.is_some() {
        return Ok(());
    }
    let prose = |input: &Input| match input.file_type {
        Some(file_type @ (FileType::Pdf | FileType::Docx | FileType::Txt)) => Some((input.path.clone(), file_type)),
        Some(FileType::Csv) | None => None,
    };
    let prose: Vec<_> = inputs.iter().filter_map(prose).collect();
    let every = prose.len().div_ceil(DOCUMENTS_READ_MAX).max(1);
    let mut languages = Vec::new();
    for (path, file_type) in prose.iter().step_by(every) {
        languages.push(language_of(installation, path, *file_type).await);
    }
    let Some(language) = most_frequent(&languages) else {
        return Ok(());
    };
    let kept = prepare(installation, tenant, language).await?;
    say(&format!(
        "language of `{tenant}`'s documents: {kept}, told from their text (--language says otherwise)"
    ));
    Ok(())
}

/// The language that stands there most often, the first of several; none where no document has one.
fn most_frequent(languages: &[Language]) -> Option<Language> {
    let known = || languages.iter().filter(|language| **language != Language::UNDETERMINED);
    let votes = |language: &Language| known().filter(|other| *other == language).count();
    // Of equal ones `max_by_key` takes the last.
    known().rev().max_by_key(|language| votes(language)).copied()
}

/// A file that cannot be read has no language; why it cannot is said when it is ingested.
async fn language_of(installation: &Installation, path: &Path, file_type: FileType) -> Language {
    let bytes_max = u64::try_from(installation.pdf.limits().upload_bytes_max).unwrap_or(u64::MAX);
    match tokio::fs::metadata(path).await {
        Ok(file) if file.len() <= bytes_max => {}
        Ok(_) | Err(_) => return Language::UNDETERMINED,
    }
    let Ok(bytes) = tokio::fs::read(path).await else {
        return Language::UNDETERMINED;
    };
    let parsed = parse_bytes(&installation.pdf, file_type, bytes).await;
    parsed.map_or(Language::UNDETERMINED, |parsed| detect(&parsed.text))
}

async fn prepare(installation: &Installation, tenant: &TenantId, language: Language) -> Result<String, CliError> {
    let proposal = KnowledgeBase {
        language: language.code().to_owned(),
        embedding: installation.embedding(),
    };
    Ok(installation.vectors.prepare(tenant, &proposal).await?.language)
}

#[cfg(test)]
mod tests {
    use super::{Language, most_frequent};

    #[test]
    fn the_language_of_most_documents_wins_and_the_first_of_equals() {
        let languages = |codes: &[&str]| {
            codes
                .iter()
                .map(|code| Language::parse(code).unwrap())
                .collect::<Vec<_>>()
        };

        assert_eq!(
            most_frequent(&languages(&["zh", "en", "und", "und", "und", "en"]))
                .unwrap()
                .code(),
            "en"
        );
        assert_eq!(most_frequent(&languages(&["de", "en"])).unwrap().code(), "de");
        assert_eq!(most_frequent(&languages(&["und"])), None);
    }
}
