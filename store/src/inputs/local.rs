//! Tars on this machine's disks.

use std::path::{Path, PathBuf};

use super::{InputTar, InputsError, fixed_folder, matcher};

pub(super) fn absolute(path: &str) -> Result<String, InputsError> {
    let absolute = std::path::absolute(path)
        .map_err(|source| InputsError::Io { path: path.to_owned(), source })?;
    absolute.into_os_string().into_string().map_err(|path| InputsError::Pattern {
        pattern: path.to_string_lossy().into_owned(),
        reason: "the path is not UTF-8".to_owned(),
    })
}

pub(super) fn literal(path: String) -> Result<InputTar, InputsError> {
    match std::fs::metadata(&path) {
        Ok(meta) if meta.is_dir() => Err(InputsError::IsFolder { path }),
        Ok(meta) => Ok(InputTar { bytes: meta.len(), uri: path }),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            Err(InputsError::Missing { path })
        }
        Err(source) => Err(InputsError::Io { path, source }),
    }
}

pub(super) fn glob(pattern: &str) -> Result<Vec<InputTar>, InputsError> {
    let matcher = matcher(pattern)?;
    let folder = fixed_folder(pattern);
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
