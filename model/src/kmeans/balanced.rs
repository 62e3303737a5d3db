//! Assignment under capacity: every point asks for its nearest centre that will have it.
//!
//! Deferred acceptance: a centre that is full keeps the points nearest to it and turns the farthest
//! away, which then asks the next centre on its own list. The outcome is stable — no point and
//! centre would both rather have each other — and does not depend on the order of the points.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::nearest::for_each_row;
use super::{Points, dot};

/// Centres listed per point at first; few points are turned away more often.
const LISTED: usize = 16;

/// A point held by a centre; the greatest is the one to let go first.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Held {
    similarity: f32,
    point: usize,
}

impl Eq for Held {}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> Ordering {
        other.similarity.total_cmp(&self.similarity).then(self.point.cmp(&other.point))
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A centre as one point sees it.
#[derive(Clone, Copy, Debug)]
struct Choice {
    cluster: u32,
    similarity: f32,
}

/// What every point was given.
pub(super) struct Assigned {
    pub(super) cluster: Vec<u32>,
    pub(super) similarity: Vec<f32>,
}

/// Assigns each point to one centre, none of which gets more than `capacity` of them.
///
/// `capacity · centres` must be at least the number of points.
pub(super) fn assign_within(points: Points<'_>, centres: Points<'_>, capacity: usize) -> Assigned {
    assert!(capacity * centres.len() >= points.len(), "room for every point");
    let listed = LISTED.min(centres.len());
    let mut choices: Vec<Choice> = Vec::with_capacity(points.len() * listed);
    let mut row_choices = Vec::with_capacity(centres.len());
    for_each_row(points, centres, |_, similarities| {
        ranked(similarities, listed, &mut row_choices);
        choices.extend_from_slice(&row_choices);
    });
    let mut held: Vec<BinaryHeap<Held>> = vec![BinaryHeap::new(); centres.len()];
    let mut asked = vec![0_usize; points.len()];
    let mut long_lists: Vec<Option<Vec<Choice>>> = vec![None; points.len()];
    for first in 0..points.len() {
        let mut point = first;
        loop {
            let next = asked[point];
            let choice = if next < listed {
                choices[point * listed + next]
            } else {
                long_lists[point].get_or_insert_with(|| all_choices(points.row(point), centres))
                    [next]
            };
            asked[point] += 1;
            let holders = &mut held[choice.cluster as usize];
            holders.push(Held { similarity: choice.similarity, point });
            if holders.len() <= capacity {
                break;
            }
            point = holders.pop().expect("it holds more than its capacity").point;
        }
    }
    let mut assigned =
        Assigned { cluster: vec![0; points.len()], similarity: vec![0.0; points.len()] };
    for (cluster, holders) in (0_u32..).zip(held) {
        for Held { similarity, point } in holders.into_iter() {
            assigned.cluster[point] = cluster;
            assigned.similarity[point] = similarity;
        }
    }
    assigned
}

/// All centres by falling similarity.
///
/// The short list was made by a blocked product, whose last bits may differ from these: points that
/// come here skip or repeat a centre only among near-ties, and still visit every other.
fn all_choices(row: &[f32], centres: Points<'_>) -> Vec<Choice> {
    let similarities: Vec<f32> = centres.rows().map(|centre| dot(row, centre)).collect();
    let mut choices = Vec::new();
    ranked(&similarities, similarities.len(), &mut choices);
    choices
}

/// The best `count` centres by falling similarity, ties by id.
fn ranked(similarities: &[f32], count: usize, out: &mut Vec<Choice>) {
    out.clear();
    out.extend(
        (0_u32..).zip(similarities).map(|(cluster, &similarity)| Choice { cluster, similarity }),
    );
    let order = |a: &Choice, b: &Choice| {
        b.similarity.total_cmp(&a.similarity).then(a.cluster.cmp(&b.cluster))
    };
    if count < out.len() {
        out.select_nth_unstable_by(count, order);
        out.truncate(count);
    }
    out.sort_unstable_by(order);
}
