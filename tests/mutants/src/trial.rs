//! Runs of the tests with one mutant on.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::{Deserialize, Serialize};

use crate::copy::Built;

/// What became of one mutant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Trial {
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
    /// The test that failed, or the world.
    pub(crate) by: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Outcome {
    /// A script of the scheduler's own failed.
    Script,
    /// One of its properties failed.
    Property,
    /// A world failed.
    World,
    /// Something took five times as long as it should.
    Timeout,
    Survived,
    Unbuilt,
}

impl Outcome {
    pub(crate) const ALL: [Self; 6] =
        [Self::Script, Self::Property, Self::World, Self::Timeout, Self::Survived, Self::Unbuilt];

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Script => "script",
            Self::Property => "property",
            Self::World => "world",
            Self::Timeout => "timeout",
            Self::Survived => "SURVIVED",
            Self::Unbuilt => "unbuilt",
        }
    }
}

/// One way to notice a mutant.
struct Judge {
    outcome: Outcome,
    command: Vec<String>,
    limit: Duration,
}

pub(crate) struct Trials {
    /// From the quickest to the slowest.
    judges: Vec<Judge>,
}

impl Trials {
    /// Runs everything once without a mutant: it must pass, and shows how long it takes.
    pub(crate) fn new(built: Built, seeds: u64) -> anyhow::Result<Self> {
        let (tests, simulation) = (path(&built.tests), path(&built.simulation));
        let seeds = seeds.to_string();
        let commands = [
            (
                Outcome::Script,
                vec![&*tests, "schedule", "--skip", "invariants", "--test-threads=1"],
            ),
            (Outcome::Property, vec![&*tests, "schedule::invariants", "--test-threads=1"]),
            (Outcome::World, vec![&*simulation, "--threads", "1", "--seeds", &seeds]),
        ];
        let mut judges = vec![];
        for (outcome, command) in commands {
            let command = command.into_iter().map(str::to_owned).collect();
            let mut judge = Judge { outcome, command, limit: Duration::from_secs(3_600) };
            let begun = Instant::now();
            ensure!(judge.run(u32::MAX)?.is_none(), "{:?} fails without a mutant", judge.command);
            judge.limit = (begun.elapsed() * 5).max(Duration::from_secs(5));
            println!("{:>9}: {:.1} s", outcome.word(), begun.elapsed().as_secs_f64());
            judges.push(judge);
        }
        Ok(Self { judges })
    }

    /// Asks one judge after another until one notices the mutant.
    pub(crate) fn try_out(&self, id: u32, name: &str) -> anyhow::Result<Trial> {
        let name = name.to_owned();
        for judge in &self.judges {
            if let Some((outcome, by)) = judge.run(id)? {
                return Ok(Trial { name, outcome, by });
            }
        }
        Ok(Trial { name, outcome: Outcome::Survived, by: String::new() })
    }
}

impl Judge {
    /// What it noticed, if anything.
    fn run(&self, id: u32) -> anyhow::Result<Option<(Outcome, String)>> {
        // A mutant may ask for memory without end.
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -v 8000000 && exec \"$@\"", "sh"])
            .args(&self.command)
            .env("CLADE_MUTANT", id.to_string())
            .env("PROPTEST_RNG_SEED", "1")
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut output = child.stdout.take().expect("it is piped");
        let reader = std::thread::spawn(move || {
            let mut told = vec![];
            output.read_to_end(&mut told).map(|_| String::from_utf8_lossy(&told).into_owned())
        });
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if begun.elapsed() > self.limit {
                child.kill()?;
                child.wait()?;
                break None;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let told = reader.join().expect("reading does not panic")?;
        let last = |prefix| told.lines().rev().find(|line| line.starts_with(prefix));
        let by = last("seed ").or_else(|| last("test ")).unwrap_or_default();
        let by = by.chars().take(200).collect();
        Ok(match status {
            None => Some((Outcome::Timeout, by)),
            Some(status) if status.success() => None,
            Some(_) => Some((self.outcome, by)),
        })
    }
}

fn path(it: &Path) -> String {
    it.display().to_string()
}
