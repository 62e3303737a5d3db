//! How fast one object is written and read back: `transfer_speed file:///dev/shm/x [GiB]`.
//!
//! The digest is computed on the way in both directions; the first line says how fast it is alone.

use std::time::Instant;

use bytes::Bytes;
use clade_store::{Store, digest};

const PIECE: usize = 4 << 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let uri = arguments.next().ok_or("name a store: file:///dev/shm/x or s3://bucket/x")?;
    let bytes = arguments.next().map_or(Ok(2), |gib| gib.parse())? << 30;
    let store = Store::open(&uri)?;
    let piece =
        Bytes::from((0..PIECE).map(|at| u8::try_from(at % 251).unwrap_or(0)).collect::<Vec<_>>());

    let begun = Instant::now();
    for _ in 0..256 {
        digest(&piece);
    }
    report("digest alone", 256 * PIECE, begun);

    for copies in [false, true] {
        let begun = Instant::now();
        let mut upload = store.begin_upload("speed").await?;
        for _ in 0..bytes / PIECE {
            if copies {
                upload.write(&piece).await?
            } else {
                upload.write_bytes(piece.clone()).await?
            }
        }
        upload.finish().await?;
        report(if copies { "upload, copying" } else { "upload" }, bytes, begun);
    }
    let begun = Instant::now();
    let mut reader = store.reader("speed", ..).await?;
    while reader.next().await?.is_some() {}
    report("reader", bytes, begun);
    store.delete("speed").await?;
    Ok(())
}

#[allow(clippy::print_stdout, clippy::cast_precision_loss)] // It is a measurement for people.
fn report(what: &str, bytes: usize, begun: Instant) {
    println!("{what}: {:.2} GB/s", bytes as f64 / begun.elapsed().as_secs_f64() / 1e9);
}
