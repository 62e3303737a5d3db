//! `clade-coordinator`: owns every decision of a run and no tensor.

mod allowance;
mod engine;
mod fleet;
mod guard;
mod metrics;
mod observed;
mod operators;
mod outside;
mod question;
mod role;
mod serve;
mod standby;
mod state;
mod view;
mod workers;

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use clade_core::schedule::{Limits, invariants};
use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use metrics::Metrics;

/// Shards a dataset by cluster and schedules the training of its experts onto workers.
///
/// Workers and the `clade` command find it at --listen. Its decisions are kept in one file in
/// --state, which only one coordinator may hold at a time, or in --etcd, where several coordinators
/// elect one that leads while the others stand by.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Address to serve on
    #[arg(long, default_value = "127.0.0.1:7600")]
    listen: SocketAddr,
    #[command(flatten)]
    state: state::options::StateArgs,
    /// Address of /metrics (Prometheus), /healthz and /readyz, which tell no secrets and ask for none
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
    /// Leave when standard input closes: whoever started this is gone
    #[arg(long)]
    exit_with_stdin: bool,
    #[command(flatten)]
    access: guard::AccessFlags,
}

fn main() -> ExitCode {
    clade_access::install_crypto();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("CLADE_LOG")
                .unwrap_or_else(|_| "info".into()),
        )
        .init();
    raise_file_limit();
    let served = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the async runtime")
        .and_then(|runtime| runtime.block_on(run(Args::parse())));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Each worker and each client holds a socket, and a login's usual limit is 1,024 files.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(
            "cannot raise the limit of open files, which bounds the workers that can connect: {error}"
        );
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let Args { listen, state, metrics_listen, exit_with_stdin, access } = args;
    let door = access.open(listen)?;
    // The address first: a second coordinator must not count the term up before it fails.
    let listener = bind(listen, "--listen").await?;
    let metrics = Metrics::new(&invariants::names().collect::<Vec<_>>());
    let probes = match metrics_listen {
        Some(address) => Some(bind(address, "--metrics-listen").await?),
        None => None,
    };
    let options = state.read(listen, access.is_tls())?;
    let shutdown = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(stop_on_signal(shutdown.clone(), exit_with_stdin));
    if let Some(probes) = probes {
        let serving = metrics::serve(probes, metrics.clone(), shutdown.clone());
        tasks.spawn(async move {
            serving.await;
            Ok(())
        });
    }
    let (role, roles) = role::Roles::new();
    let (stop, measured) = (shutdown.clone(), metrics.clone());
    tasks.spawn(async move {
        // A coordinator that can neither lead nor stand by must not go on serving.
        let _stopper = stop.clone().drop_guard();
        role::run(options, Limits::default(), role, measured, stop.clone()).await
    });
    info!(%listen, "coordinator serves");
    let served = serve::serve(listener, door, roles, metrics, shutdown.clone()).await;
    shutdown.cancel();
    let mut ended = served;
    while let Some(task) = tasks.join_next().await {
        ended = task.context("a task panicked").and_then(|task| task).and(ended);
    }
    ended
}

async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: stop what listens there, or choose another {flag}")
    })
}

/// Fires `shutdown` when this process is told to stop.
async fn stop_on_signal(shutdown: CancellationToken, exit_with_stdin: bool) -> anyhow::Result<()> {
    let _stopper = shutdown.clone().drop_guard();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => info!("stops: SIGTERM"),
        _ = interrupt.recv() => info!("stops: SIGINT"),
        () = stdin_closed(), if exit_with_stdin => info!("stops: standard input closed"),
        () = shutdown.cancelled() => (),
    }
    Ok(())
}

/// Waits for the end of standard input on a thread of its own.
///
/// Tokio's stdin blocks a pool thread that a shutting-down runtime would wait for; a plain thread
/// is simply left behind.
async fn stdin_closed() {
    let (ended, wait) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut sink = [0; 64];
        let mut stdin = std::io::stdin().lock();
        while matches!(std::io::Read::read(&mut stdin, &mut sink), Ok(1..)) {}
        ended.send(()).ok();
    });
    wait.await.ok();
}
