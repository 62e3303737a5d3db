//! A CLIP model: two towers over one flat buffer, and the temperature.
//!
//! Dimension names: `batch` pairs, `embed` width of the shared space, `size` of a picture in pixels.

use std::path::Path;

use tch::{Kind, Tensor};

use crate::config::{ClipConfig, ModelConfig};
use crate::flat::{FlatParams, Layout};
use crate::init;
use crate::text::TextTower;
use crate::vision::VisionTower;
use crate::weights::{self, WeightsError};

/// The checkpoint key of the temperature.
pub const LOGIT_SCALE: &str = "logit_scale";

/// Rows computed at a time by the `embed_` functions.
const EMBED_BATCH: i64 = 256;

/// A CLIP model in host memory, f32.
#[derive(Debug)]
pub struct ClipModel {
    config: ClipConfig,
    params: FlatParams,
    vision: VisionTower,
    text: TextTower,
    pixel_scale: Tensor,
    pixel_shift: Tensor,
}

impl ClipModel {
    /// Draws a new model from a seed.
    pub fn new(config: &ClipConfig, seed: u64) -> Self {
        let layout = layout(&config.model);
        let values = init::parameters(&layout, &config.model, seed);
        Self::from_values(config, layout, &values)
    }

    /// Loads weights that carry OpenCLIP's keys, in f32, bf16 or f16.
    ///
    /// # Errors
    ///
    /// A missing, extra or misshapen tensor is named.
    pub fn load(config: &ClipConfig, weights: &Path) -> Result<Self, WeightsError> {
        let layout = layout(&config.model);
        let values = weights::read_model(weights, &layout)?;
        Ok(Self::from_values(config, layout, &values))
    }

    /// Writes all weights as f32 under OpenCLIP's keys.
    pub fn save(&self, path: &Path) -> Result<(), WeightsError> {
        weights::write_model(path, self.params.layout(), self.params.values())
    }

    fn from_values(config: &ClipConfig, layout: Layout, values: &[f32]) -> Self {
        let params = FlatParams::new(layout, values);
        let (mean, std) = (config.preprocess.mean, config.preprocess.std);
        let per_channel = |values: [f32; 3]| Tensor::from_slice(&values).view([1, 3, 1, 1]);
        Self {
            vision: VisionTower::new(&params, &config.model),
            text: TextTower::new(&params, &config.model),
            config: config.clone(),
            params,
            pixel_scale: per_channel(std.map(|std| 1.0 / (255.0 * std))),
            pixel_shift: per_channel([0, 1, 2].map(|i| -mean[i] / std[i])),
        }
    }

    pub fn config(&self) -> &ClipConfig {
        &self.config
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

    /// Natural log of the inverse temperature.
    pub fn logit_scale(&self) -> f64 {
        let entry = self.params.layout().get(LOGIT_SCALE).expect("every layout has a temperature");
        f64::from(self.params.values()[entry.range.start])
    }

    /// Normalises pixels by the mean and deviation of the configuration.
    ///
    /// # Shapes
    ///
    /// - `pixels`: `[batch, 3, size, size]` u8
    /// - returns the same shape in f32
    pub fn normalise(&self, pixels: &Tensor) -> Tensor {
        pixels.to_kind(Kind::Float) * &self.pixel_scale + &self.pixel_shift
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
    /// - returns `[n, embed]`, rows of unit length
    pub fn embed_pixels(&self, pixels: &Tensor) -> Tensor {
        self.in_batches(pixels, |part| self.encode_image(&self.normalise(part), true))
    }

    /// Embeds captions without a graph, a bounded number at a time.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[n, context]` i64
    /// - returns `[n, embed]`, rows of unit length
    pub fn embed_tokens(&self, tokens: &Tensor) -> Tensor {
        self.in_batches(tokens, |part| self.encode_text(part, true))
    }

    fn in_batches(&self, input: &Tensor, embed: impl Fn(&Tensor) -> Tensor) -> Tensor {
        let _no_graph = tch::no_grad_guard();
        let rows = input.size()[0];
        if rows == 0 {
            let kind = (Kind::Float, input.device());
            return Tensor::zeros([0, self.config.model.embed_dim], kind);
        }
        let mut parts = Vec::new();
        for start in (0..rows).step_by(usize::try_from(EMBED_BATCH).expect("a small constant")) {
            parts.push(embed(&input.narrow(0, start, EMBED_BATCH.min(rows - start))));
        }
        Tensor::cat(&parts, 0)
    }
}

/// The parameters of a model: the token table first, then what else decays, then the rest.
fn layout(config: &ModelConfig) -> Layout {
    let mut parameters = TextTower::parameters(config);
    parameters.extend(VisionTower::parameters(config));
    parameters.push((LOGIT_SCALE.to_owned(), vec![]));
    Layout::new(parameters)
}

/// Scales each row to unit length.
///
/// # Shapes
///
/// - `rows`: `[n, embed]`
/// - returns the same shape; a row of zeros stays so
pub fn unit_rows(rows: &Tensor) -> Tensor {
    let norm = rows.norm_scalaropt_dim(2.0, [-1], true);
    rows / norm.clamp_min(1e-12)
}

#[cfg(test)]
mod tests;
