//! The story of a chaos run: the same run once in peace and once under faults must end the same.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::cluster::{Cluster, parts};
use super::faults::Faults;
use super::{metrics, verdict};
use crate::system::{up_with_workers, wait_for};
use crate::toy;

const RUN: &str = "toy";
const GANGS: &str =
    "{seed: {ranks: 2, restarts: 100, grace: 5s}, expert: {ranks: 2, restarts: 100, grace: 5s}}";

/// What to play.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Steps of the seed and of each other model.
    pub steps: (u32, u32),
    /// For how long faults begin, if the run does not end before.
    pub faults_for: Duration,
    /// How many there must be at least.
    pub least: usize,
}

/// What one round showed.
#[derive(Debug)]
pub struct Told {
    pub faults: usize,
    pub failovers: Vec<Duration>,
    pub took: Duration,
}

/// Writes the input, and runs it in peace.
pub fn undisturbed(folder: &Path, plan: &Plan) -> anyhow::Result<()> {
    toy::write(folder, 3, 100, 7)?;
    let began = Instant::now();
    let document = toy::document(RUN, folder, plan.steps, GANGS);
    let done = up_with_workers(&folder.join("peace"), &document, super::cluster::WORKERS.into())?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "the undisturbed run ended with {}: {said}", done.status);
    eprintln!("undisturbed: {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// Plays one round below `folder`, beside the undisturbed run's input and store.
pub fn play(folder: &Path, round: &Path, plan: &Plan) -> anyhow::Result<Told> {
    eprintln!("seed {} (CLADE_CHAOS_SEED={} plays it again)", plan.seed, plan.seed);
    let began = Instant::now();
    let mut cluster = Cluster::start(round, plan.seed)?;
    let document = toy::document(RUN, folder, plan.steps, GANGS)
        .replace(&format!("store: file:{}/store", folder.display()), "store: s3://clade/artefacts")
        .replace("checkpoint: {every: 500ms", "checkpoint: {every: 2s");
    cluster.apply(&document)?;
    eprintln!("{:6.1} s  the run is applied", began.elapsed().as_secs_f64());
    let mut told = Told { faults: 0, failovers: Vec::new(), took: Duration::ZERO };
    restart_nothing(&mut cluster, &mut told)?;

    wait_for("an expert to train", Duration::from_secs(90), || {
        let ranks = cluster.ranks()?;
        Ok(ranks.iter().any(|(_, line)| line.contains("-expert-")).then_some(()))
    })?;
    eprintln!("{:6.1} s  faults begin", began.elapsed().as_secs_f64());
    let mut faults = Faults::new(plan.seed);
    let until = Instant::now() + plan.faults_for;
    let give_up = until + Duration::from_secs(150);
    loop {
        let status = cluster.status();
        let phase = status.as_ref().ok().and_then(|it| it["runs"][0]["phase"].as_str());
        let phase = phase.unwrap_or("unknown").to_owned();
        if let Ok(status) = &status {
            verdict::reasons(status)?;
            ensure!(phase != "failed", "the run failed: {}", status["runs"][0]);
        }
        no_violation(&cluster)?;
        let has_ended = phase == "finished";
        if has_ended && faults.are_over() {
            break;
        }
        faults.tick(&mut cluster, !has_ended && Instant::now() < until)?;
        if Instant::now() > give_up {
            let status =
                cluster.status().map_or_else(|error| error.to_string(), |it| it.to_string());
            anyhow::bail!("the faults are over, and the run does not end: {status}");
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    told.faults = faults.done;
    eprintln!("finished after {:.1} s and {} faults", began.elapsed().as_secs_f64(), faults.done);
    verdict::no_panic(&cluster)?;
    let fell = faults.fallen.iter().any(|name| name.starts_with('c'));
    ensure!(!fell, "a coordinator ended by itself: {:?}", faults.fallen);
    faults.covered()?;
    let status = cluster.status()?;
    let models = parts(&status).filter(|part| part["unit"] == "steps");
    let gangs: Vec<u64> = models.filter_map(|part| part["incarnation"].as_u64()).collect();
    eprintln!("gangs of each model: {gangs:?}; fell over by themselves: {:?}", faults.fallen);
    ensure!(gangs.iter().any(|gangs| *gangs > 1), "the faults touched no gang: they prove nothing");
    let (seed, others) = plan.steps;
    let models = [("seed", seed), ("dense", others), ("expert-0", others), ("expert-1", others)];
    verdict::same_history(&cluster, RUN, &folder.join("store"), &models)?;
    leave(&mut cluster)?;
    ensure!(faults.done >= plan.least, "only {} faults in this round", faults.done);
    told.took = began.elapsed();
    Ok(told)
}

/// A model that trains: its name, its incarnation, and the processes of its ranks.
type Gang = (String, Value, Vec<i32>);

/// A coordinator that has just begun to lead has not heard from a rank yet.
fn is_on(part: &Value) -> bool {
    part["phase"] == "running" || part["phase"] == "starting"
}

fn gangs(cluster: &Cluster) -> anyhow::Result<Option<Vec<Gang>>> {
    let Ok(status) = cluster.status() else { return Ok(None) };
    let ranks = cluster.ranks()?;
    let training = parts(&status).filter(|part| part["unit"] == "steps" && is_on(part));
    let gangs = training.map(|part| {
        let name = part["name"].as_str().unwrap_or_default().to_owned();
        let own = ranks.iter().filter(|(_, line)| line.contains(&format!("-{name}-")));
        let own: Vec<i32> = own.map(|(pid, _)| *pid).collect();
        (name, part["incarnation"].clone(), own)
    });
    let gangs: Vec<_> = gangs.filter(|(_, _, ranks)| ranks.len() == 2).collect();
    Ok((!gangs.is_empty()).then_some(gangs))
}

/// What happens to coordinators and to etcd alone restarts no gang, and none of their processes (G5).
fn restart_nothing(cluster: &mut Cluster, told: &mut Told) -> anyhow::Result<()> {
    let before = wait_for("a gang to train", Duration::from_secs(90), || gangs(cluster))?;
    let (leader, _) = cluster.wait_leader(None)?;
    cluster.coordinators[leader].kill();
    let (next, took) = cluster.wait_leader(Some(leader))?;
    eprintln!("leader {leader} killed -> {next} leads after {:.1} s", took.as_secs_f64());
    told.failovers.push(took);
    cluster.coordinators[leader].start()?;
    cluster.coordinators[next].machine.cut()?;
    let member = cluster.etcd.leader();
    let (last, took) = cluster.wait_leader(Some(next))?;
    eprintln!("leader {next} cut off -> {last} leads after {:.1} s", took.as_secs_f64());
    told.failovers.push(took);
    cluster.coordinators[next].machine.join()?;
    let member = member.context("nobody led etcd under a coordinator that leads")?;
    cluster.etcd.members[member].signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(2));
    cluster.etcd.members[member].signal(Signal::SIGCONT);
    // A new leader gives workers 8 s to come back: only then would it take their gangs for lost.
    wait_for("the workers to be back", Duration::from_secs(30), || {
        let status = cluster.status().ok();
        let workers = status.map(|it| it["workers"].as_array().cloned().unwrap_or_default());
        let back = workers.is_some_and(|workers| {
            workers.iter().filter(|it| it["phase"] == "attached").count() >= cluster.workers.len()
        });
        Ok(back.then_some(()))
    })?;
    std::thread::sleep(Duration::from_secs(9));
    for (name, incarnation, ranks) in before {
        let now = wait_for("somebody who leads to see it run", Duration::from_secs(30), || {
            let part = cluster.part(&name).ok();
            Ok(part.filter(|it| is_on(it) || it["phase"] == "done"))
        })?;
        ensure!(now["incarnation"] == incarnation, "G5: {name} was restarted: {now}");
        if is_on(&now) {
            let alive = cluster.ranks()?;
            let still = ranks.iter().filter(|rank| alive.iter().any(|(pid, _)| pid == *rank));
            ensure!(
                still.count() == 2,
                "G5: {name} had ranks {ranks:?} and now there are {alive:?}"
            );
        }
    }
    Ok(())
}

/// The coordinators hold their own invariants against every event, and count what does not hold.
fn no_violation(cluster: &Cluster) -> anyhow::Result<()> {
    for at in 0..cluster.coordinators.len() {
        let Some(scraped) = cluster.scrape(at) else { continue };
        let broken = metrics::sum(&scraped, "clade_schedule_invariant_violations_total");
        ensure!(broken < 0.5, "an invariant was broken:\n{}", cluster.coordinators[at].said());
    }
    Ok(())
}

/// Workers leave when they are asked to, and no rank stays behind.
fn leave(cluster: &mut Cluster) -> anyhow::Result<()> {
    for worker in &cluster.workers {
        worker.signal(Signal::SIGTERM);
    }
    for worker in &mut cluster.workers {
        worker.wait_gone(Duration::from_secs(30)).context("after SIGTERM")?;
    }
    let left = cluster.ranks()?;
    ensure!(left.is_empty(), "ranks were left behind: {left:?}");
    Ok(())
}
