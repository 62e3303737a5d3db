//! `clade-worker bench-data`: how fast this machine and its storage index, shard and load given tars.
//!
//! What is measured is what a run does: the index and shard jobs themselves, and the loader of training.
//! Only the clusters are made up (by a hash of the key), so that no sentence encoder is needed.

mod loading;
mod pixels;
mod rewriting;
mod usage;

use serde::Serialize;

/// Measures indexing, sharding and loading of given tars on this machine.
///
/// Each prints one JSON line at the end. `deploy/bench/data.py` does so in turns with other programs.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchDataArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Loads shuffled batches of crops, without training on them
    Loader(loading::LoaderArgs),
    /// Indexes the tars and rewrites them by cluster, as a run's jobs do
    Rewrite(rewriting::RewriteArgs),
    /// Writes crops decoded in full and at reduced size, to compare them
    Pixels(pixels::PixelsArgs),
}

/// Carries out `clade-worker bench-data`.
pub fn run(args: &BenchDataArgs) -> anyhow::Result<()> {
    match &args.what {
        What::Loader(args) => loading::run(args),
        What::Rewrite(args) => rewriting::run(args),
        What::Pixels(args) => pixels::run(args),
    }
}

fn say(line: &impl Serialize) -> anyhow::Result<()> {
    super::say(line)
}
