//! What it costs to be two: a gang of ranks of one thread each beside one rank of as many threads.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, ensure};
use clap::Args;
use serde::Deserialize;

use crate::mark::{mark, say};

/// Losses of both may differ by so much.
const SAME: f64 = 1e-4;

#[derive(Args, Debug)]
pub(crate) struct GangArgs {
    /// The program `clade-worker`.
    #[arg(long, default_value = "target/release/clade-worker")]
    worker: PathBuf,
    #[arg(long, default_value = "small")]
    preset: String,
    /// Pairs of a global batch.
    #[arg(long, default_value_t = 128)]
    batch: usize,
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..))]
    ranks: u32,
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Steps of one round.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
}

/// How much of a rank's speed is left while it saves.
#[derive(Args, Debug)]
pub(crate) struct CheckpointArgs {
    #[command(flatten)]
    gang: GangArgs,
    /// The longest time between two checkpoints, as documents have it.
    #[arg(long, default_value = "10s")]
    every: String,
}

/// One process that trains so many steps when it is told to.
struct Bench {
    process: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// Checkpoints so far, and for how many seconds they kept it.
    saved: (u32, f64),
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    #[serde(default)]
    loss: Option<f64>,
    #[serde(default)]
    seconds: Option<f64>,
    #[serde(default)]
    saves: u32,
    #[serde(default)]
    stood_still: f64,
}

impl Bench {
    fn start(args: &GangArgs, model: &Path, threads: u32, seat: &[String]) -> anyhow::Result<Self> {
        let mut process = Command::new(&args.worker)
            .arg("bench")
            .arg("--model")
            .arg(model)
            .args(["--device", "cpu", "--synthetic", &args.batch.to_string()])
            .args(["--threads", &threads.to_string()])
            .args(seat)
            .env("OMP_NUM_THREADS", threads.to_string())
            .env("OMP_WAIT_POLICY", "PASSIVE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", args.worker.display()))?;
        let stdin = process.stdin.take().context("stdin is piped")?;
        let lines = BufReader::new(process.stdout.take().context("stdout is piped")?).lines();
        Ok(Self { process, stdin, lines, saved: (0, 0.0) })
    }

    fn begin(&mut self, steps: u32) -> anyhow::Result<()> {
        writeln!(self.stdin, "{steps}").context("a rank is gone")
    }

    /// Its losses and seconds.
    fn end(&mut self) -> anyhow::Result<(Vec<f64>, f64)> {
        let mut losses = Vec::new();
        loop {
            let line = self.lines.next().context("a rank ended: see above")??;
            let said: Said = serde_json::from_str(&line).with_context(|| line.clone())?;
            losses.extend(said.loss);
            if let Some(seconds) = said.seconds {
                self.saved = (said.saves, said.stood_still);
                return Ok((losses, seconds));
            }
        }
    }
}

impl CheckpointArgs {
    /// Measures a rank that saves beside one that does not, by turns, and prints the mark.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let folder = std::env::temp_dir().join(format!("clade-bench-save-{}", std::process::id()));
        let result = self.measure(&folder);
        std::fs::remove_dir_all(&folder).ok();
        result
    }

    fn measure(&self, folder: &Path) -> anyhow::Result<()> {
        let Self { gang, every } = self;
        let model = gang.new_model(folder)?;
        let save = folder.join("saved").display().to_string();
        let save = ["--save".to_owned(), save, "--save-every".to_owned(), every.clone()];
        let mut quiet = Bench::start(gang, &model, gang.ranks, &[])?;
        let mut saving = Bench::start(gang, &model, gang.ranks, &save)?;
        let mut ratios = Vec::new();
        for round in 0..=gang.rounds {
            let mut took = Vec::new();
            for bench in [&mut quiet, &mut saving] {
                bench.begin(gang.steps)?;
                took.push(bench.end()?.1);
            }
            if round > 0 {
                ratios.push(took[0] / took[1]);
                let (saves, stood) = saving.saved;
                say(format_args!(
                    "round {round}: {:.1} s without and {:.1} s with checkpoints ({saves} so far, training \
                     stood still for {stood:.2} s)",
                    took[0], took[1]
                ));
            }
        }
        ensure!(
            saving.saved.0 >= gang.rounds,
            "{:?}: a round saw no checkpoint: more steps",
            saving.saved
        );
        ratios.sort_by(f64::total_cmp);
        let median = ratios.get(ratios.len() / 2).copied().unwrap_or(0.0);
        mark("training_while_saving", median, "of the speed without", 0.95);
        Ok(())
    }
}

impl GangArgs {
    fn new_model(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        let model = folder.join("model");
        let made = Command::new(&self.worker)
            .args(["new-model", "--preset", &self.preset, "--out"])
            .arg(&model)
            .status()
            .with_context(|| format!("cannot start {}", self.worker.display()))?;
        ensure!(made.success(), "clade-worker new-model ended with {made}");
        Ok(model)
    }

    /// Measures by turns, and prints the mark.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let folder = std::env::temp_dir().join(format!("clade-bench-gang-{}", std::process::id()));
        let result = self.measure(&folder);
        std::fs::remove_dir_all(&folder).ok();
        result
    }

    fn measure(&self, folder: &Path) -> anyhow::Result<()> {
        let model = self.new_model(folder)?;
        let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let seat = |rank: u32| {
            let (rank, ranks) = (rank.to_string(), self.ranks.to_string());
            let meet = format!("{free}/bench");
            ["--rank".into(), rank, "--ranks".into(), ranks, "--meet".into(), meet]
        };
        let mut alone = Bench::start(self, &model, self.ranks, &[])?;
        let mut gang = (0..self.ranks)
            .map(|rank| Bench::start(self, &model, 1, &seat(rank)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let mut ratios = Vec::new();
        let mut worst = 0.0_f64;
        for round in 0..=self.rounds {
            alone.begin(self.steps)?;
            let (expected, alone_took) = alone.end()?;
            for rank in &mut gang {
                rank.begin(self.steps)?;
            }
            let ends = gang.iter_mut().map(Bench::end).collect::<anyhow::Result<Vec<_>>>()?;
            let took = ends.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max);
            let steps = usize::try_from(self.steps)?;
            for losses in ends.iter().map(|(losses, _)| losses).chain([&expected]) {
                ensure!(losses.len() == steps, "a step is left out, or has no finite loss");
                for (found, expected) in losses.iter().zip(&expected) {
                    worst = worst.max((found - expected).abs());
                }
            }
            ensure!(worst <= SAME, "the losses differ by {worst}: the comparison is void");
            // The first makes room and warms caches.
            if round > 0 {
                ratios.push(alone_took / took);
                let pairs = f64::from(self.steps) * f64::from(u32::try_from(self.batch)?);
                say(format_args!(
                    "round {round}: one rank of {} threads {:.0} pairs/s, {} ranks {:.0} pairs/s",
                    self.ranks,
                    pairs / alone_took,
                    self.ranks,
                    pairs / took
                ));
            }
        }
        ratios.sort_by(f64::total_cmp);
        let median = ratios.get(ratios.len() / 2).copied().unwrap_or(0.0);
        say(format_args!(
            "{} of {} pairs, {} rounds of {} steps by turns: {median:.2} ({:.2} .. {:.2}); losses differ by {worst:.0e}",
            self.preset,
            self.batch,
            self.rounds,
            self.steps,
            ratios.first().copied().unwrap_or(0.0),
            ratios.last().copied().unwrap_or(0.0)
        ));
        mark(&format!("gang_of_{}", self.ranks), median, "of one rank's speed", 0.85);
        Ok(())
    }
}
