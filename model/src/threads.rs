//! How many threads one tensor operation may use.
//!
//! OpenMP keeps the number per calling thread: a setting made elsewhere does not reach the thread
//! that trains. Ranks that share cores should also run with `OMP_WAIT_POLICY=PASSIVE`.

/// Sets the number of threads that tensor operations of the *calling* OS thread use.
///
/// Call it first thing in the thread that computes. Zero counts as one.
pub fn set_intra_op(threads: usize) {
    tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(i32::MAX));
}

/// Tells how many threads tensor operations of the calling OS thread use.
pub fn intra_op() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1)
}
