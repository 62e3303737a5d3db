//! Reads and writes named tensors in safetensors files.
//!
//! A file is taken only if it holds exactly the tensors asked for, each of the right shape and
//! finite; whatever differs is named. Values are f32 in memory; bf16 and f16 are widened.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{SafeTensorError, SafeTensors, View};

use crate::config::ConfigError;
use crate::flat::{Entry, Layout};

/// Metadata key of the optimizer file: updates done, counted from the seed model.
const STEP_KEY: &str = "step";
const EXP_AVG: &str = "exp_avg.";
const EXP_AVG_SQ: &str = "exp_avg_sq.";
/// Buffers of OpenAI's archives that say nothing a configuration does not.
const IGNORED: &[&str] = &["input_resolution", "context_length", "vocab_size"];

/// Why weights could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a safetensors file", path.display())]
    Format {
        path: PathBuf,
        #[source]
        source: SafeTensorError,
    },
    #[error("{}: {why}", path.display())]
    Config { path: PathBuf, why: ConfigError },
    #[error("{}: tensor {name} is missing", path.display())]
    Missing { path: PathBuf, name: String },
    #[error("{}: tensor {name} does not belong to this model", path.display())]
    Extra { path: PathBuf, name: String },
    #[error("{}: tensor {name} has shape {found:?}, expected {expected:?}", path.display())]
    Shape { path: PathBuf, name: String, expected: Vec<usize>, found: Vec<usize> },
    #[error("{}: tensor {name} is of type {found}, expected f32, bf16 or f16", path.display())]
    Dtype { path: PathBuf, name: String, found: String },
    #[error("{}: tensor {name} holds a value that is not finite", path.display())]
    NotFinite { path: PathBuf, name: String },
    #[error(
        "{} was not written: tensor {name} holds a value that is not finite, so training has \
         diverged",
        path.display()
    )]
    Broken { path: PathBuf, name: String },
    #[error("{}: metadata key \"step\" is missing or no whole number", path.display())]
    Step { path: PathBuf },
}

/// What an optimizer file holds.
pub(crate) struct OptimizerState {
    pub(crate) exp_avg: Vec<f32>,
    pub(crate) exp_avg_sq: Vec<f32>,
    pub(crate) step: u64,
}

pub(crate) fn read_model(path: &Path, layout: &Layout) -> Result<Vec<f32>, WeightsError> {
    let bytes = read_bytes(path)?;
    let file = TensorFile::parse(path, &bytes)?;
    file.refuse_extra(|name| layout.get(name).is_some() || IGNORED.contains(&name))?;
    file.flat(layout, "")
}

pub(crate) fn write_model(
    path: &Path,
    layout: &Layout,
    values: &[f32],
) -> Result<(), WeightsError> {
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    write(path, views(layout, "", values).collect(), metadata)
}

pub(crate) fn read_optimizer(path: &Path, layout: &Layout) -> Result<OptimizerState, WeightsError> {
    let bytes = read_bytes(path)?;
    let file = TensorFile::parse(path, &bytes)?;
    let known = |name: &str| {
        let bare = name.strip_prefix(EXP_AVG_SQ).or_else(|| name.strip_prefix(EXP_AVG));
        bare.is_some_and(|bare| layout.get(bare).is_some())
    };
    file.refuse_extra(known)?;
    let step = file.metadata.as_ref().and_then(|it| it.get(STEP_KEY)?.parse().ok());
    Ok(OptimizerState {
        exp_avg: file.flat(layout, EXP_AVG)?,
        exp_avg_sq: file.flat(layout, EXP_AVG_SQ)?,
        step: step.ok_or_else(|| WeightsError::Step { path: path.to_owned() })?,
    })
}

pub(crate) fn write_optimizer(
    path: &Path,
    layout: &Layout,
    exp_avg: &[f32],
    exp_avg_sq: &[f32],
    step: u64,
) -> Result<(), WeightsError> {
    let metadata = HashMap::from([(STEP_KEY.to_owned(), step.to_string())]);
    let tensors = views(layout, EXP_AVG, exp_avg).chain(views(layout, EXP_AVG_SQ, exp_avg_sq));
    write(path, tensors.collect(), metadata)
}

pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, WeightsError> {
    fs::read(path).map_err(|source| WeightsError::Read { path: path.to_owned(), source })
}

/// A parsed safetensors file; tensors are taken out by name.
pub(crate) struct TensorFile<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
    metadata: Option<HashMap<String, String>>,
}

impl<'a> TensorFile<'a> {
    pub(crate) fn parse(path: &'a Path, bytes: &'a [u8]) -> Result<Self, WeightsError> {
        let malformed = |source| WeightsError::Format { path: path.to_owned(), source };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(malformed)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(malformed)?;
        Ok(Self { path, tensors, metadata: header.metadata().clone() })
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tensors.tensor(name).is_ok()
    }

    fn refuse_extra(&self, known: impl Fn(&str) -> bool) -> Result<(), WeightsError> {
        let mut names = self.tensors.names();
        names.sort_unstable();
        match names.into_iter().find(|name| !known(name)) {
            None => Ok(()),
            Some(name) => {
                Err(WeightsError::Extra { path: self.path.to_owned(), name: name.to_owned() })
            }
        }
    }

    /// Gathers `prefix` + every name of `layout` into one buffer.
    fn flat(&self, layout: &Layout, prefix: &str) -> Result<Vec<f32>, WeightsError> {
        let mut values = vec![0.0; layout.total()];
        for Entry { name, shape, range } in layout.entries() {
            let found = self.tensor(&format!("{prefix}{name}"), &sizes(shape))?;
            values[range.clone()].copy_from_slice(&found);
        }
        Ok(values)
    }

    /// Takes one tensor of the given shape, as f32.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, WeightsError> {
        let (path, name) = (|| self.path.to_owned(), name.to_owned());
        let Ok(tensor) = self.tensors.tensor(&name) else {
            return Err(WeightsError::Missing { path: path(), name });
        };
        if tensor.shape() != shape {
            let (expected, found) = (shape.to_vec(), tensor.shape().to_vec());
            return Err(WeightsError::Shape { path: path(), name, expected, found });
        }
        let data = tensor.data();
        let dtype = tensor.dtype();
        let values: Vec<f32> = if dtype == Dtype::F32 {
            data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        } else if dtype == Dtype::BF16 {
            data.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
        } else if dtype == Dtype::F16 {
            data.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
        } else {
            let found = format!("{dtype:?}").to_lowercase();
            return Err(WeightsError::Dtype { path: path(), name, found });
        };
        if values.iter().any(|value| !value.is_finite()) {
            return Err(WeightsError::NotFinite { path: path(), name });
        }
        Ok(values)
    }
}

/// One parameter's part of a flat buffer, as safetensors wants it.
struct FlatView<'a> {
    shape: Vec<usize>,
    values: &'a [f32],
}

impl View for FlatView<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        if cfg!(target_endian = "little") {
            Cow::Borrowed(bytemuck::cast_slice(self.values))
        } else {
            Cow::Owned(self.values.iter().flat_map(|value| value.to_le_bytes()).collect())
        }
    }

    fn data_len(&self) -> usize {
        size_of_val(self.values)
    }
}

fn views<'a>(
    layout: &'a Layout,
    prefix: &'a str,
    values: &'a [f32],
) -> impl Iterator<Item = (String, FlatView<'a>)> {
    layout.entries().iter().map(move |Entry { name, shape, range }| {
        let view = FlatView { shape: sizes(shape), values: &values[range.clone()] };
        (format!("{prefix}{name}"), view)
    })
}

fn sizes(shape: &[i64]) -> Vec<usize> {
    shape.iter().map(|&size| usize::try_from(size).expect("sizes are positive")).collect()
}

fn write(
    path: &Path,
    tensors: Vec<(String, FlatView<'_>)>,
    metadata: HashMap<String, String>,
) -> Result<(), WeightsError> {
    let is_broken = |view: &FlatView<'_>| view.values.iter().any(|value| !value.is_finite());
    if let Some((name, _)) = tensors.iter().find(|(_, view)| is_broken(view)) {
        return Err(WeightsError::Broken { path: path.to_owned(), name: name.clone() });
    }
    safetensors::serialize_to_file(tensors, Some(metadata), path).map_err(|error| {
        let source = if let SafeTensorError::IoError(source) = error {
            source
        } else {
            io::Error::other(error)
        };
        WeightsError::Write { path: path.to_owned(), source }
    })
}
