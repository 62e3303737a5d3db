//! Adds an entry to a token file in one step, so that nobody reads half of it.

use std::io;
use std::path::{Path, PathBuf};

use super::file::{LARGEST_FILE, parse};
use super::{Entry, TokenFileError};

/// Adds the entry at the end; makes the file, readable by its owner only, if there is none.
pub fn append(path: &Path, entry: &Entry) -> Result<(), TokenFileError> {
    let unreadable = |source| TokenFileError::Unreadable { path: path.to_owned(), source };
    let unwritable = |source| TokenFileError::Unwritable { path: path.to_owned(), source };
    let malformed = |why| TokenFileError::Malformed { path: path.to_owned(), why };
    let before = match crate::file::read_small(path, LARGEST_FILE) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(unreadable(error)),
    };
    let mut text = String::from_utf8(before.unwrap_or_default())
        .map_err(|_| malformed("it is not UTF-8".to_owned()))?;
    if text.trim() == "[]" {
        text.clear();
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&entry.to_yaml());
    parse(text.as_bytes()).map_err(malformed)?;
    // Its existence also keeps a second one from writing at the same time.
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    crate::write_private(&new, &text).map_err(unwritable)?;
    let replaced = keep_mode(path, &new).and_then(|()| std::fs::rename(&new, path));
    replaced.map_err(|error| {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&new);
        unwritable(error)
    })
}

fn keep_mode(old: &Path, new: &Path) -> io::Result<()> {
    match std::fs::metadata(old) {
        Ok(metadata) => std::fs::set_permissions(new, metadata.permissions()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
