//! One coordinator on one core, and thousands of workers on the others.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clade_proto::v1;
use clade_proto::v1::run_service_client::RunServiceClient;
use clap::Args;
use tonic::transport::{Channel, Endpoint};

use crate::client::Told;
use crate::mark::{Sorted, mark, mark_below, millis, say};

#[derive(Args, Debug)]
pub(crate) struct ConnectedArgs {
    /// The program `clade-coordinator`.
    #[arg(long, default_value = "target/release/clade-coordinator")]
    coordinator: PathBuf,
    #[arg(long, default_value_t = 10_000)]
    workers: u32,
    /// Processes of clients.
    #[arg(long, default_value_t = 4)]
    processes: u32,
    /// Seconds before the measurement, in which all must have come.
    #[arg(long, default_value_t = 60)]
    coming: u64,
    /// Seconds of the measurement.
    #[arg(long, default_value_t = 30)]
    measured: u64,
    /// Jobs of a few seconds that are handed out meanwhile.
    #[arg(long, default_value_t = 20_000)]
    jobs: u32,
}

struct Coordinator {
    process: Child,
    url: String,
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Coordinator {
    fn start(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        drop(listener);
        let log = std::fs::File::create(folder.join("coordinator.log"))?;
        let process = Command::new("taskset")
            .args(["-c", "0"])
            .arg(program)
            .arg(format!("--listen={address}"))
            .arg(format!("--state={}", folder.join("state").display()))
            .arg("--no-auth")
            .env("CLADE_LOG", "error")
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { process, url: format!("http://{address}") })
    }

    /// CPU time so far and resident memory in bytes.
    fn cost(&self) -> anyhow::Result<(Duration, u64)> {
        let read = |file: &str| {
            std::fs::read_to_string(format!("/proc/{}/{file}", self.process.id()))
                .with_context(|| format!("cannot read the coordinator's {file}"))
        };
        let stat = read("stat")?;
        let fields: Vec<&str> =
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| -> anyhow::Result<u64> {
            Ok(fields.get(at).context("a field of stat")?.parse()?)
        };
        // Fields 14 and 15, in hundredths of a second on Linux.
        let cpu = Duration::from_millis(10 * (ticks(11)? + ticks(12)?));
        let status = read("status")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|it| it.split_whitespace().next()).context("VmRSS")?;
        Ok((cpu, resident.parse::<u64>()? * 1024))
    }
}

impl ConnectedArgs {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let folder = std::env::temp_dir().join(format!("clade-load-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let measured = self.measure(&folder);
        std::fs::remove_dir_all(&folder).ok();
        measured
    }

    fn measure(&self, folder: &Path) -> anyhow::Result<()> {
        let coordinator = Coordinator::start(&self.coordinator, folder)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(ready(&coordinator.url))?;
        let idle = coordinator.cost()?.1;
        let each = self.workers.div_ceil(self.processes);
        let began = Instant::now();
        let own = std::env::current_exe()?;
        let clients = (0..self.processes).map(|at| {
            let first = at * each;
            let count = each.min(self.workers.saturating_sub(first));
            Command::new(&own)
                .args(["client", "--coordinator", &coordinator.url])
                .args(["--first", &first.to_string(), "--count", &count.to_string()])
                .args(["--seconds", &(self.coming + self.measured).to_string()])
                .args(["--measured", &self.measured.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
        });
        let clients: Vec<Child> = clients.collect::<Result<_, _>>()?;
        let coming = Duration::from_secs(self.coming);
        // So that placing them falls into the time before the measurement, and their ends into it.
        std::thread::sleep(coming.saturating_sub(Duration::from_secs(10) + began.elapsed()));
        let document = document(folder, self.jobs)?;
        let url = coordinator.url.clone();
        let submitted = Instant::now();
        runtime.block_on(apply(&url, document))?;
        say(format_args!(
            "{} jobs submitted in {:.1} s",
            self.jobs,
            submitted.elapsed().as_secs_f64()
        ));
        std::thread::sleep(coming.saturating_sub(began.elapsed()));
        let (cpu, _) = coordinator.cost()?;
        let at = Instant::now();
        std::thread::sleep(Duration::from_secs(self.measured));
        let (after, resident) = coordinator.cost()?;
        let share = 100.0 * (after - cpu).as_secs_f64() / at.elapsed().as_secs_f64();
        let mut all = Told::default();
        for client in clients {
            let out = client.wait_with_output()?;
            ensure!(out.status.success(), "a process of clients ended with {}", out.status);
            let told: Told = serde_json::from_slice(&out.stdout)?;
            all.connected += told.connected;
            all.orders += told.orders;
            all.acknowledged.extend(told.acknowledged);
            all.ordered.extend(told.ordered);
            for (why, count) in told.broken {
                *all.broken.entry(why).or_default() += count;
            }
        }
        for (why, count) in &all.broken {
            say(format_args!("{count} streams broke: {why}"));
        }
        let acknowledged = sorted(all.acknowledged);
        let ordered = sorted(all.ordered);
        say(format_args!(
            "{} workers connected at the end, {} orders to start; {:.0} MiB resident with no worker",
            all.connected,
            all.orders,
            mib(idle)
        ));
        for (what, times) in [("acknowledged", &acknowledged), ("ordered", &ordered)] {
            say(format_args!(
                "{what}: {} timed, p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
                times.len(),
                millis(times.at(50.0)),
                millis(times.at(99.0)),
                millis(times.at(100.0))
            ));
        }
        ensure!(ordered.len() > 0, "no order was timed: nothing can be said about latency");
        mark("connected_workers", as_float(all.connected), "workers", f64::from(self.workers));
        mark_below("coordinator_cpu_of_one_core", share, "%", 60.0);
        mark_below("coordinator_memory", mib(resident), "MiB", 1_000_000_000.0 / 1_048_576.0);
        mark_below("order_latency_p99", millis(ordered.at(99.0)), "ms", 250.0);
        Ok(())
    }
}

fn sorted(micros: Vec<u64>) -> Sorted {
    Sorted::new(micros.into_iter().map(Duration::from_micros).collect())
}

#[expect(clippy::cast_precision_loss, reason = "shown to people")]
const fn as_float(count: u64) -> f64 {
    count as f64
}

const fn mib(bytes: u64) -> f64 {
    as_float(bytes) / 1_048_576.0
}

async fn ready(url: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        if let Ok(mut client) = client(url).await
            && client.get_status(v1::GetStatusRequest::default()).await.is_ok()
        {
            return Ok(());
        }
        ensure!(began.elapsed() < Duration::from_secs(20), "the coordinator does not answer");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn apply(url: &str, request: v1::ApplyRunRequest) -> anyhow::Result<()> {
    client(url).await?.apply_run(request).await?;
    Ok(())
}

async fn client(url: &str) -> anyhow::Result<RunServiceClient<Channel>> {
    Ok(RunServiceClient::new(Endpoint::from_shared(url.to_owned())?.connect().await?))
}

/// A run of so many index jobs, whose inputs are there and are never read.
fn document(folder: &Path, jobs: u32) -> anyhow::Result<v1::ApplyRunRequest> {
    for at in 0..jobs {
        std::fs::write(folder.join(format!("{at:06}.tar")), b"never read")?;
    }
    for file in ["encoder", "vocabulary"] {
        std::fs::write(folder.join(file), b"never read")?;
    }
    let demo = include_str!("../../../deploy/demo/run.yaml");
    let document = demo
        .replace("./clade-data", "./store")
        .replace("data/clipart/train/*.tar", "'*.tar'")
        .replace("data/clipart/eval/classes", "encoder")
        .replace("data/clipart/eval/retrieval", "encoder")
        .replace("assets/all-minilm-l6-v2", "encoder")
        .replace("assets/clip-bpe/bpe_simple_vocab_16e6.txt.gz", "vocabulary");
    Ok(v1::ApplyRunRequest { document, base_dir: folder.display().to_string(), queue: false })
}
