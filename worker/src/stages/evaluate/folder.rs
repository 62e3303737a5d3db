//! An evaluation set on disk, in the WebDataset layout of CLIP_benchmark.
//!
//! `classnames.txt` and `zeroshot_classification_templates.txt` (one per line, `{c}` for the class)
//! beside `test/*.tar`; a retrieval set has the tars alone. Missing paths are the run document's
//! fault and are named as such.

use std::fs;
use std::path::{Path, PathBuf};

use clade_core::job::Failure;

use super::artefact::SetKind;
use super::{config, groups};

const CLASSES: &str = "classnames.txt";
const TEMPLATES: &str = "zeroshot_classification_templates.txt";

/// One evaluation set.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    pub(super) kind: SetKind,
    /// Position among the run document's sets of this kind.
    pub(super) index: u32,
    pub(super) path: PathBuf,
    /// Last component of the path.
    pub(super) name: String,
    /// In order of name.
    pub(super) tars: Vec<PathBuf>,
    /// Empty for retrieval.
    pub(super) classes: Vec<String>,
    pub(super) templates: Vec<String>,
}

impl Folder {
    pub(super) fn open(path: &str, kind: SetKind, index: u32) -> Result<Self, Failure> {
        let path = PathBuf::from(plain(path));
        let missing = |what: &Path| {
            config(format!(
                "spec.evaluation.{kind}: `{}` is not there; a set is a folder in CLIP_benchmark's \
                 WebDataset layout",
                what.display()
            ))
        };
        if !path.is_dir() {
            return Err(missing(&path));
        }
        let test = path.join("test");
        let mut tars: Vec<PathBuf> = fs::read_dir(&test)
            .map_err(|_| missing(&test))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "tar"))
            .collect();
        tars.sort();
        if tars.is_empty() {
            return Err(missing(&test.join("*.tar")));
        }
        let (classes, templates) = match kind {
            SetKind::Retrieval => (Vec::new(), Vec::new()),
            SetKind::Classification => {
                let read = |name: &str| {
                    let file = path.join(name);
                    let text = fs::read_to_string(&file).map_err(|_| missing(&file))?;
                    let lines: Vec<String> = lines(&text);
                    if lines.is_empty() {
                        return Err(config(format!("`{}` has no lines", file.display())));
                    }
                    Ok(lines)
                };
                (read(CLASSES)?, read(TEMPLATES)?)
            }
        };
        let name = path
            .file_name()
            .map_or_else(|| kind.to_string(), |name| name.to_string_lossy().into_owned());
        Ok(Self { kind, index, path, name, tars, classes, templates })
    }

    /// Pictures in all tars, told from their headers.
    pub(super) fn pictures(&self) -> Result<u64, Failure> {
        self.tars.iter().try_fold(0, |sum, tar| {
            let pictures = groups::count_pictures(tar).map_err(|error| unreadable(tar, &error))?;
            Ok(sum + pictures)
        })
    }
}

pub(super) fn unreadable(tar: &Path, error: &std::io::Error) -> Failure {
    Failure::Data { message: format!("cannot read {} to its end: {error}", tar.display()) }
}

/// Lines without surrounding white space; empty ones are left out.
pub(crate) fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// A path of the run document without its `file:` or `file://`.
pub(crate) fn plain(path: &str) -> &str {
    path.strip_prefix("file://").or_else(|| path.strip_prefix("file:")).unwrap_or(path)
}
