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

use tch::Tensor;

use crate::buffer;

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

/// A model's parameters: one buffer, and a leaf per name.
#[derive(Debug)]
pub struct FlatParams {
    layout: Layout,
    values: Tensor,
    leaves: Vec<Tensor>,
}

impl FlatParams {
    /// Takes over `values`, laid out as `layout` says.
    pub fn new(layout: Layout, values: &[f32]) -> Self {
        assert_eq!(values.len(), layout.total, "a value for every element of the layout");
        let values = Tensor::from_slice(values); // [total]
        let leaf = |entry: &Entry| {
            let start = i64::try_from(entry.range.start).expect("a buffer fits memory");
            let length = i64::try_from(entry.range.len()).expect("a buffer fits memory");
            values
                .narrow(0, start, length)
                .view(entry.shape.as_slice())
                .detach()
                .set_requires_grad(true)
        };
        let leaves = layout.entries.iter().map(leaf).collect();
        Self { layout, values, leaves }
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
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

    pub fn values(&self) -> &[f32] {
        buffer::values(&self.values)
    }

    pub fn values_mut(&mut self) -> &mut [f32] {
        buffer::values_mut(&mut self.values)
    }
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
        let mut params = FlatParams::new(two_parameters(), &[0.0; 8]);
        params.values_mut()[7] = 3.0;
        assert_eq!(params.leaf("bias").double_value(&[1]), 3.0);
        assert!(params.leaf("bias").requires_grad() && params.leaf("bias").is_leaf());
    }
}
