//! The cluster job: fine centres over a sample of the embeddings, grouped into experts.
//!
//! The sample is the pairs with the smallest draws of their own, in the order of the draws, so it
//! depends on the pairs and the seed and not on tars or their order.

mod router;

use clade_core::ids::{Digest, Stage};
use clade_core::job::Failure;
use clade_core::order;
use clade_model::kmeans::{self, CoarseOptions, FineOptions, Points};
use clade_store::Part;
use serde::{Deserialize, Serialize};

use super::commit::{self, CODE_VERSION, Desk, JobManifest};
use super::embed::{TablesManifest, read_embeddings};
use crate::context::{Context, Counts, Ending};
pub(crate) use router::{Router, read_router};

const ROUTER: &str = "router.safetensors";

/// The fine centres and what is known of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClusterManifest {
    pub(crate) router: Part,
    /// Its store key.
    pub(crate) router_key: String,
    pub(crate) fine: u32,
    pub(crate) experts: u32,
    pub(crate) width: u32,
    /// Pairs the centres were found on, and the pairs of each fine cluster among them.
    pub(crate) sample: u64,
    pub(crate) sizes: Vec<u64>,
    pub(crate) mean_similarity: f64,
    pub(crate) inputs: Vec<Digest>,
    pub(crate) seed: u64,
    pub(crate) code_version: String,
    pub(crate) counts: Counts,
}

impl JobManifest for ClusterManifest {
    fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// Finds the centres.
pub(crate) fn run(context: &Context, part: u32) -> Result<Counts, Ending> {
    let desk = Desk::new(context, Stage::Cluster, part);
    if let Some(counts) = desk.done::<ClusterManifest>()? {
        return Ok(counts);
    }
    let spec = &context.spec.spec;
    let manifests = (0..context.plan.jobs(Stage::Embed))
        .map(|part| commit::read::<TablesManifest>(context, Stage::Embed, part))
        .collect::<Result<Vec<_>, Failure>>()?;
    let sample = draw_sample(context, &manifests)?;
    let pairs = sample.pairs as u64;
    if pairs < u64::from(spec.clusters.fine) {
        return Err(Failure::Config {
            message: format!(
                "{pairs} pairs cannot form {} fine clusters; add data, or make spec.clusters.fine \
                 smaller",
                spec.clusters.fine
            ),
        }
        .into());
    }
    let points = Points::new(&sample.values, sample.width).map_err(wrong)?;
    let fine = kmeans::fine(
        points,
        &FineOptions {
            clusters: spec.clusters.fine as usize,
            balance: spec.clusters.balance,
            seed: spec.seed,
            ..FineOptions::default()
        },
    )
    .map_err(wrong)?;
    let centres = Points::new(&fine.centres, fine.width).map_err(wrong)?;
    let options = CoarseOptions {
        clusters: spec.clusters.experts as usize,
        seed: spec.seed,
        ..CoarseOptions::default()
    };
    let coarse = kmeans::coarse(centres, None, &options).map_err(wrong)?;

    let mut counts = Counts::from([("pairs".to_owned(), pairs)]);
    let sizes: Vec<u64> = fine.sizes.iter().map(|&size| size as u64).collect();
    counts.insert("fine.smallest".to_owned(), sizes.iter().copied().min().unwrap_or(0));
    counts.insert("fine.largest".to_owned(), sizes.iter().copied().max().unwrap_or(0));
    for (expert, size) in coarse.of_fine.iter().zip(&sizes) {
        *counts.entry(format!("sample.expert-{expert}")).or_default() += size;
    }
    let router =
        Router { fine_centres: fine.centres, width: fine.width, fine_to_expert: coarse.of_fine };
    context.reporter.progress(pairs, pairs, None);
    desk.commit(&ClusterManifest {
        router: desk.put(ROUTER, router.encode())?,
        router_key: desk.key(ROUTER),
        fine: spec.clusters.fine,
        experts: spec.clusters.experts,
        width: u32::try_from(fine.width).expect("an embedding has a few hundred numbers"),
        sample: pairs,
        sizes,
        mean_similarity: fine.mean_similarity,
        inputs: manifests.into_iter().map(|(_, digest)| digest).collect(),
        seed: spec.seed,
        code_version: CODE_VERSION.to_owned(),
        counts,
    })
}

fn wrong(error: kmeans::ClusterError) -> Failure {
    Failure::Config { message: format!("clustering: {error}") }
}

struct Sample {
    pairs: usize,
    width: usize,
    values: Vec<f32>,
}

/// Draws `clusters.sample` pairs, or all if there are no more.
fn draw_sample(
    context: &Context,
    manifests: &[(TablesManifest, Digest)],
) -> Result<Sample, Ending> {
    let spec = &context.spec.spec;
    let tables = manifests.iter().flat_map(|(manifest, _)| &manifest.tables);
    let wanted = usize::try_from(spec.clusters.sample).unwrap_or(usize::MAX);
    let total = tables.clone().map(|table| u64::from(table.rows)).sum();
    let mut read = 0;
    let mut width = 0;
    let mut drawn: Vec<(f64, String, Vec<f32>)> = Vec::new();
    for table in tables {
        if context.is_stopping() {
            return Err(Ending::Stopped);
        }
        let found = read_embeddings(context, table)?;
        if found.width > 0 {
            width = found.width;
        }
        for (key, row) in found.keys.into_iter().zip(found.values.chunks_exact(found.width.max(1)))
        {
            drawn.push((order::sample_draw(spec.seed, &key), key, row.to_vec()));
        }
        // Never more than one table beyond the sample in memory.
        drawn.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
        drawn.truncate(wanted);
        read += u64::from(table.rows);
        context.reporter.progress(read, total, None);
    }
    let pairs = drawn.len();
    let values = drawn.into_iter().flat_map(|(_, _, row)| row).collect();
    Ok(Sample { pairs, width, values })
}
