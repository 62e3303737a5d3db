//! Plants small changes in a copy of the scheduler, one at a time, and lists those that no test notices.
//!
//! All mutants are built at once, each behind a switch in the environment, so that one costs a run and no
//! build. A mutant is tried against the scripts of `core/src/schedule`, then its properties, then the
//! simulation, until something fails. Nothing is written but `target/mutants/`; what was tried stands in
//! `results.jsonl` there, and is not tried again. Delete it after the scheduler changed.
#![allow(clippy::print_stdout, reason = "a program for people")]
#![allow(clippy::wildcard_enum_match_arm, reason = "most of a language is left alone")]

mod copy;
mod plant;
mod trial;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Parser;

use crate::copy::Copy;
use crate::trial::{Outcome, Trial, Trials};

/// Plants small changes in the scheduler and lists those that no test notices.
#[derive(Parser)]
struct Options {
    /// Try only mutants whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// Worlds that the simulation plays for a mutant that the core's own tests do not notice.
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// Try again what survived, and what took too long: the machine may have been busy.
    #[arg(long)]
    again: bool,
    /// Only print what was found so far.
    #[arg(long)]
    report: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let place = target.join("mutants");
    fs::create_dir_all(&place)?;
    let results = place.join("results.jsonl");
    if options.report {
        report(&tried(&results)?);
        return Ok(());
    }
    let mut copy = Copy::new(&root, &place)?;
    let mut known = tried(&results)?;
    let unbuilt = known.values().filter(|it| it.outcome == Outcome::Unbuilt);
    let built = copy.build(&unbuilt.map(|it| &*it.name).collect())?;
    println!("{} mutants, {} of them do not build", copy.mutants.len(), copy.refused.len());
    let names: BTreeSet<&String> = copy.mutants.iter().map(|it| &it.name).collect();
    known.retain(|name, _| names.contains(name));

    let mut log = fs::OpenOptions::new().create(true).append(true).open(&results)?;
    let mut tell = |trial: &Trial| -> anyhow::Result<()> {
        writeln!(log, "{}", serde_json::to_string(trial)?)?;
        println!("{:9} {}", trial.outcome.word(), trial.name);
        Ok(())
    };
    let trials = Trials::new(built, options.seeds)?;
    for (id, mutant) in (0..).zip(&copy.mutants) {
        let is_open = |it: &Trial| matches!(it.outcome, Outcome::Survived | Outcome::Timeout);
        let is_known = known.get(&mutant.name).is_some_and(|it| !options.again || !is_open(it));
        let trial = if is_known {
            continue;
        } else if copy.refused.contains(&id) {
            Trial { name: mutant.name.clone(), outcome: Outcome::Unbuilt, by: String::new() }
        } else if mutant.name.contains(&options.only) {
            trials.try_out(id, &mutant.name)?
        } else {
            continue;
        };
        tell(&trial)?;
        known.insert(mutant.name.clone(), trial);
    }
    report(&known);
    Ok(())
}

/// What earlier runs found, the last word on each.
fn tried(results: &Path) -> anyhow::Result<BTreeMap<String, Trial>> {
    let text = if results.exists() { fs::read_to_string(results)? } else { String::new() };
    let trials = text.lines().map(|line| -> anyhow::Result<_> {
        let trial: Trial = serde_json::from_str(line).with_context(|| line.to_owned())?;
        Ok((trial.name.clone(), trial))
    });
    trials.collect()
}

/// Prints what became of the mutants of each file, and which survived.
fn report(trials: &BTreeMap<String, Trial>) {
    let mut files: BTreeMap<&str, BTreeMap<Outcome, usize>> = BTreeMap::new();
    for trial in trials.values() {
        let file = trial.name.split(':').next().unwrap_or_default();
        for row in [file, "in all"] {
            *files.entry(row).or_default().entry(trial.outcome).or_default() += 1;
        }
    }
    print!("\n{:45}", "");
    Outcome::ALL.iter().for_each(|it| print!("{:>11}", it.word()));
    for (file, counts) in &files {
        print!("\n{file:45}");
        Outcome::ALL.iter().for_each(|it| print!("{:11}", counts.get(it).unwrap_or(&0)));
    }
    println!("\n");
    for trial in trials.values().filter(|it| it.outcome == Outcome::Survived) {
        println!("survived: {}", trial.name);
    }
}
