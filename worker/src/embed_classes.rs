//! Sentence embeddings of classes, as routing wants them.
//!
//! The paper's rule takes the embedding of each class *name*; the code's rule takes the mean of the
//! unit embeddings of the class's *prompts*, brought back to unit length. Both are computed here,
//! for the report and for `clade-worker embed-classes`, which makes them for classes of one's own:
//! `route.py` of a bundle routes them without libtorch.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clade_model::bert::{SentenceEncoder, SentenceError};

use crate::stages::evaluate::arrays::{Arrays, Matrix};
use crate::stages::evaluate::{fill, lines};

/// Array of the embeddings of class names.
pub(crate) const NAMES: &str = "name";
/// Array of the mean embeddings of prompts.
pub(crate) const PROMPTS: &str = "prompts";

/// Embeds classes for `route.py`: names, and prompts averaged per class.
#[derive(Clone, Debug, clap::Args)]
pub struct EmbedClassesArgs {
    /// Folder of the sentence encoder that the run's clusters were made with.
    #[arg(long)]
    pub encoder: PathBuf,
    /// Class names, one per line.
    #[arg(long)]
    pub classes: PathBuf,
    /// Prompt templates, one per line, `{c}` for the class name.
    #[arg(long)]
    pub templates: PathBuf,
    /// The safetensors file to write: `name` and `prompts`, each `[classes, width]`.
    #[arg(long)]
    pub out: PathBuf,
}

/// Carries out `clade-worker embed-classes`.
pub fn run(args: &EmbedClassesArgs) -> anyhow::Result<()> {
    let EmbedClassesArgs { encoder, classes, templates, out } = args;
    let read = |path: &Path| -> anyhow::Result<Vec<String>> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let lines = lines(&text);
        if lines.is_empty() {
            bail!("{} has no lines; write one name or template per line", path.display());
        }
        Ok(lines)
    };
    let (classes, templates) = (read(classes)?, read(templates)?);
    let encoder = SentenceEncoder::load(encoder)
        .with_context(|| format!("cannot load the sentence encoder in {}", encoder.display()))?;
    let embedded = embed(&encoder, &classes, &templates)?;
    let mut arrays = Arrays::default();
    arrays.put_matrix(NAMES, embedded.names);
    arrays.put_matrix(PROMPTS, embedded.prompts);
    arrays.set_note(serde_json::json!({ "classes": classes, "templates": templates }));
    fs::write(out, arrays.to_bytes()).with_context(|| format!("cannot write {}", out.display()))
}

/// The embeddings of a set's classes, unit rows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClassEmbeddings {
    pub(crate) names: Matrix,
    pub(crate) prompts: Matrix,
}

pub(crate) fn embed(
    encoder: &SentenceEncoder,
    classes: &[String],
    templates: &[String],
) -> Result<ClassEmbeddings, SentenceError> {
    let width = encoder.width();
    let names = encoder.embed_vec(classes)?;
    let mut prompts = Vec::with_capacity(names.len());
    for class in classes {
        let filled: Vec<String> = templates.iter().map(|it| fill(it, class)).collect();
        prompts.extend(mean_direction(&encoder.embed_vec(&filled)?, width));
    }
    let matrix = |values| Matrix { rows: classes.len(), width, values };
    Ok(ClassEmbeddings { names: matrix(names), prompts: matrix(prompts) })
}

/// The mean of unit rows, brought back to unit length.
fn mean_direction(rows: &[f32], width: usize) -> Vec<f32> {
    let mut sum = vec![0.0_f64; width];
    for row in rows.chunks_exact(width) {
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let length = sum.iter().map(|value| value * value).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    #[expect(clippy::cast_possible_truncation, reason = "embeddings are kept as f32")]
    let unit = sum.iter().map(|value| (value / length) as f32).collect();
    unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_prompts_points_between_them_at_unit_length() {
        let mean = mean_direction(&[1.0, 0.0, 0.0, 1.0], 2);
        for value in mean {
            assert!((f64::from(value) - 0.5_f64.sqrt()).abs() < 1e-7);
        }
    }
}
