//! G4: through crashes and resizes the committed history is the stream, each pair once an epoch.

use std::collections::BTreeMap;

use super::*;

/// One gang's life: it resumes from the last commit, reads on and crashes.
#[derive(Clone, Debug)]
struct Incarnation {
    ranks: u32,
    /// Steps done before the crash, and whether each is committed when done.
    steps: Vec<bool>,
}

#[derive(Clone, Debug)]
struct History {
    micro_batches: u32,
    micro_batch: u32,
    incarnations: Vec<Incarnation>,
}

/// Histories of global batches of K micro-batches; every gang's size divides K.
fn any_history() -> impl Strategy<Value = History> {
    (prop::sample::select(vec![1_u32, 2, 4, 6, 12]), 1_u32..6).prop_flat_map(
        |(micro_batches, micro_batch)| {
            let sizes: Vec<u32> =
                (1..=micro_batches).filter(|it| micro_batches % it == 0).collect();
            let steps = prop::collection::vec(prop::bool::weighted(0.3), 0..15);
            let incarnation = (prop::sample::select(sizes), steps)
                .prop_map(|(ranks, steps)| Incarnation { ranks, steps });
            let incarnations = prop::collection::vec(incarnation, 1..8);
            (Just(micro_batches), Just(micro_batch), incarnations).prop_map(
                |(micro_batches, micro_batch, incarnations)| History {
                    micro_batches,
                    micro_batch,
                    incarnations,
                },
            )
        },
    )
}

/// Stands for a picture that cannot be decoded, wherever it is met.
fn is_bad(draw: &Draw) -> bool {
    match draw.at {
        PairAt::Own { shard, index } => (shard + index) % 4 == 0,
        PairAt::Foreign { shard, pass, index } => (shard + pass + index) % 3 == 0,
    }
}

/// The slots that `ranks` ranks read at `step`, each by a process of its own.
fn read(readers: &mut [Order], step: Step, size: u32) -> Vec<Vec<Slot>> {
    let ranks = readers.len() as u32;
    (0..)
        .zip(readers)
        .map(|(rank, reader)| {
            let batch = reader.batch(cursor(step, size), size).with_masks(is_bad);
            batch.share(rank, ranks).to_vec()
        })
        .collect()
}

proptest! {
    #[test]
    fn through_crashes_and_resizes_each_pair_is_used_once_an_epoch(
        seed: u64,
        sources in any_sources(),
        history in any_history(),
    ) {
        let size = history.micro_batches * history.micro_batch;
        let mut committed: Vec<Slot> = Vec::new();
        let mut resume = Step(0);
        for Incarnation { ranks, steps } in history.incarnations {
            let mut readers = vec![order(seed, &sources); ranks as usize];
            let mut since_commit = Vec::new();
            let mut step = resume;
            for commits in steps {
                let shares = read(&mut readers, step, size);
                prop_assert!(shares.iter().all(|share| share.len() as u32 == size / ranks));
                since_commit.extend(shares.concat());
                step = step.next();
                if commits {
                    committed.append(&mut since_commit);
                    resume = step;
                }
            }
        }

        let slots = committed.len() as u64;
        prop_assert_eq!(slots, cursor(resume, size));
        let stream = order(seed, &sources).draws(0, slots);
        let draws: Vec<Draw> = committed.iter().map(|slot| slot.draw).collect();
        prop_assert_eq!(&draws, &stream, "the history is the stream");
        prop_assert!(committed.iter().all(|slot| slot.valid != is_bad(&slot.draw)));

        let mut epochs: BTreeMap<u64, Vec<PairAt>> = BTreeMap::new();
        for Draw { epoch, at } in draws {
            epochs.entry(epoch).or_default().push(at);
        }
        let last = epochs.keys().next_back().copied();
        for (epoch, mut used) in epochs {
            used.sort_unstable();
            let list = list(&sources, epoch);
            if Some(epoch) == last {
                used.dedup();
                prop_assert!(used.iter().all(|at| list.contains(at)));
            } else {
                prop_assert_eq!(used, list, "epoch {}", epoch);
            }
        }
    }

    #[test]
    fn every_world_size_reads_the_same_batches_with_the_same_masks(
        seed: u64,
        sources in any_sources(),
        step in (0_u64..40).prop_map(Step),
        micro_batch in 1_u32..6,
    ) {
        const MICRO_BATCHES: u32 = 12;
        let size = MICRO_BATCHES * micro_batch;
        let alone = read(&mut [order(seed, &sources)], step, size).concat();
        prop_assert_eq!(alone.len() as u32, size);
        for ranks in [2, 3, 4, 6, 12] {
            let shares = read(&mut vec![order(seed, &sources); ranks], step, size);
            prop_assert!(shares.iter().all(|share| share.len() == shares[0].len()));
            prop_assert_eq!(&shares.concat(), &alone, "{} ranks", ranks);
        }
    }
}
