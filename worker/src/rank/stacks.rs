//! Tells on SIGUSR1 where this rank stands: its last exchange, the stacks of all its threads, and what
//! NCCL knows, into its log.
//!
//! An agent asks so before it kills a rank that does not go on; a person may ask any time, and the rank goes on.

use std::io::Write as _;
use std::sync::Arc;
use std::thread;

use clade_model::{nccl, stacks};
use nix::sys::signal::{SigSet, Signal};

use super::{Uplink, ras};

fn asked() -> SigSet {
    let mut asked = SigSet::empty();
    asked.add(Signal::SIGUSR1);
    asked
}

/// Keeps the signal for the thread that waits for it. Threads inherit this, so it comes before any is started.
pub(super) fn prepare() {
    if let Err(error) = asked().thread_block() {
        tracing::warn!(%error, "this rank cannot be asked where it stands");
    }
}

/// Answers for the rest of the process's life.
pub(super) fn answer(uplink: &Arc<Uplink>) {
    let uplink = Arc::clone(uplink);
    let answering = thread::Builder::new().name("stacks".to_owned()).spawn(move || {
        while asked().wait().is_ok() {
            // The names of what is on the stacks take longest to find, and it may be killed meanwhile; NCCL may
            // take as long.
            let nccl = nccl::is_loaded().then(|| thread::spawn(ras::word));
            let pid = std::process::id();
            say(&format!("--- where process {pid} stands\n{}\n", uplink.last_exchange()));
            let stacks: Vec<String> =
                stacks::of_other_threads().iter().map(ToString::to_string).collect();
            say(&format!("{}\n", stacks.join("\n")));
            if let Some(Ok(word)) = nccl.map(thread::JoinHandle::join) {
                say(&format!("{word}\n"));
            }
            say("--- end\n");
        }
    });
    if let Err(error) = answering {
        tracing::warn!(%error, "this rank cannot be asked where it stands");
    }
}

/// In one piece, that no other thread's lines come between.
fn say(text: &str) {
    let _: Result<(), _> = std::io::stderr().lock().write_all(text.as_bytes());
}
