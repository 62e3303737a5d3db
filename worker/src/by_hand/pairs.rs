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
use clade_model::preprocess::{DecodeError, decode_rgb};
use clade_model::tokenizer::Tokenizer;
use clade_model::train::Batch;
use globset::Glob;

use crate::data::index::PairRow;
use crate::data::scan::scan;

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
        let mut stream = Stream { tars, form, next_tar: 0, waiting: VecDeque::new(), idle_tars: 0 };
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
    waiting: VecDeque<Pair>,
    /// Tars in a row without a usable pair.
    idle_tars: usize,
}

struct Pair {
    key: String,
    tokens: Vec<i64>,
    /// None: it cannot be read.
    pixels: Option<Vec<u8>>,
}

impl Stream {
    fn batch(&mut self) -> anyhow::Result<Loaded> {
        let mut loaded = Loaded { batch: Batch::default(), keys: Vec::new() };
        while loaded.keys.len() < self.form.batch {
            let Some(pair) = self.waiting.pop_front() else {
                self.read_tar()?;
                continue;
            };
            let Pair { key, tokens, pixels } = pair;
            loaded.keys.push(key);
            loaded.batch.tokens.extend(tokens);
            loaded.batch.valid.push(pixels.is_some());
            let side = self.form.config.image_size();
            let masked = || vec![MASKED_PIXEL; 3 * side * side];
            loaded.batch.pixels.extend(pixels.unwrap_or_else(masked));
        }
        Ok(loaded)
    }

    fn read_tar(&mut self) -> anyhow::Result<()> {
        let path = self.tars[self.next_tar].clone();
        self.next_tar = (self.next_tar + 1) % self.tars.len();
        let cannot = || format!("cannot read {}", path.display());
        let found = scan(&path, self.form.max_pixels, |_, _| true).with_context(cannot)?;
        let found = found.context("nobody asked the scan to stop")?;
        if found.unusable.total() > 0 {
            for (cause, listed) in found.unusable.by_cause() {
                let (count, cause) = (listed.count, cause.name());
                tracing::warn!(tar = %path.display(), cause, count, keys = ?listed.keys, "left out");
            }
        }
        self.idle_tars = if found.rows.is_empty() { self.idle_tars + 1 } else { 0 };
        if self.idle_tars >= self.tars.len() {
            bail!("none of the {} tars has a usable pair", self.tars.len());
        }
        let file = File::open(&path).with_context(cannot)?;
        for row in found.rows {
            let mut bytes = vec![0; row.length as usize];
            file.read_exact_at(&mut bytes, row.offset).with_context(cannot)?;
            self.waiting.push_back(self.pair(row, &bytes));
        }
        Ok(())
    }

    fn pair(&self, row: PairRow, bytes: &[u8]) -> Pair {
        let Form { tokenizer, config, max_pixels, .. } = &self.form;
        let caption = row.captions.first().map_or("", String::as_str);
        let tokens = tokenizer.encode_row(caption, config.context_length());
        // Decoders are other people's code and have been known to panic on hostile bytes.
        let pixels = catch_unwind(AssertUnwindSafe(|| {
            decode_rgb(bytes, *max_pixels).map(|picture| config.eval_pixels(&picture))
        }));
        let pixels =
            pixels.unwrap_or_else(|_| Err(DecodeError::Unreadable("the decoder panicked".into())));
        if let Err(error) = &pixels {
            tracing::warn!(key = row.key, %error, "a pair is masked out");
        }
        Pair { key: row.key, tokens, pixels: pixels.ok() }
    }
}
