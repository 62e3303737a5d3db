//! Which pictures there are, each once.
//!
//! Symbolic links are never followed while walking: a link whose target is in
//! the tree names a picture that is found in its own place. Invariant: no two
//! pictures of a listing are the same file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest as _, Sha256};

use crate::manifest::{Cause, Unusable};

/// A picture as found, not yet opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Path below the tree of pictures, with `/` and without extension.
    pub name: String,
    pub png: PathBuf,
    /// Where an SVG of the same stem would be, without extension.
    pub svg_stem: PathBuf,
}

#[derive(Debug)]
pub(crate) struct Listing {
    /// The tree that everything read must lie in, without symbolic links.
    pub root: PathBuf,
    /// Sorted by name.
    pub pictures: Vec<Found>,
    /// Links to pictures that are listed in their own place.
    pub links: usize,
    pub unusable: Vec<Unusable>,
    /// Changes whenever a file of the tree is added, removed or rewritten.
    pub digest: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ListError {
    #[error("there are no pictures in {}: run make pictures, which fetches them", .0.display())]
    NoPictures(PathBuf),
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Lists the pictures of the packages unpacked into `input`.
pub(crate) fn list(input: &Path) -> Result<Listing, ListError> {
    let tree = input.join("usr/share/openclipart");
    let root = tree.canonicalize().map_err(|_| ListError::NoPictures(tree.clone()))?;
    let mut walk = Walk::new(root);
    walk.folder(&walk.root.join("png"))?;
    walk.folder(&walk.root.join("svg")).or_else(|error| match error {
        // Without the SVGs there are pictures without captions.
        ListError::Read { .. } => Ok(()),
        ListError::NoPictures(_) => Err(error),
    })?;
    let listing = walk.finish();
    if listing.pictures.is_empty() { Err(ListError::NoPictures(tree)) } else { Ok(listing) }
}

struct Walk {
    root: PathBuf,
    files: BTreeMap<PathBuf, Found>,
    links: Vec<PathBuf>,
    unusable: Vec<Unusable>,
    seen: Sha256,
}

impl Walk {
    fn new(root: PathBuf) -> Self {
        Self {
            root,
            files: BTreeMap::new(),
            links: Vec::new(),
            unusable: Vec::new(),
            seen: Sha256::new(),
        }
    }

    fn folder(&mut self, folder: &Path) -> Result<(), ListError> {
        let failed = |source| ListError::Read { path: folder.to_owned(), source };
        let mut entries: Vec<PathBuf> = fs::read_dir(folder)
            .map_err(failed)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        entries.sort();
        for path in entries {
            let about = fs::symlink_metadata(&path)
                .map_err(|source| ListError::Read { path: path.clone(), source })?;
            self.seen.update(self.name(&path));
            if about.is_dir() {
                // The size and time of a folder are the file system's own affair.
                self.seen.update("/\n");
                self.folder(&path)?;
                continue;
            }
            let modified = about.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            self.seen.update(format!(" {} {modified:?}\n", about.len()));
            if !is_picture(&path) {
                continue;
            }
            if about.is_symlink() {
                self.links.push(path);
            } else {
                let found = self.found(&path);
                self.files.insert(path, found);
            }
        }
        Ok(())
    }

    /// Resolves the links, now that every file's own place is known.
    fn finish(mut self) -> Listing {
        let mut links = 0;
        for link in std::mem::take(&mut self.links) {
            match link.canonicalize() {
                Ok(target) if self.files.contains_key(&target) => links += 1,
                Ok(target) if target.starts_with(&self.root) && target.is_file() => {
                    // A picture under a name that is no picture's: the first link names it.
                    let found = Found { png: target.clone(), ..self.found(&link) };
                    self.files.insert(target, found);
                }
                Ok(target) => self.refuse(&link, Cause::LinkLeavesTree, &target.display()),
                Err(error) => self.refuse(&link, Cause::BrokenLink, &error),
            }
        }
        let mut pictures: Vec<Found> = self.files.into_values().collect();
        pictures.sort_by(|a, b| a.name.cmp(&b.name));
        Listing {
            root: self.root,
            pictures,
            links,
            unusable: self.unusable,
            digest: hex(&self.seen.finalize()),
        }
    }

    fn refuse(&mut self, link: &Path, cause: Cause, detail: &dyn std::fmt::Display) {
        let path = self.found(link).name;
        self.unusable.push(Unusable { path, cause, detail: detail.to_string() });
    }

    fn found(&self, png: &Path) -> Found {
        let parts = self.parts(&png.with_extension(""));
        let name = parts[1..].join("/");
        let below: PathBuf = png.strip_prefix(self.root.join("png")).unwrap_or(png).into();
        Found {
            name,
            png: png.to_owned(),
            svg_stem: self.root.join("svg").join(below.with_extension("")),
        }
    }

    fn parts(&self, path: &Path) -> Vec<String> {
        let below = path.strip_prefix(&self.root).unwrap_or(path);
        below.iter().map(|part| part.to_string_lossy().into_owned()).collect()
    }

    fn name(&self, path: &Path) -> String {
        self.parts(path).join("/")
    }
}

fn is_picture(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png"))
}

/// Lower-case hexadecimal, as digests are written everywhere here.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join("usr/share/openclipart").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
        }
        folder
    }

    fn names(listing: &Listing) -> Vec<&str> {
        listing.pictures.iter().map(|it| it.name.as_str()).collect()
    }

    #[test]
    fn a_linked_picture_counts_once_in_its_own_place() {
        let input = tree(&["png/food/fruit/pear.png", "png/plants/tree.png"]);
        let png = input.path().join("usr/share/openclipart/png");
        symlink("fruit/pear.png", png.join("food/again.png")).unwrap();
        symlink("../food/again.png", png.join("plants/a_link_to_a_link.png")).unwrap();
        symlink("../food", png.join("plants/a_folder")).unwrap();

        let listing = list(input.path()).unwrap();

        assert_eq!(names(&listing), ["food/fruit/pear", "plants/tree"]);
        assert_eq!(listing.links, 2);
        assert!(listing.unusable.is_empty());
    }

    #[test]
    fn links_to_nowhere_and_out_of_the_tree_are_listed_and_left_out() {
        let input = tree(&["png/food/pear.png"]);
        let png = input.path().join("usr/share/openclipart/png");
        fs::write(input.path().join("secret.png"), b"x").unwrap();
        symlink("gone.png", png.join("food/broken.png")).unwrap();
        symlink(input.path().join("secret.png"), png.join("food/outside.png")).unwrap();

        let listing = list(input.path()).unwrap();

        assert_eq!(names(&listing), ["food/pear"]);
        let causes: Vec<_> = listing.unusable.iter().map(|it| (&*it.path, it.cause)).collect();
        assert_eq!(
            causes,
            [("food/broken", Cause::BrokenLink), ("food/outside", Cause::LinkLeavesTree)]
        );
    }

    #[test]
    fn a_name_keeps_the_dots_inside_it() {
        let input = tree(&["png/animals/bugs/wasp_gerald_g._01.png"]);
        let listing = list(input.path()).unwrap();
        assert_eq!(names(&listing), ["animals/bugs/wasp_gerald_g._01"]);
        assert!(listing.pictures[0].svg_stem.ends_with("svg/animals/bugs/wasp_gerald_g._01"));
    }

    #[test]
    fn the_digest_follows_the_svgs_too() {
        let input = tree(&["png/food/pear.png", "svg/food/pear.svg"]);
        let before = list(input.path()).unwrap().digest;
        assert_eq!(before, list(input.path()).unwrap().digest);
        let svg = input.path().join("usr/share/openclipart/svg/food/pear.svg");
        fs::write(svg, b"longer than before").unwrap();
        assert_ne!(before, list(input.path()).unwrap().digest);
    }

    #[test]
    fn an_empty_folder_says_what_to_run() {
        let error = list(tempfile::tempdir().unwrap().path()).unwrap_err();
        assert!(error.to_string().contains("make pictures"), "{error}");
    }
}
