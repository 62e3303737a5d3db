//! `clade-coordinator`: owns every decision of a run and no tensor.

mod allowance;
mod engine;
mod fleet;
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
use clade_core::schedule::Limits;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Shards a dataset by cluster and schedules the training of its experts onto workers.
///
/// Workers and the `clade` command find it at --listen. Its decisions are kept in one file in
/// --state, which only one coordinator may hold at a time, or in --etcd, where several coordinators
/// elect one that leads while the others stand by.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Address to serve on. Only loopback: callers are not asked who they are yet
    #[arg(long, default_value = "127.0.0.1:7600")]
    listen: SocketAddr,
    #[command(flatten)]
    state: state::options::StateArgs,
    /// Leave when standard input closes: whoever started this is gone
    #[arg(long)]
    exit_with_stdin: bool,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("CLADE_LOG")
                .unwrap_or_else(|_| "info".into()),
        )
        .init();
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

async fn run(Args { listen, state, exit_with_stdin }: Args) -> anyhow::Result<()> {
    // Who may call at all is decided here.
    anyhow::ensure!(
        listen.ip().is_loopback(),
        "will not listen on {listen}: there is no authentication yet, so only loopback addresses \
         such as 127.0.0.1:7600 are served"
    );
    // The address first: a second coordinator must not count the term up before it fails.
    let listener = tokio::net::TcpListener::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen}: stop what listens there, or choose another --listen")
    })?;
    let options = state.read(listen)?;
    let shutdown = CancellationToken::new();
    let signals = tokio::spawn(stop_on_signal(shutdown.clone(), exit_with_stdin));
    let (role, roles) = role::Roles::new();
    let stop = shutdown.clone();
    let roling = tokio::spawn(async move {
        let ended = role::run(options, Limits::default(), role, stop.clone()).await;
        // A coordinator that can neither lead nor stand by must not go on serving.
        stop.cancel();
        ended
    });
    info!(%listen, "coordinator serves");
    let served = serve::serve(listener, roles, shutdown.clone()).await;
    shutdown.cancel();
    let ended = roling.await.context("the role's task failed")?;
    signals.await.context("the signal task failed")??;
    ended.and(served)
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
