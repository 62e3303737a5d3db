//! The model's work on plain files, without run, store or coordinator: for checking a model, and
//! for comparing us with others.
//!
//! Nothing here is resumed or retried: a person looks on. What is trained by hand goes the same way
//! through the same engine as what a gang trains.

mod bench;
mod bench_data;
mod check_gang;
mod devices;
mod encode;
mod new_model;
mod pairs;
mod saver;
mod train;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clade_model::clip::ClipModel;
use clade_model::device::{self, DeviceChoice, Placement, Precision};
use clade_model::tokenizer::Tokenizer;
use clade_model::{fallible, folder, threads};
use serde::Serialize;

pub use bench::{BenchArgs, run as bench};
pub use bench_data::{BenchDataArgs, run as bench_data};
pub use check_gang::{CheckGangArgs, run as check_gang};
pub use devices::run as devices;
pub use encode::{EncodeArgs, run as encode};
pub use new_model::{NewModelArgs, run as new_model};
pub use train::{TrainArgs, run as train};

/// Where and how to compute.
#[derive(Clone, Debug, clap::Args)]
pub struct ComputeArgs {
    /// `auto` (a GPU if one works, else the CPU), `cpu`, `cuda` or `cuda:N`
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,
    /// Numbers to compute with: `f32`, or `bf16` over f32 master weights
    #[arg(long, default_value = "f32")]
    pub precision: Precision,
    /// Threads of one tensor operation on the CPU [default: all cores]
    #[arg(long)]
    pub threads: Option<usize>,
}

/// The vocabulary of captions.
#[derive(Clone, Debug, clap::Args)]
pub struct VocabularyArgs {
    /// CLIP's `bpe_simple_vocab_16e6.txt.gz`; `make setup` puts it here
    #[arg(long, default_value = "assets/clip-bpe/bpe_simple_vocab_16e6.txt.gz")]
    pub vocabulary: PathBuf,
}

impl ComputeArgs {
    /// Readies the calling thread and the device.
    fn prepare(&self) -> anyhow::Result<Placement> {
        let all = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        threads::set_intra_op(self.threads.unwrap_or_else(all));
        let device = self.device.prepare().context("--device")?;
        if self.device == DeviceChoice::Auto
            && let Some(why) = device::why_no_gpu()
        {
            tracing::debug!("computing on the CPU: {why}");
        }
        Ok(Placement { device, precision: self.precision })
    }

    /// Loads an OpenCLIP folder onto the device.
    fn load(&self, dir: &Path) -> anyhow::Result<ClipModel> {
        let placement = self.prepare()?;
        let load = || Ok(folder::load_at(dir, placement)?);
        let model = with_memory("loading the model", load)
            .with_context(|| format!("--model {}", dir.display()))?;
        let device = device::label(placement.device);
        let parameters = model.parameter_count();
        tracing::info!(device, precision = %placement.precision, parameters, "loaded the model");
        Ok(model)
    }
}

impl VocabularyArgs {
    /// The tokenizer of `model`'s captions.
    fn tokenizer(&self, model: &ClipModel) -> anyhow::Result<Tokenizer> {
        if let Some(name) = &model.config().model.text.foreign_tokenizer {
            anyhow::bail!(
                "key model_cfg.text_cfg.hf_tokenizer_name is {name:?}: only CLIP's own tokenizer is \
                 there, and this model's captions would become other token ids"
            );
        }
        Tokenizer::from_file(&self.vocabulary).context(
            "--vocabulary: run in the checkout, where `make setup` put it, or name the file",
        )
    }
}

/// Prints one JSON line, at once; whoever reads along may be a program, and may be gone.
fn say<T: Serialize>(line: &T) -> anyhow::Result<()> {
    let text = serde_json::to_string(line).context("a line is plain data")?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).context("nobody reads stdout")
}

/// Finds out before the work whether `file` can be written after it.
fn check_writable(file: &Path) -> anyhow::Result<()> {
    let folder = file.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let probe = folder.join(format!(".clade-probe-{}", std::process::id()));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&probe, b""))
        .and_then(|()| fs::remove_file(&probe))
        .with_context(|| format!("cannot write to {}", folder.display()))?;
    if file.is_dir() {
        anyhow::bail!("cannot write {}: it is a folder", file.display());
    }
    Ok(())
}

/// Runs what may run out of memory outside a training step.
fn with_memory<T>(what: &str, body: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    match fallible::catch(body) {
        Ok(result) => result,
        Err(said) if fallible::is_out_of_memory(&said) => {
            anyhow::bail!("out of memory while {what}: take a smaller --batch or model ({said})")
        }
        Err(said) => anyhow::bail!("libtorch: {said}"),
    }
}
