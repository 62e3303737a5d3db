//! Three coordinators, three members of etcd and four workers train while they are killed, stalled, cut off
//! and starved; the run must end as it does in peace. `make chaos` plays it for longer.

use std::path::Path;
use std::process::Command;

use anyhow::ensure;

#[test]
fn a_run_under_faults_ends_with_the_losses_of_the_undisturbed_one() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos");
    let played = Command::new(env!("CARGO_BIN_EXE_clade-arena"))
        .arg("--folder")
        .arg(&folder)
        .args(["chaos", "--steps", "400", "--faults-for", "45", "--least", "8"])
        .status()?;
    ensure!(
        played.success(),
        "clade-arena ended with {played}; what was left is in {}",
        folder.display()
    );
    Ok(())
}
