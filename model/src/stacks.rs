//! Where each thread of this process stands, for a person who asks why it does not go on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::native;

/// For one thread to tell: one that waits for a disk that does not answer never does.
const PATIENCE: Duration = Duration::from_millis(200);
/// The function of ours that the signal calls, as it is named in a stack.
const HANDLER: &str = "native::stacks::note";

/// One thread and its calls, innermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    pub thread: i32,
    pub name: String,
    /// None if the thread did not answer.
    pub calls: Option<Vec<String>>,
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread {} \"{}\":", self.thread, self.name)?;
        let Some(calls) = &self.calls else { return f.write_str(" did not answer") };
        calls.iter().try_for_each(|call| write!(f, "\n    {call}"))
    }
}

/// The stacks of all threads but the one that asks. Each is interrupted for a moment, and then goes on.
pub fn of_other_threads() -> Vec<Stack> {
    let own = native::thread_id();
    let mut threads: Vec<i32> = std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|thread| *thread != own)
        .collect();
    threads.sort_unstable();
    // All are asked before any name is looked up, which takes long.
    let noted: Vec<_> =
        threads.into_iter().map(|thread| (thread, native::addresses(thread, PATIENCE))).collect();
    // Each address once, library by library: few of them are kept open at a time.
    let all = noted.iter().flat_map(|(_, addresses)| addresses.iter().flatten());
    let all: BTreeSet<usize> = all.copied().collect();
    let names: BTreeMap<usize, Vec<String>> = all.into_iter().map(|at| (at, names(at))).collect();
    let stacks = noted.into_iter().map(|(thread, addresses)| {
        let name = std::fs::read_to_string(format!("/proc/self/task/{thread}/comm"));
        let name = name.unwrap_or_default().trim_end().to_owned();
        let calls = addresses.map(|addresses| {
            let calls = addresses.iter().filter_map(|at| names.get(at)).flatten().cloned();
            without_handler(calls.collect())
        });
        Stack { thread, name, calls }
    });
    stacks.collect()
}

/// The functions at a return address, those that were inlined first.
fn names(address: usize) -> Vec<String> {
    let mut names = Vec::new();
    // The call lies before the address to which it returns.
    backtrace::resolve((address.saturating_sub(1)) as *mut std::ffi::c_void, |symbol| {
        let name = symbol.name().map_or_else(|| format!("{address:#x}"), |it| format!("{it:#}"));
        let place = symbol.filename().zip(symbol.lineno());
        let place = place.map(|(file, line)| format!(" ({}:{line})", file.display()));
        names.push(format!("{name}{}", place.unwrap_or_default()));
    });
    if names.is_empty() {
        names.push(format!("{address:#x}"));
    }
    names
}

/// Without the frames of the handler itself, and the nameless one by which the kernel called it.
fn without_handler(mut calls: Vec<String>) -> Vec<String> {
    if let Some(last) = calls.iter().rposition(|call| call.contains(HANDLER)) {
        calls.drain(..=last);
        if calls.first().is_some_and(|call| call.starts_with("0x")) {
            calls.remove(0);
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_thread_that_waits_is_found_where_it_waits_and_goes_on() {
        let (end, ended) = channel();
        let (begin, begun) = channel();
        let waiting = std::thread::Builder::new().name("waits".into()).spawn(move || {
            begin.send(native::thread_id()).unwrap();
            let _: Result<(), _> = ended.recv();
            7
        });
        let thread = begun.recv().unwrap();
        let is_there = |stack: &Stack| {
            stack.calls.iter().flatten().any(|it| it.contains("model/src/stacks.rs"))
        };
        let look = || of_other_threads().into_iter().find(|it| it.thread == thread).unwrap();
        let mut found = look();
        // It may not have got there yet.
        let until = Instant::now() + Duration::from_secs(10);
        while !is_there(&found) {
            assert!(Instant::now() < until, "{found}");
            found = look();
        }
        assert_eq!(found.name, "waits");
        assert!(!found.calls.iter().flatten().any(|call| call.contains(HANDLER)), "{found}");
        drop(end);
        assert_eq!(waiting.unwrap().join().unwrap(), 7);
    }
}
