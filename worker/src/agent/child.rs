//! Starts one rank's process.
//!
//! The rank leads a process group of its own, holds its slot's lock, speaks over stdin and stdout
//! and logs to a file. Its job file stays beside it, so that it can be run again by hand.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use clade_core::ids::Fence;
use clade_core::job::{Failure, JobFile};
use clade_store::{Store, keys};
use tokio::process::{Child, Command};

use super::devices::{Devices, Pin};
use super::slots::SlotLock;
use crate::rank::CacheChoice;

/// What all ranks of an agent have in common.
#[derive(Debug)]
pub(super) struct Settings {
    /// This very program, whatever becomes of the file it was started from.
    pub(super) program: PathBuf,
    pub(super) state: PathBuf,
    pub(super) threads_per_rank: u32,
    pub(super) devices: Devices,
    pub(super) cache: CacheChoice,
    /// Where ranks elsewhere reach those here, if it was said.
    pub(super) gang_address: Option<IpAddr>,
    /// Without a unit of work done for this long, a rank is stalled.
    pub(super) stall_after: Duration,
    /// Without a sign of life for this long, too.
    pub(super) silent_after: Duration,
}

/// One rank of one gang, or a job's only one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RankKey {
    pub(super) fence: Fence,
    pub(super) rank: u32,
}

/// A rank to be started.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) key: RankKey,
    pub(super) slot: u32,
    pub(super) job: JobFile,
    pub(super) grace: Duration,
}

/// A rank that has been started.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) child: Child,
    pub(super) pid: u32,
    pub(super) job_file: PathBuf,
    pub(super) scratch: PathBuf,
    pub(super) log: PathBuf,
    pub(super) log_key: String,
    pub(super) store: Store,
}

/// Starts a rank in a slot whose lock is taken.
pub(super) fn start(
    launch: &Launch,
    settings: &Arc<Settings>,
    lock: SlotLock,
) -> Result<Started, Failure> {
    let Launch { key: RankKey { fence, rank }, slot, job, grace: _ } = launch;
    let store = Store::open(&job.store)?;
    let files = Files::prepare(settings, fence, *rank, *slot, job);
    let (files, log) = files.map_err(|(path, error)| Failure::Launch {
        rank: *rank,
        message: format!("cannot write {}: {error}", path.display()),
    })?;
    let Pin { device, visible } = settings.devices.pin(*slot);
    let mut command = Command::new(&settings.program);
    command
        .arg("rank")
        .arg("--scratch")
        .arg(&files.scratch)
        .arg("--threads")
        .arg(settings.threads_per_rank.to_string())
        .arg("--device")
        .arg(device)
        .arg("--slot")
        .arg(slot.to_string())
        .arg("--cache")
        .arg(&settings.cache.folder)
        .arg("--cache-size")
        .arg(settings.cache.bytes.to_string())
        .arg(&files.job)
        .env("OMP_NUM_THREADS", settings.threads_per_rank.to_string())
        .env("OMP_WAIT_POLICY", "PASSIVE")
        // Ranks do not speak to coordinators.
        .env_remove("CLADE_TOKEN")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true);
    if let Some(gpu) = visible {
        command.env("CUDA_VISIBLE_DEVICES", gpu);
    }
    let spawned = lock.inheritable().and_then(|()| command.spawn());
    // From here on the lock is the child's alone.
    drop(lock);
    let launch_failed = |error: io::Error| Failure::Launch {
        rank: *rank,
        message: format!("cannot start {}: {error}", settings.program.display()),
    };
    let child = spawned.map_err(launch_failed)?;
    let pid = child.id().ok_or_else(|| launch_failed(io::Error::other("it has no process id")))?;
    Ok(Started {
        child,
        pid,
        job_file: files.job,
        scratch: files.scratch,
        log: files.log,
        log_key: keys::log(&fence.run, fence.work, fence.incarnation, *rank),
        store,
    })
}

/// Files of one rank in the agent's folder.
struct Files {
    job: PathBuf,
    scratch: PathBuf,
    log: PathBuf,
}

impl Files {
    fn prepare(
        settings: &Settings,
        fence: &Fence,
        rank: u32,
        slot: u32,
        job: &JobFile,
    ) -> Result<(Self, File), (PathBuf, io::Error)> {
        let Fence { run, work, incarnation } = fence;
        let state = &settings.state;
        let logs = state.join(format!("logs/{run}/{work}/gang-{incarnation}"));
        let jobs = state.join("jobs");
        let files = Self {
            job: jobs.join(format!("{run}-{work}-{incarnation}-{rank}.yaml")),
            scratch: state.join(format!("scratch/slot-{slot}")),
            log: logs.join(format!("rank-{rank}.log")),
        };
        for folder in [&logs, &jobs] {
            fs::create_dir_all(folder).map_err(|error| (folder.clone(), error))?;
        }
        // JSON is YAML too.
        let text = serde_json::to_vec_pretty(job).expect("keys are strings");
        write_private(&files.job, &text).map_err(|error| (files.job.clone(), error))?;
        let log = File::options().create(true).append(true).open(&files.log);
        let log = log.map_err(|error| (files.log.clone(), error))?;
        Ok((files, log))
    }
}

/// Writes a file that nobody else may read: a job file holds its gang's secret.
fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => (),
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)
}

/// Removes what a rank leaves on the machine; its log stays.
pub(super) fn clean(job_file: &Path, scratch: &Path) {
    for result in [fs::remove_file(job_file), fs::remove_dir_all(scratch)] {
        if let Err(error) = result
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "cannot remove a rank's files");
        }
    }
}
