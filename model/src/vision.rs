//! The picture tower: a ViT, as OpenCLIP's `VisionTransformer` with class-token pooling.

use tch::{Kind, Tensor};

use crate::config::{ModelConfig, VisionConfig};
use crate::flat::FlatParams;
use crate::transformer::{Norm, Pooled, Transformer, flat_positions};

/// Turns pictures into features.
#[derive(Debug)]
pub struct VisionTower {
    conv1: Tensor,
    class_embedding: Tensor,
    positional_embedding: Tensor,
    ln_pre: Norm,
    transformer: Transformer,
    ln_post: Norm,
    proj: Tensor,
    patch: i64,
    width: i64,
}

impl VisionTower {
    pub(crate) fn new(params: &FlatParams, config: &ModelConfig) -> Self {
        let VisionConfig { layers, width, head_width, patch_size, .. } = config.vision;
        Self {
            conv1: params.leaf("visual.conv1.weight"),
            class_embedding: params.leaf("visual.class_embedding"),
            positional_embedding: params.leaf("visual.positional_embedding"),
            ln_pre: Norm::new(params, "visual.ln_pre"),
            transformer: Transformer::new(
                params,
                "visual.transformer",
                layers,
                width / head_width,
                config.quick_gelu,
                false,
            ),
            ln_post: Norm::new(params, "visual.ln_post"),
            proj: params.leaf("visual.proj"),
            patch: patch_size,
            width,
        }
    }

    /// Names and shapes of the tower's parameters.
    pub(crate) fn parameters(config: &ModelConfig) -> Vec<(String, Vec<i64>)> {
        let VisionConfig { image_size, layers, width, patch_size, mlp_ratio, .. } = config.vision;
        let patches = (image_size / patch_size).pow(2);
        let mut found = vec![
            ("visual.class_embedding".to_owned(), vec![width]),
            ("visual.positional_embedding".to_owned(), vec![patches + 1, width]),
            ("visual.proj".to_owned(), vec![width, config.embed_dim]),
            ("visual.conv1.weight".to_owned(), vec![width, 3, patch_size, patch_size]),
        ];
        found.extend(Norm::parameters("visual.ln_pre", width));
        found.extend(Transformer::parameters("visual.transformer", layers, width, mlp_ratio));
        found.extend(Norm::parameters("visual.ln_post", width));
        found
    }

    /// Computes features of normalised pictures; rows are not of unit length.
    ///
    /// # Shapes
    ///
    /// - `images`: `[batch, 3, size, size]`
    /// - returns `[batch, embed]`
    pub fn forward(&self, images: &Tensor) -> Tensor {
        let batch = images.size()[0];
        let patches = self.patches(images); // [batch, patches, 3·patch·patch]
        let weight = self.conv1.view([self.width, -1]);
        let x = patches.linear(&weight, None::<Tensor>); // [batch, patches, width]
        let class = self.class_embedding.expand([batch, 1, self.width], false);
        let x = Tensor::cat(&[class, x], 1) + &self.positional_embedding;
        let x = self.ln_pre.forward(&x); // [batch, tokens, width]
        let tokens = x.size()[1];
        let first = Tensor::zeros([batch], (Kind::Int64, x.device()));
        let pooled = Pooled { flat: flat_positions(&first, tokens), visible: None };
        let x = self.transformer.forward_pooled(&x, &pooled); // [batch, width]
        self.ln_post.forward(&x).matmul(&self.proj)
    }

    /// Cuts pictures into patches: the convolution's stride is its kernel, so it is one product.
    fn patches(&self, images: &Tensor) -> Tensor {
        let (batch, channels, size, _) =
            images.size4().expect("pictures are [batch, 3, size, size]");
        let (patch, grid) = (self.patch, size / self.patch);
        images
            .view([batch, channels, grid, patch, grid, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch, grid * grid, channels * patch * patch])
    }
}
