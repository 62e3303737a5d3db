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
