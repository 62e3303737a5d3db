//! The embed job: one sentence embedding per pair of a group of tars, of its deciding caption.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeListArray, Float32Array, StringArray};
use arrow_schema::DataType;
use bytes::Bytes;
use clade_core::ids::{Digest, Stage};
use clade_core::job::Failure;
use clade_core::order;
use clade_model::bert::SentenceEncoder;
use clade_store::{DataManifest, digest};
use serde::{Deserialize, Serialize};

use super::commit::{self, CODE_VERSION, Desk, JobManifest};
use crate::context::{Context, Counts, Ending};
use clade_pairs::index::PairRow;
use clade_pairs::indexes::read_index;
use clade_pairs::table::{self, TableError};

/// Captions per call of the encoder.
const CHUNK: usize = 256;

/// The tables that an embed or assign job made, one per tar of its group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TablesManifest {
    pub(crate) tables: Vec<Table>,
    /// Digests of the manifests this one was made from.
    pub(crate) inputs: Vec<Digest>,
    /// Digest of the encoder's weights, where one was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) encoder: Option<Digest>,
    pub(crate) seed: u64,
    pub(crate) code_version: String,
    pub(crate) counts: Counts,
}

/// One row per pair of a tar, in the order of its index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Table {
    /// Position of the tar among the run's inputs.
    pub(crate) tar: u32,
    pub(crate) key: String,
    pub(crate) rows: u32,
    pub(crate) bytes: u64,
    pub(crate) sha256: Digest,
}

impl JobManifest for TablesManifest {
    fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// The embeddings of one tar's pairs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Embeddings {
    pub(crate) keys: Vec<String>,
    pub(crate) width: usize,
    /// `[pairs, width]`, unit rows.
    pub(crate) values: Vec<f32>,
}

/// Embeds the group `part`.
pub(crate) fn run(context: &Context, part: u32) -> Result<Counts, Ending> {
    let desk = Desk::new(context, Stage::Embed, part);
    if let Some(counts) = desk.done::<TablesManifest>()? {
        return Ok(counts);
    }
    let (folder, weights) = encoder_folder(&context.spec.spec.embedding.encoder)?;
    let encoder = SentenceEncoder::load(&folder).map_err(|error| Failure::Config {
        message: format!("spec.embedding.encoder {}: {error}", folder.display()),
    })?;
    run_with(&desk, Some(weights), encoder.width(), |texts| {
        encoder.embed_vec(texts).map_err(|error| Failure::Config {
            message: format!("spec.embedding.encoder {}: {error}", folder.display()),
        })
    })
}

/// Embeds a group by whatever `embed` is.
pub(crate) fn run_with(
    desk: &Desk<'_>,
    encoder: Option<Digest>,
    width: usize,
    mut embed: impl FnMut(&[String]) -> Result<Vec<f32>, Failure>,
) -> Result<Counts, Ending> {
    let context = desk.context;
    let seed = context.spec.spec.seed;
    let (catalogue, digest) = commit::read::<DataManifest>(context, Stage::Catalog, 0)?;
    let group = context.plan.group(desk.part);
    let shards = &catalogue.shards[group.start as usize..group.end as usize];
    let total = shards.iter().map(|shard| u64::from(shard.pairs)).sum();
    let mut tables = Vec::new();
    let mut done = 0;
    for (tar, shard) in group.zip(shards) {
        let rows = read_index(&context.store, &context.runtime, shard)?;
        let mut values = Vec::with_capacity(rows.len() * width);
        for chunk in rows.chunks(CHUNK) {
            if context.is_stopping() {
                return Err(Ending::Stopped);
            }
            let texts: Vec<String> = chunk.iter().map(|row| deciding(seed, row)).collect();
            values.extend(embed(&texts)?);
            done += chunk.len() as u64;
            context.reporter.progress(done, total, None);
        }
        if values.len() != rows.len() * width || values.iter().any(|value| !value.is_finite()) {
            let message =
                format!("the encoder gave no sound embedding for a caption of {}", shard.tar);
            return Err(Failure::Config { message }.into());
        }
        let keys = rows.iter().map(|row| &*row.key);
        let bytes = encode_embeddings(keys, width, values).map_err(Failure::from)?;
        tables.push(put_table(desk, tar, shard.pairs, bytes)?);
    }
    desk.commit(&TablesManifest {
        tables,
        inputs: vec![digest],
        encoder,
        seed,
        code_version: CODE_VERSION.to_owned(),
        counts: Counts::from([("pairs".to_owned(), done)]),
    })
}

fn deciding(seed: u64, row: &PairRow) -> String {
    row.captions[order::deciding_caption(seed, &row.key, row.captions.len())].clone()
}

/// Writes the table of one tar.
pub(crate) fn put_table(
    desk: &Desk<'_>,
    tar: u32,
    rows: u32,
    bytes: Vec<u8>,
) -> Result<Table, Failure> {
    let name = format!("{tar}.parquet");
    let part = desk.put(&name, bytes)?;
    Ok(Table { tar, key: desk.key(&name), rows, bytes: part.bytes, sha256: part.sha256 })
}

/// Finds the encoder and the digest of its weights.
fn encoder_folder(written: &str) -> Result<(PathBuf, Digest), Failure> {
    let plain = written.strip_prefix("file://").or_else(|| written.strip_prefix("file:"));
    let folder = Path::new(plain.unwrap_or(written));
    let weights = folder.join("model.safetensors");
    let bytes = std::fs::read(&weights).map_err(|error| Failure::Config {
        message: format!(
            "no sentence encoder in {} (spec.embedding.encoder): cannot read {}: {error}; run \
             `make setup`, or name the folder of a BERT-family encoder",
            folder.display(),
            weights.display()
        ),
    })?;
    Ok((folder.to_owned(), digest(&bytes)))
}

fn encode_embeddings<'a>(
    keys: impl Iterator<Item = &'a str>,
    width: usize,
    values: Vec<f32>,
) -> Result<Vec<u8>, TableError> {
    let values: ArrayRef = Arc::new(Float32Array::from(values));
    let width = i32::try_from(width).expect("an embedding has a few hundred numbers");
    let lists = FixedSizeListArray::new(table::item(DataType::Float32), width, values, None);
    let keys = StringArray::from_iter_values(keys);
    table::write(vec![("key", Arc::new(keys)), ("embedding", Arc::new(lists))])
}

/// Reads the embeddings of one tar.
pub(crate) fn read_embeddings(context: &Context, table: &Table) -> Result<Embeddings, Failure> {
    let bytes = context.block_on(context.store.get_verified(&table.key, &table.sha256))?;
    Ok(decode_embeddings(&table.key, bytes)?)
}

fn decode_embeddings(key: &str, bytes: Bytes) -> Result<Embeddings, TableError> {
    let mut all = Embeddings { keys: Vec::new(), width: 0, values: Vec::new() };
    for batch in table::read(key, bytes)? {
        let keys = table::column::<StringArray>(key, &batch, "key")?;
        let lists = table::column::<FixedSizeListArray>(key, &batch, "embedding")?;
        all.keys.extend(keys.iter().flatten().map(str::to_owned));
        all.width = usize::try_from(lists.value_length()).unwrap_or(0);
        let numbers = lists.values().as_any().downcast_ref::<Float32Array>();
        let numbers = numbers.ok_or_else(|| TableError::Unexpected {
            key: key.to_owned(),
            reason: "embeddings are not numbers of 32 bits".to_owned(),
        })?;
        all.values.extend_from_slice(numbers.values());
    }
    Ok(all)
}
