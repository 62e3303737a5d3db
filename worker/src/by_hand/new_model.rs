//! `clade-worker new-model`: a model with drawn weights, as a folder.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clade_model::clip::ClipModel;
use clade_model::config::ClipConfig;
use clade_model::folder;

/// Draws a new model and writes it as a folder that open_clip loads.
#[derive(Clone, Debug, clap::Args)]
pub struct NewModelArgs {
    /// tiny, small, ViT-B-32, ViT-B-16, ViT-L-14; the last three also with -quickgelu
    #[arg(long)]
    pub preset: String,
    /// Decides every weight
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// The folder to write; it must not hold a model yet
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Carries out `clade-worker new-model`.
pub fn run(args: &NewModelArgs) -> anyhow::Result<()> {
    let NewModelArgs { preset, seed, out } = args;
    let config = ClipConfig::preset(preset).context("--preset")?;
    if out.join(folder::WEIGHTS_FILE).exists() {
        bail!("{} holds a model already: name another folder", out.display());
    }
    let model = ClipModel::new(&config, *seed);
    folder::save(out, &model)?;
    tracing::info!(parameters = model.parameter_count(), "wrote {}", out.display());
    Ok(())
}
