//! The sample documents, in the binary itself so that the demo works from any folder.

use stepgraph_nodes::service::FileType;

/// A sample document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Name of the document.
    pub(super) id: &'static str,
    /// Name of the file.
    pub(super) name: &'static str,
    /// What it is.
    pub(super) file_type: FileType,
    /// What is in it.
    pub(super) bytes: &'static [u8],
}

macro_rules! sample {
    ($id:literal, $extension:literal, $file_type:ident) => {
        Sample {
            id: $id,
            name: concat!($id, ".", $extension),
            file_type: FileType::$file_type,
            bytes: include_bytes!(concat!("../../../examples/knowledge/", $id, ".", $extension)),
        }
    };
}

/// A manual with pages, which `doctor` tries the PDF worker on too.
pub(super) const MANUAL: Sample = sample!("ottermere-kettle-manual", "pdf", Pdf);

/// All of them, about a made-up kettle.
pub(super) const SAMPLES: [Sample; 5] = [
    sample!("faq", "txt", Txt),
    MANUAL,
    sample!("spare-parts", "csv", Csv),
    sample!("support-and-shipping", "txt", Txt),
    sample!("warranty-and-returns", "docx", Docx),
];

/// What the samples answer; the last one they do not.
pub(super) const QUESTIONS: [&str; 3] = [
    "How long is the warranty?",
    "How do I descale the kettle?",
    "Which moons of Jupiter did Galileo discover?",
];

#[cfg(test)]
mod tests {
    use super::SAMPLES;

    #[test]
    fn every_sample_document_of_the_examples_is_in_the_binary() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/knowledge");
        let mut on_disk: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        on_disk.sort();

        assert_eq!(on_disk, SAMPLES.map(|sample| sample.name));
    }
}
