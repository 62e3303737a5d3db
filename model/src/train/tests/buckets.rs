//! Gradients in buckets: the same sums, made while the backward pass goes on.

use std::time::{Duration, Instant};

use super::*;
use crate::train::buckets::{Place, Plan, Reducer, Tower, reduce};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn every_parameter_is_in_one_bucket_however_many_there_are() {
    let trainer = golden_trainer();
    let layout = trainer.model.params().layout();
    let sizes = layout.entries().iter().map(|entry| entry.range.len());
    let half = sizes.sum::<usize>() / 2;
    let mut lengths = Vec::new();
    for enough in [1, half, usize::MAX] {
        let plan = Plan::of(&trainer.model, enough);
        let mut params: Vec<usize> = plan.params().flatten().copied().collect();
        params.sort_unstable();
        let is_exchanged = |index: &usize| {
            let name = &layout.entries()[*index].name;
            name != crate::text::TOKEN_EMBEDDING && name != LOGIT_SCALE
        };
        let all: Vec<usize> = (0..layout.entries().len()).filter(is_exchanged).collect();
        assert_eq!(params, all, "buckets of {enough}");
        lengths.push(plan.params().count());
    }
    assert!(lengths[0] > lengths[1] && lengths[1] > lengths[2], "{lengths:?}");
    assert_eq!(lengths[2], 1);
}

/// The first step's gradient on `world` ranks, in buckets of `enough`.
fn gradient(world: usize, enough: usize, options: TrainOptions, batch: &Batch) -> Vec<Vec<f32>> {
    let share = batch.valid.len() / world;
    let ranks: Vec<_> = gang(world).into_iter().collect();
    thread::scope(|scope| {
        let working = ranks.into_iter().map(|mut rank| {
            let own = part(batch, rank.rank * share..(rank.rank + 1) * share);
            scope.spawn(move || {
                let mut trainer = golden_trainer().with_options(options);
                trainer.buckets = Arc::new(Plan::of(&trainer.model, enough));
                trainer.step(&own, &mut rank).unwrap();
                trainer.gradients.to_vec()
            })
        });
        let working: Vec<_> = working.collect();
        working.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

#[test]
fn sums_in_many_buckets_are_those_in_one_bit_for_bit() {
    let mut batch = golden_batch(&golden_tensors());
    let plain = TrainOptions::default();
    let every = TrainOptions { micro_batch: Some(1), recompute: true, queued: true };
    for (world, options) in [(2, plain), (3, plain), (2, every), (3, every)] {
        // Of three ranks, one has no pair at all to take a gradient from.
        for invalid in [vec![1], vec![2, 3]] {
            batch.valid = (0..6).map(|pair| !invalid.contains(&pair)).collect();
            let one = gradient(world, usize::MAX, options, &batch);
            for enough in [1, 20_000] {
                let many = gradient(world, enough, options, &batch);
                assert!(one == many, "{world} ranks, buckets of {enough}, {options:?}");
            }
            assert!(one.iter().all(|rank| rank == &one[0]), "all ranks hold the same bits");
        }
    }
}

/// Exchanges tensors as ranks on GPUs do, each sum at once when it is begun: what is added to a part afterwards is in
/// no sum.
struct OnDevice {
    ranks: Channels,
    begun: usize,
}

impl Collective for OnDevice {
    fn rank(&self) -> usize {
        self.ranks.rank()
    }

    fn world_size(&self) -> usize {
        self.ranks.world_size()
    }

    fn all_reduce_sum(&mut self, _: &mut [f32]) -> Result<(), CollectiveError> {
        unreachable!("nothing is summed in host memory")
    }

    fn all_gather(&mut self, own: &[f32], out: &mut Vec<f32>) -> Result<(), CollectiveError> {
        self.ranks.all_gather(own, out)
    }

    fn broadcast(&mut self, _: usize, _: &mut [f32]) -> Result<(), CollectiveError> {
        unreachable!("nothing is told by one")
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.ranks.barrier()
    }

    fn is_on_device(&self) -> bool {
        true
    }

    fn begin_sum(&mut self, tensor: &Tensor) -> Result<(), CollectiveError> {
        let mut values = Vec::try_from(tensor).unwrap();
        self.ranks.all_reduce_sum(&mut values)?;
        tch::no_grad(|| tensor.shallow_clone().copy_(&Tensor::from_slice(&values)));
        self.begun += 1;
        Ok(())
    }

    fn end_sums(&mut self) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn gather_tensors(&mut self, own: &Tensor) -> Result<Tensor, CollectiveError> {
        let mut all = Vec::new();
        self.ranks.all_gather(&Vec::try_from(own).unwrap(), &mut all)?;
        Ok(Tensor::from_slice(&all).view([i64::try_from(self.world_size()).unwrap(), -1]))
    }
}

#[test]
fn parts_of_the_one_buffer_are_summed_where_they_lie_once_nothing_is_added_to_them() {
    let mut batch = golden_batch(&golden_tensors());
    batch.valid[1] = false;
    let options = TrainOptions { micro_batch: Some(1), queued: true, ..TrainOptions::default() };
    for world in [2, 3] {
        let through_host = gradient(world, usize::MAX, options, &batch);
        for enough in [usize::MAX, 20_000, 1] {
            let share = batch.valid.len() / world;
            let found: Vec<(Vec<f32>, usize)> = thread::scope(|scope| {
                let working: Vec<_> = gang(world)
                    .into_iter()
                    .map(|ranks| {
                        let own = part(&batch, ranks.rank * share..(ranks.rank + 1) * share);
                        let mut rank = OnDevice { ranks, begun: 0 };
                        scope.spawn(move || {
                            let mut trainer = golden_trainer().with_options(options);
                            trainer.buckets = Arc::new(Plan::of(&trainer.model, enough));
                            trainer.step(&own, &mut rank).unwrap();
                            (trainer.gradients.to_vec(), rank.begun)
                        })
                    })
                    .collect();
                working.into_iter().map(|rank| rank.join().unwrap()).collect()
            });
            // The share of the loss is one sum more.
            let sums = found[0].1 - 1;
            assert!(sums < 4 || enough < usize::MAX, "{sums} sums of one bucket");
            assert!(sums > 6 || enough > 1, "{sums} sums of many buckets");
            for (gradient, _) in &found {
                assert_close_by_tensor(gradient, &through_host[0], "on devices");
                assert!(gradient == &found[0].0, "all ranks hold the same bits");
            }
        }
    }
}

/// One of two ranks: tells when a sum has begun, and ends it when it is told to.
struct Held {
    begun: Sender<usize>,
    go: Receiver<Result<(), CollectiveError>>,
    waited: Duration,
}

impl Collective for Held {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        2
    }

    fn all_reduce_sum(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.begun.send(values.len()).unwrap();
        self.waited += Duration::from_secs(3_600);
        self.go.recv().unwrap_or(Err(CollectiveError::Aborted))
    }

    fn all_gather(&mut self, _: &[f32], _: &mut Vec<f32>) -> Result<(), CollectiveError> {
        unreachable!("gradients are only summed")
    }

    fn broadcast(&mut self, _: usize, _: &mut [f32]) -> Result<(), CollectiveError> {
        unreachable!("gradients are only summed")
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        unreachable!("gradients are only summed")
    }

    fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }

    fn add_waited(&mut self, waited: Duration) {
        self.waited += waited;
    }
}

type Go = Sender<Result<(), CollectiveError>>;

/// Hands gradients of nought over as `work` says.
fn held(
    work: impl FnOnce(&mut Reducer<'_>, &mut Gradients, &Receiver<usize>, Go) -> Result<(), StepError>,
) -> (Result<(), StepError>, Duration) {
    let trainer = golden_trainer();
    let plan = Plan::of(&trainer.model, 1);
    let mut gradients = gradients_of(&trainer.model, false);
    let (begun, has_begun) = channel();
    let (go, may_go) = channel();
    let mut collective = Held { begun, go: may_go, waited: Duration::from_secs(1) };
    let result = reduce(&plan, vec![0, 5], &mut collective, false, |reducer| {
        work(reducer, &mut gradients, &has_begun, go)
    });
    (result, collective.waited)
}

/// The last segment of the picture tower: where the backward pass begins.
fn first() -> Place {
    let segment = golden_trainer().model.config().model.vision.blocks.layers;
    Place { tower: Tower::Vision, segment: usize::try_from(segment).unwrap() }
}

#[test]
fn a_bucket_is_summed_while_the_backward_pass_goes_on() {
    let (result, waited) = held(|reducer, gradients, begun, go| {
        reducer.passed(first(), gradients)?;
        // Nobody has asked for the sums yet.
        begun.recv_timeout(SOON).expect("the first bucket is being summed");
        for _ in 0..100 {
            go.send(Ok(())).unwrap();
        }
        Ok(reducer.finish(gradients)?)
    });
    result.unwrap();
    // An hour a bucket by the collective's own account, but the rank was idle for no hour.
    assert!(waited < Duration::from_secs(1) + SOON, "{waited:?}");
    assert!(waited >= Duration::from_secs(1), "what was there before is kept: {waited:?}");
}

#[test]
fn a_peer_that_is_lost_meanwhile_is_told_as_such() {
    let since = Instant::now();
    let (result, _) = held(|reducer, gradients, begun, go| {
        reducer.passed(first(), gradients)?;
        begun.recv_timeout(SOON).expect("the first bucket is being summed");
        go.send(Err(CollectiveError::PeerLost { peer: 1, source: None })).unwrap();
        // The rest is handed over to nobody, at once or at the end.
        Ok(reducer.finish(gradients)?)
    });
    let error = result.unwrap_err();
    let is_told = matches!(error, StepError::Collective(CollectiveError::PeerLost { peer: 1, .. }));
    assert!(is_told, "{error}");
    assert!(since.elapsed() < SOON);
}
