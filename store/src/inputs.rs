//! Finds the input tars of a run: a path, a glob, or a brace pattern.
//!
//! The list is made once and kept, so that what a part number means never changes.

use std::path::{Path, PathBuf};

use globset::GlobBuilder;
use serde::{Deserialize, Serialize};

/// Braces may not stand for more paths than this.
const MAX_EXPANSION: usize = 1_000_000;

/// The input tars of a run, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inputs {
    pub tars: Vec<InputTar>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputTar {
    /// Absolute path.
    pub uri: String,
    pub bytes: u64,
}

/// Why the input tars could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum InputsError {
    #[error("dataset path `{path}` does not exist")]
    Missing { path: String },

    #[error("nothing matches `{pattern}`: no such tar in {folder}")]
    NothingMatched { pattern: String, folder: String },

    #[error("dataset path `{path}` is a folder; name the tars in it, such as `{path}/*.tar`")]
    IsFolder { path: String },

    #[error("dataset pattern `{pattern}`: {reason}")]
    Pattern { pattern: String, reason: String },

    #[error("cannot look into `{path}`: {source}")]
    Io {
        path: String,
        #[source]
        source: std::io::Error,
    },
}

/// Lists the tars that `pattern` stands for, sorted by path, each once.
///
/// `{000000..000041}` and `{a,b}` stand for one path each, and every one must exist; `*`, `?`,
/// `[…]` and `**` match what is there.
pub fn find_inputs(pattern: &str) -> Result<Inputs, InputsError> {
    let plain = pattern.strip_prefix("file://").or_else(|| pattern.strip_prefix("file:"));
    let mut tars = Vec::new();
    for path in expand(pattern, plain.unwrap_or(pattern))? {
        let path = absolute(&path)?;
        if path.contains(['*', '?', '[']) {
            tars.extend(glob(&path)?);
        } else {
            tars.push(literal(path)?);
        }
    }
    tars.sort_by(|a, b| a.uri.cmp(&b.uri));
    tars.dedup_by(|a, b| a.uri == b.uri);
    Ok(Inputs { tars })
}

fn absolute(path: &str) -> Result<String, InputsError> {
    let absolute = std::path::absolute(path)
        .map_err(|source| InputsError::Io { path: path.to_owned(), source })?;
    absolute.into_os_string().into_string().map_err(|path| InputsError::Pattern {
        pattern: path.to_string_lossy().into_owned(),
        reason: "the path is not UTF-8".to_owned(),
    })
}

fn literal(path: String) -> Result<InputTar, InputsError> {
    match std::fs::metadata(&path) {
        Ok(meta) if meta.is_dir() => Err(InputsError::IsFolder { path }),
        Ok(meta) => Ok(InputTar { bytes: meta.len(), uri: path }),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            Err(InputsError::Missing { path })
        }
        Err(source) => Err(InputsError::Io { path, source }),
    }
}

fn glob(pattern: &str) -> Result<Vec<InputTar>, InputsError> {
    let matcher = GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map_err(|error| InputsError::Pattern {
            pattern: pattern.to_owned(),
            reason: error.kind().to_string(),
        })?
        .compile_matcher();
    // The folder above the first segment with a wildcard is where to look.
    let fixed = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
    let folder = &pattern[..pattern[..fixed].rfind('/').unwrap_or(0)];
    let folder = if folder.is_empty() { "/" } else { folder };
    if !Path::new(folder).exists() {
        return Err(InputsError::Missing { path: folder.to_owned() });
    }
    let levels = if pattern.contains("**") {
        usize::MAX
    } else {
        pattern[folder.len()..].matches('/').count().max(1)
    };
    let mut found = Vec::new();
    walk(Path::new(folder), levels, &mut |path, bytes| {
        if let Some(uri) = path.to_str().filter(|path| matcher.is_match(path)) {
            found.push(InputTar { uri: uri.to_owned(), bytes });
        }
    })?;
    if found.is_empty() {
        let (pattern, folder) = (pattern.to_owned(), folder.to_owned());
        return Err(InputsError::NothingMatched { pattern, folder });
    }
    Ok(found)
}

/// Calls `visit` with every file at most `levels` deep. Linked folders are not entered.
fn walk(
    folder: &Path,
    levels: usize,
    visit: &mut impl FnMut(PathBuf, u64),
) -> Result<(), InputsError> {
    let unreadable = |source| InputsError::Io { path: folder.display().to_string(), source };
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.file_type().map_err(unreadable)?.is_dir() {
            if levels > 1 {
                walk(&entry.path(), levels - 1, visit)?;
            }
        } else if let Ok(meta) = std::fs::metadata(entry.path())
            && meta.is_file()
        {
            visit(entry.path(), meta.len());
        }
    }
    Ok(())
}

/// Writes out the braces of `text`.
fn expand(pattern: &str, text: &str) -> Result<Vec<String>, InputsError> {
    let wrong = |reason: &str| InputsError::Pattern {
        pattern: pattern.to_owned(),
        reason: reason.to_owned(),
    };
    let Some(open) = text.find('{') else {
        return Ok(vec![text.to_owned()]);
    };
    let close = text[open..].find('}').ok_or_else(|| wrong("a `{` has no `}`"))? + open;
    let inner = &text[open + 1..close];
    if inner.contains('{') {
        return Err(wrong("braces within braces are not supported"));
    }
    let choices = match inner.split_once("..") {
        Some((from, to)) => {
            range(from, to).ok_or_else(|| wrong("a range is written `{000000..000041}`"))?
        }
        None => inner.split(',').map(str::to_owned).collect(),
    };
    let mut paths = Vec::new();
    for rest in expand(pattern, &text[close + 1..])? {
        for choice in &choices {
            paths.push(format!("{}{choice}{rest}", &text[..open]));
        }
        if paths.len() > MAX_EXPANSION {
            return Err(wrong("it stands for more than a million paths"));
        }
    }
    Ok(paths)
}

/// The numbers `from ..= to`, as wide as `from` is written.
fn range(from: &str, to: &str) -> Option<Vec<String>> {
    let (first, last): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
    let count = usize::try_from(last.checked_sub(first)?).ok()?;
    let width = from.len();
    (count < MAX_EXPANSION)
        .then(|| (first..=last).map(|number| format!("{number:0width$}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
        folder
    }

    fn names(folder: &Path, pattern: &str) -> Result<Vec<String>, String> {
        let pattern = format!("{}/{pattern}", folder.display());
        let inputs = find_inputs(&pattern).map_err(|error| error.to_string())?;
        let prefix = format!("{}/", folder.display());
        Ok(inputs.tars.into_iter().map(|tar| tar.uri.replace(&prefix, "")).collect())
    }

    #[test]
    fn a_glob_matches_what_is_there_in_order_and_only_at_its_own_level() {
        let folder = folder_with(&["b.tar", "a.tar", "a.txt", "deep/c.tar"]);
        assert_eq!(names(folder.path(), "*.tar").unwrap(), ["a.tar", "b.tar"]);
        assert_eq!(names(folder.path(), "*/*.tar").unwrap(), ["deep/c.tar"]);
        assert_eq!(names(folder.path(), "**/*.tar").unwrap(), ["a.tar", "b.tar", "deep/c.tar"]);
    }

    #[test]
    fn braces_stand_for_paths_that_must_all_exist() {
        let folder = folder_with(&["x-08.tar", "x-09.tar", "x-10.tar", "y.tar"]);
        assert_eq!(
            names(folder.path(), "x-{08..10}.tar").unwrap(),
            ["x-08.tar", "x-09.tar", "x-10.tar"]
        );
        assert_eq!(names(folder.path(), "{y,x-09}.tar").unwrap(), ["x-09.tar", "y.tar"]);
        let error = names(folder.path(), "x-{08..11}.tar").unwrap_err();
        assert!(error.ends_with("x-11.tar` does not exist"), "{error}");
    }

    #[test]
    fn what_cannot_be_found_is_named() {
        let folder = folder_with(&["a.txt"]);
        for (pattern, expected) in [
            ("none.tar", "none.tar` does not exist"),
            ("none/*.tar", "none` does not exist"),
            ("*.tar", "nothing matches"),
            ("{1..", "a `{` has no `}`"),
            ("{b..a}.tar", "a range is written"),
            (".", "is a folder"),
        ] {
            let error = names(folder.path(), pattern).unwrap_err();
            assert!(error.contains(expected), "{pattern}: {error}");
        }
    }
}
