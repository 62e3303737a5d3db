//! The picture tower: a ViT, as OpenCLIP's `VisionTransformer` pooled at its class token or by mean.

use tch::{Kind, Tensor};

use crate::chain::Chain;
use crate::clip::unit_rows;
use crate::config::{VisionConfig, VisionPool};
use crate::flat::FlatParams;
use crate::transformer::{Norm, Pooled, Transformer, flat_positions};

/// Turns pictures into features.
#[derive(Debug)]
pub struct VisionTower {
    conv1: Tensor,
    class_embedding: Tensor,
    positional_embedding: Tensor,
    ln_pre: Option<Norm>,
    transformer: Transformer,
    ln_post: Norm,
    proj: Tensor,
    patch: i64,
    width: i64,
    pool: VisionPool,
    /// Parameters of each segment: stem, blocks but the last, the last with the head.
    params: Vec<Vec<usize>>,
}

impl VisionTower {
    pub(crate) fn new(params: &FlatParams, config: &VisionConfig) -> Self {
        let VisionConfig { blocks, patch_size, has_ln_pre, pool, .. } = config;
        let eps = blocks.norm_eps;
        let transformer = Transformer::new(params, "visual.transformer", blocks, false);
        let stem =
            ["visual.conv1.", "visual.class_embedding", "visual.positional_", "visual.ln_pre."];
        let layers = transformer.layers();
        let mut segments = vec![params.indices(&stem)];
        segments.extend(
            (0..layers - 1).map(|layer| params.indices(&[&transformer.block_prefix(layer)])),
        );
        let last = transformer.block_prefix(layers - 1);
        segments.push(params.indices(&[&last, "visual.ln_post.", "visual.proj"]));
        Self {
            conv1: params.leaf("visual.conv1.weight"),
            class_embedding: params.leaf("visual.class_embedding"),
            positional_embedding: params.leaf("visual.positional_embedding"),
            ln_pre: has_ln_pre.then(|| Norm::new(params, "visual.ln_pre", eps)),
            transformer,
            ln_post: Norm::new(params, "visual.ln_post", eps),
            proj: params.leaf("visual.proj"),
            patch: *patch_size,
            width: blocks.width,
            pool: *pool,
            params: segments,
        }
    }

    /// Names and shapes of the tower's parameters.
    pub(crate) fn parameters(config: &VisionConfig, embed_dim: i64) -> Vec<(String, Vec<i64>)> {
        let VisionConfig { image_size, patch_size, blocks, has_ln_pre, .. } = config;
        let width = blocks.width;
        let patches = (image_size / patch_size).pow(2);
        let mut found = vec![
            ("visual.class_embedding".to_owned(), vec![width]),
            ("visual.positional_embedding".to_owned(), vec![patches + 1, width]),
            ("visual.proj".to_owned(), vec![width, embed_dim]),
            ("visual.conv1.weight".to_owned(), vec![width, 3, *patch_size, *patch_size]),
        ];
        if *has_ln_pre {
            found.extend(Norm::parameters("visual.ln_pre", width));
        }
        found.extend(Transformer::parameters("visual.transformer", blocks));
        found.extend(Norm::parameters("visual.ln_post", width));
        found
    }

    /// # Shapes
    ///
    /// - `images`: `[batch, 3, size, size]`, normalised
    /// - returns `[batch, tokens, width]`
    fn stem(&self, images: &Tensor) -> Tensor {
        let batch = images.size()[0];
        let patches = self.patches(images); // [batch, patches, 3·patch·patch]
        let weight = self.conv1.view([self.width, -1]);
        let x = patches.linear(&weight, None::<Tensor>); // [batch, patches, width]
        let class = self.class_embedding.expand([batch, 1, self.width], false);
        let x = Tensor::cat(&[class, x], 1) + &self.positional_embedding;
        match &self.ln_pre {
            Some(norm) => norm.forward(&x),
            None => x,
        }
    }

    /// Runs the last block and the head.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, tokens, width]`
    /// - returns `[batch, embed]`, rows not of unit length
    fn head(&self, x: &Tensor) -> Tensor {
        let (batch, tokens, _) = x.size3().expect("block input is [batch, tokens, width]");
        let last = self.transformer.layers() - 1;
        let patches = |x: &Tensor| {
            let kind = x.kind();
            x.narrow(1, 1, tokens - 1).mean_dim([1_i64].as_slice(), false, kind)
        };
        let pooled = match self.pool {
            VisionPool::ClassToken => {
                let first = Tensor::zeros([batch], (Kind::Int64, x.device()));
                let pooled = Pooled { flat: flat_positions(&first, tokens), visible: None };
                self.ln_post.forward(&self.transformer.last_block_pooled(x, &pooled))
            }
            VisionPool::MeanThenNorm => {
                self.ln_post.forward(&patches(&self.transformer.block(last, x)))
            }
            VisionPool::NormThenMean => {
                patches(&self.ln_post.forward(&self.transformer.block(last, x)))
            }
        };
        pooled.matmul(&self.proj)
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

    /// Computes features of normalised pictures; rows are not of unit length.
    ///
    /// # Shapes
    ///
    /// - `images`: `[batch, 3, size, size]`
    /// - returns `[batch, embed]`
    pub fn forward(&self, images: &Tensor) -> Tensor {
        let layers = self.transformer.layers();
        let x =
            (0..layers).fold(images.shallow_clone(), |x, segment| self.before_head(segment, &x));
        self.head(&x)
    }

    fn before_head(&self, segment: usize, x: &Tensor) -> Tensor {
        if segment == 0 { self.stem(x) } else { self.transformer.block(segment - 1, x) }
    }
}

/// From normalised pictures to features of unit length, f32.
impl Chain for VisionTower {
    fn len(&self) -> usize {
        self.params.len()
    }

    fn run(&self, segment: usize, x: &Tensor) -> Tensor {
        if segment + 1 == self.params.len() {
            unit_rows(&self.head(x))
        } else {
            self.before_head(segment, x)
        }
    }

    fn params(&self, segment: usize) -> &[usize] {
        &self.params[segment]
    }
}
