//! Named arrays as a safetensors file: what evaluation artefacts and the bundle consist of.
//!
//! Only f32, i64 and u8. One metadata key, `clade`, may hold a JSON value: with several keys the
//! order in the file, and so its digest, would be left to chance.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{Dtype, SafeTensors, View};

const NOTE: &str = "clade";

/// Values of one array, row by row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values {
    F32(Vec<f32>),
    I64(Vec<i64>),
    U8(Vec<u8>),
}

/// One array.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Array {
    shape: Vec<usize>,
    values: Values,
}

/// The arrays of one file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Arrays {
    arrays: BTreeMap<String, Array>,
    note: Option<serde_json::Value>,
}

/// Why bytes are not the arrays they should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArraysError {
    #[error("not a safetensors file: {0}")]
    Format(String),
    #[error("array `{0}` is missing")]
    Missing(String),
    #[error("array `{name}` should be {expected}")]
    Kind { name: String, expected: &'static str },
    #[error("array `{0}` holds a number that is not finite")]
    NotFinite(String),
    #[error("its metadata is not what it should be: {0}")]
    Note(String),
}

/// A matrix of f32 read from a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) values: Vec<f32>,
}

impl Arrays {
    pub(crate) fn put(&mut self, name: &str, shape: &[usize], values: Values) {
        let length = match &values {
            Values::F32(values) => values.len(),
            Values::I64(values) => values.len(),
            Values::U8(values) => values.len(),
        };
        assert_eq!(shape.iter().product::<usize>(), length, "{name} has the shape it claims");
        self.arrays.insert(name.to_owned(), Array { shape: shape.to_vec(), values });
    }

    pub(crate) fn put_matrix(&mut self, name: &str, matrix: Matrix) {
        self.put(name, &[matrix.rows, matrix.width], Values::F32(matrix.values));
    }

    /// Moves every array of `other` in here, its name after `prefix`.
    pub(crate) fn absorb(&mut self, prefix: &str, other: Self) {
        let named =
            other.arrays.into_iter().map(|(name, array)| (format!("{prefix}{name}"), array));
        self.arrays.extend(named);
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Array> {
        self.arrays.remove(name)
    }

    pub(crate) fn insert(&mut self, name: &str, array: Array) {
        self.arrays.insert(name.to_owned(), array);
    }

    pub(crate) fn set_note(&mut self, note: serde_json::Value) {
        self.note = Some(note);
    }

    pub(crate) const fn note(&self) -> Option<&serde_json::Value> {
        self.note.as_ref()
    }

    /// A two-dimensional f32 array, every value finite.
    pub(crate) fn matrix(&self, name: &str) -> Result<Matrix, ArraysError> {
        let array = self.get(name)?;
        match (&array.values, array.shape.as_slice()) {
            (Values::F32(values), &[rows, width]) => {
                if values.iter().any(|value| !value.is_finite()) {
                    return Err(ArraysError::NotFinite(name.to_owned()));
                }
                Ok(Matrix { rows, width, values: values.clone() })
            }
            (Values::F32(_) | Values::I64(_) | Values::U8(_), _) => {
                Err(ArraysError::Kind { name: name.to_owned(), expected: "a matrix of f32" })
            }
        }
    }

    /// Whole numbers that are not negative, of any shape.
    pub(crate) fn indices(&self, name: &str) -> Result<Vec<u32>, ArraysError> {
        let expected = "i64 from 0 to 2^32";
        let wrong = || ArraysError::Kind { name: name.to_owned(), expected };
        match &self.get(name)?.values {
            Values::I64(values) => {
                values.iter().map(|value| u32::try_from(*value).map_err(|_| wrong())).collect()
            }
            Values::F32(_) | Values::U8(_) => Err(wrong()),
        }
    }

    fn get(&self, name: &str) -> Result<&Array, ArraysError> {
        self.arrays.get(name).ok_or_else(|| ArraysError::Missing(name.to_owned()))
    }

    /// The file: the same bytes for the same arrays.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let note =
            self.note.as_ref().map(|note| HashMap::from([(NOTE.to_owned(), note.to_string())]));
        safetensors::serialize(self.arrays.iter(), note)
            .expect("shapes were checked when the arrays were put in")
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, ArraysError> {
        let format = |error: safetensors::SafeTensorError| ArraysError::Format(error.to_string());
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(format)?;
        let note = metadata.metadata().as_ref().and_then(|metadata| metadata.get(NOTE));
        let note = note
            .map(|text| serde_json::from_str(text))
            .transpose()
            .map_err(|error| ArraysError::Note(error.to_string()))?;
        let mut arrays = BTreeMap::new();
        for (name, tensor) in SafeTensors::deserialize(bytes).map_err(format)?.tensors() {
            let data = tensor.data();
            let values = if tensor.dtype() == Dtype::F32 {
                Values::F32(data.as_chunks().0.iter().map(|it| f32::from_le_bytes(*it)).collect())
            } else if tensor.dtype() == Dtype::I64 {
                Values::I64(data.as_chunks().0.iter().map(|it| i64::from_le_bytes(*it)).collect())
            } else if tensor.dtype() == Dtype::U8 {
                Values::U8(data.to_vec())
            } else {
                return Err(ArraysError::Kind { name, expected: "f32, i64 or u8" });
            };
            arrays.insert(name, Array { shape: tensor.shape().to_vec(), values });
        }
        Ok(Self { arrays, note })
    }
}

impl View for &Array {
    fn dtype(&self) -> Dtype {
        match self.values {
            Values::F32(_) => Dtype::F32,
            Values::I64(_) => Dtype::I64,
            Values::U8(_) => Dtype::U8,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match &self.values {
            Values::F32(values) => values.iter().flat_map(|it| it.to_le_bytes()).collect(),
            Values::I64(values) => values.iter().flat_map(|it| it.to_le_bytes()).collect(),
            Values::U8(values) => Cow::Borrowed(values),
        }
    }

    fn data_len(&self) -> usize {
        match &self.values {
            Values::F32(values) => values.len() * size_of::<f32>(),
            Values::I64(values) => values.len() * size_of::<i64>(),
            Values::U8(values) => values.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Arrays {
        let mut arrays = Arrays::default();
        arrays.put("features", &[2, 3], Values::F32(vec![0.5, -1.0, 2.0, 3.0, 4.0, 5.0]));
        arrays.put("labels", &[2], Values::I64(vec![1, 0]));
        arrays.put("pixels", &[1, 1, 3], Values::U8(vec![7, 8, 9]));
        arrays.set_note(serde_json::json!({"classes": ["a", "ü"]}));
        arrays
    }

    #[test]
    fn arrays_come_back_from_their_file_and_the_file_is_always_the_same() {
        let bytes = some().to_bytes();
        assert_eq!(Arrays::from_bytes(&bytes).unwrap(), some());
        assert_eq!(some().to_bytes(), bytes);
    }

    #[test]
    fn a_missing_a_misshapen_and_a_broken_array_are_told_apart() {
        let mut arrays = some();
        assert!(matches!(arrays.matrix("absent"), Err(ArraysError::Missing(_))));
        assert!(matches!(arrays.matrix("labels"), Err(ArraysError::Kind { .. })));
        arrays.put("features", &[1, 1], Values::F32(vec![f32::NAN]));
        assert!(matches!(arrays.matrix("features"), Err(ArraysError::NotFinite(_))));
        assert!(Arrays::from_bytes(b"{}").is_err());
    }
}
