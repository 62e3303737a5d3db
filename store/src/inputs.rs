//! Finds the input tars of a run: a path or the address of an object, a glob, or a brace pattern.
//!
//! The list is made once and kept, so that what a part number means never changes.

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

use crate::buckets::Buckets;
use crate::error::StoreError;

mod braces;
mod bucket;
mod local;

const WILDCARDS: [char; 3] = ['*', '?', '['];

/// The input tars of a run, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inputs {
    pub tars: Vec<InputTar>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputTar {
    /// Absolute path, or the address of an object: `s3://bucket/key`.
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

    #[error("cannot look for `{address}`: {source}")]
    Store {
        address: String,
        #[source]
        source: Box<StoreError>,
    },

    #[error("cannot look into `{path}`: {source}")]
    Io {
        path: String,
        #[source]
        source: std::io::Error,
    },
}

/// Lists the tars on this machine that `pattern` stands for, sorted by path, each once.
///
/// `{000000..000041}` and `{a,b}` stand for one path each, and every one must exist; `*`, `?`,
/// `[…]` and `**` match what is there.
pub fn find_inputs(pattern: &str) -> Result<Inputs, InputsError> {
    if is_address(pattern) {
        let reason = "it lies on the network, and only files of this machine are looked for here";
        return Err(InputsError::Pattern {
            pattern: pattern.to_owned(),
            reason: reason.to_owned(),
        });
    }
    let plain = pattern.strip_prefix("file://").or_else(|| pattern.strip_prefix("file:"));
    let mut tars = Vec::new();
    for path in expand(pattern, plain.unwrap_or(pattern))? {
        let path = local::absolute(&path)?;
        if has_wildcard(&path) {
            tars.extend(local::glob(&path)?);
        } else {
            tars.push(local::literal(path)?);
        }
    }
    Ok(in_order(tars))
}

/// The same for files and for objects: `s3://bucket/path/{000..041}.tar`, `gs://…`, `az://…`.
///
/// The bucket's name has no wildcards. A glob costs a listing of the folder above its first wildcard.
pub async fn find_inputs_in(pattern: &str, buckets: &Buckets) -> Result<Inputs, InputsError> {
    if is_address(pattern) {
        let addresses = expand(pattern, pattern)?;
        return Ok(in_order(bucket::find(buckets, &addresses).await?));
    }
    let owned = pattern.to_owned();
    let found = tokio::task::spawn_blocking(move || find_inputs(&owned)).await;
    found.map_err(|error| InputsError::Io {
        path: pattern.to_owned(),
        source: std::io::Error::other(error),
    })?
}

fn is_address(pattern: &str) -> bool {
    pattern.contains("://") && !pattern.starts_with("file:")
}

fn in_order(mut tars: Vec<InputTar>) -> Inputs {
    tars.sort_by(|a, b| a.uri.cmp(&b.uri));
    tars.dedup_by(|a, b| a.uri == b.uri);
    Inputs { tars }
}

fn expand(pattern: &str, text: &str) -> Result<Vec<String>, InputsError> {
    braces::expand(text).map_err(|reason| InputsError::Pattern {
        pattern: pattern.to_owned(),
        reason: reason.to_owned(),
    })
}

fn has_wildcard(path: &str) -> bool {
    path.contains(WILDCARDS)
}

/// The folder above the first segment with a wildcard is where to look.
fn fixed_folder(pattern: &str) -> &str {
    let fixed = pattern.find(WILDCARDS).unwrap_or(pattern.len());
    &pattern[..pattern[..fixed].rfind('/').unwrap_or(0)]
}

fn matcher(pattern: &str) -> Result<GlobMatcher, InputsError> {
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    let glob = glob.map_err(|error| InputsError::Pattern {
        pattern: pattern.to_owned(),
        reason: error.kind().to_string(),
    })?;
    Ok(glob.compile_matcher())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
