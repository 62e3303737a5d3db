//! A CLIP model: two towers over one flat buffer, and the temperature.
//!
//! Dimension names: `batch` pairs, `embed` width of the shared space, `size` of a picture in pixels.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use crate::config::{ClipConfig, ModelConfig};
use crate::device::Placement;
use crate::flat::{FlatParams, Layout};
use crate::init;
use crate::native;
use crate::text::TextTower;
use crate::vision::VisionTower;
use crate::weights::{self, WeightsError};

/// The checkpoint key of the temperature.
pub const LOGIT_SCALE: &str = "logit_scale";

/// Rows computed at a time by the `embed_` functions.
const EMBED_BATCH: i64 = 256;

/// A CLIP model on one device.
#[derive(Debug)]
pub struct ClipModel {
    config: ClipConfig,
    placement: Placement,
    params: FlatParams,
    vision: VisionTower,
    text: TextTower,
    pixel_scale: Tensor,
    pixel_shift: Tensor,
}

impl ClipModel {
    /// Draws a new model from a seed, in f32 on the CPU.
    pub fn new(config: &ClipConfig, seed: u64) -> Self {
        Self::new_at(config, seed, Placement::default())
    }

    /// Draws a new model from a seed: the same values wherever it lies.
    pub fn new_at(config: &ClipConfig, seed: u64, placement: Placement) -> Self {
        let layout = layout(&config.model);
        let values = init::parameters(&layout, &config.model, seed);
        Self::from_values(config, layout, &values, placement)
    }

    /// Loads weights in f32 on the CPU; see [`Self::load_at`].
    pub fn load(config: &ClipConfig, weights: &Path) -> Result<Self, WeightsError> {
        Self::load_at(config, weights, Placement::default())
    }

    /// Loads weights that carry OpenCLIP's keys, in f32, bf16 or f16.
    ///
    /// # Errors
    ///
    /// A missing, extra or misshapen tensor is named.
    pub fn load_at(
        config: &ClipConfig,
        weights: &Path,
        placement: Placement,
    ) -> Result<Self, WeightsError> {
        let layout = layout(&config.model);
        let values = weights::read_model(weights, &layout)?;
        Ok(Self::from_values(config, layout, &values, placement))
    }

    /// Writes all weights as f32 under OpenCLIP's keys.
    pub fn save(&self, path: &Path) -> Result<(), WeightsError> {
        let values = self.params.to_host();
        weights::write_model(path, self.params.layout(), native::values(&values))
    }

    fn from_values(
        config: &ClipConfig,
        layout: Layout,
        values: &[f32],
        placement: Placement,
    ) -> Self {
        let params = FlatParams::new(layout, values, placement);
        let (mean, std) = (config.preprocess.mean, config.preprocess.std);
        let per_channel = |values: [f32; 3]| {
            Tensor::from_slice(&values).view([1, 3, 1, 1]).to_device(placement.device)
        };
        Self {
            vision: VisionTower::new(&params, &config.model.vision),
            text: TextTower::new(&params, &config.model.text),
            config: config.clone(),
            placement,
            params,
            pixel_scale: per_channel(std.map(|std| 1.0 / (255.0 * std))),
            pixel_shift: per_channel([0, 1, 2].map(|i| -mean[i] / std[i])),
        }
    }

    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    pub fn placement(&self) -> Placement {
        self.placement
    }

    pub fn device(&self) -> Device {
        self.placement.device
    }

    pub fn parameter_count(&self) -> usize {
        self.params.layout().total()
    }

    pub fn params(&self) -> &FlatParams {
        &self.params
    }

    pub(crate) fn params_mut(&mut self) -> &mut FlatParams {
        &mut self.params
    }

    pub(crate) fn text(&self) -> &TextTower {
        &self.text
    }

    pub(crate) fn vision(&self) -> &VisionTower {
        &self.vision
    }

    /// Natural log of the inverse temperature.
    pub fn logit_scale(&self) -> f64 {
        self.params.master(LOGIT_SCALE).double_value(&[])
    }

    /// Normalises pixels by the mean and deviation of the configuration, on the model's device.
    ///
    /// # Shapes
    ///
    /// - `pixels`: `[batch, 3, size, size]` u8
    /// - returns the same shape in the model's precision
    pub fn normalise(&self, pixels: &Tensor) -> Tensor {
        let pixels = pixels.to_device(self.device()).to_kind(Kind::Float);
        (pixels * &self.pixel_scale + &self.pixel_shift).to_kind(self.params.kind())
    }

    /// Computes features of normalised pictures, with unit rows if `unit`.
    ///
    /// # Shapes
    ///
    /// - `images`: `[batch, 3, size, size]`
    /// - returns `[batch, embed]`
    pub fn encode_image(&self, images: &Tensor, unit: bool) -> Tensor {
        let features = self.vision.forward(images);
        if unit { unit_rows(&features) } else { features }
    }

    /// Computes features of captions, with unit rows if `unit`.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch, context]` i64
    /// - returns `[batch, embed]`
    pub fn encode_text(&self, tokens: &Tensor, unit: bool) -> Tensor {
        let features = self.text.forward(tokens);
        if unit { unit_rows(&features) } else { features }
    }

    /// Embeds pictures without a graph, a bounded number at a time.
    ///
    /// # Shapes
    ///
    /// - `pixels`: `[n, 3, size, size]` u8
    /// - returns `[n, embed]` f32 in host memory, rows of unit length
    pub fn embed_pixels(&self, pixels: &Tensor) -> Tensor {
        self.in_batches(pixels, |part| self.encode_image(&self.normalise(part), true))
    }

    /// Embeds captions without a graph, a bounded number at a time.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[n, context]` i64
    /// - returns `[n, embed]` f32 in host memory, rows of unit length
    pub fn embed_tokens(&self, tokens: &Tensor) -> Tensor {
        self.in_batches(tokens, |part| self.encode_text(part, true))
    }

    fn in_batches(&self, input: &Tensor, embed: impl Fn(&Tensor) -> Tensor) -> Tensor {
        let _no_graph = tch::no_grad_guard();
        let rows = input.size()[0];
        if rows == 0 {
            let kind = (Kind::Float, Device::Cpu);
            return Tensor::zeros([0, self.config.model.embed_dim], kind);
        }
        let mut parts = Vec::new();
        for start in (0..rows).step_by(usize::try_from(EMBED_BATCH).expect("a small constant")) {
            let part = embed(&input.narrow(0, start, EMBED_BATCH.min(rows - start)));
            parts.push(part.to_device(Device::Cpu));
        }
        Tensor::cat(&parts, 0)
    }
}

/// The parameters of a model: the token table first, then what else decays, then the rest.
fn layout(config: &ModelConfig) -> Layout {
    let mut parameters = TextTower::parameters(&config.text, config.embed_dim);
    parameters.extend(VisionTower::parameters(&config.vision, config.embed_dim));
    parameters.push((LOGIT_SCALE.to_owned(), vec![]));
    Layout::new(parameters)
}

/// Scales each row to unit length.
///
/// # Shapes
///
/// - `rows`: `[n, embed]` of any precision
/// - returns the same shape in f32; a row of zeros stays so
pub fn unit_rows(rows: &Tensor) -> Tensor {
    let rows = rows.to_kind(Kind::Float);
    let norm = rows.norm_scalaropt_dim(2.0, [-1], true);
    &rows / norm.clamp_min(1e-12)
}

#[cfg(test)]
mod tests;
