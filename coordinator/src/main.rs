//! `clade-coordinator`: owns every decision of a run and no tensor.

mod engine;
mod guard;
mod observed;
mod operators;
mod outside;
mod state;
mod view;
mod workers;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clade_core::schedule::Limits;
use clade_proto::v1::run_service_server::RunServiceServer;
use clade_proto::v1::worker_service_server::WorkerServiceServer;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Shards a dataset by cluster and schedules the training of its experts onto workers.
///
/// Workers and the `clade` command find it at --listen. Its decisions are kept in one file in
/// --state, which only one coordinator may hold at a time.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Address to serve on
    #[arg(long, default_value = "127.0.0.1:7600")]
    listen: SocketAddr,
    /// Folder of the embedded state; made if it is not there
    #[arg(long, default_value = "clade-data/coordinator")]
    state: PathBuf,
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
    let served = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the async runtime")
        .and_then(|runtime| runtime.block_on(serve(Args::parse())));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(Args { listen, state, exit_with_stdin, access }: Args) -> anyhow::Result<()> {
    let door = access.open(listen)?;
    // The address first: a second coordinator must not count the term up before it fails.
    let listener = tokio::net::TcpListener::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen}: stop what listens there, or choose another --listen")
    })?;
    let db = state::Db::open(&state)?;
    let shutdown = CancellationToken::new();
    let (engine, running) = engine::start(db, Limits::default(), shutdown.clone())?;
    info!(%listen, state = %state.display(), "coordinator serves");

    let stopper = shutdown.clone();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let signals = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => info!("stops: SIGTERM"),
            _ = interrupt.recv() => info!("stops: SIGINT"),
            () = stdin_closed(), if exit_with_stdin => info!("stops: standard input closed"),
            () = stopper.cancelled() => (),
        }
        stopper.cancel();
    });
    let (guard, incoming) = (door.guard(), door.incoming(listener));
    let renewal = tokio::spawn(clade_access::keep_fresh(door.tokens, door.tls, shutdown.clone()));
    tonic::transport::Server::builder()
        .layer(guard)
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(std::time::Duration::from_secs(5)))
        .tcp_nodelay(true)
        .add_service(WorkerServiceServer::new(workers::Workers::new(
            engine.clone(),
            shutdown.clone(),
        )))
        .add_service(RunServiceServer::new(operators::Operators::new(engine)))
        .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned())
        .await
        .context("serving failed")?;
    shutdown.cancel();
    signals.await.context("the signal task failed")?;
    renewal.await.context("the task that renews tokens failed")?;
    running.await.context("the engine failed")?
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
