//! An upload to the file backend: a file beside its place, which takes that place once it is durable.
//!
//! The disk is kept busy all along: what was written is pushed out in the background, so that the last
//! sync has little left to wait for.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

/// Bytes between two pushes to the disk.
const PUSH: u64 = 32 << 20;

/// A file in the making. Unless it is finished it is removed; a process that is killed leaves it beside its
/// place, where listings pass it over.
pub(super) struct Staged {
    file: Arc<File>,
    staged: PathBuf,
    target: PathBuf,
    /// Bytes handed over for writing, and those of them that are being pushed to the disk.
    begun: u64,
    pushed: u64,
    pushing: Option<JoinHandle<io::Result<()>>>,
}

impl Staged {
    pub(super) async fn begin(target: PathBuf) -> io::Result<Self> {
        blocking(move || {
            // The backend's own name for a file that is not one yet: listings leave it out.
            static NUMBER: AtomicU64 = AtomicU64::new(0);
            let folder = target.parent().unwrap_or(Path::new("/"));
            create_folders(folder)?;
            let (file, staged) = loop {
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                let mut name = target.as_os_str().to_owned();
                name.push(format!("#{}{number:06}", std::process::id()));
                match OpenOptions::new().write(true).create_new(true).open(&name) {
                    Ok(file) => break (file, PathBuf::from(name)),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (),
                    Err(error) => return Err(error),
                }
            };
            let file = Arc::new(file);
            Ok(Self { file, staged, target, begun: 0, pushed: 0, pushing: None })
        })
        .await
    }

    /// What will write the next bytes. Parts may be written in any order.
    pub(super) fn part(
        &mut self,
        chunks: Vec<Bytes>,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let file = Arc::clone(&self.file);
        let mut offset = self.begun;
        self.begun += chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        blocking(move || {
            for chunk in chunks {
                file.write_all_at(&chunk, offset)?;
                offset += chunk.len() as u64;
            }
            Ok(())
        })
    }

    /// Pushes what was written to the disk, if it is much and the last push has ended.
    pub(super) async fn push(&mut self) -> io::Result<()> {
        if self.begun - self.pushed < PUSH {
            return Ok(());
        }
        match self.pushing.take() {
            Some(pushing) if !pushing.is_finished() => {
                self.pushing = Some(pushing);
                return Ok(());
            }
            Some(pushing) => pushing.await.map_err(io::Error::other)??,
            None => (),
        }
        self.pushed = self.begun;
        let file = Arc::clone(&self.file);
        self.pushing = Some(spawn_blocking(move || file.sync_data()));
        Ok(())
    }

    /// Makes the file durable and puts it in its place, once all its parts are written.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        if let Some(pushing) = self.pushing.take() {
            pushing.await.map_err(io::Error::other)??;
        }
        let (file, staged, target) =
            (Arc::clone(&self.file), self.staged.clone(), self.target.clone());
        blocking(move || {
            file.sync_all()?;
            fs::rename(&staged, &target)?;
            File::open(target.parent().unwrap_or(Path::new("/")))?.sync_all()
        })
        .await
    }

    /// Removes what was written.
    pub(super) async fn abort(self) -> io::Result<()> {
        let staged = self.staged.clone();
        blocking(move || match fs::remove_file(staged) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        })
        .await
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // It has taken its place, or it is rubbish.
        let _ = fs::remove_file(&self.staged);
    }
}

/// Makes a folder and those above it, each durable in the one above it.
fn create_folders(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|it| !it.exists()).collect();
    fs::create_dir_all(folder)?;
    for made in missing {
        File::open(made.parent().unwrap_or(Path::new("/")))?.sync_all()?;
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
