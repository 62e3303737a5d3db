//! The contrastive loss of a gang, and its gradient through the gather.
//!
//! Every rank sees all features and computes the loss of its own rows only, in both directions. The
//! gradient with respect to *all* gathered features, summed over the ranks, is that of the one big
//! batch; each rank takes its own rows of it back through its towers.
//!
//! A pair that is not valid takes part nowhere: neither as a row nor as a negative of others.
//!
//! Dimension names: `all` valid pairs of the gang's batch, `own` this rank's among them, `embed`.

use std::ops::Range;

use tch::{Kind, Reduction, Tensor};

/// The features of all valid pairs of a batch, and which of them are this rank's.
#[derive(Debug)]
pub struct Gathered {
    /// `[all, embed]`, rows of unit length.
    pub images: Tensor,
    /// `[all, embed]`, rows of unit length.
    pub captions: Tensor,
    /// This rank's rows among them.
    pub own: Range<i64>,
    /// For each of those, its place in this rank's batch.
    pub own_rows: Vec<i64>,
}

/// This rank's share of the loss, and of its gradient. Sums over the ranks are the batch's.
#[derive(Debug)]
pub struct LossShare {
    /// `[]`, in nats
    pub loss: Tensor,
    /// `[all, embed]`
    pub by_images: Tensor,
    /// `[all, embed]`
    pub by_captions: Tensor,
    /// `[]`
    pub by_log_scale: Tensor,
}

/// Computes this rank's share of the symmetric contrastive loss of `gathered`.
///
/// # Shapes
///
/// - `log_scale`: `[]`, natural log of the inverse temperature; no gradient flows into it
pub fn loss_share(gathered: &Gathered, log_scale: &Tensor) -> LossShare {
    let Gathered { images, captions, own, own_rows: _ } = gathered;
    let leaf = |tensor: &Tensor| tensor.detach().set_requires_grad(true);
    let (images, captions, log_scale) = (leaf(images), leaf(captions), leaf(log_scale));
    if own.is_empty() {
        let nought = || log_scale.detach().zeros_like();
        return LossShare {
            loss: nought(),
            by_images: images.detach().zeros_like(),
            by_captions: captions.detach().zeros_like(),
            by_log_scale: nought(),
        };
    }
    let loss = local_loss(&images, &captions, &log_scale, own.clone());
    let gradients = Tensor::run_backward(&[&loss], &[&images, &captions, &log_scale], false, false);
    let [by_images, by_captions, by_log_scale] =
        <[Tensor; 3]>::try_from(gradients).expect("three inputs have three gradients");
    LossShare { loss: loss.detach(), by_images, by_captions, by_log_scale }
}

/// The loss of rows `own` against all columns, over the number of *all* pairs.
///
/// Summed over ranks whose `own` cover all rows, it is the mean cross entropy of both directions.
///
/// # Shapes
///
/// - `images`, `captions`: `[all, embed]`, rows of unit length
/// - returns `[]`, in nats
pub fn local_loss(
    images: &Tensor,
    captions: &Tensor,
    log_scale: &Tensor,
    own: Range<i64>,
) -> Tensor {
    let all = images.size()[0];
    let length = own.end - own.start;
    let scale = log_scale.exp();
    let targets = Tensor::arange_start(own.start, own.end, (Kind::Int64, images.device())); // [own]
    let one_way = |rows: &Tensor, columns: &Tensor| {
        let logits = (rows.narrow(0, own.start, length) * &scale).matmul(&columns.tr()); // [own, all]
        logits.cross_entropy_loss(&targets, None::<Tensor>, Reduction::Sum, -100, 0.0)
    };
    (one_way(images, captions) + one_way(captions, images)) / (2 * all) as f64
}
