//! A child's log file: appended to over all its lives, and read for the last words of one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use crate::render::one_line;

/// Last words are short; what stands before them is not read.
const LAST_WORDS: u64 = 16 << 10;

/// Opens a log for appending; also says where this life's output begins.
pub(super) fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let begin = file.metadata()?.len();
    Ok((file, begin))
}

/// The last line that is not blank, written since `begin`.
pub(super) fn last_line(path: &Path, begin: u64) -> io::Result<Option<String>> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(begin.max(end.saturating_sub(LAST_WORDS))))?;
    let mut bytes = Vec::new();
    file.take(LAST_WORDS).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().map(one_line).rfind(|line| !line.is_empty()))
}

/// What is missing, if the loader's last words say that the program was never started.
pub(super) fn missing_library(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("error while loading shared libraries: ")?;
    rest.split(':').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_those_of_this_life_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w0.log");
        std::fs::write(&path, "old life\n").unwrap();
        let (_file, begin) = open(&path).unwrap();
        assert_eq!(last_line(&path, begin).unwrap(), None);
        std::fs::write(&path, "old life\nfirst\n\x1b[31mlast\n  \n").unwrap();
        assert_eq!(last_line(&path, begin).unwrap().as_deref(), Some("[31mlast"));
    }

    #[test]
    fn the_loaders_complaint_names_the_library() {
        let line = "clade-worker: error while loading shared libraries: libtorch_cpu.so: cannot \
                    open shared object file: No such file or directory";
        assert_eq!(missing_library(line).as_deref(), Some("libtorch_cpu.so"));
        assert_eq!(missing_library("error: port in use"), None);
    }
}
