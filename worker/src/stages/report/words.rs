//! The most telling words of each cluster.
//!
//! A word counts once per pair. Telling is measured by the log-odds of a word inside the cluster
//! against all other clusters, with all captions as prior, in standard deviations ("Fightin'
//! Words", Monroe, Colaresi and Quinn 2008): frequent words with a real difference come before rare
//! ones with a large one.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Pairs of one cluster that a word must appear in.
const MIN_PAIRS: u64 = 3;
/// Weight of the prior, in words.
const PRIOR: f64 = 500.0;
/// A word that is only just told from chance says nothing.
const MIN_Z: f64 = 1.96;

/// One word and how much it tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Word {
    pub(crate) word: String,
    /// Pairs of the cluster whose captions hold it.
    pub(crate) pairs: u64,
    /// Log-odds against the other clusters, in standard deviations.
    pub(crate) z: f64,
}

/// In how many pairs of each cluster each word appears.
#[derive(Clone, Debug, Default)]
pub(crate) struct WordCounts {
    clusters: Vec<BTreeMap<String, u64>>,
}

impl WordCounts {
    pub(crate) fn new(clusters: usize) -> Self {
        Self { clusters: vec![BTreeMap::new(); clusters] }
    }

    /// Counts the words of one pair's captions.
    pub(crate) fn add<'a>(&mut self, cluster: usize, captions: impl IntoIterator<Item = &'a str>) {
        let words: BTreeSet<String> = captions.into_iter().flat_map(words).collect();
        for word in words {
            *self.clusters[cluster].entry(word).or_default() += 1;
        }
    }

    /// The `count` most telling words of each cluster, the most telling first.
    pub(crate) fn telling(&self, count: usize) -> Vec<Vec<Word>> {
        let mut all: BTreeMap<&str, u64> = BTreeMap::new();
        for (word, pairs) in self.clusters.iter().flatten() {
            *all.entry(word).or_default() += pairs;
        }
        let total: f64 = all.values().map(|pairs| as_f64(*pairs)).sum();
        self.clusters.iter().map(|own| telling(own, &all, total, count)).collect()
    }
}

fn telling(
    own: &BTreeMap<String, u64>,
    all: &BTreeMap<&str, u64>,
    total: f64,
    count: usize,
) -> Vec<Word> {
    let inside: f64 = own.values().map(|pairs| as_f64(*pairs)).sum();
    let log_odds = |with: f64, of: f64, prior: f64| {
        ((with + prior) / (of + PRIOR - with - prior).max(f64::MIN_POSITIVE)).ln()
    };
    let mut words: Vec<Word> = own
        .iter()
        .filter(|(_, pairs)| **pairs >= MIN_PAIRS)
        .map(|(word, &pairs)| {
            let here = as_f64(pairs);
            let everywhere = as_f64(all.get(word.as_str()).copied().unwrap_or(pairs));
            let (elsewhere, prior) = (everywhere - here, PRIOR * everywhere / total);
            let difference =
                log_odds(here, inside, prior) - log_odds(elsewhere, total - inside, prior);
            let variance = 1.0 / (here + prior) + 1.0 / (elsewhere + prior);
            Word { word: word.clone(), pairs, z: difference / variance.sqrt() }
        })
        .filter(|word| word.z > MIN_Z)
        .collect();
    words.sort_by(|a, b| b.z.total_cmp(&a.z).then_with(|| a.word.cmp(&b.word)));
    words.truncate(count);
    words
}

/// Runs of letters, lower case, of at least three.
fn words(caption: &str) -> impl Iterator<Item = String> {
    caption
        .split(|c: char| !c.is_alphabetic())
        .filter(|word| word.chars().nth(2).is_some())
        .map(str::to_lowercase)
}

#[expect(clippy::cast_precision_loss, reason = "counts of pairs are below 2^53")]
const fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_one_cluster_tells_and_a_word_of_all_does_not() {
        let mut counts = WordCounts::new(2);
        for _ in 0..50 {
            counts.add(0, ["A red Star, star!", "the clip art"]);
            counts.add(1, ["flag of somewhere", "the clip art"]);
        }
        counts.add(0, ["sun moon comet"]);
        let words = counts.telling(3);
        let of =
            |cluster: usize| words[cluster].iter().map(|it| it.word.as_str()).collect::<Vec<_>>();
        assert_eq!(of(0), ["red", "star"]);
        assert_eq!(of(1), ["flag", "somewhere"]);
        assert_eq!(words[0][1].pairs, 50, "a word counts once per pair");
    }

    #[test]
    fn no_captions_give_no_words() {
        assert_eq!(WordCounts::new(2).telling(5), vec![vec![], vec![]]);
    }
}
