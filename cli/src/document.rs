//! Reads a run document before anything is started for it.

use std::io;
use std::path::{Path, PathBuf};

use clade_core::spec::{RunSpec, SpecError};

/// A run document that obeys every rule that can be judged without the data.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) text: String,
    /// The current folder: relative paths in the document are seen from there.
    pub(crate) base_dir: PathBuf,
    /// Its paths are absolute.
    pub(crate) spec: RunSpec,
}

/// Why a run document cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    #[error("cannot read the run document {}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}: {why}", path.display())]
    Refused { path: PathBuf, why: SpecError },
    #[error("the current folder has no name in UTF-8: {}", .0.display())]
    BaseDir(PathBuf),
}

impl Document {
    pub(crate) fn read(path: &Path) -> Result<Self, DocumentError> {
        let unreadable = |source| DocumentError::Unreadable { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let base_dir = std::env::current_dir().map_err(unreadable)?;
        Self::parse(path, text, base_dir)
    }

    fn parse(path: &Path, text: String, base_dir: PathBuf) -> Result<Self, DocumentError> {
        let mut spec = RunSpec::parse(&text)
            .map_err(|why| DocumentError::Refused { path: path.to_owned(), why })?;
        let Some(base) = base_dir.to_str() else { return Err(DocumentError::BaseDir(base_dir)) };
        spec.resolve(base);
        Ok(Self { text, base_dir, spec })
    }

    pub(crate) fn run(&self) -> String {
        self.spec.name().to_string()
    }

    /// Where the run's artefacts lie, for people.
    pub(crate) fn run_address(&self) -> String {
        format!("{}/runs/{}", self.spec.spec.store.trim_end_matches('/'), self.run())
    }

    /// The local folder of the run's artefacts, unless they are in a bucket.
    pub(crate) fn run_folder(&self) -> Option<PathBuf> {
        let root = self.spec.spec.store.strip_prefix("file://")?;
        Some(Path::new(root).join("runs").join(self.spec.name().as_str()))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const SOUND: &str = "\
apiVersion: clade/v1
kind: Run
metadata: {name: clipart}
spec:
  store: file:./clade-data
  dataset: {shards: data/*.tar}
  embedding: {encoder: assets/encoder}
  clusters: {fine: 8, experts: 2}
  model: {preset: tiny}
  training:
    globalBatch: 8
    microBatch: 4
    seedSteps: 4
    expertSteps: 2
    learningRate: {peak: 1e-3}
  evaluation: {}
";

    fn parse(text: &str) -> Result<Document, DocumentError> {
        Document::parse(Path::new("deploy/run.yaml"), text.to_owned(), PathBuf::from("/home/me"))
    }

    #[test]
    fn a_misspelt_key_is_named_with_file_line_and_nearest_key() {
        let error = parse(&SOUND.replace("experts: 2", "expertz: 2")).unwrap_err();
        expect!["deploy/run.yaml: line 8: unknown key `expertz`; did you mean `experts`?"]
            .assert_eq(&error.to_string());
    }

    #[test]
    fn artefacts_of_a_run_lie_below_its_store_as_seen_from_the_current_folder() {
        let document = parse(SOUND).unwrap();
        assert_eq!(document.run(), "clipart");
        let folder = document.run_folder().unwrap();
        let same = Path::new("/home/me/clade-data/runs/clipart");
        assert_eq!(folder.components().collect::<PathBuf>(), same);
    }
}
