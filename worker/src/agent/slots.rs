//! The slots an agent offers, and the locks that say who sits there.
//!
//! Each slot is a file that its rank holds locked for as long as the rank's process lives: the
//! lock belongs to an open file that the rank inherits. So a new agent sees whether a rank of its
//! predecessor is still there, whatever became of the predecessor.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Slots {
    folder: PathBuf,
    count: u32,
}

/// One slot's lock, held by whoever has this file open.
#[derive(Debug)]
pub(super) struct SlotLock(File);

impl SlotLock {
    /// Lets the next child inherit the lock. The caller starts it, and drops this, before any other.
    pub(super) fn inheritable(&self) -> io::Result<()> {
        fcntl(&self.0, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(())
    }
}

impl Slots {
    pub(super) fn open(folder: &Path, count: u32) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned(), count })
    }

    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// Locks a slot; none if a rank sits there.
    pub(super) fn take(&self, slot: u32) -> io::Result<Option<SlotLock>> {
        let path = self.folder.join(format!("{slot}.lock"));
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(SlotLock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Waits until no rank of an earlier agent is left. They die when their agent does.
    pub(super) async fn wait_until_free(&self) -> io::Result<()> {
        for slot in 0..self.count {
            let mut told = false;
            while self.take(slot)?.is_none() {
                if !told {
                    tracing::info!(slot, "waiting for an earlier agent's rank to end");
                    told = true;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_slot_is_held_by_the_child_that_inherited_it_until_that_child_ends() {
        let folder = tempfile::tempdir().unwrap();
        let slots = Slots::open(folder.path(), 1).unwrap();
        let lock = slots.take(0).unwrap().unwrap();
        lock.inheritable().unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        drop(lock);
        assert!(slots.take(0).unwrap().is_none(), "the child holds it");
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(slots.take(0).unwrap().is_some());
    }
}
