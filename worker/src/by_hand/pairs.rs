//! Pairs of given tars in tar order, as batches, without augmentation.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use anyhow::{Context as _, bail};
use clade_model::config::ClipConfig;
use clade_model::tokenizer::Tokenizer;
use clade_model::train::Batch;
use clade_pairs::cause::Cause;
use clade_pairs::index::{PairRow, checksum};
use clade_pairs::pictures::{DecodeError, decode_rgb};
use clade_pairs::scan::{ScanOptions, scan};
use globset::Glob;

/// Batches ready before they are asked for.
const AHEAD: usize = 2;
/// Middle grey, for a slot whose picture cannot be read; no loss ever sees it.
const MASKED_PIXEL: u8 = 128;

/// What is made of each pair.
pub(super) struct Form {
    pub(super) tokenizer: Tokenizer,
    pub(super) config: ClipConfig,
    pub(super) batch: usize,
    pub(super) max_pixels: u64,
}

/// A batch and the keys of its pairs.
pub(super) struct Loaded {
    pub(super) batch: Batch,
    pub(super) keys: Vec<String>,
}

/// Batches without end: after the last tar comes the first again.
pub(super) struct Batches {
    ready: Receiver<anyhow::Result<Loaded>>,
}

impl Batches {
    pub(super) fn of(tars: Vec<PathBuf>, form: Form) -> anyhow::Result<Self> {
        let (sender, ready) = sync_channel(AHEAD);
        let mut stream = Stream {
            tars,
            form,
            next_tar: 0,
            open: None,
            waiting: VecDeque::new(),
            idle_tars: 0,
            cut_short: None,
            is_told: false,
        };
        // Ends when nobody takes batches any more.
        thread::Builder::new()
            .name("loader".to_owned())
            .spawn(move || {
                loop {
                    let batch = stream.batch();
                    let is_last = batch.is_err();
                    if sender.send(batch).is_err() || is_last {
                        return;
                    }
                }
            })
            .context("cannot start a thread for the loader")?;
        Ok(Self { ready })
    }

    pub(super) fn next(&self) -> anyhow::Result<Loaded> {
        self.ready.recv().context("the loader broke off")?
    }
}

/// The tars that `patterns` name, each pattern's in the order of their names.
pub(super) fn find_tars(patterns: &[String]) -> anyhow::Result<Vec<PathBuf>> {
    let mut tars = Vec::new();
    for pattern in patterns {
        let path = Path::new(pattern);
        if path.is_file() {
            tars.push(path.to_owned());
            continue;
        }
        let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let name = path.file_name().and_then(|it| it.to_str()).unwrap_or("");
        let glob = Glob::new(name).with_context(|| format!("--tars {pattern}"))?.compile_matcher();
        let entries = std::fs::read_dir(folder)
            .with_context(|| format!("--tars {pattern}: cannot read {}", folder.display()))?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
            if glob.is_match(entry.file_name()) {
                found.push(entry.path());
            }
        }
        if found.is_empty() {
            bail!("--tars {pattern}: no file of that name in {}", folder.display());
        }
        found.sort();
        tars.extend(found);
    }
    Ok(tars)
}

struct Stream {
    tars: Vec<PathBuf>,
    form: Form,
    next_tar: usize,
    /// The tar being read, and its pairs not taken yet.
    open: Option<File>,
    waiting: VecDeque<PairRow>,
    /// Tars in a row without a usable pair.
    idle_tars: usize,
    /// The tar being read, if it ends too early.
    cut_short: Option<PathBuf>,
    /// Whether what is left out was told of: the second time round it is the same.
    is_told: bool,
}

impl Stream {
    fn batch(&mut self) -> anyhow::Result<Loaded> {
        let (mut loaded, mut made) =
            (Loaded { batch: Batch::default(), keys: Vec::new() }, Vec::new());
        while loaded.keys.len() < self.form.batch {
            let (Some(row), Some(file)) = (self.waiting.pop_front(), &self.open) else {
                self.open_next()?;
                continue;
            };
            let mut bytes = vec![0; row.length as usize];
            file.read_exact_at(&mut bytes, row.offset)
                .with_context(|| format!("cannot read pair {} again", row.key))?;
            let Form { tokenizer, config, max_pixels, .. } = &self.form;
            let caption = row.captions.first().map_or("", String::as_str);
            loaded.batch.tokens.extend(tokenizer.encode_row(caption, config.context_length()));
            let pixels = if checksum(&bytes) == row.checksum {
                eval_pixels(config, &bytes, *max_pixels)
            } else {
                Err(DecodeError::Unreadable("it changed since the tar was scanned".to_owned()))
            };
            loaded.batch.valid.push(pixels.is_ok());
            made.extend(pixels.unwrap_or_else(|error| {
                tracing::warn!(key = row.key, %error, "a pair is masked out");
                vec![MASKED_PIXEL; 3 * config.image_size() * config.image_size()]
            }));
            loaded.keys.push(row.key);
        }
        loaded.batch.pixels = made.into();
        Ok(loaded)
    }

    fn open_next(&mut self) -> anyhow::Result<()> {
        if let Some(path) = &self.cut_short {
            bail!("{} is no whole tar: fetch it again, or leave it out", path.display());
        }
        let path = self.tars[self.next_tar].clone();
        let cannot = || format!("cannot read {}", path.display());
        let file = File::open(&path).with_context(cannot)?;
        let mut rows = VecDeque::new();
        let keep = |row| {
            rows.push_back(row);
            Ok(())
        };
        let (name, options) = (path.display().to_string(), ScanOptions::new(self.form.max_pixels));
        let found = scan(&file, &name, options, keep, |_, _| true).with_context(cannot)?;
        let found = found.context("nobody asked the scan to stop")?;
        for (cause, listed) in found.unusable.by_cause() {
            if cause == Cause::UnreadableTar {
                // What precedes the cut is sound, and comes first.
                self.cut_short = Some(path.clone());
            } else if !self.is_told {
                let (count, cause) = (listed.count, cause.name());
                let keys: Vec<_> =
                    listed.places.iter().filter_map(|it| it.key.as_deref()).collect();
                tracing::warn!(tar = %path.display(), cause, count, ?keys, "left out");
            }
        }
        self.next_tar = (self.next_tar + 1) % self.tars.len();
        self.is_told |= self.next_tar == 0;
        self.idle_tars = if found.pairs == 0 { self.idle_tars + 1 } else { 0 };
        if self.idle_tars >= self.tars.len() && self.cut_short.is_none() {
            let names: Vec<_> = self.tars.iter().map(|tar| tar.display().to_string()).collect();
            bail!("no usable pair in {}: the causes stand above", names.join(", "));
        }
        self.open = Some(file);
        self.waiting = rows;
        Ok(())
    }
}

/// Makes of a picture's bytes what the model sees in evaluation.
pub(super) fn eval_pixels(
    config: &ClipConfig,
    bytes: &[u8],
    max_pixels: u64,
) -> Result<Vec<u8>, DecodeError> {
    // Decoders are other people's code and have been known to panic on hostile bytes.
    let made = catch_unwind(AssertUnwindSafe(|| {
        decode_rgb(bytes, max_pixels).map(|picture| config.eval_pixels(&picture))
    }));
    made.unwrap_or_else(|_| Err(DecodeError::Unreadable("the decoder panicked".to_owned())))
}
