//! Devices that are said to be broken, for tests and drills: a file with lines `SLOT REASON`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::HealthSource;

/// Reads its file anew each time; one that is not there accuses nobody.
#[derive(Debug)]
pub(super) struct FaultFile(PathBuf);

impl FaultFile {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self(path)
    }
}

impl HealthSource for FaultFile {
    fn faults(&self) -> BTreeMap<u32, String> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        let fault = |line: &str| {
            let (slot, reason) = line.trim().split_once(' ')?;
            Some((slot.parse().ok()?, reason.trim().to_owned()))
        };
        text.lines().filter_map(fault).collect()
    }

    fn holds(&self, _slot: u32, _pid: u32) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_accuses_one_slot_and_others_mean_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("faults");
        let file = FaultFile::new(path.clone());
        assert!(file.faults().is_empty());
        fs::write(&path, "1 XID 79: fell off the bus\n\n# none\nx y\n2\n").unwrap();
        assert_eq!(file.faults(), [(1, "XID 79: fell off the bus".to_owned())].into());
    }
}
