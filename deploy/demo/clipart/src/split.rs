//! What is held out for evaluation, and in which order pairs are written.
//!
//! Invariant: a near-duplicate group is on one side, whole. Both choices are a
//! function of the seed and the pictures' names, so one more picture moves few.

use sha2::{Digest as _, Sha256};

use crate::convert::Usable;
use crate::fingerprint;
use crate::manifest::GroupCounts;

/// A larger group all goes to training: holding it out would fill the
/// evaluation with one motif.
pub(crate) const LARGEST_HELD_OUT_GROUP: usize = 50;

/// One in this many pictures is held out.
pub(crate) const ONE_IN: usize = 10;

/// Indices of pictures, in the order in which their pairs are written.
#[derive(Debug)]
pub(crate) struct Split {
    pub train: Vec<usize>,
    pub held_out: Vec<usize>,
    pub groups: GroupCounts,
}

/// Holds out whole groups, drawn at random, until one picture in [`ONE_IN`] is.
pub(crate) fn split(pictures: &[Usable], seed: u64) -> Split {
    let hashes: Vec<u64> = pictures.iter().map(|it| it.fingerprint).collect();
    let mut groups = fingerprint::groups(&hashes);
    let draw = |index: usize, what: &str| draw(seed, what, &pictures[index].name);
    groups.sort_by_cached_key(|group| draw(group[0], "hold out"));
    let counts = count(&groups);

    let due = pictures.len() / ONE_IN;
    let (mut train, mut held_out) = (Vec::new(), Vec::new());
    for group in groups {
        if group.len() <= LARGEST_HELD_OUT_GROUP && held_out.len() < due {
            held_out.extend(group);
        } else {
            train.extend(group);
        }
    }
    // Written order is random too: a web crawl is not sorted by topic.
    train.sort_by_cached_key(|&index| draw(index, "order"));
    held_out.sort_by_cached_key(|&index| draw(index, "order"));
    Split { train, held_out, groups: counts }
}

/// A number that nobody chose, the same for the same seed, purpose and name.
fn draw(seed: u64, purpose: &str, name: &str) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(seed.to_le_bytes());
    hasher.update(purpose.as_bytes());
    hasher.update([0]);
    hasher.update(name.as_bytes());
    hasher.finalize().into()
}

fn count(groups: &[Vec<usize>]) -> GroupCounts {
    let is_large = |group: &&Vec<usize>| group.len() > LARGEST_HELD_OUT_GROUP;
    GroupCounts {
        groups: groups.len(),
        of_several: groups.iter().filter(|group| group.len() > 1).count(),
        largest: groups.iter().map(Vec::len).max().unwrap_or(0),
        above_limit: groups.iter().filter(is_large).count(),
        pictures_above_limit: groups.iter().filter(is_large).map(Vec::len).sum(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Pictures whose fingerprints are far apart unless they share a `motif`.
    fn pictures(motifs: &[u64]) -> Vec<Usable> {
        let spread = |motif: u64| {
            let digest = Sha256::digest(motif.to_le_bytes());
            u64::from_le_bytes(digest[..8].try_into().unwrap())
        };
        motifs
            .iter()
            .enumerate()
            .map(|(index, &motif)| {
                // One bit of difference inside a motif.
                let fingerprint = spread(motif) ^ 1 << (index % 2);
                Usable { name: format!("a/b/{index}"), fingerprint, ..Usable::default() }
            })
            .collect()
    }

    #[test]
    fn no_group_is_on_both_sides_and_no_picture_is_lost() {
        let motifs: Vec<u64> = (0..400).map(|index| index * index % 130).collect();
        for seed in 0..5 {
            let split = split(&pictures(&motifs), seed);
            let motif = |side: &[usize]| side.iter().map(|&it| motifs[it]).collect();
            let train: BTreeSet<u64> = motif(&split.train);
            let held_out: BTreeSet<u64> = motif(&split.held_out);
            assert!(train.is_disjoint(&held_out));
            assert!((40..60).contains(&split.held_out.len()), "{}", split.held_out.len());
            let all: BTreeSet<usize> = split.train.iter().chain(&split.held_out).copied().collect();
            assert_eq!(all.len(), motifs.len());
        }
    }

    #[test]
    fn a_group_above_50_all_goes_to_training() {
        let motifs: Vec<u64> = (0..51).map(|_| 1).chain((0..50).map(|_| 2)).chain(3..103).collect();
        for seed in 0..20 {
            let split = split(&pictures(&motifs), seed);
            assert!(split.held_out.iter().all(|&it| motifs[it] != 1));
            assert_eq!(split.groups.largest, 51);
            assert_eq!((split.groups.above_limit, split.groups.pictures_above_limit), (1, 51));
        }
    }

    #[test]
    fn the_seed_decides_and_nothing_else() {
        let pictures = pictures(&(0..300).collect::<Vec<_>>());
        let held_out = |seed| split(&pictures, seed).held_out;
        assert_eq!(held_out(7), held_out(7));
        assert_ne!(held_out(7), held_out(8));
    }
}
