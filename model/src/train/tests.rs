//! Golden losses from open_clip, and what must hold whatever the number of ranks.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::*;
use crate::collective::Solo;
use crate::device::Precision;
use crate::folder;

mod buckets;
mod widths;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn golden_tensors() -> Vec<(String, Tensor)> {
    Tensor::read_safetensors(golden("clip.safetensors")).unwrap()
}

fn find<'a>(tensors: &'a [(String, Tensor)], name: &str) -> &'a Tensor {
    &tensors.iter().find(|(it, _)| it == name).expect("a golden tensor").1
}

fn golden_batch(tensors: &[(String, Tensor)]) -> Batch {
    let pixels = find(tensors, "pixels").reshape([-1]);
    let tokens = find(tensors, "tokens").reshape([-1]);
    Batch {
        pixels: Vec::<u8>::try_from(pixels).unwrap().into(),
        tokens: Vec::<i64>::try_from(tokens).unwrap(),
        valid: vec![true; 6],
    }
}

fn golden_trainer() -> Trainer {
    let hyper =
        TrainHyper { peak_lr: 2e-2, warmup_steps: 4, total_steps: 24, ..TrainHyper::default() };
    Trainer::from_model(folder::load(&golden("micro")).unwrap(), hyper)
}

#[test]
fn twenty_steps_equal_those_of_open_clip() {
    let tensors = golden_tensors();
    let batch = golden_batch(&tensors);
    let mut trainer = golden_trainer();
    for step in 0..20 {
        let report = trainer.step(&batch, &mut Solo).unwrap();
        if step == 0 {
            for entry in trainer.model().params().layout().entries() {
                let expected = find(&tensors, &format!("grad.{}", entry.name)).reshape([-1]);
                let found = Tensor::from_slice(&trainer.gradients.to_vec()[entry.range.clone()]);
                let off = (&found - &expected).norm().double_value(&[]);
                let size = expected.norm().double_value(&[]);
                assert!(off <= 1e-5 * size + 1e-8, "{}: {off} of {size}", entry.name);
            }
        }
        let loss = find(&tensors, "losses").double_value(&[step]);
        assert!((report.loss - loss).abs() < 1e-3 * loss, "step {step}: {} {loss}", report.loss);
        let scale = find(&tensors, "logit_scales").double_value(&[step]);
        assert!((report.logit_scale - scale).abs() < 1e-3 * scale, "step {step}");
    }
    let fell =
        find(&tensors, "losses").double_value(&[19]) / find(&tensors, "losses").double_value(&[0]);
    assert!(fell < 0.8, "the golden run must learn, or it shows nothing");
}

#[test]
fn fifty_steps_on_changing_batches_equal_those_of_open_clip() {
    let tensors = golden_tensors();
    let batches: Vec<Batch> = (0..5)
        .map(|batch| Batch {
            pixels: Vec::<u8>::try_from(find(&tensors, "train.pixels").get(batch).reshape([-1]))
                .unwrap()
                .into(),
            tokens: Vec::try_from(find(&tensors, "train.tokens").get(batch).reshape([-1])).unwrap(),
            valid: vec![true; 6],
        })
        .collect();
    let hyper =
        TrainHyper { peak_lr: 1e-2, warmup_steps: 8, total_steps: 60, ..TrainHyper::default() };
    let every = [
        TrainOptions::default(),
        TrainOptions { micro_batch: Some(4), recompute: true, queued: true },
    ];
    for options in every {
        let model = folder::load(&golden("micro")).unwrap();
        let mut trainer = Trainer::from_model(model, hyper).with_options(options);
        for (step, batch) in (0..50).zip(batches.iter().cycle()) {
            let report = trainer.step(batch, &mut Solo).unwrap();
            for (name, found) in [
                ("train.losses", report.loss),
                ("train.logit_scales", report.logit_scale),
                ("train.lrs", report.lr),
            ] {
                let expected = find(&tensors, name).double_value(&[step]);
                assert!((found - expected).abs() < 1e-3 * expected, "{name} {step}: {found}");
            }
        }
        for entry in trainer.model().params().layout().entries() {
            let expected = find(&tensors, &format!("train.norm.{}", entry.name)).double_value(&[]);
            let parameter = trainer.model().params().master(&entry.name);
            let found = parameter.norm().double_value(&[]);
            let near = 1e-3 * expected + 1e-6;
            // Adding to all keys alike changes no attention, so the gradient by their bias is what rounding leaves
            // of nought, another on each processor, and Adam makes steps of full length of it.
            let keys = match entry.name.ends_with("in_proj_bias") {
                true => parameter.chunk(3, 0)[1].norm().double_value(&[]),
                false => 0.0,
            };
            let with_keys =
                |share: f64| (found.powi(2) + (share.powi(2) - 1.0) * keys.powi(2)).sqrt();
            let due = with_keys(0.9) - near..with_keys(1.1) + near;
            assert!(due.contains(&expected), "{}: {found}, {expected} is due", entry.name);
        }
    }
    let losses = find(&tensors, "train.losses");
    let fell = losses.double_value(&[45]) / losses.double_value(&[0]);
    assert!(fell < 0.8, "the golden run must learn, or it shows nothing");
}

/// Ranks as threads, each holding a channel to every rank.
struct Channels {
    rank: usize,
    to: Vec<Sender<Vec<f32>>>,
    from: Vec<Receiver<Vec<f32>>>,
}

fn gang(world: usize) -> Vec<Channels> {
    let mut ranks: Vec<Channels> =
        (0..world).map(|rank| Channels { rank, to: Vec::new(), from: Vec::new() }).collect();
    for receiver in 0..world {
        for sender in 0..world {
            let (to, from) = channel();
            ranks[sender].to.push(to);
            ranks[receiver].from.push(from);
        }
    }
    ranks
}

impl Collective for Channels {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.to.len()
    }

    fn all_reduce_sum(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        let mut all = Vec::new();
        let own = values.to_vec();
        self.all_gather(&own, &mut all)?;
        values.fill(0.0);
        for part in all.chunks_exact(values.len()) {
            values.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
        }
        Ok(())
    }

    fn all_gather(&mut self, own: &[f32], out: &mut Vec<f32>) -> Result<(), CollectiveError> {
        self.to.iter().for_each(|to| to.send(own.to_vec()).unwrap());
        out.clear();
        self.from.iter().for_each(|from| out.extend(from.recv().unwrap()));
        Ok(())
    }

    fn broadcast(&mut self, root: usize, values: &mut [f32]) -> Result<(), CollectiveError> {
        let mut all = Vec::new();
        self.all_gather(values, &mut all)?;
        values.copy_from_slice(&all[root * values.len()..(root + 1) * values.len()]);
        Ok(())
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.all_gather(&[0.0], &mut Vec::new())
    }
}

/// Pairs `range` of the golden batch.
fn part(batch: &Batch, range: std::ops::Range<usize>) -> Batch {
    Batch {
        pixels: batch.pixels[range.start * 768..range.end * 768].to_vec().into(),
        tokens: batch.tokens[range.start * 9..range.end * 9].to_vec(),
        valid: batch.valid[range].to_vec(),
    }
}

/// What one rank saw of three steps.
struct Trained {
    reports: Vec<StepReport>,
    /// Of the first step. Parameters would not do: Adam blows a gradient that is noise around
    /// nought (a key's bias has none) up to full size.
    grads: Vec<f32>,
    values: Vec<f32>,
}

/// Trains three steps on `world` ranks.
fn train_on(world: usize, batch: &Batch) -> Vec<Trained> {
    train_on_with(world, batch, TrainOptions::default())
}

fn train_on_with(world: usize, batch: &Batch, options: TrainOptions) -> Vec<Trained> {
    let share = batch.valid.len() / world;
    let ranks = gang(world).into_iter().map(|mut rank| {
        let own = part(batch, rank.rank * share..(rank.rank + 1) * share);
        thread::spawn(move || {
            let mut trainer = golden_trainer().with_options(options);
            let mut reports = vec![trainer.step(&own, &mut rank).unwrap()];
            let grads = trainer.gradients.to_vec();
            reports.extend((0..2).map(|_| trainer.step(&own, &mut rank).unwrap()));
            Trained { reports, grads, values: trainer.model().params().values().to_vec() }
        })
    });
    let ranks: Vec<_> = ranks.collect();
    ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
}

/// Each parameter's own gradient, the temperature's too, is the same within 1e-4 of its size.
fn assert_close_by_tensor(one: &[f32], other: &[f32], what: &str) {
    let norm = |values: &mut dyn Iterator<Item = f32>| -> f64 {
        values.map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt()
    };
    for entry in golden_trainer().model.params().layout().entries() {
        let (one, other) = (&one[entry.range.clone()], &other[entry.range.clone()]);
        let off = norm(&mut one.iter().zip(other).map(|(a, b)| a - b));
        let size = norm(&mut other.iter().copied());
        // A key's bias has no gradient but for rounding.
        assert!(off <= 1e-4 * size + 1e-7, "{what}: {} is off by {off} of {size}", entry.name);
    }
}

fn assert_close(one: &[f32], other: &[f32]) {
    let distance = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
    };
    let (off, size) = (distance(one, other), distance(other, &vec![0.0; other.len()]));
    assert!(off < 1e-5 * size, "off by {off} of {size}");
}

#[test]
fn a_gang_of_two_trains_as_one_rank_with_the_whole_batch() {
    let mut batch = golden_batch(&golden_tensors());
    for invalid in [vec![], vec![1, 3], vec![0, 1, 2]] {
        batch.valid = (0..6).map(|pair| !invalid.contains(&pair)).collect();
        let alone = train_on(1, &batch).remove(0);
        let gang = train_on(2, &batch);
        assert!(gang[0].values == gang[1].values, "both ranks hold the same bits");
        assert_eq!(gang[0].reports, gang[1].reports, "both ranks report the same");
        assert_close(&gang[0].grads, &alone.grads);
        for (one, other) in gang[0].reports.iter().zip(&alone.reports) {
            assert!((one.loss - other.loss).abs() < 1e-5 * other.loss, "{one:?} {other:?}");
            assert!((one.grad_norm - other.grad_norm).abs() < 1e-4 * other.grad_norm);
            assert_eq!(one.valid_pairs, 6 - invalid.len() as u64);
        }
    }
}

/// What a trainer with `options` makes of five steps on a batch with a pair masked out, and the
/// gradient of the first.
fn trained_with(options: TrainOptions, placement: Placement) -> (Vec<StepReport>, Vec<f32>) {
    let mut batch = golden_batch(&golden_tensors());
    batch.valid[3] = false;
    let model = folder::load_at(&golden("micro"), placement).unwrap();
    let mut trainer = Trainer::from_model(model, golden_trainer().hyper).with_options(options);
    let mut reports = vec![trainer.step(&batch, &mut Solo).unwrap()];
    let grads = trainer.gradients.to_vec();
    reports.extend((0..4).map(|_| trainer.step(&batch, &mut Solo).unwrap()));
    (reports, grads)
}

#[test]
fn micro_batches_recomputation_and_queued_updates_change_nothing_but_rounding() {
    let placement = Placement::default();
    let (reports, grads) = trained_with(TrainOptions::default(), placement);
    for micro_batch in [None, Some(1), Some(4), Some(100)] {
        for (recompute, queued) in [(false, false), (false, true), (true, false), (true, true)] {
            let options = TrainOptions { micro_batch, recompute, queued };
            let (other_reports, other_grads) = trained_with(options, placement);
            assert_close_by_tensor(&other_grads, &grads, &format!("{options:?}"));
            for (one, other) in reports.iter().zip(&other_reports) {
                let near = |a: f64, b: f64, by: f64| (a - b).abs() <= by * b.abs();
                let is_near = near(other.loss, one.loss, 1e-4)
                    && near(other.logit_scale, one.logit_scale, 1e-4)
                    && near(other.grad_norm, one.grad_norm, 1e-3)
                    && (other.step, other.lr, other.valid_pairs)
                        == (one.step, one.lr, one.valid_pairs);
                assert!(is_near, "{options:?}: {other:?} for {one:?}");
            }
        }
    }
}

#[test]
fn bf16_follows_f32_and_keeps_f32_masters() {
    let placement = Placement { precision: Precision::Bf16, ..Placement::default() };
    let (expected, _) = trained_with(TrainOptions::default(), Placement::default());
    for (recompute, queued) in [(false, false), (true, true)] {
        let options = TrainOptions { micro_batch: Some(4), recompute, queued };
        let (reports, _) = trained_with(options, placement);
        for (one, other) in reports.iter().zip(&expected) {
            assert!((one.loss - other.loss).abs() < 3e-2 * other.loss, "{one:?} for {other:?}");
        }
    }
    // An update far below the last bit of bf16 is not lost.
    let hyper = TrainHyper { peak_lr: 1e-6, warmup_steps: 0, ..golden_trainer().hyper };
    let model = folder::load_at(&golden("micro"), placement).unwrap();
    let mut trainer = Trainer::from_model(model, hyper);
    let before = trainer.model.params().values().to_vec();
    trainer.step(&golden_batch(&golden_tensors()), &mut Solo).unwrap();
    let moved = trainer.model.params().values().iter().zip(&before).filter(|(a, b)| a != b).count();
    assert!(moved > before.len() / 2, "{moved} of {} masters moved", before.len());
}

#[test]
fn a_queued_step_that_is_not_finite_is_refused_and_the_next_takes_its_rate() {
    let batch = golden_batch(&golden_tensors());
    let queued = TrainOptions { queued: true, ..TrainOptions::default() };
    let mut trainer = golden_trainer().with_options(queued);
    let mut alone = golden_trainer().with_options(queued);
    let expected: Vec<StepReport> =
        (0..3).map(|_| alone.step(&batch, &mut Solo).unwrap()).collect();

    assert_eq!(trainer.step(&batch, &mut Solo).unwrap(), expected[0]);
    let mut bias = trainer.model.params().master("ln_final.bias");
    let sound = bias.copy();
    let _ = tch::no_grad(|| bias.fill_(f64::NAN));
    trainer.begin(&batch, &mut Solo).unwrap();
    tch::no_grad(|| bias.copy_(&sound));
    // Queued before anybody knows that the step before was refused.
    trainer.begin(&batch, &mut Solo).unwrap();
    assert_eq!(trainer.in_flight(), 2);
    let refused = trainer.outcome().unwrap().unwrap_err();
    assert!(matches!(refused, StepError::NotFinite { step: 1, .. }), "{refused}");
    assert_eq!(trainer.outcome().unwrap().unwrap(), expected[1]);
    assert!(trainer.outcome().is_none());
    assert_eq!(trainer.step(&batch, &mut Solo).unwrap(), expected[2]);
    assert!(trainer.model.params().values() == alone.model.params().values());
}

#[test]
fn a_pair_that_is_not_valid_might_as_well_not_be_there() {
    let batch = golden_batch(&golden_tensors());
    let mut masked = batch.clone();
    masked.valid[4] = false;
    masked.valid[5] = false;
    let (with, without) =
        (train_on(1, &masked).remove(0), train_on(1, &part(&batch, 0..4)).remove(0));
    assert_close(&with.grads, &without.grads);
    assert!((with.reports[2].loss - without.reports[2].loss).abs() < 1e-5);
}

#[test]
fn a_gang_with_queued_updates_micro_batches_and_recomputation_trains_as_one_rank() {
    let mut batch = golden_batch(&golden_tensors());
    batch.valid[4] = false;
    let alone = train_on(1, &batch).remove(0);
    let options = TrainOptions { micro_batch: Some(2), recompute: true, queued: true };
    let gang = train_on_with(2, &batch, options);
    assert!(gang[0].values == gang[1].values, "both ranks hold the same bits");
    assert_eq!(gang[0].reports, gang[1].reports, "both ranks report the same");
    assert_close_by_tensor(&gang[0].grads, &alone.grads, "gang");
    for (one, other) in gang[0].reports.iter().zip(&alone.reports) {
        assert!((one.loss - other.loss).abs() < 1e-5 * other.loss, "{one:?} {other:?}");
    }
}

#[test]
fn every_kind_of_tower_has_the_same_gradient_with_and_without_recomputation() {
    let configs: serde_json::Value =
        serde_json::from_str(include_str!("../../tests/golden/variants.json")).unwrap();
    let batch = Batch {
        pixels: (0..4 * 192)
            .map(|i| u8::try_from(i * 7919 % 251).unwrap())
            .collect::<Vec<_>>()
            .into(),
        tokens: vec![
            10, 3, 11, 0, 0, 0, 10, 7, 4, 7, 11, 0, 10, 1, 2, 3, 4, 11, 10, 5, 7, 11, 0, 0,
        ],
        valid: vec![true; 4],
    };
    for (name, config) in configs.as_object().unwrap() {
        let config = ClipConfig::from_json(&config.to_string()).unwrap();
        let layout = ClipModel::new(&config, 3).params().layout().clone();
        let grads = |options| {
            let mut trainer =
                Trainer::new(&config, golden_trainer().hyper, 3).with_options(options);
            trainer.step(&batch, &mut Solo).unwrap();
            trainer.gradients.to_vec()
        };
        let plain = grads(TrainOptions::default());
        for entry in layout.entries() {
            let own = &plain[entry.range.clone()];
            // The head's query, key and value biases may have none; nothing else may be left out.
            assert!(
                own.iter().any(|value| *value != 0.0),
                "{name}: {} has no gradient",
                entry.name
            );
        }
        for options in [
            TrainOptions { recompute: true, ..TrainOptions::default() },
            TrainOptions { micro_batch: Some(3), recompute: true, queued: true },
        ] {
            let other = grads(options);
            let distance = |a: &[f32], b: &[f32]| -> f32 {
                a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
            };
            for entry in layout.entries() {
                let (a, b) = (&other[entry.range.clone()], &plain[entry.range.clone()]);
                let (off, size) = (distance(a, b), distance(b, &vec![0.0; b.len()]));
                assert!(off <= 1e-4 * size + 1e-7, "{name}: {}: {off} of {size}", entry.name);
            }
        }
    }
}

#[test]
fn weights_that_are_not_finite_are_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let (model, optimizer) = (dir.path().join("m.safetensors"), dir.path().join("o.safetensors"));
    let mut trainer = golden_trainer();
    trainer.step(&golden_batch(&golden_tensors()), &mut Solo).unwrap();
    let place = trainer.model.params().layout().get("ln_final.bias").unwrap().range.start;
    trainer.model.params_mut().values_mut()[place] = f32::INFINITY;
    let error = trainer.save(&model, &optimizer).unwrap_err().to_string();
    assert!(error.contains("tensor ln_final.bias holds a value that is not finite"), "{error}");
    assert!(!model.exists() && !optimizer.exists());
}

#[test]
fn a_step_that_is_not_finite_is_refused_on_every_rank_and_changes_nothing() {
    let batch = golden_batch(&golden_tensors());
    let ranks = gang(2).into_iter().map(|mut rank| {
        let own = part(&batch, rank.rank * 3..rank.rank * 3 + 3);
        thread::spawn(move || {
            let mut trainer = golden_trainer();
            trainer.step(&own, &mut rank).unwrap();
            let sound = trainer.model.params().values().to_vec();
            if rank.rank == 1 {
                let place = trainer.model.params().layout().get("visual.proj").unwrap().range.start;
                trainer.model.params_mut().values_mut()[place] = f32::NAN;
            }
            let broken = trainer.model.params().values().to_vec();
            let error = trainer.step(&own, &mut rank).unwrap_err();
            assert!(matches!(error, StepError::NotFinite { step: 1, .. }), "{error}");
            assert_eq!(trainer.steps_done(), 1);
            let same =
                |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same(trainer.model.params().values(), &broken));
            trainer.model.params_mut().values_mut().copy_from_slice(&sound);
            trainer.step(&own, &mut rank).unwrap().loss
        })
    });
    let ranks: Vec<_> = ranks.collect();
    for rank in ranks {
        assert!(rank.join().unwrap().is_finite(), "the step after is sound again");
    }
}

#[test]
fn a_batch_without_a_valid_pair_is_refused() {
    let mut batch = golden_batch(&golden_tensors());
    batch.valid.fill(false);
    let error = golden_trainer().step(&batch, &mut Solo).unwrap_err();
    assert!(matches!(error, StepError::NoValidPairs { step: 0 }), "{error}");
    batch.pixels = batch.pixels[1..].to_vec().into();
    let error = golden_trainer().step(&batch, &mut Solo).unwrap_err().to_string();
    assert!(error.contains("pixels hold 4607 values where 4608 are due"), "{error}");
}

#[test]
fn resumed_training_equals_undisturbed_training_bit_for_bit() {
    crate::threads::set_intra_op(1);
    let batch = golden_batch(&golden_tensors());
    let mut undisturbed = golden_trainer();
    let reports: Vec<StepReport> =
        (0..6).map(|_| undisturbed.step(&batch, &mut Solo).unwrap()).collect();
    let dir = tempfile::tempdir().unwrap();
    let (model, optimizer) =
        (dir.path().join("model.safetensors"), dir.path().join("optimizer.safetensors"));
    let mut first = golden_trainer();
    for report in &reports[..3] {
        assert_eq!(first.step(&batch, &mut Solo).unwrap(), *report);
    }
    first.save(&model, &optimizer).unwrap();
    let config = first.model().config().clone();
    let mut second =
        Trainer::load(&config, first.hyper, &model, &optimizer, Placement::default()).unwrap();
    assert_eq!(second.steps_done(), 3);
    for report in &reports[3..] {
        assert_eq!(second.step(&batch, &mut Solo).unwrap(), *report);
    }
    assert!(second.model().params().values() == undisturbed.model().params().values());
    let moments = |trainer: &Trainer| {
        let (first, second) = trainer.optimizer.to_host();
        [first, second].map(|it| native::values(&it).to_vec())
    };
    assert!(moments(&second) == moments(&undisturbed));
}

#[test]
fn an_optimizer_file_of_another_model_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (model, optimizer) = (dir.path().join("m.safetensors"), dir.path().join("o.safetensors"));
    let trainer = golden_trainer();
    trainer.save(&model, &optimizer).unwrap();
    let mut tensors = Tensor::read_safetensors(&optimizer).unwrap();
    tensors.retain(|(name, _)| name != "exp_avg_sq.logit_scale");
    Tensor::write_safetensors(&tensors, &optimizer).unwrap();
    let config = trainer.model().config().clone();
    let error = Trainer::load(&config, trainer.hyper, &model, &optimizer, Placement::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("exp_avg_sq.logit_scale is missing"), "{error}");
}

#[test]
fn the_temperature_never_passes_one_hundred() {
    let batch = golden_batch(&golden_tensors());
    let mut trainer = golden_trainer();
    let place = trainer.model.params().layout().get(LOGIT_SCALE).unwrap().range.start;
    trainer.model.params_mut().values_mut()[place] = 5.5;
    let report = trainer.step(&batch, &mut Solo).unwrap();
    assert!(report.logit_scale <= 100.0_f64.ln() + 1e-6, "{report:?}");
}

#[test]
fn the_tiny_preset_learns_a_batch_by_heart() {
    let config = ClipConfig::preset("tiny").unwrap();
    let hyper =
        TrainHyper { peak_lr: 2e-3, warmup_steps: 2, total_steps: 40, ..TrainHyper::default() };
    let mut trainer = Trainer::new(&config, hyper, 3);
    let pairs = 8_usize;
    let noise = |i: usize| u8::try_from((i * 7919 + i / 3072 * 104_729) % 251).unwrap();
    let mut tokens = vec![0; pairs * 16];
    for (pair, row) in tokens.chunks_mut(16).enumerate() {
        row[..3].copy_from_slice(&[49_406, 1000 + i64::try_from(pair).unwrap(), 49_407]);
    }
    let pixels = (0..pairs * 3 * 32 * 32).map(noise).collect::<Vec<_>>().into();
    let batch = Batch { pixels, tokens, valid: vec![true; pairs] };
    let losses: Vec<f64> = (0..25).map(|_| trainer.step(&batch, &mut Solo).unwrap().loss).collect();
    assert!(losses[24] < 0.5 * losses[0], "{losses:?}");
}
