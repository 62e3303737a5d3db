//! What this process asks of its C library.

/// Keeps freed memory for the next allocation instead of giving it back page by page.
///
/// Activations of tens of megabytes are allocated and freed hundreds of times a step; by default
/// each becomes a mapping of its own, and each of its pages a fault. Call it before threads start.
pub(crate) fn keep_freed_memory() {
    // The C library takes no more than half of its largest heap as the threshold.
    const THRESHOLD: libc::c_int = 32 << 20;
    const KEPT: libc::c_int = 1 << 30;
    // SAFETY: takes plain numbers; a refusal changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

/// Ends the process without a word to anybody: for when a library hangs that would be asked on the way out.
pub(crate) fn exit_now() -> ! {
    // SAFETY: takes a plain number and does not return.
    unsafe { libc::_exit(1) }
}

/// The calling thread's number, as the system counts threads.
pub(crate) fn thread_id() -> i32 {
    // SAFETY: a system call without arguments.
    unsafe { libc::gettid() }
}

/// The limit on this process's address space (`ulimit -v`), in bytes.
pub(crate) fn address_space_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a place for one structure of the right type.
    let said = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) };
    (said == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}
