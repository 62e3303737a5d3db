//! A rank's line to whoever started it: the agent, or a person.
//!
//! Telling never blocks the work: one thread writes, and says every second that the rank lives.

use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clade_core::ids::{Digest, Step};
use clade_core::job::{Failure, Outcome};
use clade_core::rendezvous::Rendezvous;

use super::busy::Busy;
use super::rate::Rate;
use crate::collective::LastExchange;
use crate::context::{Ending, Reporter};
use crate::pipe::{self, FromRank};

const ALIVE_EVERY: Duration = Duration::from_secs(1);
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
const LOOK_UP: Duration = Duration::from_millis(100);

/// Who listens.
#[derive(Debug)]
pub(super) enum Voice {
    /// JSON lines into this pipe.
    Agent(File),
    /// Plain lines on stderr.
    Person,
}

/// The rank's side of the line.
#[derive(Debug)]
pub struct Uplink {
    say: Mutex<Option<Sender<FromRank>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Moves when work gets done.
    units: Arc<AtomicU64>,
    progress: Mutex<Progress>,
    has_agent: bool,
    rendezvous: Mutex<Option<Rendezvous>>,
    rendezvous_heard: Condvar,
    stop: Arc<AtomicBool>,
    last_exchange: LastExchange,
}

#[derive(Debug, Default)]
struct Progress {
    rate: Rate,
    busy: Busy,
    told_at: Option<Instant>,
}

impl Uplink {
    pub(super) fn open(voice: Voice) -> Arc<Self> {
        let (say, queued) = channel();
        let units = Arc::new(AtomicU64::new(0));
        let has_agent = matches!(voice, Voice::Agent(_));
        let counted = Arc::clone(&units);
        let writer = thread::spawn(move || write(voice, &queued, &counted));
        Arc::new(Self {
            say: Mutex::new(Some(say)),
            writer: Mutex::new(Some(writer)),
            units,
            progress: Mutex::default(),
            has_agent,
            rendezvous: Mutex::default(),
            rendezvous_heard: Condvar::new(),
            stop: Arc::default(),
            last_exchange: LastExchange::default(),
        })
    }

    pub(super) fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Asks the work to stop; whether it had been asked before.
    pub(super) fn request_stop(&self) -> bool {
        self.stop.swap(true, Ordering::Relaxed)
    }

    pub(super) fn heard_rendezvous(&self, address: Rendezvous) {
        *locked(&self.rendezvous) = Some(address);
        self.rendezvous_heard.notify_all();
    }

    /// Whether an agent listens, and not a person.
    pub const fn has_agent(&self) -> bool {
        self.has_agent
    }

    /// Tells where this rank 0 listens.
    pub fn post_rendezvous(&self, address: Rendezvous) {
        self.say(FromRank::Rendezvous(address));
    }

    /// Waits to be told where rank 0 listens.
    pub fn await_rendezvous(&self, patience: Duration) -> Result<Rendezvous, Ending> {
        if !self.has_agent {
            let message = "a gang by hand needs `rendezvous: 127.0.0.1:<port>` in the job file of \
                           each of its ranks";
            return Err(Failure::Config { message: message.to_owned() }.into());
        }
        let until = Instant::now() + patience;
        let mut heard = locked(&self.rendezvous);
        loop {
            if let Some(address) = &*heard {
                return Ok(address.clone());
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(Ending::Stopped);
            }
            if Instant::now() >= until {
                return Err(Failure::PeerLost { rank: 0 }.into());
            }
            let waited = self.rendezvous_heard.wait_timeout(heard, LOOK_UP);
            heard = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Tells that a checkpoint's manifest exists.
    pub fn checkpoint_written(&self, step: Step, manifest: Digest) {
        self.say(FromRank::Checkpoint { step, manifest });
    }

    /// Where this rank's exchanges with its gang are noted.
    pub fn last_exchange(&self) -> LastExchange {
        self.last_exchange.clone()
    }

    /// Says the last word and waits until it is out.
    pub(super) fn finish(&self, outcome: &Outcome) {
        self.say(FromRank::Outcome(outcome.clone()));
        locked(&self.say).take();
        let writer = locked(&self.writer).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the thread that speaks to the agent panicked");
        }
    }

    /// Notes that work got done, without telling how much.
    pub fn worked(&self) {
        self.units.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a step was made, and how much of its time this rank worked itself.
    pub fn step_made(&self, worked: Duration) {
        locked(&self.progress).busy.note(worked);
    }

    fn say(&self, message: FromRank) {
        if let Some(say) = &*locked(&self.say) {
            // The writer ends first only if nobody listens any more.
            let _: Result<_, _> = say.send(message);
        }
    }
}

impl Reporter for Uplink {
    fn progress(&self, done: u64, total: u64, loss: Option<f64>) {
        self.worked();
        let now = Instant::now();
        let mut progress = locked(&self.progress);
        let recent = progress.told_at.is_some_and(|at| now.duration_since(at) < PROGRESS_EVERY);
        if recent && done < total {
            return;
        }
        progress.told_at = Some(now);
        let rate = progress.rate.note(now, done);
        let busy_ms = progress.busy.take();
        drop(progress);
        self.say(FromRank::Progress { done, total, rate, loss, busy_ms });
    }
}

/// Writes until the last sender is gone or nobody listens.
fn write(mut voice: Voice, queued: &Receiver<FromRank>, units: &AtomicU64) {
    let mut alive_due = Instant::now();
    loop {
        let left = alive_due.saturating_duration_since(Instant::now());
        let message = match queued.recv_timeout(left) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => {
                alive_due = Instant::now() + ALIVE_EVERY;
                FromRank::Alive { units: units.load(Ordering::Relaxed) }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        match &mut voice {
            Voice::Agent(pipe) => {
                if let Err(error) = pipe.write_all(pipe::line(&message).as_bytes()) {
                    tracing::error!(%error, "the agent does not listen any more");
                    return;
                }
            }
            Voice::Person => tell_person(&message),
        }
    }
}

fn tell_person(message: &FromRank) {
    match message {
        // The outcome is printed, and whoever wrote a checkpoint has logged it.
        FromRank::Alive { .. } | FromRank::Outcome(_) | FromRank::Checkpoint { .. } => (),
        FromRank::Rendezvous(address) => tracing::info!(?address, "listening for the gang"),
        FromRank::Progress { done, total, rate, loss, busy_ms: _ } => match loss {
            Some(loss) => tracing::info!("{done} of {total}, {rate:.1}/s, loss {loss:.4}"),
            None => tracing::info!("{done} of {total}, {rate:.1}/s"),
        },
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
