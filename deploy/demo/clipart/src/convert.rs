//! Every picture of a listing, converted on a few threads.
//!
//! Memory is bounded by the small results and by one large picture at a time.
//! A picture that cannot be used becomes an entry of a list, whatever the reason.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::captions;
use crate::classes::Class;
use crate::fingerprint;
use crate::listing::{Found, Listing};
use crate::manifest::{CaptionCounts, Cause, Unusable};
use crate::picture;

const REPORT_EVERY: Duration = Duration::from_secs(3);

/// What decides the dataset, all of it.
#[derive(Debug)]
pub(crate) struct Conversion {
    pub listing: Listing,
    pub seed: u64,
    pub classes: Vec<Class>,
    pub templates: Vec<String>,
    pub threads: usize,
}

/// A converted picture with its captions.
#[derive(Debug, Default)]
pub(crate) struct Usable {
    /// Place of the picture in the listing, in digits; the pair's key.
    pub key: String,
    pub name: String,
    pub jpeg: Vec<u8>,
    pub texts: Vec<String>,
    pub fingerprint: u64,
    pub padded: bool,
}

/// Every picture of a listing, on one side or the other.
#[derive(Debug, Default)]
pub(crate) struct Pictures {
    /// In the order of the listing.
    pub usable: Vec<Usable>,
    pub unusable: Vec<Unusable>,
    pub captions: CaptionCounts,
}

/// What became of one picture.
type Converted = Result<(Usable, CaptionCounts), Unusable>;

/// Converts every picture of `listing`.
pub(crate) fn pictures(listing: &Listing, threads: usize) -> Pictures {
    let all = &listing.pictures;
    let next = AtomicUsize::new(0);
    let (done, results) = mpsc::channel();
    let mut converted: Vec<(usize, Converted)> = Vec::with_capacity(all.len());
    thread::scope(|scope| {
        for _ in 0..threads {
            let (done, next) = (done.clone(), &next);
            scope.spawn(move || {
                while let index = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(found) = all.get(index)
                {
                    if done.send((index, guarded(index, found, listing))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(done);
        collect(&results, all.len(), &mut converted);
    });
    converted.sort_by_key(|(index, _)| *index);

    let mut pictures = Pictures { unusable: listing.unusable.clone(), ..Pictures::default() };
    for (_, result) in converted {
        match result {
            Ok((usable, captions)) => {
                pictures.captions.add(&captions);
                pictures.usable.push(usable);
            }
            Err(unusable) => pictures.unusable.push(unusable),
        }
    }
    pictures.unusable.sort_by(|a, b| a.path.cmp(&b.path));
    pictures
}

fn collect<T>(results: &mpsc::Receiver<T>, of: usize, into: &mut Vec<T>) {
    let start = Instant::now();
    let mut reported = start;
    loop {
        match results.recv_timeout(REPORT_EVERY) {
            Ok(result) => into.push(result),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if reported.elapsed() >= REPORT_EVERY {
            reported = Instant::now();
            eprintln!("clade-clipart: {} of {of} pictures, {:.0?}", into.len(), start.elapsed());
        }
    }
}

/// Converts one picture; a decoder that panics has met an unusable picture.
fn guarded(index: usize, found: &Found, listing: &Listing) -> Converted {
    panic::catch_unwind(AssertUnwindSafe(|| convert(index, found, listing))).unwrap_or_else(|_| {
        let detail = "the decoder panicked".to_owned();
        Err(Unusable { path: found.name.clone(), cause: Cause::Undecodable, detail })
    })
}

fn convert(index: usize, found: &Found, listing: &Listing) -> Converted {
    let Found { name, png, svg_stem } = found;
    let small = picture::read(png).map_err(|picture::NoPixels { cause, detail }| Unusable {
        path: name.clone(),
        cause,
        detail,
    })?;
    let captions = captions::read(svg_stem, &listing.root);
    let usable = Usable {
        key: format!("{index:06}"),
        name: name.clone(),
        jpeg: picture::to_jpeg(&small.rgb),
        texts: captions.texts(),
        fingerprint: fingerprint::of(&small.rgb),
        padded: small.padded,
    };
    Ok((usable, CaptionCounts::of(&captions)))
}
