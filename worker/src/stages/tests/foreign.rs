//! Foreign pairs from the shard job to the loader, and who saw which pair.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clade_core::ids::{CheckpointRef, Digest, Incarnation, ModelId, Step};
use clade_core::spec::Share;
use clade_pairs::indexes;
use clade_pairs::loader::{Loader, Place, Shape, Stream};
use clade_pairs::pictures::Detail;
use clade_pairs::provenance::{Role, who_saw};
use clade_store::{CheckpointManifest, ForeignShard, Part, checkpoint};

use super::*;

const BATCH: u64 = 4;

fn data_of(run: &Run, model: ModelId) -> DataManifest {
    let key = keys::data_manifest(&run.name(), model);
    run.wait(run.store.get_manifest(&key)).unwrap().0
}

fn loader(run: &Run, model: ModelId) -> Loader<Vec<u8>> {
    let context = run.context(WorkId::Model(model), 1);
    let place = Place { store: run.store.clone(), runtime: context.runtime.clone(), cache: None };
    let stream = Stream {
        seed: run.spec.spec.seed,
        model,
        global_batch: 4,
        rank: 0,
        ranks: 1,
        max_pixels: 1_000_000,
        max_bad_share: 0.5,
    };
    let shape = Shape {
        image_size: 4,
        tokens: Arc::new(|_: &str| vec![0]),
        memory: Arc::new(|bytes| vec![0; bytes]),
        threads: 1,
        detail: Detail::Enough,
    };
    Loader::new(place, stream, &data_of(run, model), shape).unwrap()
}

/// The keys of the first pairs of a model's stream.
fn stream(run: &Run, model: ModelId, pairs: u64) -> Vec<String> {
    let mut loader = loader(run, model);
    let steps = pairs.div_ceil(BATCH);
    (0..steps).flat_map(|step| loader.batch(step * BATCH).unwrap().keys).collect()
}

/// A run of two tars with a fifth of foreign pairs in three passes.
fn seasoned() -> Run {
    let mut run = Run::over(&[pairs("a", 30), pairs("b", 26)]);
    run.spec.spec.training.ooc_ratio = Share(0.2);
    run.spec.spec.training.expert_steps = clade_core::spec::ExpertSteps::Equal(10);
    run.up_to(Stage::Seal);
    run
}

#[test]
fn each_pass_of_the_pool_holds_every_expert_the_others_pairs_and_is_written_once() {
    let run = seasoned();
    let context = run.context(WorkId::job(Stage::Seal, 0), 1);
    let experts = [0, 1].map(|expert| data_of(&run, ModelId::Expert(expert)));
    let own = experts
        .each_ref()
        .map(|data| -> BTreeSet<String> { keys_of(&run, data).into_iter().flatten().collect() });
    let mut passes = BTreeMap::new();
    for ForeignShard { shard, by_pass } in &experts[0].foreign {
        let index = indexes::read(&run.store, &context.runtime, shard).unwrap();
        let mut counts = vec![0; by_pass.len()];
        for row in 0..index.len() {
            let place = index.foreign(row).unwrap();
            let key = index.key(row).to_owned();
            assert!(own[place.owner as usize].contains(&key), "{key} is another's");
            counts[place.pass as usize] += u32::from(place.owner != 0);
            assert_eq!(passes.insert(key, place.pass), None, "in the pool twice");
        }
        assert_eq!(counts, *by_pass);
    }
    // 56 pairs of ten steps of 4 in two experts: 1.4 passes over its own on average, so 3 planned.
    assert_eq!(passes.values().collect::<BTreeSet<_>>(), BTreeSet::from([&0, &1, &2]));
    let all: u64 = experts.iter().map(|data| data.pairs).sum();
    assert_eq!(all, 56, "every pair is still some expert's own");
}

#[test]
fn an_experts_epochs_are_its_own_pairs_and_the_slices_of_the_pool() {
    let run = seasoned();
    for expert in [0, 1] {
        let model = ModelId::Expert(expert);
        let data = data_of(&run, model);
        let slices: Vec<u64> = (0..3)
            .map(|pass| data.foreign.iter().map(|it| u64::from(it.by_pass[pass])).sum())
            .collect();
        assert!(slices.iter().sum::<u64>() > 0, "{slices:?}");
        let lengths = slices.iter().map(|slice| data.pairs + slice);
        let own: BTreeSet<String> = keys_of(&run, &data).into_iter().flatten().collect();
        let keys = stream(&run, model, lengths.clone().sum());
        let (mut at, mut foreign) = (0, Vec::new());
        for length in lengths {
            let end = at + usize::try_from(length).unwrap();
            let epoch: BTreeSet<&String> = keys[at..end].iter().collect();
            assert_eq!(epoch.len(), end - at, "a pair came twice in an epoch");
            assert!(own.iter().all(|key| epoch.contains(key)), "one of its own was left out");
            foreign.extend(epoch.into_iter().filter(|key| !own.contains(*key)));
            at = end;
        }
        let different = foreign.iter().collect::<BTreeSet<_>>().len();
        assert_eq!(different, foreign.len(), "a foreign pair came in two passes");
    }
}

fn checkpoint(
    run: &Run,
    model: ModelId,
    (gang, step): (u64, u64),
    parent: Option<&CheckpointRef>,
) -> CheckpointRef {
    let since = if model == ModelId::Seed { step } else { step - 4 };
    let manifest = CheckpointManifest {
        run: run.name(),
        model,
        incarnation: Incarnation(gang),
        step: Step(step),
        cursor: since * BATCH,
        parts: Vec::<Part>::new(),
        parent: parent.cloned(),
        seed: 7,
        world_size: 1,
        how: None,
        data: Digest([0; 32]),
        spec: Digest([0; 32]),
        code_version: "test".to_owned(),
    };
    run.wait(checkpoint::commit(&run.store, &run.name(), &manifest)).unwrap()
}

#[test]
fn who_saw_a_pair_is_what_the_loaders_hand_out_up_to_each_checkpoint_of_the_history() {
    let run = seasoned();
    let (seed, expert) = (ModelId::Seed, ModelId::Expert(1));
    let first = checkpoint(&run, seed, (1, 4), None);
    let early = checkpoint(&run, expert, (1, 20), Some(&first));
    // The gang died at step 30 after its successor had gone on from step 20: this is nobody's history.
    checkpoint(&run, expert, (1, 30), Some(&first));
    checkpoint(&run, expert, (3, 44), Some(&early));
    let seen_by_seed = stream(&run, seed, 4 * BATCH);
    let seen = stream(&run, expert, 40 * BATCH);
    let mut met = 0;
    for key in (0..30).map(|number| format!("a{number:03}")) {
        let answer = run.wait(who_saw(&run.store, &run.name(), &key)).unwrap();
        assert!(answer.found.is_some(), "{key}");
        let times = |keys: &[String]| keys.iter().filter(|it| **it == key).count() as u64;
        let of = |model| answer.models.iter().find(|it| it.model == model).unwrap();
        assert_eq!(of(seed).checkpoints[0].times, times(&seen_by_seed));
        let told: Vec<(u64, u64)> =
            of(expert).checkpoints.iter().map(|it| (it.checkpoint.step.0, it.times)).collect();
        let until = |steps: usize| times(&seen[..steps * 4]);
        assert_eq!(told, [(20, until(16)), (44, until(40))], "{key}");
        let last = &of(expert).checkpoints[1];
        assert_eq!(last.through_seed, times(&seen_by_seed));
        if let Some(position) = seen.iter().position(|it| *it == key) {
            assert_eq!(last.first_step, Some(position as u64 / BATCH + 1));
            met += 1;
        }
        match of(expert).role {
            Some(Role::Own) => assert!(until(40) > 1, "{key}"),
            Some(Role::Foreign { .. }) => assert!(until(40) <= 3, "{key}"),
            None => assert_eq!(until(40), 0, "{key}"),
        }
        assert!(of(ModelId::Expert(0)).checkpoints.is_empty());
    }
    assert!(met > 5);
    let nobody = run.wait(who_saw(&run.store, &run.name(), "nobody")).unwrap();
    assert!(nobody.found.is_none() && nobody.models.iter().all(|it| it.role.is_none()));
}

#[test]
fn a_pair_that_was_not_used_is_told_of_with_its_cause() {
    let run = Run::over(&[[pairs("a", 8), vec![member("mute.txt", "no picture")]].concat()]);
    run.up_to(Stage::Catalog);
    let answer = run.wait(who_saw(&run.store, &run.name(), "mute")).unwrap();
    assert!(answer.found.is_none());
    assert_eq!(answer.unusable[0].0, "missingImage");
    assert!(answer.unusable[0].1.offset > 0);
}
