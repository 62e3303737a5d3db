//! The same global batches on any number of ranks: what they come to, and after a gang was resized.

use super::*;

/// Pairs of a global batch, as many micro-batches.
const GLOBAL: usize = 12;
const STEPS: usize = 50;

/// Six global batches, each of pairs that the next ones have in another company.
fn batches() -> Vec<Batch> {
    let tensors = golden_tensors();
    let pixels = Vec::<u8>::try_from(find(&tensors, "train.pixels").reshape([-1])).unwrap();
    let tokens = Vec::<i64>::try_from(find(&tensors, "train.tokens").reshape([-1])).unwrap();
    let pairs = tokens.len() / 9;
    (0..6)
        .map(|batch| {
            let pairs = (0..GLOBAL).map(move |at| (batch * 5 + at * 7) % pairs);
            Batch {
                pixels: pairs
                    .clone()
                    .flat_map(|pair| pixels[pair * 768..(pair + 1) * 768].to_vec())
                    .collect::<Vec<u8>>()
                    .into(),
                tokens: pairs.flat_map(|pair| tokens[pair * 9..(pair + 1) * 9].to_vec()).collect(),
                valid: (0..GLOBAL).map(|at| (batch, at) != (2, 5)).collect(),
            }
        })
        .collect()
}

fn trainer() -> Trainer {
    let hyper =
        TrainHyper { peak_lr: 5e-3, warmup_steps: 8, total_steps: 60, ..TrainHyper::default() };
    Trainer::from_model(folder::load(&golden("micro")).unwrap(), hyper)
}

/// Trains `steps` on `world` ranks, from files or from the start; each rank's losses, and the gradient
/// of its first step. Rank 0 saves to `files`.
fn train(
    world: usize,
    micro_batch: Option<usize>,
    steps: std::ops::Range<usize>,
    files: &[PathBuf; 2],
) -> (Vec<f64>, Vec<f32>) {
    let batches = batches();
    let options = TrainOptions { micro_batch, ..TrainOptions::default() };
    let share = GLOBAL / world;
    let ranks: Vec<_> = gang(world).into_iter().collect();
    let seen: Vec<(Vec<f64>, Vec<f32>)> = thread::scope(|scope| {
        let working: Vec<_> = ranks
            .into_iter()
            .map(|mut rank| {
                let steps = steps.clone();
                let own = |batch| part(batch, rank.rank * share..(rank.rank + 1) * share);
                let batches: Vec<Batch> = batches.iter().map(own).collect();
                scope.spawn(move || {
                    let fresh = trainer();
                    let mut trainer = if steps.start == 0 {
                        fresh
                    } else {
                        let config = fresh.model().config().clone();
                        let [model, optimizer] = files;
                        Trainer::load(&config, fresh.hyper, model, optimizer, Placement::default())
                            .unwrap()
                    };
                    trainer = trainer.with_options(options);
                    let (mut losses, mut first) = (Vec::new(), Vec::new());
                    for step in steps {
                        let batch = &batches[step % batches.len()];
                        losses.push(trainer.step(batch, &mut rank).unwrap().loss);
                        if first.is_empty() {
                            first = trainer.gradients.to_vec();
                        }
                    }
                    // Nobody reads the old files any more.
                    rank.barrier().unwrap();
                    if rank.rank == 0 {
                        trainer.save(&files[0], &files[1]).unwrap();
                    }
                    (losses, first)
                })
            })
            .collect();
        working.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    assert!(seen.iter().all(|it| it.0 == seen[0].0), "all ranks see the same losses");
    seen.into_iter().next().unwrap()
}

fn files(folder: &tempfile::TempDir) -> [PathBuf; 2] {
    ["model.safetensors", "optimizer.safetensors"].map(|name| folder.path().join(name))
}

fn assert_same_losses(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len());
    for (step, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() < 1e-4, "{what}, step {step}: {found} {expected}");
    }
}

#[test]
fn any_number_of_ranks_sees_the_same_fifty_losses_and_the_same_first_gradient() {
    let folder = tempfile::tempdir().unwrap();
    let (alone, gradient) = train(1, None, 0..STEPS, &files(&folder));
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / 6.0;
    let fell = mean(&alone[STEPS - 6..]) / mean(&alone[..6]);
    assert!(fell < 0.8, "a loss that does not fall shows nothing: {fell}");
    for (world, micro_batch) in
        [(1, Some(1)), (2, None), (2, Some(1)), (3, Some(2)), (4, None), (4, Some(1)), (6, None)]
    {
        let (losses, first) = train(world, micro_batch, 0..STEPS, &files(&folder));
        assert_same_losses(&losses, &alone, &format!("{world} ranks, {micro_batch:?}"));
        assert_close(&first, &gradient);
    }
}

#[test]
fn a_gang_resized_from_four_to_two_to_three_ranks_goes_on_with_the_same_losses() {
    let folder = tempfile::tempdir().unwrap();
    let (undisturbed, _) = train(4, Some(1), 0..STEPS, &files(&folder));
    let mut losses = Vec::new();
    for (world, steps) in [(4, 0..15), (2, 15..30), (3, 30..STEPS)] {
        losses.extend(train(world, Some(1), steps, &files(&folder)).0);
    }
    assert_same_losses(&losses, &undisturbed, "4, 2 and 3 ranks");
}
