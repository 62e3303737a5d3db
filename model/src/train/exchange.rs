//! The two small messages of a step: features, and the gradient of the loss by them.

use tch::{Device, Kind, Tensor};

use super::Batch;
use crate::collective::{Collective, CollectiveError};
use crate::contrastive::{Gathered, LossShare};
use crate::text::upload;

/// This rank's features, without a graph.
pub(super) struct LocalFeatures {
    /// `[pairs, embed]` f32, rows of unit length.
    pub(super) images: Tensor,
    /// `[pairs, embed]` f32, rows of unit length.
    pub(super) captions: Tensor,
}

impl LocalFeatures {
    /// The gradient of each of this rank's pairs by its features; nought for those not valid.
    ///
    /// # Shapes
    ///
    /// - returns `[pairs, embed]` twice, for pictures and captions
    pub(super) fn own_gradients(&self, gathered: &Gathered, share: &LossShare) -> [Tensor; 2] {
        let (start, length) = (gathered.own.start, gathered.own.end - gathered.own.start);
        let pairs = self.images.size()[0];
        [&share.by_images, &share.by_captions].map(|by_all| {
            let by_own = by_all.narrow(0, start, length);
            if length == pairs {
                return by_own;
            }
            let rows = upload(&gathered.own_rows, by_own.device());
            self.images.zeros_like().index_copy_(0, &rows, &by_own)
        })
    }
}

/// Gathers the features of all ranks, and the token rows that any rank's captions name.
///
/// Alone, nothing leaves the device and nobody waits for it.
pub(super) fn exchange_features(
    local: &LocalFeatures,
    batch: &Batch,
    collective: &mut dyn Collective,
) -> Result<(Gathered, Vec<usize>), CollectiveError> {
    if collective.world_size() > 1 {
        return gather(local, batch, collective);
    }
    let own_rows: Vec<i64> =
        (0..).zip(&batch.valid).filter(|(_, valid)| **valid).map(|(row, _)| row).collect();
    let count = i64::try_from(own_rows.len()).expect("a batch fits memory");
    let [images, captions] = [&local.images, &local.captions].map(|features| {
        if own_rows.len() == batch.valid.len() {
            features.shallow_clone()
        } else {
            features.index_select(0, &upload(&own_rows, features.device()))
        }
    });
    Ok((Gathered { images, captions, own: 0..count, own_rows }, Vec::new()))
}

/// The ids travel as f32, which holds whole numbers up to 2^24.
fn gather(
    local: &LocalFeatures,
    batch: &Batch,
    collective: &mut dyn Collective,
) -> Result<(Gathered, Vec<usize>), CollectiveError> {
    if collective.is_on_device() {
        return gather_on_device(local, batch, collective);
    }
    let (pairs, embed) = local.images.size2().expect("features are [pairs, embed]");
    let device = local.images.device();
    let features = Tensor::cat(&[&local.images, &local.captions], 0);
    let pairs_len = batch.valid.len();
    let mut own = to_host(&features);
    let feature_len = own.len();
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
    let [images, captions] =
        flat.map(|flat| Tensor::from_slice(&flat).view([count, embed]).to_device(device));
    debug_assert!(pairs >= own_range.end - own_range.start);
    Ok((Gathered { images, captions, own: own_range, own_rows }, touched))
}

/// The same among GPUs: features stay there, and only who is valid is told through host memory. All of the token
/// table's gradient is exchanged, so nobody asks which rows are named.
fn gather_on_device(
    local: &LocalFeatures,
    batch: &Batch,
    collective: &mut dyn Collective,
) -> Result<(Gathered, Vec<usize>), CollectiveError> {
    let (pairs, embed) = local.images.size2().expect("features are [pairs, embed]");
    let device = local.images.device();
    let own: Vec<f32> = batch.valid.iter().map(|&valid| f32::from(u8::from(valid))).collect();
    let mut valid = Vec::new();
    collective.all_gather(&own, &mut valid)?;
    let features = Tensor::cat(&[&local.images, &local.captions], 0).to_kind(Kind::Float);
    let ranks = i64::try_from(collective.world_size()).expect("few ranks");
    let all = collective.gather_tensors(&features.reshape([-1]))?.view([ranks, 2, pairs, embed]);
    let mut kept = Vec::new();
    let (mut own_range, mut own_rows) = (0..0, Vec::new());
    let per_rank = batch.valid.len();
    for (rank, valid) in valid.chunks_exact(per_rank).enumerate() {
        let start = i64::try_from(kept.len()).expect("a batch fits memory");
        for (pair, _) in valid.iter().enumerate().filter(|(_, valid)| **valid != 0.0) {
            kept.push(i64::try_from(rank * per_rank + pair).expect("a batch fits memory"));
            if rank == collective.rank() {
                own_rows.push(i64::try_from(pair).expect("a batch fits memory"));
            }
        }
        if rank == collective.rank() {
            own_range = start..i64::try_from(kept.len()).expect("a batch fits memory");
        }
    }
    let kept = upload(&kept, device);
    let [images, captions] = [0, 1].map(|side| {
        let side = all.select(1, side).reshape([-1, embed]);
        side.index_select(0, &kept)
    });
    Ok((Gathered { images, captions, own: own_range, own_rows }, Vec::new()))
}

fn to_host(tensor: &Tensor) -> Vec<f32> {
    let host = tensor.to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
    crate::native::values(&host).to_vec()
}

/// Sums the shares of all ranks: what comes back is the batch's loss and gradient.
pub(super) fn reduce_share(
    share: &mut LossShare,
    collective: &mut dyn Collective,
) -> Result<(), CollectiveError> {
    if collective.world_size() == 1 {
        return Ok(());
    }
    let device = share.loss.device();
    let gradients = Tensor::cat(&[&share.by_images, &share.by_captions], 0);
    if collective.is_on_device() {
        let rest = Tensor::stack(&[&share.loss, &share.by_log_scale], 0).to_kind(Kind::Float);
        let summed = Tensor::cat(&[&gradients.reshape([-1]), &rest], 0);
        collective.sum_tensor(&summed)?;
        let length = i64::try_from(gradients.numel()).expect("a batch fits memory");
        share.loss = summed.select(0, length);
        share.by_log_scale = summed.select(0, length + 1);
        let (all, embed) = share.by_images.size2().expect("gradients are [pairs, embed]");
        share.by_images = summed.narrow(0, 0, all * embed).view([all, embed]);
        share.by_captions = summed.narrow(0, all * embed, all * embed).view([all, embed]);
        return Ok(());
    }
    let mut message = to_host(&gradients);
    let length = message.len();
    message.extend(to_host(&Tensor::stack(&[&share.loss, &share.by_log_scale], 0)));
    collective.all_reduce_sum(&mut message)?;
    share.loss = Tensor::from(message[length]).to_device(device);
    share.by_log_scale = Tensor::from(message[length + 1]).to_device(device);
    let summed = Tensor::from_slice(&message[..length]).view(gradients.size().as_slice());
    let summed = summed.to_device(device);
    let all = share.by_images.size()[0];
    share.by_images = summed.narrow(0, 0, all);
    share.by_captions = summed.narrow(0, all, all);
    Ok(())
}
