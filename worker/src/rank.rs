//! One rank: a process that does one work and knows its agent only by a pipe.
//!
//! As the agent starts it (`rank`), it speaks JSON lines on stdout, listens on stdin and dies when
//! stdin ends. By hand (`run`), the same work tells a person on stderr. Panics and failures both
//! end as an outcome; only the death of the process itself is left to the agent to judge.

mod busy;
mod dispatch;
mod ras;
mod rate;
mod stacks;
mod uplink;

use std::fs;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use clade_core::job::{Failure, JobFile, Outcome};
use clade_core::plan::Plan;
use clade_core::spec::RunSpec;
use clade_model::device::DeviceChoice;
use clade_pairs::Cache;
use clade_store::{Inputs, Store, StoreError, keys};
use nix::sys::signal::{Signal, raise};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use crate::context::{Context, Ending};
use crate::pipe::ToRank;

pub use uplink::Uplink;
use uplink::Voice;

/// Decoders and stages recurse a little; libtorch's autograd more.
const STACK_BYTES: usize = 16 * 1024 * 1024;

/// Where and how a rank works.
#[derive(Clone, Debug)]
pub struct Place {
    /// Folder for temporary files; emptied before and after.
    pub scratch: PathBuf,
    /// Threads of libtorch within one operation.
    pub threads: usize,
    pub device: DeviceChoice,
    /// The agent's slot; 0 by hand.
    pub slot: u32,
    pub cache: Option<CacheChoice>,
}

/// Where tars of an object store are kept on this machine.
#[derive(Clone, Debug)]
pub struct CacheChoice {
    pub folder: PathBuf,
    /// Bytes it may hold.
    pub bytes: u64,
}

/// Does the work of `job_file` as an agent's child.
pub fn serve(job_file: &Path, place: Place) -> ExitCode {
    stacks::prepare();
    let stdout = match private_stdout() {
        Ok(stdout) => stdout,
        Err(error) => {
            tracing::error!(%error, "cannot speak to the agent");
            return ExitCode::FAILURE;
        }
    };
    let uplink = Uplink::open(Voice::Agent(stdout));
    stacks::answer(&uplink);
    let hearing = Arc::clone(&uplink);
    // Ends with the process: nothing can interrupt a read of stdin.
    thread::spawn(move || listen(&hearing));
    let outcome = match read_job(job_file) {
        Ok(job) => execute(job, place, &uplink),
        Err(failure) => Outcome::Failed(failure),
    };
    uplink.finish(&outcome);
    exit_code(&outcome)
}

/// Does the work of `job_file` for a person, and returns how it ended.
pub fn by_hand(job_file: &Path, place: Place) -> Outcome {
    stacks::prepare();
    let uplink = Uplink::open(Voice::Person);
    stacks::answer(&uplink);
    let outcome = match read_job(job_file) {
        Ok(job) => execute(job, place, &uplink),
        Err(failure) => Outcome::Failed(failure),
    };
    uplink.finish(&outcome);
    outcome
}

/// 0 if the rank did what it was told, 1 if it failed.
pub fn exit_code(outcome: &Outcome) -> ExitCode {
    match outcome {
        Outcome::Done { .. } | Outcome::Stopped => ExitCode::SUCCESS,
        Outcome::Failed(_) => ExitCode::FAILURE,
    }
}

/// Keeps the pipe to the agent for ourselves: whatever else prints, prints to the log.
fn private_stdout() -> io::Result<fs::File> {
    use std::os::fd::AsFd;
    let pipe = io::stdout().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdout(io::stderr())?;
    Ok(pipe.into())
}

/// Hears the agent. When it is gone, so is this rank.
fn listen(uplink: &Uplink) {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        match serde_json::from_str(&line) {
            Ok(ToRank::Rendezvous(address)) => uplink.heard_rendezvous(address),
            Ok(ToRank::Stop { save: true }) => {
                uplink.request_stop();
            }
            Ok(ToRank::Stop { save: false }) => break,
            // The line may hold the gang's secret.
            Err(error) => {
                let bytes = line.len();
                tracing::warn!(%error, bytes, "the agent said what nobody understands");
            }
        }
    }
    // Without waiting for threads, files or libtorch: the next gang may be about to start.
    let _: Result<(), _> = raise(Signal::SIGKILL);
}

fn read_job(path: &Path) -> Result<JobFile, Failure> {
    let config = |message: String| Failure::Config { message };
    let text = fs::read_to_string(path)
        .map_err(|error| config(format!("cannot read {}: {error}", path.display())))?;
    let job: JobFile = serde_saphyr::from_str(&text)
        .map_err(|error| config(format!("{}: {error}", path.display())))?;
    if job.rank >= job.ranks {
        return Err(config(format!(
            "{}: rank {} does not exist among {} ranks",
            path.display(),
            job.rank,
            job.ranks
        )));
    }
    Ok(job)
}

fn execute(job: JobFile, place: Place, uplink: &Arc<Uplink>) -> Outcome {
    let (fence, rank) = (job.fence(), job.rank);
    tracing::info!(%fence, rank, ranks = job.ranks, pid = std::process::id(), "started");
    let Place { scratch, threads, .. } = &place;
    let (scratch, threads) = (scratch.clone(), *threads);
    let outcome = prepare(job, &place, uplink).map(|(runtime, context)| {
        let stop = context.runtime.spawn(stop_on_signals(Arc::clone(uplink)));
        let outcome = on_own_thread(context, threads, Arc::clone(uplink));
        stop.abort();
        runtime.shutdown_background();
        outcome
    });
    if let Err(error) = fs::remove_dir_all(&scratch)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "cannot empty {}", scratch.display());
    }
    let outcome = match outcome {
        Ok(Ok(counts)) => Outcome::Done { counts },
        Ok(Err(Ending::Stopped)) => Outcome::Stopped,
        Ok(Err(Ending::Failed(failure))) | Err(failure) => Outcome::Failed(at_rank(rank, failure)),
    };
    match &outcome {
        Outcome::Done { .. } | Outcome::Stopped => tracing::info!(%fence, rank, ?outcome, "ended"),
        Outcome::Failed(failure) => tracing::error!(%fence, rank, %failure, "failed"),
    }
    outcome
}

/// Reads everything a work needs to know.
fn prepare(
    job: JobFile,
    place: &Place,
    uplink: &Arc<Uplink>,
) -> Result<(Runtime, Context), Failure> {
    let Place { scratch, threads: _, device, slot, cache } = place.clone();
    let scratch_failed = |error: io::Error| Failure::Storage {
        message: format!("cannot empty {}: {error}", scratch.display()),
    };
    match fs::remove_dir_all(&scratch) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(scratch_failed(error)),
        Ok(()) | Err(_) => fs::create_dir_all(&scratch).map_err(scratch_failed)?,
    }
    // The work computes; its runtime only waits for the store.
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .map_err(|error| Failure::Launch {
            rank: job.rank,
            message: format!("cannot start a runtime: {error}"),
        })?;
    let cache = cache.map(|CacheChoice { folder, bytes }| {
        Cache::open(&folder, bytes).map(Arc::new).map_err(|error| Failure::Storage {
            message: format!("cannot open the cache in {}: {error}", folder.display()),
        })
    });
    let cache = cache.transpose()?;
    let store = Store::open(&job.store)?;
    let read = async {
        let (spec, _) = store.get_manifest::<RunSpec>(&keys::spec(&job.run)).await?;
        let (inputs, _) = store.get_manifest::<Inputs>(&keys::inputs(&job.run)).await?;
        Ok::<_, StoreError>((spec, inputs))
    };
    let (spec, inputs) = runtime.block_on(read).map_err(|error| {
        if let StoreError::NotFound { key } = &error {
            let (store, run) = (&job.store, &job.run);
            let message = format!("{store} holds no run `{run}`: `{key}` is missing");
            Failure::Config { message }
        } else {
            error.into()
        }
    })?;
    let tars = u32::try_from(inputs.tars.len()).map_err(|_| Failure::Config {
        message: format!("{} input tars are too many", inputs.tars.len()),
    })?;
    let context = Context {
        plan: Plan::new(&spec, tars),
        job,
        spec,
        inputs,
        store,
        scratch,
        device,
        slot,
        cache,
        reporter: Arc::clone(uplink) as _,
        stop: uplink.stop_flag(),
        runtime: runtime.handle().clone(),
    };
    Ok((runtime, context))
}

/// Works on an OS thread of its own, so that nothing asynchronous waits for it, and catches panics.
fn on_own_thread(
    context: Context,
    threads: usize,
    uplink: Arc<Uplink>,
) -> Result<crate::context::Counts, Ending> {
    let rank = context.job.rank;
    let work = move || {
        clade_model::threads::set_intra_op(threads);
        dispatch::perform(&context, &uplink)
    };
    let spawned =
        thread::Builder::new().name("work".to_owned()).stack_size(STACK_BYTES).spawn(work);
    let crashed = |message| Ending::Failed(Failure::Crashed { rank, message });
    match spawned.map(thread::JoinHandle::join) {
        Ok(Ok(ending)) => ending,
        Ok(Err(panic)) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(crashed(format!("it panicked: {}", text.unwrap_or("without a word"))))
        }
        Err(error) => Err(crashed(format!("no thread could be started: {error}"))),
    }
}

/// Asks the work to stop at the first SIGTERM or SIGINT; the second kills.
async fn stop_on_signals(uplink: Arc<Uplink>) {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminated), Ok(mut interrupted)) = signals else { return };
    loop {
        tokio::select! {
            _ = terminated.recv() => (),
            _ = interrupted.recv() => (),
        }
        if uplink.request_stop() {
            let _: Result<(), _> = raise(Signal::SIGKILL);
        }
    }
}

/// Names this rank in a failure that a lower layer could not place.
fn at_rank(rank: u32, failure: Failure) -> Failure {
    match failure {
        Failure::Crashed { message, .. } => Failure::Crashed { rank, message },
        Failure::Launch { message, .. } => Failure::Launch { rank, message },
        Failure::PeerLost { .. } => Failure::PeerLost { rank },
        Failure::Data { .. }
        | Failure::Config { .. }
        | Failure::Storage { .. }
        | Failure::Stalled { .. }
        | Failure::WorkerLost { .. }
        | Failure::WorkerLeft { .. }
        | Failure::NoProgress { .. } => failure,
    }
}
