//! One suite for every backend: what the rest of Clade relies on.
//!
//! Each room below holds one kind of promise. The suite runs over memory, files and S3, and over S3
//! through a proxy that does what networks do.

use crate::{Store, StoreOptions};

mod creating;
mod denied;
mod faults;
mod inputs;
mod listing;
mod manifests;
mod proxy;
mod reading;
mod server;
mod streaming;
mod updating;

/// What a backend can do beyond what all of them can.
#[derive(Clone, Copy, Debug)]
struct Abilities {
    conditional_updates: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_store_conforms() {
    conforms(&Store::in_memory(), Abilities { conditional_updates: true }, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_store_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_folder(&folder.path().join("new/store"));
    // Each creation waits for the disk.
    conforms(&store, Abilities { conditional_updates: false }, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_s3_store_conforms() {
    let Some(server) = server::Server::shared() else { return };
    let bucket = server.new_bucket().await;
    let store = server::open(&bucket, &server::options(server.address));
    conforms(&store, Abilities { conditional_updates: true }, 20).await;
}

fn open_folder(folder: &std::path::Path) -> Store {
    Store::open_with(&format!("file://{}", folder.display()), &StoreOptions::default()).unwrap()
}

/// Runs the whole suite; races are run `rounds` times.
async fn conforms(store: &Store, abilities: Abilities, rounds: u32) {
    store.check().await.unwrap();
    assert_eq!(store.list("").await.unwrap(), [], "the check leaves nothing behind");
    creating::all(store, rounds).await;
    updating::all(store, abilities, rounds).await;
    reading::all(store).await;
    listing::all(store).await;
    streaming::all(store).await;
    manifests::all(store).await;
}

/// Bytes in which no stretch looks like another.
fn pattern(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut all = Vec::with_capacity(bytes + 8);
    while all.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        all.extend_from_slice(&state.to_le_bytes());
    }
    all.truncate(bytes);
    all
}
