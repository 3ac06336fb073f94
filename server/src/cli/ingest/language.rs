//! The language of a knowledge base: told by the user, or by the first documents with sentences in them.

use std::path::Path;

use stepgraph::TenantId;
use stepgraph_nodes::{
    language::{Language, detect},
    parse::parse_bytes,
    service::{FileType, KnowledgeBase, VectorStore as _},
};

use super::{
    super::{CliError, output::say},
    collect::Input,
};
use crate::app::Installation;

/// How many documents are read to tell the language.
const DOCUMENTS_READ_MAX: usize = 5;

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

/// Tells the language from the first documents that have one, unless it is fixed already. Left to the ingestion itself,
/// whichever document comes through first would decide, and that may be a table of numbers.
pub(super) async fn tell(installation: &Installation, tenant: &TenantId, inputs: &[Input]) -> Result<(), CliError> {
    if installation.vectors.knowledge_base(tenant).await?.is_some() {
        return Ok(());
    }
    let prose = inputs.iter().filter_map(|input| match input.file_type {
        Some(file_type @ (FileType::Pdf | FileType::Docx | FileType::Txt)) => Some((input.path.as_path(), file_type)),
        Some(FileType::Csv) | None => None,
    });
    for (path, file_type) in prose.take(DOCUMENTS_READ_MAX) {
        let language = language_of(installation, path, file_type).await;
        if language != Language::UNDETERMINED {
            let kept = prepare(installation, tenant, language).await?;
            say(&format!(
                "language of `{tenant}`'s documents: {kept}, told from {} (--language says otherwise)",
                path.display()
            ));
            return Ok(());
        }
    }
    Ok(())
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
