//! Files of the object store on this machine's disk, up to a size: tars, and parts of checkpoints.
//!
//! A file is named by the digest of its content, so ranks, models and runs share it, and is proved by
//! it while it is downloaded. What was used longest ago goes first; a reader keeps the few it has open, whose
//! room is given back once it has closed them.

use std::fs::{File, FileTimes, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use clade_core::ids::Digest;
use nix::fcntl::{Flock, FlockArg};

/// Tars that a reader of the order has in hand at a time: a block's, and the next one's.
const AT_A_TIME: u64 = 16;

/// A download that nothing was added to for so long was given up by whoever made it.
const ABANDONED: Duration = Duration::from_secs(3_600);

/// A folder of tars and how large it may be.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    /// Bytes.
    capacity: u64,
    downloads: AtomicU64,
}

impl Cache {
    /// Opens a cache in `folder`, which is made if need be.
    pub fn open(folder: &Path, capacity: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned(), capacity, downloads: AtomicU64::new(0) })
    }

    /// Whether files of so many bytes may be kept: not if those that are read at one time would not fit.
    pub const fn takes(&self, bytes: u64) -> bool {
        bytes.saturating_mul(AT_A_TIME) <= self.capacity
    }

    /// Whether one file of so many bytes may be kept, beside another like it.
    pub const fn holds(&self, bytes: u64) -> bool {
        bytes.saturating_mul(2) <= self.capacity
    }

    /// Forgets a tar that turned out not to be what it was.
    pub fn discard(&self, sha256: &Digest) {
        // Whoever fetches it anew finds out if it cannot be removed.
        let _ = std::fs::remove_file(self.path(sha256));
    }

    fn path(&self, sha256: &Digest) -> PathBuf {
        self.folder.join(format!("{sha256}.tar"))
    }

    /// The tar of this digest, downloaded if it is not here.
    ///
    /// `download` writes a file of the given name and proves it. Of several who want the same tar, in
    /// whatever processes, one downloads and the others wait.
    pub fn fetch<E: From<io::Error>>(
        &self,
        sha256: &Digest,
        bytes: u64,
        download: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<File, E> {
        let path = self.path(sha256);
        if let Some(file) = Self::present(&path, bytes)? {
            return Ok(file);
        }
        let _lock = self.lock(&format!("{sha256}.lock"))?;
        if let Some(file) = Self::present(&path, bytes)? {
            return Ok(file);
        }
        let number = self.downloads.fetch_add(1, Ordering::Relaxed);
        let partial = self.folder.join(format!("{sha256}.{}-{number}.part", std::process::id()));
        self.make_room(bytes, &partial)?;
        let file = download(&partial).and_then(|()| {
            std::fs::rename(&partial, &path)?;
            Ok(File::open(&path)?)
        });
        if file.is_err() {
            let _ = std::fs::remove_file(&partial);
        }
        file
    }

    /// Puts the file of this digest at `into`, downloaded if it is not here: a second name where the disk
    /// allows, else a copy. See [`Self::fetch`].
    pub fn link<E: From<io::Error>>(
        &self,
        sha256: &Digest,
        bytes: u64,
        into: &Path,
        download: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut file = self.fetch(sha256, bytes, download)?;
        // It may have been thrown out since it was opened; what is open can still be read.
        if std::fs::hard_link(self.path(sha256), into).is_err() {
            io::copy(&mut file, &mut File::create(into)?)?;
        }
        Ok(())
    }

    /// The file, if it is here and whole; noted as used.
    fn present(path: &Path, bytes: u64) -> io::Result<Option<File>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() != bytes {
            // Somebody else's doing: it is downloaded anew.
            std::fs::remove_file(path)?;
            return Ok(None);
        }
        file.set_times(FileTimes::new().set_modified(SystemTime::now()))?;
        Ok(Some(file))
    }

    fn lock(&self, name: &str) -> io::Result<Flock<File>> {
        let path = self.folder.join(name);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
    }

    /// Removes what was used longest ago until `bytes` more fit, and takes them by a file of that size.
    fn make_room(&self, bytes: u64, partial: &Path) -> io::Result<()> {
        let _lock = self.lock("room.lock")?;
        let mut files = self.files()?;
        files.sort_by_key(|(used, _, _)| *used);
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        let abandoned = SystemTime::now().checked_sub(ABANDONED);
        for (used, length, path) in files {
            let is_partial = path.extension().is_some_and(|extension| extension == "part");
            if is_partial && abandoned.is_none_or(|abandoned| used > abandoned) {
                continue;
            }
            if is_partial || total.saturating_add(bytes) > self.capacity {
                std::fs::remove_file(&path).or_else(gone_already)?;
                total -= length;
            }
        }
        File::create(partial)?.set_len(bytes)
    }

    /// When each file was last used, its bytes and its path.
    fn files(&self) -> io::Result<Vec<(SystemTime, u64, PathBuf)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if !path.extension().is_some_and(|it| it == "tar" || it == "part") {
                continue;
            }
            match path.metadata() {
                Ok(meta) => files.push((meta.modified()?, meta.len(), path)),
                Err(error) => gone_already(error)?,
            }
        }
        Ok(files)
    }
}

fn gone_already(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn digest(number: u8) -> Digest {
        Digest([number; 32])
    }

    fn fetch(cache: &Cache, number: u8, bytes: usize) -> (Vec<u8>, bool) {
        let mut downloaded = false;
        let download = |path: &Path| {
            downloaded = true;
            std::fs::write(path, vec![number; bytes])
        };
        let mut file = cache.fetch::<io::Error>(&digest(number), bytes as u64, download).unwrap();
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        (content, downloaded)
    }

    #[test]
    fn a_file_put_elsewhere_stays_there_when_the_cache_lets_it_go() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("cache"), 100).unwrap();
        assert!(cache.holds(50) && !cache.holds(51));
        let link = |number: u8, name: &str| {
            let (into, mut downloads) = (folder.path().join(name), 0);
            let download = |path: &Path| {
                downloads += 1;
                std::fs::write(path, vec![number; 50])
            };
            cache.link::<io::Error>(&digest(number), 50, &into, download).unwrap();
            (std::fs::read(into).unwrap(), downloads)
        };
        assert_eq!(link(1, "first"), (vec![1; 50], 1));
        assert_eq!(link(1, "second"), (vec![1; 50], 0));
        link(2, "third");
        link(3, "fourth");
        // Thrown out by then.
        assert!(!cache.path(&digest(1)).exists());
        assert_eq!(std::fs::read(folder.path().join("first")).unwrap(), vec![1; 50]);
        assert_eq!(link(1, "fifth"), (vec![1; 50], 1));
    }

    fn size(folder: &Path) -> u64 {
        let tars = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        tars.map(|entry| entry.metadata().unwrap().len()).sum()
    }

    #[test]
    fn a_tar_is_downloaded_once_and_the_longest_unused_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), 250).unwrap();
        let age = |number: u8, seconds: u64| {
            let path = folder.path().join(format!("{}.tar", digest(number)));
            let then = SystemTime::now() - Duration::from_secs(seconds);
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.set_times(FileTimes::new().set_modified(then)).unwrap();
        };
        assert_eq!(fetch(&cache, 1, 100), (vec![1; 100], true));
        assert_eq!(fetch(&cache, 2, 100), (vec![2; 100], true));
        age(1, 50);
        age(2, 20);
        assert!(!fetch(&cache, 1, 100).1, "it is here, and used just now");
        assert!(fetch(&cache, 3, 100).1);
        assert!(size(folder.path()) <= 250);
        assert!(!fetch(&cache, 1, 100).1, "used since, so kept");
        age(1, 5);
        assert!(fetch(&cache, 2, 100).1, "it had to go");
    }

    #[test]
    fn a_failed_download_leaves_nothing_and_an_open_file_survives_its_removal() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), 150).unwrap();
        let failed = cache.fetch::<io::Error>(&digest(1), 100, |path| {
            std::fs::write(path, b"half")?;
            Err(io::Error::other("the line is dead"))
        });
        assert!(failed.is_err());
        assert_eq!(size(folder.path()), 0);
        let write = |number: u8| move |path: &Path| std::fs::write(path, vec![number; 100]);
        let mut open = cache.fetch::<io::Error>(&digest(1), 100, write(1)).unwrap();
        cache.fetch::<io::Error>(&digest(2), 100, write(2)).unwrap();
        let mut content = Vec::new();
        open.read_to_end(&mut content).unwrap();
        assert_eq!((content, size(folder.path())), (vec![1; 100], 100));
    }

    #[test]
    fn many_who_want_one_tar_download_it_once() {
        let folder = tempfile::tempdir().unwrap();
        let downloads = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                // Each a cache of its own, as in processes of their own.
                let cache = Cache::open(folder.path(), 1_000).unwrap();
                let downloads = &downloads;
                scope.spawn(move || {
                    let download = |path: &Path| {
                        downloads.fetch_add(1, Ordering::Relaxed);
                        std::fs::write(path, [9; 10])
                    };
                    cache.fetch::<io::Error>(&digest(9), 10, download).unwrap();
                });
            }
        });
        assert_eq!(downloads.into_inner(), 1);
    }

    #[test]
    fn a_file_that_was_cut_is_downloaded_anew() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), 1_000).unwrap();
        fetch(&cache, 4, 100);
        std::fs::write(folder.path().join(format!("{}.tar", digest(4))), b"short").unwrap();
        assert_eq!(fetch(&cache, 4, 100), (vec![4; 100], true));
    }
}
