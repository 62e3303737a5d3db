//! Whether ranks can use the GPUs that NVML shows: that depends on their libtorch.
//!
//! The agent never calls libtorch, so it asks a process that does: `clade-worker devices`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;
use tokio::time::timeout;

/// Loading CUDA for eight GPUs takes some seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// One line of `clade-worker devices`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    device: String,
    why_no_gpu: Option<String>,
}

/// Why not, if not.
pub(super) async fn can_use_gpus(program: &Path) -> Result<(), String> {
    let mut command = Command::new(program);
    command.arg("devices").stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let unknown = |why: String| format!("`clade-worker devices` does not tell: {why}");
    match timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => judge(&String::from_utf8_lossy(&output.stdout)),
        Ok(Err(error)) => Err(unknown(error.to_string())),
        Err(_) => Err(unknown(format!("no answer within {PATIENCE:?}"))),
    }
}

fn judge(said: &str) -> Result<(), String> {
    let lines: Vec<Line> =
        said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if lines.iter().any(|line| line.device.starts_with("cuda:")) {
        return Ok(());
    }
    let why = lines.into_iter().find_map(|line| line.why_no_gpu);
    Err(why.unwrap_or_else(|| "`clade-worker devices` lists no GPU".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_must_be_listed_and_a_reason_is_passed_on() {
        let cpu = r#"{"device":"cpu","name":null,"whyNoGpu":"no libtorch_cuda.so"}"#;
        let gpu = r#"{"device":"cuda:0","name":"H100","whyNoGpu":null}"#;
        assert_eq!(judge(&format!("{cpu}\n{gpu}\n")), Ok(()));
        assert_eq!(judge(cpu), Err("no libtorch_cuda.so".to_owned()));
        assert!(judge("").is_err());
    }
}
