//! The caption tower: a transformer, as OpenCLIP's text half of `CLIP`.
//!
//! The feature is taken at one position of a caption, mostly its end-of-text token, the largest id
//! of a row. Under a causal mask what comes after it can reach nothing, so most of it is not
//! computed: see `buckets`.

mod buckets;

use tch::{Device, Kind, Tensor};

use crate::chain::{self, Chain};
use crate::clip::unit_rows;
use crate::config::{TextConfig, TextPool, TextProjection};
use crate::flat::FlatParams;
use crate::native;
use crate::transformer::{Norm, Pooled, Transformer, flat_positions};

/// The checkpoint key of the token table, most of a small model's parameters.
pub const TOKEN_EMBEDDING: &str = "token_embedding.weight";

/// Turns captions, as token ids, into features.
#[derive(Debug)]
pub struct TextTower {
    token_embedding: Tensor,
    positional_embedding: Tensor,
    transformer: Transformer,
    ln_final: Norm,
    projection: Projection,
    pool: TextPool,
    is_causal: bool,
    /// Parameters of each segment: stem, blocks but the last, the last with the head. The token
    /// table is in none: its rows are the chain's input.
    params: Vec<Vec<usize>>,
}

#[derive(Debug)]
enum Projection {
    /// `[width, embed]`
    Matrix(Tensor),
    /// `[embed, width]` and `[embed]`
    Linear(Tensor, Tensor),
    None,
}

/// Captions on the model's device, cut into parts of like length.
#[derive(Debug)]
pub(crate) struct Captions {
    pub(crate) parts: Vec<CaptionPart>,
    /// `[batch]` i64: where each caption lies in the parts' order; none: in order already.
    back: Option<Tensor>,
}

#[derive(Debug)]
pub(crate) struct CaptionPart {
    /// `[part · used]` i64
    pub(crate) ids: Tensor,
    /// `[part]` i64: the pooled position of each, below `used`.
    ends: Tensor,
    used: i64,
    /// `[part]` i64: which captions of the batch; none: all, in order.
    rows: Option<Tensor>,
}

impl TextTower {
    /// The parameters that each segment uses, as the chain over any captions has them.
    pub(crate) fn segments(&self) -> &[Vec<usize>] {
        &self.params
    }

    pub(crate) fn new(params: &FlatParams, config: &TextConfig) -> Self {
        let TextConfig { blocks, pool, is_causal, projection, .. } = config;
        let transformer = Transformer::new(params, "transformer", blocks, *is_causal);
        let layers = transformer.layers();
        let mut segments = vec![params.indices(&["positional_embedding"])];
        segments.extend(
            (0..layers - 1).map(|layer| params.indices(&[&transformer.block_prefix(layer)])),
        );
        let last = transformer.block_prefix(layers - 1);
        segments.push(params.indices(&[&last, "ln_final.", "text_projection"]));
        Self {
            token_embedding: params.leaf(TOKEN_EMBEDDING),
            positional_embedding: params.leaf("positional_embedding"),
            transformer,
            ln_final: Norm::new(params, "ln_final", blocks.norm_eps),
            projection: match projection {
                TextProjection::Matrix => Projection::Matrix(params.leaf("text_projection")),
                TextProjection::Linear => Projection::Linear(
                    params.leaf("text_projection.weight"),
                    params.leaf("text_projection.bias"),
                ),
                TextProjection::None => Projection::None,
            },
            pool: *pool,
            is_causal: *is_causal,
            params: segments,
        }
    }

    /// Names and shapes of the tower's parameters, the token table first.
    pub(crate) fn parameters(config: &TextConfig, embed_dim: i64) -> Vec<(String, Vec<i64>)> {
        let TextConfig { context_length, vocab_size, blocks, projection, .. } = config;
        let width = blocks.width;
        let mut found = vec![
            (TOKEN_EMBEDDING.to_owned(), vec![*vocab_size, width]),
            ("positional_embedding".to_owned(), vec![*context_length, width]),
        ];
        match projection {
            TextProjection::Matrix => {
                found.push(("text_projection".to_owned(), vec![width, embed_dim]));
            }
            TextProjection::Linear => {
                found.push(("text_projection.weight".to_owned(), vec![embed_dim, width]));
                found.push(("text_projection.bias".to_owned(), vec![embed_dim]));
            }
            TextProjection::None => (),
        }
        found.extend(Transformer::parameters("transformer", blocks));
        found.extend(Norm::parameters("ln_final", width));
        found
    }

    /// Cuts captions into parts and puts them on the model's device, without waiting for it.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch, context]`
    pub(crate) fn prepare(&self, tokens: &[i64], context: usize) -> Captions {
        let device = self.token_embedding.device();
        let captions: Vec<&[i64]> = tokens.chunks_exact(context).collect();
        let ends: Vec<usize> = captions.iter().map(|row| self.pool.position(row)).collect();
        let length = |end: &usize| {
            if self.is_causal { buckets::length_on(device, end + 1).min(context) } else { context }
        };
        let lengths: Vec<usize> = ends.iter().map(length).collect();
        let mut parts = Vec::new();
        let mut order = Vec::with_capacity(captions.len());
        for bucket in buckets::cut(&lengths, buckets::cost_on(device)) {
            let row = |row: &i64| usize::try_from(*row).expect("a row of the batch");
            let rows = || bucket.rows.iter().map(row);
            let ids: Vec<i64> =
                rows().flat_map(|row| captions[row][..bucket.used].to_vec()).collect();
            let end = |row: usize| i64::try_from(ends[row]).expect("a context fits memory");
            let ends: Vec<i64> = rows().map(end).collect();
            let is_whole = bucket.rows.len() == captions.len() && bucket.rows.is_sorted();
            parts.push(CaptionPart {
                ids: upload(&ids, device),
                ends: upload(&ends, device),
                used: i64::try_from(bucket.used).expect("a context fits memory"),
                rows: (!is_whole).then(|| upload(&bucket.rows, device)),
            });
            order.extend(bucket.rows);
        }
        let mut places = vec![0; order.len()];
        for (place, &row) in (0..).zip(&order) {
            places[usize::try_from(row).expect("a row of the batch")] = place;
        }
        let back = (!order.is_sorted()).then(|| upload(&places, device));
        Captions { parts, back }
    }

    /// Computes features of captions; rows are not of unit length.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch, context]` i64, anywhere
    /// - returns `[batch, embed]`
    pub fn forward(&self, tokens: &Tensor) -> Tensor {
        let (_, context) = tokens.size2().expect("tokens are [batch, context]");
        let tokens = Vec::<i64>::try_from(tokens.to_device(Device::Cpu).reshape([-1]))
            .expect("token ids are i64");
        let captions = self.prepare(&tokens, usize::try_from(context).expect("a size"));
        let features = captions.parts.iter().map(|part| {
            let segments = part.on(self);
            let last = segments.len() - 1;
            let rows = self.rows(part);
            let x = (0..last).fold(rows, |x, segment| segments.run(segment, &x));
            segments.head(&x)
        });
        captions.in_order(&features.collect::<Vec<_>>())
    }

    /// Looks up the rows of the token table.
    ///
    /// # Shapes
    ///
    /// - returns `[part · used, width]`
    pub(crate) fn rows(&self, part: &CaptionPart) -> Tensor {
        self.token_embedding.index_select(0, &part.ids)
    }

    /// Computes features of one part from the rows of the token table, with unit rows.
    ///
    /// Training makes the rows leaves of their own: the gradient of the whole table, almost all
    /// zeros, is then never written out.
    pub(crate) fn forward_rows(&self, rows: &Tensor, part: &CaptionPart) -> Tensor {
        chain::forward(&part.on(self), rows)
    }
}

/// Copies numbers to a device; nobody waits for a GPU.
pub(crate) fn upload(numbers: &[i64], device: Device) -> Tensor {
    match device {
        Device::Cuda(index) => native::upload_wide(numbers, index)
            .unwrap_or_else(|error| panic!("cannot copy to cuda:{index}: {error}")),
        Device::Cpu | Device::Mps | Device::Vulkan => Tensor::from_slice(numbers).to_device(device),
    }
}

impl Captions {
    /// Puts the parts' rows into the batch's order.
    ///
    /// # Shapes
    ///
    /// - `parts`: `[part, embed]` each
    /// - returns `[batch, embed]`
    pub(crate) fn in_order(&self, parts: &[Tensor]) -> Tensor {
        let all = match parts {
            [whole] => whole.shallow_clone(),
            parts => Tensor::cat(parts, 0),
        };
        match &self.back {
            Some(back) => all.index_select(0, back),
            None => all,
        }
    }
}

impl CaptionPart {
    /// This part's rows of something that has a row per caption of the batch.
    pub(crate) fn pick(&self, batch: &Tensor) -> Tensor {
        match &self.rows {
            Some(rows) => batch.index_select(0, rows),
            None => batch.shallow_clone(),
        }
    }

    pub(crate) fn on<'a>(&'a self, tower: &'a TextTower) -> Segments<'a> {
        Segments { tower, part: self }
    }
}

/// The tower as a chain over one part: from rows of the token table to features of unit length.
pub(crate) struct Segments<'a> {
    tower: &'a TextTower,
    part: &'a CaptionPart,
}

impl Segments<'_> {
    /// # Shapes
    ///
    /// - `x`: `[part, used, width]`
    /// - returns `[part, embed]`, rows not of unit length
    fn head(&self, x: &Tensor) -> Tensor {
        let TextTower { transformer, ln_final, projection, is_causal, .. } = self.tower;
        let CaptionPart { ends, used, .. } = self.part;
        let visible = is_causal.then(|| {
            let positions = Tensor::arange(*used, (Kind::Int64, ends.device()));
            let visible = positions.unsqueeze(0).le_tensor(&ends.unsqueeze(1)); // [part, used]
            visible.unsqueeze(1).unsqueeze(1)
        });
        let pooled = Pooled { flat: flat_positions(ends, *used), visible };
        let x = ln_final.forward(&transformer.last_block_pooled(x, &pooled)); // [part, width]
        match projection {
            Projection::Matrix(matrix) => x.matmul(matrix),
            Projection::Linear(weight, bias) => x.linear(weight, Some(bias)),
            Projection::None => x,
        }
    }
}

impl Chain for Segments<'_> {
    fn len(&self) -> usize {
        self.tower.params.len()
    }

    fn run(&self, segment: usize, x: &Tensor) -> Tensor {
        let tower = self.tower;
        if segment == 0 {
            let used = self.part.used;
            let width = x.size()[1];
            x.view([-1, used, width]) + tower.positional_embedding.narrow(0, 0, used)
        } else if segment < tower.params.len() - 1 {
            tower.transformer.block(segment - 1, x)
        } else {
            unit_rows(&self.head(x))
        }
    }

    fn params(&self, segment: usize) -> &[usize] {
        &self.tower.params[segment]
    }
}
