//! The classes of the evaluation set: the packages' leaf folders.
//!
//! A picture's folder is the first two levels of its path, or the first if it
//! lies directly in that. A folder with enough held-out pictures is a class
//! unless another class lies below it: no class contains another. Which classes
//! there are, and what they are called, is committed before any training.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::convert::Usable;

/// A folder is a class if this many of its pictures are held out.
pub(crate) const FEWEST_HELD_OUT: usize = 8;

/// Folders whose name says nothing about what is in them.
const WITHOUT_TOPIC: [&str; 1] = ["unsorted"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    pub folder: String,
    /// What a person would call it, e.g. `a mammal`.
    pub name: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ClassError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{}, line {line}: expected a folder, a tab and a class name", path.display())]
    Malformed { path: PathBuf, line: usize },
    #[error("{}, line {line}: the folder or the name is there twice", path.display())]
    Repeated { path: PathBuf, line: usize },
    #[error("{} names no class", .0.display())]
    Empty(PathBuf),
    #[error("{}, line {line}: a template needs {{c}} for the class name", path.display())]
    NoPlaceholder { path: PathBuf, line: usize },
    #[error(
        "the committed classes no longer match the held-out pictures ({0}): if the pictures or \
         the seed were changed on purpose, run with --list-classes and correct the list"
    )]
    Changed(String),
}

/// Reads the committed list. Lines that start with `#` say why, and are skipped.
pub(crate) fn read(path: &Path) -> Result<Vec<Class>, ClassError> {
    let mut classes: Vec<Class> = Vec::new();
    for (line, text) in lines(path)? {
        let path = || path.to_owned();
        let (folder, name) =
            text.split_once('\t').ok_or_else(|| ClassError::Malformed { path: path(), line })?;
        let (folder, name) = (folder.trim().to_owned(), name.trim().to_owned());
        if folder.is_empty() || name.is_empty() || name.contains('\t') {
            return Err(ClassError::Malformed { path: path(), line });
        }
        if classes.iter().any(|it| it.folder == folder || it.name == name) {
            return Err(ClassError::Repeated { path: path(), line });
        }
        classes.push(Class { folder, name });
    }
    if classes.is_empty() { Err(ClassError::Empty(path.to_owned())) } else { Ok(classes) }
}

/// Reads the prompt templates, in the format of `CLIP_benchmark`.
pub(crate) fn read_templates(path: &Path) -> Result<Vec<String>, ClassError> {
    let lines = lines(path)?;
    if let Some(&(line, _)) = lines.iter().find(|(_, text)| !text.contains("{c}")) {
        return Err(ClassError::NoPlaceholder { path: path.to_owned(), line });
    }
    if lines.is_empty() {
        return Err(ClassError::Empty(path.to_owned()));
    }
    Ok(lines.into_iter().map(|(_, text)| text).collect())
}

fn lines(path: &Path) -> Result<Vec<(usize, String)>, ClassError> {
    let text = fs::read_to_string(path)
        .map_err(|source| ClassError::Read { path: path.to_owned(), source })?;
    let lines = (1..).zip(text.lines()).map(|(line, text)| (line, text.trim_end().to_owned()));
    Ok(lines.filter(|(_, text)| !text.is_empty() && !text.starts_with('#')).collect())
}

/// The folder of the picture called `name`.
pub(crate) fn folder_of(name: &str) -> String {
    match name.split('/').collect::<Vec<_>>()[..] {
        [category, folder, _, ..] => format!("{category}/{folder}"),
        [category, ..] => category.to_owned(),
        [] => String::new(),
    }
}

/// The folders that are classes, with how many of their pictures are held out.
pub(crate) fn with_enough_held_out(
    pictures: &[Usable],
    held_out: &[usize],
) -> BTreeMap<String, usize> {
    let mut folders = BTreeMap::new();
    for &index in held_out {
        *folders.entry(folder_of(&pictures[index].name)).or_insert(0) += 1;
    }
    folders.retain(|folder, held_out| {
        *held_out >= FEWEST_HELD_OUT && !WITHOUT_TOPIC.contains(&folder.as_str())
    });
    let with_classes_below: BTreeSet<String> =
        folders.keys().filter_map(|it| it.split_once('/')).map(|it| it.0.to_owned()).collect();
    folders.retain(|folder, _| !with_classes_below.contains(folder));
    folders
}

/// Refuses a committed list that is not that of `folders`.
pub(crate) fn check(
    committed: &[Class],
    folders: &BTreeMap<String, usize>,
) -> Result<(), ClassError> {
    let mut differences: Vec<String> = Vec::new();
    for Class { folder, .. } in committed {
        if !folders.contains_key(folder) {
            differences
                .push(format!("{folder} has fewer than {FEWEST_HELD_OUT} held-out pictures"));
        }
    }
    for (folder, held_out) in folders {
        if !committed.iter().any(|it| it.folder == *folder) {
            differences.push(format!("{folder} has {held_out} and is not listed"));
        }
    }
    if differences.is_empty() { Ok(()) } else { Err(ClassError::Changed(differences.join("; "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(folder: &str) -> Class {
        Class { folder: folder.to_owned(), name: format!("a {folder}") }
    }

    fn folders(of: &[(&str, usize)]) -> Vec<(String, usize)> {
        let picture = |folder: &str| Usable { name: format!("{folder}/it"), ..Usable::default() };
        let pictures: Vec<Usable> = of
            .iter()
            .flat_map(|&(folder, count)| (0..count).map(move |_| picture(folder)))
            .collect();
        let held_out: Vec<usize> = (0..pictures.len()).collect();
        with_enough_held_out(&pictures, &held_out).into_iter().collect()
    }

    #[test]
    fn a_class_needs_eight_held_out_pictures_at_any_depth() {
        let classes =
            folders(&[("food/fruit", 7), ("animals/mammals", 5), ("animals/mammals/dogs", 3)]);
        assert_eq!(classes, [("animals/mammals".to_owned(), 8)]);
    }

    #[test]
    fn no_class_contains_another_and_unsorted_is_none() {
        let classes = folders(&[
            ("computer", 20),
            ("computer/icons", 9),
            ("people", 8),
            ("people/hats", 7),
            ("unsorted", 30),
        ]);
        assert_eq!(classes, [("computer/icons".to_owned(), 9), ("people".to_owned(), 8)]);
    }

    #[test]
    fn a_list_that_no_longer_matches_says_where() {
        let folders =
            BTreeMap::from([("food/fruit".to_owned(), 9), ("shapes/arrows".to_owned(), 8)]);
        assert!(check(&[class("food/fruit"), class("shapes/arrows")], &folders).is_ok());
        let error = check(&[class("food/fruit"), class("people/hats")], &folders).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("people/hats has fewer than 8"), "{message}");
        assert!(message.contains("shapes/arrows has 8 and is not listed"), "{message}");
    }

    #[test]
    fn a_malformed_list_names_the_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            fs::write(file.path(), text).unwrap();
            read(file.path()).map_err(|error| error.to_string())
        };
        let classes = read("# why\nfood/fruit\ta fruit\n\n").unwrap();
        assert_eq!(classes, [Class { folder: "food/fruit".into(), name: "a fruit".into() }]);
        assert!(read("food/fruit\ta fruit\nfood a food\n").unwrap_err().contains("line 2"));
        assert!(read("a\tx\nb\tx\n").unwrap_err().contains("twice"));
        assert!(read("# nothing\n").unwrap_err().contains("names no class"));
    }

    #[test]
    fn a_template_without_a_place_for_the_class_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "clip art of {c}.\na picture.\n").unwrap();
        assert!(read_templates(file.path()).unwrap_err().to_string().contains("line 2"));
    }
}
