//! All parameters of a model in one f32 buffer, with a named view for each.
//!
//! One buffer makes the optimizer one pass and the gradient exchange one message. Names are
//! OpenCLIP's checkpoint keys.
//!
//! Invariants: parameters of two and more dimensions (which decay) lie before all others (which do
//! not); the views are the autograd leaves and share the buffer's memory, so a write to the buffer
//! is a write to the model.

use std::collections::BTreeMap;
use std::ops::Range;

use tch::{Device, Kind, Tensor};

use crate::device::{Placement, Precision};
use crate::native;

/// Where one parameter lies in the flat buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub shape: Vec<i64>,
    /// Elements, not bytes.
    pub range: Range<usize>,
}

/// The order, shapes and places of a model's parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    entries: Vec<Entry>,
    by_name: BTreeMap<String, usize>,
    decayed: usize,
    total: usize,
}

impl Layout {
    /// Places the named shapes one after the other, those that decay first.
    pub fn new(parameters: Vec<(String, Vec<i64>)>) -> Self {
        let (decayed, rest): (Vec<_>, Vec<_>) =
            parameters.into_iter().partition(|(_, shape)| shape.len() >= 2);
        let mut layout =
            Self { entries: Vec::new(), by_name: BTreeMap::new(), decayed: 0, total: 0 };
        let decayed_count = decayed.len();
        for (name, shape) in decayed.into_iter().chain(rest) {
            let size = usize::try_from(shape.iter().product::<i64>()).expect("sizes are positive");
            let range = layout.total..layout.total + size;
            layout.total = range.end;
            if layout.entries.len() < decayed_count {
                layout.decayed = range.end;
            }
            let taken = layout.by_name.insert(name.clone(), layout.entries.len());
            assert!(taken.is_none(), "two parameters are called {name}");
            layout.entries.push(Entry { name, shape, range });
        }
        layout
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Finds a parameter by its checkpoint key.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.index(name).map(|index| &self.entries[index])
    }

    pub(crate) fn index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The elements that weight decay touches: a prefix of the buffer.
    pub fn decayed(&self) -> Range<usize> {
        0..self.decayed
    }

    /// Number of elements of all parameters.
    pub fn total(&self) -> usize {
        self.total
    }
}

/// A model's parameters: one f32 buffer on the model's device, and a leaf per name.
///
/// In bf16 the leaves are views of a second buffer, rounded anew from the first after each update.
#[derive(Debug)]
pub struct FlatParams {
    layout: Layout,
    /// `[total]` f32, the master weights.
    values: Tensor,
    /// `[total]` bf16
    rounded: Option<Tensor>,
    leaves: Vec<Tensor>,
}

impl FlatParams {
    /// Takes over `values`, laid out as `layout` says.
    pub fn new(layout: Layout, values: &[f32], placement: Placement) -> Self {
        assert_eq!(values.len(), layout.total, "a value for every element of the layout");
        let Placement { device, precision } = placement;
        let values = Tensor::from_slice(values).to_device(device); // [total]
        let rounded = match precision {
            Precision::F32 => None,
            Precision::Bf16 => Some(values.to_kind(precision.kind())),
        };
        let computed = rounded.as_ref().unwrap_or(&values);
        let leaf = |entry: &Entry| part(computed, entry).detach().set_requires_grad(true);
        let leaves = layout.entries.iter().map(leaf).collect();
        Self { layout, values, rounded, leaves }
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    pub fn device(&self) -> Device {
        self.values.device()
    }

    /// What leaves are made of.
    pub fn kind(&self) -> Kind {
        self.rounded.as_ref().unwrap_or(&self.values).kind()
    }

    /// A handle to the leaf called `name`.
    ///
    /// # Panics
    ///
    /// If the layout has no such parameter: names are part of the program, not input.
    pub fn leaf(&self, name: &str) -> Tensor {
        let index = self.layout.index(name);
        let index = index.unwrap_or_else(|| panic!("the model has no parameter {name}"));
        self.leaves[index].shallow_clone()
    }

    /// The leaves, in the order of [`Layout::entries`].
    pub fn leaves(&self) -> &[Tensor] {
        &self.leaves
    }

    /// Indices of the parameters whose names start with any of `prefixes`.
    pub(crate) fn indices(&self, prefixes: &[&str]) -> Vec<usize> {
        let is_meant = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        let entries = self.layout.entries.iter().enumerate();
        entries.filter(|(_, entry)| is_meant(&entry.name)).map(|(index, _)| index).collect()
    }

    /// The f32 values of one parameter, without a graph; a view.
    pub(crate) fn master(&self, name: &str) -> Tensor {
        let index = self.layout.index(name);
        let index = index.unwrap_or_else(|| panic!("the model has no parameter {name}"));
        part(&self.values, &self.layout.entries[index])
    }

    /// All f32 values as one tensor `[total]`; a handle, not a copy.
    pub(crate) fn masters(&self) -> &Tensor {
        &self.values
    }

    /// Rounds the leaves anew, after the values were changed.
    pub(crate) fn refresh(&mut self) {
        if let Some(rounded) = &mut self.rounded {
            tch::no_grad(|| rounded.copy_(&self.values));
        }
    }

    /// A copy of all values in host memory.
    pub fn to_host(&self) -> Tensor {
        self.values.to_device(Device::Cpu)
    }

    /// All values of a model in host memory.
    ///
    /// # Panics
    ///
    /// If the model lies on a GPU: see [`Self::to_host`].
    pub fn values(&self) -> &[f32] {
        native::values(&self.values)
    }

    /// All values of a model in host memory; call [`Self::refresh`] after a change.
    pub fn values_mut(&mut self) -> &mut [f32] {
        native::values_mut(&mut self.values)
    }
}

/// One parameter's part of a flat buffer, in its shape.
fn part(buffer: &Tensor, entry: &Entry) -> Tensor {
    let start = i64::try_from(entry.range.start).expect("a buffer fits memory");
    let length = i64::try_from(entry.range.len()).expect("a buffer fits memory");
    buffer.narrow(0, start, length).view(entry.shape.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_parameters() -> Layout {
        Layout::new(vec![("bias".to_owned(), vec![2]), ("weight".to_owned(), vec![2, 3])])
    }

    #[test]
    fn decayed_parameters_lie_first() {
        let layout = two_parameters();
        assert_eq!(layout.get("weight").unwrap().range, 0..6);
        assert_eq!(layout.get("bias").unwrap().range, 6..8);
        assert_eq!((layout.decayed(), layout.total()), (0..6, 8));
    }

    #[test]
    fn a_write_to_the_buffer_is_seen_through_the_leaf() {
        let mut params = FlatParams::new(two_parameters(), &[0.0; 8], Placement::default());
        params.values_mut()[7] = 3.0;
        assert_eq!(params.leaf("bias").double_value(&[1]), 3.0);
        assert!(params.leaf("bias").requires_grad() && params.leaf("bias").is_leaf());
    }

    #[test]
    fn rounded_leaves_follow_the_values_when_refreshed() {
        let placement = Placement { precision: Precision::Bf16, ..Placement::default() };
        let mut params = FlatParams::new(two_parameters(), &[0.0; 8], placement);
        params.values_mut()[7] = 1.0 + 1.0 / 512.0;
        assert_eq!(params.leaf("bias").double_value(&[1]), 0.0);
        params.refresh();
        assert_eq!(params.leaf("bias").double_value(&[1]), 1.0, "bf16 has eight bits");
        assert_eq!(params.leaf("bias").kind(), Kind::BFloat16);
        assert_eq!(params.master("bias").double_value(&[1]), 1.0 + 1.0 / 512.0);
    }
}
