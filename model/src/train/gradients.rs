//! The gradient of one step, as it comes out of the backward pass and as the optimizer takes it.
//!
//! On the CPU each parameter keeps the tensor that the backward pass made: nothing is copied unless
//! it must be sent. On a GPU everything is added into one flat buffer, for one optimizer kernel and
//! one message. The token table is apart on the CPU: of its rows only those that some caption names
//! have a gradient.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::buckets::merged;
use crate::flat::Layout;
use crate::native;
use crate::text::TOKEN_EMBEDDING;

#[derive(Debug)]
pub(super) struct Gradients {
    places: Vec<Range<usize>>,
    /// Index of the token table among the parameters; it lies first in the buffers.
    table: usize,
    width: usize,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    Apart {
        parts: Vec<Option<Tensor>>,
        /// The table's gradient; rows not in `touched` are nought.
        rows: Vec<f32>,
        touched: Vec<usize>,
    },
    Flat {
        /// `[total]` f32
        buffer: Tensor,
    },
}

impl Gradients {
    pub(super) fn new(layout: &Layout, width: i64, device: Device, is_flat: bool) -> Self {
        let table = layout.index(TOKEN_EMBEDDING).expect("every layout has a token table");
        let places: Vec<_> = layout.entries().iter().map(|entry| entry.range.clone()).collect();
        assert_eq!(places[table].start, 0, "the token table lies first");
        let kept = if is_flat {
            let total = i64::try_from(layout.total()).expect("a buffer fits memory");
            Kept::Flat { buffer: Tensor::zeros([total], (Kind::Float, device)) }
        } else {
            Kept::Apart {
                parts: places.iter().map(|_| None).collect(),
                rows: vec![0.0; places[table].len()],
                touched: Vec::new(),
            }
        };
        Self { places, table, width: usize::try_from(width).expect("validated"), kept }
    }

    /// Forgets the step before.
    pub(super) fn clear(&mut self) {
        match &mut self.kept {
            Kept::Apart { parts, rows, touched } => {
                parts.fill_with(|| None);
                for row in touched.drain(..) {
                    rows[row * self.width..(row + 1) * self.width].fill(0.0);
                }
            }
            Kept::Flat { buffer } => {
                let _ = buffer.zero_();
            }
        }
    }

    /// Adds one parameter's gradient.
    pub(super) fn add(&mut self, index: usize, gradient: Tensor) {
        let _no_graph = tch::no_grad_guard();
        match &mut self.kept {
            Kept::Apart { parts, .. } => {
                let gradient = gradient.to_kind(Kind::Float).contiguous();
                match &mut parts[index] {
                    Some(sum) => {
                        let _ = sum.g_add_(&gradient);
                    }
                    empty => *empty = Some(gradient),
                }
            }
            Kept::Flat { buffer } => {
                let _ = view(buffer, &self.places[index]).g_add_(&gradient.reshape([-1]));
            }
        }
    }

    /// Adds the gradients of looked-up rows to the token table's.
    ///
    /// # Shapes
    ///
    /// - `ids`: `[looked up]` i64
    /// - `by_rows`: `[looked up, width]`
    pub(super) fn add_rows(&mut self, ids: &Tensor, by_rows: &Tensor) {
        let _no_graph = tch::no_grad_guard();
        let width = self.width;
        match &mut self.kept {
            Kept::Apart { rows, touched, .. } => {
                let mut names = vec![0_i64; ids.numel()];
                let count = names.len();
                ids.copy_data(&mut names, count);
                let by_rows = by_rows.to_kind(Kind::Float).contiguous();
                let by_rows = native::values(&by_rows);
                for (&id, row) in names.iter().zip(by_rows.chunks_exact(width)) {
                    let id = usize::try_from(id).expect("ids were checked");
                    for (sum, value) in rows[id * width..(id + 1) * width].iter_mut().zip(row) {
                        *sum += value;
                    }
                    touched.push(id);
                }
                touched.sort_unstable();
                touched.dedup();
            }
            Kept::Flat { buffer } => {
                let place = &self.places[self.table];
                let count = i64::try_from(place.len() / width).expect("a buffer fits memory");
                // Sorts the ids first: unlike an addition by index, always the same bits.
                let by_table = Tensor::embedding_dense_backward(
                    &by_rows.to_kind(Kind::Float),
                    ids,
                    count,
                    -1,
                    false,
                );
                let _ = view(buffer, place).g_add_(&by_table.reshape([-1]));
            }
        }
    }

    /// Sets the gradient of a parameter of one element.
    pub(super) fn set_scalar(&mut self, index: usize, value: &Tensor) {
        let value = value.to_kind(Kind::Float).reshape([1]);
        match &mut self.kept {
            Kept::Apart { parts, .. } => parts[index] = Some(value),
            Kept::Flat { buffer } => {
                tch::no_grad(|| view(buffer, &self.places[index]).copy_(&value));
            }
        }
    }

    /// One message: the token table's `rows`, then `params`.
    pub(super) fn to_message(&self, rows: &[usize], params: &[usize]) -> Vec<f32> {
        let values = params.iter().map(|&index| self.places[index].len()).sum::<usize>();
        let mut message = Vec::with_capacity(rows.len() * self.width + values);
        let add_rows = |message: &mut Vec<f32>, table: &[f32]| {
            for &row in rows {
                message.extend_from_slice(&table[row * self.width..(row + 1) * self.width]);
            }
        };
        match &self.kept {
            Kept::Apart { parts, rows: table, .. } => {
                add_rows(&mut message, table);
                for &index in params {
                    match &parts[index] {
                        Some(part) => message.extend_from_slice(native::values(part)),
                        None => {
                            message.extend(std::iter::repeat_n(0.0, self.places[index].len()));
                        }
                    }
                }
            }
            Kept::Flat { buffer } => {
                if !rows.is_empty() {
                    let table = view(buffer, &self.places[self.table]).to_device(Device::Cpu);
                    add_rows(&mut message, native::values(&table));
                }
                for &index in params {
                    let part = view(buffer, &self.places[index]).to_device(Device::Cpu);
                    message.extend_from_slice(native::values(&part));
                }
            }
        }
        message
    }

    /// Takes back what [`Self::to_message`] gave, summed over the ranks.
    pub(super) fn take_message(&mut self, message: &[f32], rows: &[usize], params: &[usize]) {
        let width = self.width;
        let (sums, mut rest) = message.split_at(rows.len() * width);
        let sums = rows.iter().zip(sums.chunks_exact(width));
        match &mut self.kept {
            Kept::Apart { parts, rows: table, touched } => {
                for (&row, values) in sums {
                    table[row * width..(row + 1) * width].copy_from_slice(values);
                }
                if !rows.is_empty() {
                    rows.clone_into(touched);
                }
                for &index in params {
                    let values;
                    (values, rest) = rest.split_at(self.places[index].len());
                    parts[index] = Some(Tensor::from_slice(values));
                }
            }
            Kept::Flat { buffer } => {
                if !rows.is_empty() {
                    let place = &self.places[self.table];
                    let mut host = vec![0.0; place.len()];
                    for (&row, values) in sums {
                        host[row * width..(row + 1) * width].copy_from_slice(values);
                    }
                    write(buffer, place, &host);
                }
                for &index in params {
                    let values;
                    (values, rest) = rest.split_at(self.places[index].len());
                    write(buffer, &self.places[index], values);
                }
            }
        }
    }

    /// Views of the one buffer that hold `params`, and the token table if asked for.
    ///
    /// # Panics
    ///
    /// If they are not kept in one buffer: see [`Self::flat`].
    pub(super) fn flat_parts(&self, params: &[usize], with_table: bool) -> Vec<Tensor> {
        let buffer = self.flat().expect("kept in one buffer");
        let table = with_table.then_some(&self.table);
        let places = params.iter().chain(table).map(|&index| self.places[index].clone());
        merged(places.collect()).iter().map(|place| view(buffer, place)).collect()
    }

    /// The norm over all parameters, added up in a fixed order; a number `[]` on the device.
    pub(super) fn norm(&self) -> Tensor {
        match &self.kept {
            Kept::Apart { parts, rows, touched } => {
                let width = self.width;
                let rows = touched.iter().map(|row| &rows[row * width..(row + 1) * width]);
                let parts = parts.iter().flatten().map(native::values);
                Tensor::from(rows.chain(parts).map(square).sum::<f64>().sqrt())
            }
            Kept::Flat { buffer } => buffer.norm(),
        }
    }

    /// Gradients with their places in the flat buffers, in host memory.
    ///
    /// # Panics
    ///
    /// If they are kept in one buffer: see [`Self::flat`].
    pub(super) fn parts(&self) -> Vec<(Range<usize>, &[f32])> {
        match &self.kept {
            Kept::Apart { parts, rows, .. } => {
                let table = (self.places[self.table].clone(), rows.as_slice());
                let parts = self.places.iter().zip(parts);
                let parts = parts.filter_map(|(place, part)| {
                    Some((place.clone(), native::values(part.as_ref()?)))
                });
                std::iter::once(table).chain(parts).collect()
            }
            Kept::Flat { .. } => unreachable!("the flat buffer has no parts"),
        }
    }

    /// The one buffer, where that is how they are kept.
    pub(super) fn flat(&self) -> Option<&Tensor> {
        match &self.kept {
            Kept::Apart { .. } => None,
            Kept::Flat { buffer } => Some(buffer),
        }
    }

    /// All gradients as one slice, for comparing.
    #[cfg(test)]
    pub(super) fn to_vec(&self) -> Vec<f32> {
        if let Some(flat) = self.flat() {
            return Vec::try_from(flat).expect("f32 values");
        }
        let total = self.places.iter().map(|place| place.end).max().unwrap_or(0);
        let mut all = vec![0.0; total];
        for (place, values) in self.parts() {
            all[place].copy_from_slice(values);
        }
        all
    }
}

fn view(buffer: &Tensor, place: &Range<usize>) -> Tensor {
    let start = i64::try_from(place.start).expect("a buffer fits memory");
    let length = i64::try_from(place.len()).expect("a buffer fits memory");
    buffer.narrow(0, start, length)
}

fn write(buffer: &Tensor, place: &Range<usize>, values: &[f32]) {
    tch::no_grad(|| view(buffer, place).copy_(&Tensor::from_slice(values)));
}

/// The sum of squares: in f32 over lanes of a short piece, in f64 over the pieces.
fn square(values: &[f32]) -> f64 {
    const LANES: usize = 16;
    let piece = |piece: &[f32]| -> f64 {
        let mut sums = [0.0_f32; LANES];
        let lanes = piece.chunks_exact(LANES);
        let rest = lanes.remainder();
        for values in lanes {
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += value * value;
            }
        }
        let rest: f64 = rest.iter().map(|&value| f64::from(value).powi(2)).sum();
        rest + sums.iter().map(|&sum| f64::from(sum)).sum::<f64>()
    };
    values.chunks(4096).map(piece).sum()
}
