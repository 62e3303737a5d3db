//! The two small messages of a step: features, and the gradient of the loss by them.

use tch::{Kind, Tensor};

use super::Batch;
use crate::collective::{Collective, CollectiveError};
use crate::contrastive::{Gathered, LossShare};

/// This rank's features, with a graph.
pub(super) struct LocalFeatures {
    /// `[pairs, embed]`, rows of unit length.
    pub(super) images: Tensor,
    /// `[pairs, embed]`, rows of unit length.
    pub(super) captions: Tensor,
    /// `[pairs, context]` i64
    pub(super) tokens: Tensor,
    /// `[pairs, context, width]`, leaves.
    pub(super) rows: Tensor,
}

impl LocalFeatures {
    /// A number whose gradient by the parameters is the loss's: features times their gradient.
    pub(super) fn surrogate(&self, gathered: &Gathered, share: &LossShare) -> Tensor {
        let (start, length) = (gathered.own.start, gathered.own.end - gathered.own.start);
        let own = Tensor::from_slice(&gathered.own_rows);
        let one_way = |features: &Tensor, gradient: &Tensor| {
            (features.index_select(0, &own) * gradient.narrow(0, start, length)).sum(Kind::Float)
        };
        one_way(&self.images, &share.by_images) + one_way(&self.captions, &share.by_captions)
    }
}

/// Gathers the features of all ranks, and the token rows that any rank's captions name.
///
/// The ids travel as f32, which holds whole numbers up to 2^24.
pub(super) fn exchange_features(
    local: &LocalFeatures,
    batch: &Batch,
    collective: &mut dyn Collective,
) -> Result<(Gathered, Vec<usize>), CollectiveError> {
    let (pairs, embed) = local.images.size2().expect("features are [pairs, embed]");
    let features = Tensor::cat(&[local.images.detach(), local.captions.detach()], 0);
    let pairs_len = batch.valid.len();
    let feature_len = features.numel();
    let mut own = vec![0.0; feature_len];
    features.copy_data(&mut own, feature_len);
    own.extend(batch.valid.iter().map(|&valid| f32::from(u8::from(valid))));
    #[expect(clippy::cast_precision_loss, reason = "ids are below 2^24")]
    own.extend(batch.tokens.iter().map(|&id| id as f32));
    let mut all = Vec::new();
    collective.all_gather(&own, &mut all)?;

    let mut flat = [Vec::new(), Vec::new()];
    let mut touched = Vec::new();
    let (mut count, mut own_range, mut own_rows) = (0, 0..0, Vec::new());
    let width = feature_len / (2 * pairs_len);
    for (rank, message) in all.chunks_exact(own.len()).enumerate() {
        let (features, rest) = message.split_at(feature_len);
        let (valid, tokens) = rest.split_at(pairs_len);
        let start = count;
        for (pair, _) in valid.iter().enumerate().filter(|(_, valid)| **valid != 0.0) {
            for (flat, side) in flat.iter_mut().zip(features.chunks_exact(pairs_len * width)) {
                flat.extend_from_slice(&side[pair * width..(pair + 1) * width]);
            }
            if rank == collective.rank() {
                own_rows.push(i64::try_from(pair).expect("a batch fits memory"));
            }
            count += 1;
        }
        if rank == collective.rank() {
            own_range = start..count;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "ids, checked"
        )]
        touched.extend(tokens.iter().map(|&id| id as usize));
    }
    touched.sort_unstable();
    touched.dedup();
    let [images, captions] = flat.map(|flat| Tensor::from_slice(&flat).view([count, embed]));
    debug_assert!(pairs >= own_range.end - own_range.start);
    Ok((Gathered { images, captions, own: own_range, own_rows }, touched))
}

/// Sums the shares of all ranks: what comes back is the batch's loss and gradient.
pub(super) fn reduce_share(
    share: &mut LossShare,
    collective: &mut dyn Collective,
) -> Result<(), CollectiveError> {
    if collective.world_size() == 1 {
        return Ok(());
    }
    let gradients = Tensor::cat(&[&share.by_images, &share.by_captions], 0);
    let length = gradients.numel();
    let mut message = vec![0.0; length];
    gradients.copy_data(&mut message, length);
    #[expect(clippy::cast_possible_truncation, reason = "both were f32 tensors")]
    message.extend([share.loss as f32, share.by_log_scale as f32]);
    collective.all_reduce_sum(&mut message)?;
    share.loss = f64::from(message[length]);
    share.by_log_scale = f64::from(message[length + 1]);
    let summed = Tensor::from_slice(&message[..length]).view(gradients.size().as_slice());
    let all = share.by_images.size()[0];
    share.by_images = summed.narrow(0, 0, all);
    share.by_captions = summed.narrow(0, all, all);
    Ok(())
}
