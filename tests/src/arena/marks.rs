//! How long the cluster takes to notice, to go on, and to begin.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::cluster::{Cluster, parts};
use crate::system::{System, processes_naming, wait_for};
use crate::{system, toy};

const PATIENCE: Duration = Duration::from_secs(60);
/// One gang of two, which trains for longer than anything here takes.
const GANGS: &str = "{seed: {ranks: 2, restarts: 100}, expert: {ranks: 2}}";
const STEPS: (u32, u32) = (100_000, 1);

/// Measures each mark `times` times, and prints the medians.
pub fn measure(folder: &Path, times: usize) -> anyhow::Result<()> {
    ensure!(times > 0, "nothing is measured zero times");
    toy::write(folder, 3, 100, 7)?;
    let began = first_jobs(folder, times)?;
    let mut cluster = Cluster::start(&folder.join("cluster"), 1)?;
    cluster.apply(&toy::document("toy", folder, STEPS, GANGS))?;
    wait_for("all but the seed to be done", PATIENCE, || {
        Ok(cluster.part("seal").is_ok_and(|part| part["phase"] == "done").then_some(()))
    })?;
    let killed = killed_ranks(&cluster, times)?;
    let cut = cut_workers(&cluster, times)?;
    let failovers = failovers(&mut cluster, times)?;

    mark("submit_to_first_job_running", &began, 0.3);
    mark("rank_killed_to_noticed", &killed.iter().map(|it| it.0).collect::<Vec<_>>(), 1.0);
    mark("rank_killed_to_running_again", &killed.iter().map(|it| it.1).collect::<Vec<_>>(), 5.0);
    mark("network_cut_to_noticed", &cut, 10.0);
    mark("leader_killed_to_new_leader", &failovers, 10.0);
    Ok(())
}

fn mark(name: &str, times: &[Duration], wanted: f64) {
    let mut times: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    times.sort_by(f64::total_cmp);
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    let verdict = if median < wanted { "met" } else { "short" };
    eprintln!("{name}: {} times, worst {worst:.2} s", times.len());
    eprintln!("mark {name} {median:.2} s want < {wanted}: {verdict}");
}

/// From `clade apply` to the first process of a rank, on an idle `clade up` with one run after the other.
fn first_jobs(folder: &Path, times: usize) -> anyhow::Result<Vec<Duration>> {
    let own = folder.join("local");
    std::fs::create_dir_all(&own)?;
    let system = System::up(&own, 2)?;
    let mut taken = Vec::new();
    for at in 0..times {
        let name = format!("first-{at}");
        let document = toy::document(&name, folder, STEPS, GANGS);
        let began = Instant::now();
        let applying = std::thread::scope(|scope| {
            let applying = scope.spawn(|| system.apply(&document));
            let started = wait_for("a rank to start", PATIENCE, || {
                let all = processes_naming(&own.display().to_string())?;
                let is_rank = |line: &str| line.contains(" rank ") && line.contains(&name);
                Ok(all.iter().any(|(_, line)| is_rank(line)).then(|| began.elapsed()))
            });
            let applied = applying.join().map_err(|_| anyhow::anyhow!("the client panicked"))?;
            applied.and(started)
        })?;
        taken.push(applying);
        system.cancel(&name)?;
        wait_for("the run to be over", PATIENCE, || {
            let status = system.status()?;
            let runs = status["runs"].as_array().cloned().unwrap_or_default();
            Ok(runs.iter().all(|run| run["phase"] == "cancelled").then_some(()))
        })?;
    }
    system.stop()?;
    Ok(taken)
}

/// The seed's gang as its leader knows it, once one later than `after` trains.
fn training(cluster: &Cluster, leader: usize, after: u64) -> anyhow::Result<Option<Value>> {
    let status = cluster.status_at(leader)?;
    let seed = parts(&status).find(|part| part["name"] == "seed").cloned();
    Ok(seed.filter(|part| {
        part["phase"] == "running"
            && part["incarnation"].as_u64() > Some(after)
            && part["done"].as_u64() >= Some(1)
    }))
}

/// From SIGKILL of a rank until the state says that its gang is broken, and until a new gang trains.
fn killed_ranks(cluster: &Cluster, times: usize) -> anyhow::Result<Vec<(Duration, Duration)>> {
    let (leader, _) = cluster.wait_leader(None)?;
    let mut taken = Vec::new();
    let mut incarnation = 0;
    for _ in 0..times {
        // A checkpoint of its own clears what earlier failures count against it: each of these is a first one.
        let found =
            wait_for("the seed to train", PATIENCE, || training(cluster, leader, incarnation))?;
        let seed = wait_for("the seed to save", PATIENCE, || {
            let seed = training(cluster, leader, incarnation)?;
            Ok(seed.filter(|it| it["committedStep"].as_u64() > found["committedStep"].as_u64()))
        })?;
        incarnation = seed["incarnation"].as_u64().context("an incarnation")?;
        let ranks = cluster.ranks()?;
        let (rank, _) = ranks.first().context("a training gang has ranks")?;
        system::kill_now(*rank)?;
        let began = Instant::now();
        let noticed = wait_for("the loss to be noticed", PATIENCE, || {
            let status = cluster.status_at(leader)?;
            let seed = parts(&status).find(|part| part["name"] == "seed").context("a seed")?;
            let is_on = seed["phase"] == "running" && seed["incarnation"] == incarnation;
            Ok((!is_on).then(|| began.elapsed()))
        })?;
        let again = wait_for("the seed's next gang to train", PATIENCE, || {
            Ok(training(cluster, leader, incarnation)?.map(|_| began.elapsed()))
        })?;
        taken.push((noticed, again));
    }
    Ok(taken)
}

/// From cutting a worker's network until the state says that it is away.
fn cut_workers(cluster: &Cluster, times: usize) -> anyhow::Result<Vec<Duration>> {
    let (leader, _) = cluster.wait_leader(None)?;
    let mut taken = Vec::new();
    for at in 0..times {
        let worker = &cluster.workers[at % cluster.workers.len()];
        let is_attached = |worker: &str| -> anyhow::Result<bool> {
            let status = cluster.status_at(leader)?;
            let workers = status["workers"].as_array().cloned().unwrap_or_default();
            Ok(workers.iter().any(|it| {
                let name = it["name"].as_str().or(it["worker"].as_str()).unwrap_or_default();
                name.starts_with(worker) && it["phase"] == "attached"
            }))
        };
        wait_for("the worker to be there", PATIENCE, || {
            Ok(is_attached(worker.name())?.then_some(()))
        })?;
        worker.machine.cut()?;
        let began = Instant::now();
        taken.push(wait_for("the cut to be noticed", PATIENCE, || {
            Ok((!is_attached(worker.name())?).then(|| began.elapsed()))
        })?);
        worker.machine.join()?;
    }
    Ok(taken)
}

/// From SIGKILL of the leader until another acts.
fn failovers(cluster: &mut Cluster, times: usize) -> anyhow::Result<Vec<Duration>> {
    let mut taken = Vec::new();
    for _ in 0..times {
        let (leader, _) = cluster.wait_leader(None)?;
        cluster.coordinators[leader].kill();
        taken.push(cluster.wait_leader(Some(leader))?.1);
        cluster.coordinators[leader].start()?;
    }
    Ok(taken)
}
