//! The folder of one `clade up`: state of coordinator and workers, and logs.
//!
//! A lock file in it marks the folder as ours and is held while `clade up` runs: two of them never
//! share a folder, and `--fresh` removes nothing from a folder without the mark.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::document::Document;

const LOCK: &str = "clade-up.lock";
const OURS: [&str; 3] = ["coordinator", "workers", "logs"];

/// Held until dropped.
#[derive(Debug)]
pub(super) struct DataFolder {
    path: PathBuf,
    lock: File,
    /// Whether the folder was marked before this `clade up`.
    was_ours: bool,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum FolderError {
    #[error(
        "another `clade up`{who} runs on {}: see it with `clade status`, stop it with Ctrl-C there, \
         or choose another folder with --data", path.display()
    )]
    Taken { path: PathBuf, who: String },
    #[error(
        "{} holds `{name}`, but `clade up` did not make it: choose another folder with --data",
        path.display()
    )]
    NotOurs { path: PathBuf, name: &'static str },
    #[error(
        "--fresh removes nothing: {} is not marked as a folder of `clade up` ({LOCK} is missing); \
         remove {} by hand if you mean it", path.display(), victim.display()
    )]
    Unmarked { path: PathBuf, victim: PathBuf },
    #[error(
        "--fresh removes nothing outside {}, and the run's artefacts are in {}: remove that folder \
         by hand", path.display(), victim.display()
    )]
    Elsewhere { path: PathBuf, victim: PathBuf },
    #[error(
        "--fresh removes nothing in a bucket: remove {folder} there yourself, or choose another \
         metadata.name"
    )]
    InBucket { folder: String },
    #[error("the folder's name is not UTF-8: {}", .0.display())]
    Name(PathBuf),
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FolderError + 'a {
    move |source| FolderError::Io { what, path: path.to_owned(), source }
}

impl DataFolder {
    /// Makes the folder if need be, marks it, and locks it.
    pub(super) fn take(path: &Path, listen: SocketAddr) -> Result<Self, FolderError> {
        let path = std::path::absolute(path).map_err(io_error("resolve", path))?;
        if path.to_str().is_none() {
            return Err(FolderError::Name(path));
        }
        fs::create_dir_all(&path).map_err(io_error("make the folder", &path))?;
        let path = path.canonicalize().map_err(io_error("resolve", &path))?;
        let mark = path.join(LOCK);
        let was_ours = mark.exists();
        if !was_ours && let Some(name) = OURS.into_iter().find(|name| path.join(name).exists()) {
            return Err(FolderError::NotOurs { path, name });
        }
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&mark)
            .map_err(io_error("open", &mark))?;
        match lock.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => {
                return Err(FolderError::Taken { path, who: holder(&mut lock) });
            }
            Err(TryLockError::Error(source)) => {
                return Err(FolderError::Io { what: "lock", path: mark, source });
            }
        }
        let folder = Self { path, lock, was_ours };
        folder.sign(listen)?;
        Ok(folder)
    }

    /// Writes into the lock who holds it, for the one who comes next.
    fn sign(&self, listen: SocketAddr) -> Result<(), FolderError> {
        let mark = self.path.join(LOCK);
        let text = format!(
            "pid {}, coordinator at http://{listen}\nThis marks a folder of `clade up`; --fresh may \
             remove coordinator/, workers/ and logs/ here, and the artefacts of the run it is given.\n",
            std::process::id()
        );
        let mut lock = &self.lock;
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| lock.write_all(text.as_bytes()))
            .map_err(io_error("write", &mark))
    }

    /// Removes all state here and the artefacts of the document's run.
    ///
    /// Judges everything before it removes anything.
    pub(super) fn clear(&self, document: &Document) -> Result<(), FolderError> {
        let Some(folder) = document.run_folder() else {
            return Err(FolderError::InBucket { folder: document.run_address() });
        };
        let artefacts = Some(folder).filter(|it| it.exists());
        if let Some(victim) = &artefacts {
            let real = victim.canonicalize().map_err(io_error("resolve", victim))?;
            let path = self.path.clone();
            if !real.starts_with(&path) {
                return Err(FolderError::Elsewhere { path, victim: victim.clone() });
            }
            if !self.was_ours {
                return Err(FolderError::Unmarked { path, victim: victim.clone() });
            }
        }
        let state = OURS.into_iter().map(|name| self.path.join(name));
        for victim in state.chain(artefacts) {
            match fs::remove_dir_all(&victim) {
                Ok(()) => (),
                Err(error) if error.kind() == io::ErrorKind::NotFound => (),
                Err(error) => return Err(io_error("remove", &victim)(error)),
            }
        }
        Ok(())
    }

    /// Makes the folders that the children write to, and signs with the final address.
    pub(super) fn lay_out(&self, workers: u32, listen: SocketAddr) -> Result<(), FolderError> {
        self.sign(listen)?;
        let fixed = ["coordinator".to_owned(), "logs".to_owned()];
        for name in fixed.into_iter().chain((0..workers).map(|index| format!("workers/w{index}"))) {
            let path = self.path.join(name);
            fs::create_dir_all(&path).map_err(io_error("make the folder", &path))?;
        }
        Ok(())
    }

    pub(super) fn coordinator(&self) -> String {
        self.text("coordinator")
    }

    /// Copies of tars that lie in a bucket: for all workers of this machine.
    pub(super) fn cache(&self) -> String {
        self.text("cache")
    }

    pub(super) fn worker(&self, name: &str) -> String {
        self.text(&format!("workers/{name}"))
    }

    pub(super) fn logs(&self) -> String {
        self.text("logs")
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.path.join("logs").join(format!("{name}.log"))
    }

    fn text(&self, name: &str) -> String {
        let path = self.path.join(name);
        path.to_str().expect("the folder's name was found to be UTF-8").to_owned()
    }
}

/// ` (pid 12, coordinator at http://…)`, as the holder of the lock signed it.
fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    match lock.read_to_string(&mut text) {
        Ok(_) => text.lines().next().map_or_else(String::new, |who| format!(" ({who})")),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests;
