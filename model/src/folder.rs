//! A model as a folder that `open_clip.create_model_and_transforms('local-dir:…')` loads.

use std::fs;
use std::path::Path;

use crate::clip::ClipModel;
use crate::config::ClipConfig;
use crate::device::Placement;
use crate::weights::WeightsError;

pub const CONFIG_FILE: &str = "open_clip_config.json";
pub const WEIGHTS_FILE: &str = "open_clip_model.safetensors";

/// Writes configuration and weights into `dir`, which is made if it is not there.
pub fn save(dir: &Path, model: &ClipModel) -> Result<(), WeightsError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| WeightsError::Write { path, source }
    };
    fs::create_dir_all(dir).map_err(failed(dir))?;
    let config = dir.join(CONFIG_FILE);
    fs::write(&config, model.config().to_json()).map_err(failed(&config))?;
    model.save(&dir.join(WEIGHTS_FILE))
}

/// Loads what [`save`] or OpenCLIP wrote, in f32 on the CPU.
pub fn load(dir: &Path) -> Result<ClipModel, WeightsError> {
    load_at(dir, Placement::default())
}

/// Loads what [`save`] or OpenCLIP wrote.
pub fn load_at(dir: &Path, placement: Placement) -> Result<ClipModel, WeightsError> {
    let path = dir.join(CONFIG_FILE);
    let text = fs::read_to_string(&path)
        .map_err(|source| WeightsError::Read { path: path.clone(), source })?;
    let config = ClipConfig::from_json(&text).map_err(|why| WeightsError::Config { path, why })?;
    ClipModel::load_at(&config, &dir.join(WEIGHTS_FILE), placement)
}
