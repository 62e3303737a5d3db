//! Turns Debian's Open Clip Art packages into the demo's dataset.
//!
//! In: a folder of unpacked packages, pictures as PNG beside SVGs whose metadata
//! holds what people wrote about them. Out: `WebDataset` tars for training, and two
//! held-out sets in the layouts of `CLIP_benchmark`.
//!
//! It refuses to guess: the classes of the evaluation set are a committed list,
//! and a conversion that no longer matches it fails. Bad input does not fail:
//! it is counted by cause, listed in `manifest.json`, and left out.

mod captions;
mod classes;
mod convert;
mod fingerprint;
mod listing;
mod manifest;
mod output;
mod picture;
mod split;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use crate::convert::Conversion;

/// Converts unpacked Open Clip Art packages into the demo's dataset.
#[derive(Debug, Parser)]
#[command(name = "clade-clipart", version)]
struct Args {
    /// Folder into which openclipart-png and openclipart-svg were unpacked
    #[arg(long, default_value = "data/openclipart")]
    input: PathBuf,
    /// Folder to write; replaced as a whole once the conversion is complete
    #[arg(long, default_value = "data/clipart")]
    output: PathBuf,
    /// Decides which near-duplicate groups are held out, and the order of pairs
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// The evaluation set's classes: folder, tab, class name
    #[arg(long, default_value = "deploy/demo/classes.txt")]
    classes: PathBuf,
    /// Prompt templates, one a line, with {c} for the class name
    #[arg(long, default_value = "deploy/demo/templates.txt")]
    templates: PathBuf,
    /// Pictures converted at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
    /// Print the folders that have enough held-out pictures to be classes, and write nothing
    #[arg(long)]
    list_classes: bool,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clade-clipart: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let Args { input, output, seed, classes, templates, threads, list_classes } = args;
    let mut out = io::stdout().lock();
    let listing = listing::list(&input)?;
    let threads = usize::from(threads);

    if list_classes {
        let pictures = convert::pictures(&listing, threads);
        let split = split::split(&pictures.usable, seed);
        let folders = classes::with_enough_held_out(&pictures.usable, &split.held_out);
        for (folder, held_out) in folders {
            writeln!(out, "{folder}\t{held_out}")?;
        }
        return Ok(());
    }

    let classes = classes::read(&classes)?;
    let templates = classes::read_templates(&templates)?;
    let conversion = Conversion { listing, seed, classes, templates, threads };
    let manifest = output::write(&conversion, &output)
        .with_context(|| format!("cannot convert {}", input.display()))?;
    writeln!(out, "{}", manifest.summary(&output))?;
    Ok(())
}
