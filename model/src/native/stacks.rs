//! Where a thread of this process stands: the return addresses on its stack, noted by a signal handler.
//!
//! The handler only writes numbers into memory that is there already: it may interrupt a thread that holds
//! the allocator's lock. Names are looked up later, by whoever asked.

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Of a deeper stack the innermost frames are noted.
const MOST: usize = 96;
const NOT_NOTED: usize = usize::MAX;
const LOOK: Duration = Duration::from_millis(1);

/// The thread whose turn it is.
static TURN: AtomicI32 = AtomicI32::new(0);
static DEPTH: AtomicUsize = AtomicUsize::new(NOT_NOTED);
static FRAMES: [AtomicUsize; MOST] = [const { AtomicUsize::new(0) }; MOST];
/// One asks at a time.
static ASKING: Mutex<()> = Mutex::new(());

extern "C" fn note(_signal: libc::c_int) {
    // SAFETY: a system call without arguments, and the calling thread's own errno.
    let (own, errno) = unsafe { (libc::gettid(), *libc::__errno_location()) };
    if TURN.load(Ordering::Acquire) == own {
        let mut depth = 0;
        // SAFETY: it walks the calling thread's own stack. Two threads here at once, of which one was late, would
        // only mix their numbers, which are atomic.
        unsafe {
            backtrace::trace_unsynchronized(|frame| {
                let place = FRAMES.get(depth);
                if let Some(place) = place {
                    place.store(frame.ip() as usize, Ordering::Relaxed);
                    depth += 1;
                }
                place.is_some()
            });
        }
        // Who was too late is no longer waited for.
        if TURN.load(Ordering::Acquire) == own {
            DEPTH.store(depth, Ordering::Release);
        }
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// The return addresses on the stack of thread `thread` of this process, innermost first; none if it does not
/// answer in time.
pub(crate) fn addresses(thread: i32, patience: Duration) -> Option<Vec<usize>> {
    let _asking = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the handler is a function of the right type that lives as long as the process, and does only
    // what a handler may; the structure is whole.
    let is_set = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = note as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut()) == 0
    };
    DEPTH.store(NOT_NOTED, Ordering::Relaxed);
    TURN.store(thread, Ordering::Release);
    // SAFETY: plain numbers; a thread that is gone is an error.
    let is_sent = is_set
        && unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR2) == 0 };
    let until = Instant::now() + patience;
    while is_sent && DEPTH.load(Ordering::Acquire) == NOT_NOTED && Instant::now() < until {
        std::thread::park_timeout(LOOK);
    }
    TURN.store(0, Ordering::Release);
    let depth = Some(DEPTH.load(Ordering::Acquire)).filter(|depth| *depth != NOT_NOTED)?;
    Some(FRAMES[..depth].iter().map(|frame| frame.load(Ordering::Relaxed)).collect())
}
