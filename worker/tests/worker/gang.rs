//! A gang of two real processes, killed in the middle, ends where an undisturbed one does.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::{Duration, Instant};

use clade_core::ids::{CheckpointRef, Incarnation, ModelId};
use clade_core::job::{Failure, JobFile, Outcome};
use clade_store::{checkpoint, keys};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::{Lab, outcome};

const TRAINING: &str = "{globalBatch: 8, microBatch: 4, seedSteps: 60, expertSteps: 4, \
                        learningRate: {peak: 1e-3, warmup: 4}, checkpoint: {every: 50ms}}";

fn start_all(lab: &Lab, ranks: &[JobFile]) -> Vec<Child> {
    ranks.iter().map(|job| lab.start(job)).collect()
}

async fn newest(lab: &Lab, incarnation: u64) -> Option<CheckpointRef> {
    let newest =
        checkpoint::newest_candidate(&lab.store, &lab.run, ModelId::Seed, Incarnation(incarnation));
    newest.await.unwrap()
}

/// What a step must repeat exactly: its loss, its pairs, its temperature.
fn essence(line: &serde_json::Value) -> String {
    format!("{} {} {} {}", line["step"], line["loss"], line["keys"], line["logitScale"])
}

async fn weights(lab: &Lab, at: &CheckpointRef) -> Vec<u8> {
    let folder = keys::checkpoint(&lab.run, at);
    let mut bytes = Vec::new();
    for name in ["model.safetensors", "optimizer.safetensors"] {
        bytes.extend(lab.store.get(&format!("{folder}/{name}")).await.unwrap());
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gang_killed_midway_resumes_and_ends_with_the_same_losses_pairs_and_weights() {
    let lab = Lab::new(40, TRAINING).await;
    lab.make_catalogue();
    for child in start_all(&lab, &lab.gang(&lab.job("seed", 1), 2)) {
        let ended = outcome(child);
        assert!(matches!(ended, Outcome::Done { .. }), "{ended:?}");
    }
    let undisturbed = newest(&lab, 1).await.unwrap();
    assert_eq!(undisturbed.step.0, 60);

    let mut children = start_all(&lab, &lab.gang(&lab.job("seed", 2), 2));
    let deadline = Instant::now() + Duration::from_secs(120);
    while newest(&lab, 2).await.is_none() {
        assert!(Instant::now() < deadline, "no checkpoint comes");
        tokio::task::yield_now().await;
    }
    kill(Pid::from_raw(children[1].id().try_into().unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!(outcome(children.remove(0)), Outcome::Failed(Failure::PeerLost { rank: 0 }));
    children.remove(0).wait().unwrap();
    let resume = newest(&lab, 2).await.unwrap();
    assert!(resume.step.0 < 60, "it was killed too late to show anything");

    let again = JobFile { resume: Some(resume.clone()), ..lab.job("seed", 3) };
    for child in start_all(&lab, &lab.gang(&again, 2)) {
        let ended = outcome(child);
        assert!(matches!(ended, Outcome::Done { .. }), "{ended:?}");
    }
    let resumed = newest(&lab, 3).await.unwrap();
    assert_eq!(resumed.step, undisturbed.step);
    let manifest = checkpoint::read(&lab.store, &lab.run, &resumed).await.unwrap();
    assert_eq!((manifest.parent, manifest.cursor), (Some(resume), 60 * 8));

    let essence = |lines: Vec<_>| lines.iter().map(essence).collect::<Vec<String>>();
    let expected = essence(lab.metrics("seed", &[1]).await);
    assert_eq!(expected.len(), 60);
    assert_eq!(essence(lab.metrics("seed", &[2, 3]).await), expected);
    assert!(weights(&lab, &resumed).await == weights(&lab, &undisturbed).await, "weights differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_with_only_damaged_checkpoints_fails_and_one_with_an_older_good_one_goes_on() {
    let lab = Lab::new(12, TRAINING).await;
    lab.make_catalogue();
    assert!(matches!(lab.run(&lab.job("seed", 1)), Outcome::Done { .. }));
    let last = newest(&lab, 1).await.unwrap();
    let folder = keys::gang(&lab.run, ModelId::Seed, Incarnation(1));
    let entries = lab.store.list(&folder).await.unwrap();
    let older = entries.iter().find_map(|entry| {
        let step =
            entry.key.strip_suffix("/manifest.json")?.rsplit_once("step-")?.1.parse().ok()?;
        (step < last.step.0).then_some(step)
    });
    let older = older.expect("checkpoints before the last");
    let key = format!("{folder}/step-{older}/manifest.json");
    let manifest = clade_store::digest(&lab.store.get(&key).await.unwrap());
    let older = CheckpointRef { step: clade_core::ids::Step(older), manifest, ..last.clone() };

    // The newest lost its weights.
    let weights = format!("{}/model.safetensors", keys::checkpoint(&lab.run, &last));
    lab.store.put(&weights, "nothing of use").await.unwrap();
    let damaged = JobFile { resume: Some(last), ..lab.job("seed", 2) };
    let ended = lab.run(&damaged);
    let Outcome::Failed(Failure::Storage { message }) = &ended else { panic!("{ended:?}") };
    assert!(message.contains("does not start over"), "{message}");

    let falling_back =
        JobFile { fallbacks: vec![older.clone()], incarnation: Incarnation(3), ..damaged };
    assert!(matches!(lab.run(&falling_back), Outcome::Done { .. }));
    let found = newest(&lab, 3).await.unwrap();
    let manifest = checkpoint::read(&lab.store, &lab.run, &found).await.unwrap();
    assert_eq!((manifest.step.0, manifest.parent), (60, Some(older)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gang_of_which_one_rank_is_asked_to_stop_stops_at_one_step_and_saves_it() {
    let endless = TRAINING.replace("seedSteps: 60", "seedSteps: 1000000").replace("50ms", "1h");
    let lab = Lab::new(12, &endless).await;
    lab.make_catalogue();
    let mut children = start_all(&lab, &lab.gang(&lab.job("seed", 1), 2));
    let mut told = BufReader::new(children[1].stderr.take().unwrap()).lines();
    assert!(told.any(|line| line.unwrap().contains("the gang has met")), "it ended early");
    kill(Pid::from_raw(children[1].id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    for child in children {
        assert_eq!(outcome(child), Outcome::Stopped);
    }
    let saved = newest(&lab, 1).await;
    let steps = lab.metrics("seed", &[1]).await.len() as u64;
    assert_eq!(saved.map_or(0, |saved| saved.step.0), steps);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_that_is_asked_where_it_stands_tells_and_goes_on() {
    let lab = Lab::new(12, TRAINING).await;
    lab.make_catalogue();
    let mut children = start_all(&lab, &lab.gang(&lab.job("seed", 1), 2));
    let mut told = BufReader::new(children[1].stderr.take().unwrap()).lines();
    assert!(told.any(|line| line.unwrap().contains("the gang has met")), "it ended early");
    kill(Pid::from_raw(children[1].id().try_into().unwrap()), Signal::SIGUSR1).unwrap();
    assert!(told.any(|line| line.unwrap().starts_with("--- where process")), "it did not answer");
    let answer: Vec<String> =
        told.by_ref().map(Result::unwrap).take_while(|line| line != "--- end").collect();
    let answer = answer.join("\n");
    assert!(answer.contains("exchange"), "{answer}");
    for name in ["\"work\"", "worker/src/rank"] {
        assert!(answer.contains(name), "no {name} in {answer}");
    }
    // Whoever reads no more must not be what holds it up.
    let reader = std::thread::spawn(move || told.count());
    for child in children {
        assert!(matches!(outcome(child), Outcome::Done { .. }));
    }
    reader.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dense_model_continues_the_seeds_steps_on_a_stream_of_its_own() {
    let lab = Lab::new(12, &TRAINING.replace("seedSteps: 60", "seedSteps: 6")).await;
    lab.make_catalogue();
    assert!(matches!(lab.run(&lab.job("seed", 1)), Outcome::Done { .. }));
    let seed = newest(&lab, 1).await.unwrap();

    let orphan = lab.run(&lab.job("dense", 1));
    let Outcome::Failed(Failure::Config { message }) = &orphan else { panic!("{orphan:?}") };
    assert!(message.contains("names no `seed`"), "{message}");

    let models = [(ModelId::Seed, seed.clone())].into();
    let ended = lab.run(&JobFile { models, ..lab.job("dense", 2) });
    assert!(matches!(ended, Outcome::Done { .. }), "{ended:?}");
    let (run, incarnation) = (&lab.run, Incarnation(2));
    let dense = checkpoint::newest_candidate(&lab.store, run, ModelId::Dense, incarnation);
    let dense = dense.await.unwrap().unwrap();
    let manifest = checkpoint::read(&lab.store, run, &dense).await.unwrap();
    assert_eq!((manifest.step.0, manifest.cursor, manifest.parent), (10, 4 * 8, Some(seed)));
    let steps = |lines: &[serde_json::Value]| -> Vec<u64> {
        lines.iter().map(|line| line["step"].as_u64().unwrap()).collect()
    };
    assert_eq!(steps(&lab.metrics("dense", &[2]).await), [7, 8, 9, 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_that_is_not_finite_stops_the_model_with_the_list_of_its_pairs() {
    let hot = TRAINING.replace("peak: 1e-3, warmup: 4", "peak: 1e38").replace("50ms", "1h");
    let lab = Lab::new(12, &hot).await;
    lab.make_catalogue();
    let ended = lab.run(&lab.job("seed", 1));
    let Outcome::Failed(Failure::Data { message }) = &ended else { panic!("{ended:?}") };
    assert!(message.contains("3 batches in a row"), "{message}");
    let listed = message.split('`').nth(1).unwrap();
    let keys: Vec<String> = serde_json::from_slice(&lab.store.get(listed).await.unwrap()).unwrap();
    assert_eq!(keys.len(), 8);
    assert_eq!(newest(&lab, 1).await, None);
}
