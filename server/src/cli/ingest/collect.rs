//! Which files the paths on the command line mean, and which document each becomes.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use stepgraph_nodes::{
    parse::declared_type,
    service::{DocumentId, FileType},
};

use super::super::CliError;

/// Folders below the named one that are looked into at most.
const DEPTH_MAX: usize = 32;

/// A file and the document it becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Input {
    /// Where it lies.
    pub(super) path: PathBuf,
    /// The document.
    pub(super) id: DocumentId,
    /// What its extension declares, `None` for a file that was named although nothing reads it.
    pub(super) file_type: Option<FileType>,
}

/// All that is to be ingested.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Inputs {
    /// Single documents, in the order of their paths.
    pub(super) files: Vec<Input>,
    /// `.jsonl` files of many documents each.
    pub(super) bulk: Vec<PathBuf>,
    /// Files in folders that are of no type that is read.
    pub(super) left_out: usize,
}

/// Finds the files behind `paths`, folders with all that is below them. A file's document is named by `id` where it is
/// given, else by its stem, else, where two files share the stem, by its whole name.
pub(super) fn collect(paths: &[PathBuf], id: Option<&str>) -> Result<Inputs, CliError> {
    let mut found = Found::default();
    for path in paths {
        let unreadable = |source| CliError::Unreadable {
            path: path.clone(),
            source,
        };
        if path.metadata().map_err(unreadable)?.is_dir() {
            found.folder(path, 0)?;
        } else if is_bulk(path) {
            found.bulk.push(path.clone());
        } else {
            found.files.push(path.clone());
        }
    }
    found.files.sort();
    found.files.dedup();
    let files = match (id, found.files.as_slice(), found.bulk.as_slice()) {
        (None, ..) => named_by_stem(found.files),
        (Some(id), [path], []) => vec![input(path.clone(), id)],
        (Some(_), ..) => {
            return Err(CliError::Usage(
                "--id names one document: give it with exactly one file".to_owned(),
            ));
        }
    };
    Ok(Inputs {
        files,
        bulk: found.bulk,
        left_out: found.left_out,
    })
}

#[derive(Default)]
struct Found {
    files: Vec<PathBuf>,
    bulk: Vec<PathBuf>,
    left_out: usize,
}

impl Found {
    fn folder(&mut self, folder: &Path, depth: usize) -> Result<(), CliError> {
        let unreadable = |source| CliError::Unreadable {
            path: folder.to_owned(),
            source,
        };
        if depth > DEPTH_MAX {
            return Err(CliError::Usage(format!(
                "{} lies more than {DEPTH_MAX} folders deep: name a folder inside it",
                folder.display()
            )));
        }
        for entry in folder.read_dir().map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            // Links are not followed: a loop of them has no end.
            let kind = entry.file_type().map_err(unreadable)?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if kind.is_dir() {
                self.folder(&entry.path(), depth + 1)?;
            } else if kind.is_file() && declared_type(&entry.path()).is_some() {
                self.files.push(entry.path());
            } else {
                self.left_out += 1;
            }
        }
        Ok(())
    }
}

fn is_bulk(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("jsonl"))
}

fn named_by_stem(paths: Vec<PathBuf>) -> Vec<Input> {
    let mut stems: BTreeMap<String, usize> = BTreeMap::new();
    for path in &paths {
        *stems.entry(text(path.file_stem())).or_default() += 1;
    }
    let name = |path: &PathBuf| {
        let stem = text(path.file_stem());
        if stems.get(&stem).is_some_and(|count| *count > 1) {
            text(path.file_name())
        } else {
            stem
        }
    };
    paths
        .into_iter()
        .map(|path| (name(&path), path))
        .map(|(id, path)| input(path, &id))
        .collect()
}

fn input(path: PathBuf, id: &str) -> Input {
    Input {
        file_type: declared_type(&path),
        id: DocumentId::new(id),
        path,
    }
}

fn text(name: Option<&OsStr>) -> String {
    name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{CliError, Inputs, collect};

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "text").unwrap();
        }
        folder
    }

    fn ids(inputs: &Inputs) -> Vec<&str> {
        inputs.files.iter().map(|input| input.id.as_str()).collect()
    }

    #[test]
    fn a_folder_gives_all_documents_below_it_by_their_stems() {
        let folder = folder(&["b.pdf", "deep/er/a.TXT", "notes.md", "docs.jsonl", ".hidden.txt"]);

        let inputs = collect(&[folder.path().to_owned()], None).unwrap();

        assert_eq!(ids(&inputs), ["b", "a"]);
        assert_eq!(inputs.left_out, 2);
        assert_eq!(inputs.bulk, Vec::<PathBuf>::new(), "bulk files are only taken by name");
    }

    #[test]
    fn files_that_share_a_stem_are_told_apart_by_their_types() {
        let folder = folder(&["zero.pdf", "zero.csv", "one.txt"]);

        let inputs = collect(&[folder.path().to_owned()], None).unwrap();

        assert_eq!(ids(&inputs), ["one", "zero.csv", "zero.pdf"]);
    }

    #[test]
    fn a_file_that_is_named_is_taken_whatever_it_is() {
        let folder = folder(&["notes.md", "docs.jsonl"]);

        let inputs = collect(
            &[folder.path().join("notes.md"), folder.path().join("docs.jsonl")],
            None,
        )
        .unwrap();

        assert_eq!(ids(&inputs), ["notes"]);
        assert_eq!(inputs.files[0].file_type, None);
        assert_eq!(inputs.bulk.len(), 1);
    }

    #[test]
    fn an_id_names_exactly_one_file() {
        let folder = folder(&["a.txt", "b.txt"]);

        let one = collect(&[folder.path().join("a.txt")], Some("handbook")).unwrap();
        let two = collect(&[folder.path().to_owned()], Some("handbook")).unwrap_err();

        assert_eq!(ids(&one), ["handbook"]);
        assert!(matches!(two, CliError::Usage(_)), "{two}");
    }

    #[test]
    fn a_path_that_is_not_there_is_named() {
        let missing = collect(&[PathBuf::from("/no/such/file.pdf")], None).unwrap_err();

        assert!(
            missing.to_string().starts_with("/no/such/file.pdf cannot be read"),
            "{missing}"
        );
    }
}
