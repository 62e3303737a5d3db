use super::*;
use crate::rng::Rng;

const WIDTH: usize = 16;

/// Unit vectors around `blobs` random directions; blob `i` has `sizes[i]` of them.
#[expect(clippy::cast_possible_truncation, reason = "test data")]
fn blobs(sizes: &[usize], spread: f64, seed: u64) -> (Vec<f32>, Vec<usize>) {
    let mut rng = Rng::new(seed);
    let mut unit = |around: &[f64], spread: f64| -> Vec<f64> {
        let row: Vec<f64> = around.iter().map(|it| it + spread * rng.normal()).collect();
        let norm = row.iter().map(|it| it * it).sum::<f64>().sqrt();
        row.into_iter().map(|it| it / norm).collect()
    };
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    for (blob, &size) in sizes.iter().enumerate() {
        let centre = unit(&[0.0; WIDTH], 1.0);
        for _ in 0..size {
            values.extend(unit(&centre, spread).into_iter().map(|it| it as f32));
            labels.push(blob);
        }
    }
    (values, labels)
}

fn options(clusters: usize) -> FineOptions {
    FineOptions { clusters, seed: 3, ..FineOptions::default() }
}

#[test]
fn blobs_of_one_size_are_found() {
    let (values, labels) = blobs(&[100; 8], 0.05, 1);
    let found = fine(Points::new(&values, WIDTH).unwrap(), &options(8)).unwrap();
    for blob in 0..8 {
        let mut ids: Vec<u32> = (0..labels.len())
            .filter(|&point| labels[point] == blob)
            .map(|point| found.assignment[point])
            .collect();
        ids.dedup();
        assert_eq!(ids.len(), 1, "blob {blob} is one cluster");
    }
    assert!(found.mean_similarity > 0.97, "{}", found.mean_similarity);
    assert!(found.sizes.iter().all(|&size| size == 100), "{:?}", found.sizes);
}

#[test]
fn no_cluster_passes_its_balance_however_unequal_the_blobs() {
    let (values, _) = blobs(&[900, 40, 30, 20, 10], 0.2, 2);
    let points = Points::new(&values, WIDTH).unwrap();
    for (clusters, balance) in [(10, 0.1), (10, 0.0), (7, 0.3), (64, 0.1)] {
        let found = fine(points, &FineOptions { balance, ..options(clusters) }).unwrap();
        let mean = 1000.0 / clusters as f64;
        let allowed = ((1.0 + balance) * mean).max(mean.ceil());
        let largest = *found.sizes.iter().max().unwrap();
        assert!(largest as f64 <= allowed, "{largest} passes {allowed} at m = {clusters}");
        assert_eq!(found.sizes.iter().sum::<usize>(), 1000, "every point has a cluster");
    }
}

#[test]
fn points_turned_away_are_spread_not_dumped() {
    // All points are alike: with room for 25 each, no cluster may be a tip.
    let values = [1.0_f32, 0.0].repeat(100);
    let found = fine(Points::new(&values, 2).unwrap(), &FineOptions { balance: 0.0, ..options(4) });
    assert_eq!(found.unwrap().sizes, vec![25; 4]);
}

#[test]
fn the_balanced_assignment_is_stable() {
    let (values, _) = blobs(&[300, 60, 40], 0.4, 5);
    let points = Points::new(&values, WIDTH).unwrap();
    let (centres, _) = blobs(&[1; 20], 0.0, 6);
    let centres = Points::new(&centres, WIDTH).unwrap();
    let found = balanced::assign_within(points, centres, 22);
    let of = &found.cluster;
    let held = |cluster: u32| (0..points.len()).filter(move |&it| of[it] == cluster);
    for point in 0..points.len() {
        for (other, centre) in (0..).zip(centres.rows()) {
            let liked = dot(points.row(point), centre);
            if liked <= found.similarity[point] + 1e-5 {
                continue;
            }
            let least = held(other).map(|it| found.similarity[it]).fold(f32::INFINITY, f32::min);
            assert_eq!(held(other).count(), 22, "a nearer cluster with room was passed over");
            assert!(least >= liked - 1e-5, "cluster {other} holds a farther point than {point}");
        }
    }
}

#[test]
fn the_seed_decides_everything() {
    let (values, _) = blobs(&[50; 6], 0.5, 8);
    let points = Points::new(&values, WIDTH).unwrap();
    let run = |seed| fine(points, &FineOptions { seed, ..options(6) }).unwrap();
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).centres, run(2).centres);
}

#[test]
fn every_point_goes_to_its_nearest_centre_and_ties_to_the_lower_id() {
    let centres = [1.0_f32, 0.0, 0.0, 1.0, 1.0, 0.0];
    let centres = Points::new(&centres, 2).unwrap();
    let points = [0.8_f32, 0.6, 0.6, 0.8];
    let found = assign(Points::new(&points, 2).unwrap(), centres).unwrap();
    assert_eq!(found[0], Nearest { cluster: 0, similarity: 0.8 });
    assert_eq!(found[1], Nearest { cluster: 1, similarity: 0.8 });
}

#[test]
fn coarse_clusters_group_neighbours_and_none_is_empty() {
    let (values, labels) = blobs(&[16; 4], 0.1, 9);
    let points = Points::new(&values, WIDTH).unwrap();
    let found =
        coarse(points, None, &CoarseOptions { seed: 1, ..CoarseOptions::default() }).unwrap();
    for (one, label) in labels.iter().enumerate() {
        for (other, other_label) in labels.iter().enumerate() {
            assert_eq!(found.of_fine[one] == found.of_fine[other], label == other_label);
        }
    }
    let alike = [1.0_f32, 0.0].repeat(9);
    let found = coarse(Points::new(&alike, 2).unwrap(), None, &CoarseOptions::default()).unwrap();
    assert!((0..4).all(|cluster| found.of_fine.contains(&cluster)), "{:?}", found.of_fine);
}

#[test]
fn a_coarse_balance_bounds_the_weight_of_an_expert() {
    let (values, _) = blobs(&[40, 12, 8, 4], 0.2, 10);
    let points = Points::new(&values, WIDTH).unwrap();
    let weights: Vec<f64> = (0..64).map(|i| f64::from(50 + i % 7)).collect();
    let load = |balance| {
        let options = CoarseOptions { balance, seed: 2, ..CoarseOptions::default() };
        let found = coarse(points, Some(&weights), &options).unwrap();
        let mut load = [0.0; 4];
        for (weight, &cluster) in weights.iter().zip(&found.of_fine) {
            load[cluster as usize] += weight;
        }
        load.into_iter().fold(0.0, f64::max) / (weights.iter().sum::<f64>() / 4.0)
    };
    assert!(load(None) > 1.5, "these blobs are unequal");
    assert!(load(Some(0.25)) <= 1.25, "the balance holds");
}

#[test]
fn bad_points_are_refused() {
    assert_eq!(
        Points::new(&[1.0; 5], 2).unwrap_err(),
        ClusterError::Ragged { values: 5, width: 2 }
    );
    let error = Points::new(&[1.0, 0.0, f32::NAN, 0.0], 2).unwrap_err();
    assert_eq!(error, ClusterError::BadRow { row: 1 });
    let points = Points::new(&[1.0, 0.0, 0.0, 1.0], 2).unwrap();
    let error = fine(points, &options(3)).unwrap_err();
    assert_eq!(error, ClusterError::TooFewPoints { points: 2, clusters: 3 });
}
