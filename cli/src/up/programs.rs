//! Finds the programs to start: beside this one, else on the PATH.

use std::env;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Programs {
    pub(super) coordinator: PathBuf,
    pub(super) worker: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ProgramError {
    #[error("cannot tell where this program lies")]
    Nowhere(#[source] io::Error),
    #[error(
        "no program `{name}` beside {} nor on the PATH: build it with `cargo build --release`, or \
         install it beside `clade`", beside.display()
    )]
    Missing { name: &'static str, beside: PathBuf },
}

impl Programs {
    pub(super) fn find() -> Result<Self, ProgramError> {
        let me = env::current_exe().map_err(ProgramError::Nowhere)?;
        let beside = me.parent().unwrap_or(Path::new("/")).to_owned();
        let path = env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> =
            std::iter::once(beside.clone()).chain(env::split_paths(&path)).collect();
        let find = |name| {
            search(name, &folders).ok_or(ProgramError::Missing { name, beside: beside.clone() })
        };
        Ok(Self { coordinator: find("clade-coordinator")?, worker: find("clade-worker")? })
    }
}

fn search(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let runs = |path: &PathBuf| {
        path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
    };
    folders.iter().map(|folder| folder.join(name)).find(runs)
}
