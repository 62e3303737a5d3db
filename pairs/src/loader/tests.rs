use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clade_core::ids::Digest;
use clade_store::{DataShard, ForeignShard};
use tokio::runtime::Runtime;

use super::*;
use crate::fixture::{Member, member, pairs, png, write_tar};
use crate::index::{Foreign, IndexWriter, encode};
use crate::scan::{ScanOptions, scan};

const SIDE: usize = 4;

/// Tars in a folder, indexed.
struct Dataset {
    folder: tempfile::TempDir,
    store: Store,
    runtime: Runtime,
    cache: Option<Arc<Cache>>,
    data: DataManifest,
}

fn path_of(folder: &std::path::Path, number: usize) -> PathBuf {
    folder.join(format!("input-{number}.tar"))
}

impl Dataset {
    /// Of input tars that lie beside the store, or of shards that lie in it.
    fn of(tars: &[Vec<Member>], in_store: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("file://{}/store", folder.path().display())).unwrap();
        Self::within(folder, store, tars, in_store)
    }

    fn within(
        folder: tempfile::TempDir,
        store: Store,
        tars: &[Vec<Member>],
        in_store: bool,
    ) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let mut shards = Vec::new();
        for (number, members) in tars.iter().enumerate() {
            let path = path_of(folder.path(), number);
            write_tar(&path, members);
            let bytes = std::fs::read(&path).unwrap();
            let rows = rows_of(&bytes);
            let index = format!("{number}.parquet");
            let index_sha256 = runtime.block_on(store.put(&index, encode(&rows).unwrap())).unwrap();
            let tar = if in_store { format!("{number}.tar") } else { path.display().to_string() };
            if in_store {
                runtime.block_on(store.put(&tar, bytes.clone())).unwrap();
            }
            shards.push(DataShard {
                tar,
                in_store,
                index,
                pairs: u32::try_from(rows.len()).unwrap(),
                bytes: bytes.len() as u64,
                sha256: Some(clade_store::digest(&bytes)),
                index_sha256,
            });
        }
        let pairs = shards.iter().map(|shard| u64::from(shard.pairs)).sum();
        let data = DataManifest {
            pairs,
            shards,
            foreign: Vec::new(),
            inputs: Vec::new(),
            seed: 7,
            code_version: "0".to_owned(),
            counts: BTreeMap::new(),
        };
        Self { folder, store, runtime, cache: None, data }
    }

    /// Rank `rank` of `ranks` as the seed model reads it.
    fn loader(&self, rank: u32, ranks: u32, threads: usize) -> Loader<Vec<u8>> {
        self.loader_of(ModelId::Seed, rank, ranks, threads)
    }

    fn loader_of(&self, model: ModelId, rank: u32, ranks: u32, threads: usize) -> Loader<Vec<u8>> {
        let place = Place {
            store: self.store.clone(),
            runtime: self.runtime.handle().clone(),
            cache: self.cache.clone(),
        };
        let stream = Stream {
            seed: 7,
            model,
            global_batch: 4,
            rank,
            ranks,
            max_pixels: 1_000_000,
            max_bad_share: 0.5,
        };
        Loader::new(place, stream, &self.data, shape(threads)).unwrap()
    }

    fn tar(&self, number: usize) -> PathBuf {
        path_of(self.folder.path(), number)
    }
}

fn rows_of(tar: &[u8]) -> Vec<crate::index::PairRow> {
    let mut rows = Vec::new();
    let keep = |row| {
        rows.push(row);
        Ok(())
    };
    scan(tar, "it", ScanOptions::new(1_000_000), keep, |_, _| true).unwrap().unwrap();
    rows
}

fn shape(threads: usize) -> Shape<Vec<u8>> {
    Shape {
        image_size: SIDE,
        tokens: Arc::new(|caption: &str| vec![i64::try_from(caption.len()).unwrap(), 0]),
        memory: Arc::new(|bytes| vec![0; bytes]),
        threads,
        detail: Detail::Enough,
    }
}

#[test]
fn each_pair_of_an_epoch_comes_exactly_once_over_a_resume() {
    let set = Dataset::of(&[pairs("a", 7), pairs("b", 5), pairs("c", 8)], false);
    let mut seen = Vec::new();
    let mut first = set.loader(0, 1, 1);
    for step in 0..2 {
        seen.extend(first.batch(4 * step).unwrap().keys);
    }
    // The first is gone with what it had read ahead; another goes on at the cursor.
    drop(first);
    let mut second = set.loader(0, 1, 1);
    for step in 2..5 {
        let loaded = second.batch(4 * step).unwrap();
        assert_eq!(loaded.epoch, 0);
        seen.extend(loaded.keys);
    }
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 20);
    assert_eq!(seen.len(), 20);
    let next = second.batch(20).unwrap();
    assert_eq!(next.epoch, 1);
    assert_ne!(next.keys, seen[..4], "the next epoch has an order of its own");
}

#[test]
fn the_ranks_batches_laid_end_to_end_are_the_single_ranks() {
    let set = Dataset::of(&[pairs("a", 7), pairs("b", 6)], false);
    let mut alone = set.loader(0, 1, 1);
    let mut ranks = [set.loader(0, 2, 3), set.loader(1, 2, 1)];
    for step in 0..5 {
        let whole = alone.batch(4 * step).unwrap();
        let parts = ranks.each_mut().map(|rank| rank.batch(4 * step).unwrap());
        for part in &parts {
            assert_eq!(part.keys, whole.keys);
        }
        let [a, b] = parts;
        assert_eq!([a.pixels, b.pixels].concat(), whole.pixels);
        assert_eq!([a.tokens, b.tokens].concat(), whole.tokens);
        assert_eq!(whole.pixels.len(), 4 * 3 * SIDE * SIDE);
        assert_eq!(whole.valid, [true; 4]);
    }
}

#[test]
fn any_cursor_may_be_asked_for() {
    let set = Dataset::of(&[pairs("a", 9)], false);
    let mut loader = set.loader(0, 1, 1);
    let at = |loader: &mut Loader<_>, cursor| loader.batch(cursor).unwrap();
    let (zero, four) = (at(&mut loader, 0), at(&mut loader, 4));
    assert_eq!(at(&mut loader, 0), zero);
    assert_eq!(at(&mut loader, 4), four);
    let two = at(&mut loader, 2);
    assert_eq!([&two.keys[..2], &two.keys[2..]], [&zero.keys[2..], &four.keys[..2]]);
}

#[test]
fn a_pair_that_does_not_decode_keeps_its_slot_and_is_counted() {
    let mut picture = png(8, 8, "broken");
    let data = picture.windows(4).position(|name| name == b"IDAT").unwrap();
    // Header and end stay sound, so the index cannot tell.
    picture[data + 8..data + 16].fill(0xee);
    let broken = vec![member("broken.png", picture), member("broken.txt", "hollow")];
    let set = Dataset::of(&[[pairs("a", 3), broken].concat()], false);
    let loaded = set.loader(0, 1, 2).batch(0).unwrap();
    check_masked(&loaded, "broken", "unreadable");
}

/// The slot of `key` alone is masked out, for `cause`.
fn check_masked(loaded: &Loaded<Vec<u8>>, key: &str, cause: &'static str) {
    let slot = loaded.keys.iter().position(|it| it == key).unwrap();
    let expected: Vec<bool> = (0..4).map(|at| at != slot).collect();
    assert_eq!(loaded.valid, expected);
    assert_eq!(loaded.masked, BTreeMap::from([(cause, 1)]));
    assert_eq!(loaded.pixels.len(), 4 * 3 * SIDE * SIDE);
    let own = 3 * SIDE * SIDE;
    assert!(loaded.pixels[slot * own..(slot + 1) * own].iter().all(|&value| value == 128));
}

#[test]
fn a_picture_that_changed_in_an_input_is_masked_out_and_the_others_go_on() {
    let set = Dataset::of(&[pairs("a", 4)], false);
    let mut bytes = std::fs::read(set.tar(0)).unwrap();
    let rows = rows_of(&bytes);
    let at = |row: usize| usize::try_from(rows[row].offset).unwrap() + 10;
    bytes[at(0)] ^= 1;
    std::fs::write(set.tar(0), &bytes).unwrap();
    check_masked(&set.loader(0, 1, 1).batch(0).unwrap(), "a000", "changed");
    // Cut before the last pair's picture: it is not there any more.
    bytes[at(0)] ^= 1;
    bytes.truncate(at(3));
    std::fs::write(set.tar(0), &bytes).unwrap();
    check_masked(&set.loader(0, 1, 1).batch(0).unwrap(), "a003", "changed");
}

#[test]
fn an_input_that_went_away_ends_the_work_with_its_name() {
    let set = Dataset::of(&[pairs("a", 4)], false);
    std::fs::remove_file(set.tar(0)).unwrap();
    let error = set.loader(0, 1, 1).batch(0).unwrap_err();
    assert!(error.to_string().contains("input-0.tar does not exist"), "{error}");
    assert!(!error.may_retry());
}

#[test]
fn a_damaged_shard_of_ours_stops_its_reader_and_is_named() {
    let set = Dataset::of(&[pairs("a", 12), pairs("b", 12)], true);
    assert_eq!(set.loader(0, 1, 1).batch(0).unwrap().valid, [true; 4]);
    for shard in &set.data.shards {
        let path = set.store.local_path(&shard.tar).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        for row in rows_of(&bytes) {
            bytes[usize::try_from(row.offset).unwrap() + 9] ^= 1;
        }
        std::fs::write(&path, bytes).unwrap();
    }
    let error = set.loader(0, 1, 1).batch(0).unwrap_err();
    let message = error.to_string();
    assert!(message.contains(".tar`") && message.contains("is not the one indexed"), "{message}");
    assert!(error.may_retry());
}

/// Foreign pairs of one pass, each belonging to an expert.
fn with_pool(owners: &[(u32, u32)]) -> Dataset {
    let mut set = Dataset::of(&[pairs("own", 12)], true);
    let members = pairs("far", owners.len());
    let path = set.folder.path().join("pool");
    write_tar(&path, &members);
    let bytes = std::fs::read(&path).unwrap();
    let mut index = IndexWriter::foreign(Vec::new()).unwrap();
    for (row, &(pass, owner)) in rows_of(&bytes).into_iter().zip(owners) {
        index.push_foreign(row, Foreign { pass, owner }).unwrap();
    }
    let put = |key: &str, bytes: Vec<u8>| set.runtime.block_on(set.store.put(key, bytes)).unwrap();
    let index_sha256: Digest = put("pool.parquet", index.finish().unwrap());
    put("pool.tar", bytes.clone());
    let of = |pass| {
        let own = |(at, owner): &&(u32, u32)| *at == pass && *owner != 1;
        u32::try_from(owners.iter().filter(own).count()).unwrap()
    };
    let shard = DataShard {
        tar: "pool.tar".to_owned(),
        in_store: true,
        index: "pool.parquet".to_owned(),
        pairs: u32::try_from(owners.len()).unwrap(),
        bytes: bytes.len() as u64,
        sha256: None,
        index_sha256,
    };
    set.data.foreign = vec![ForeignShard { shard, by_pass: vec![of(0), of(1)] }];
    set
}

#[test]
fn an_epoch_is_seasoned_with_its_slice_of_the_foreign_pool_without_the_models_own() {
    // Of pass 0: two of expert 0's and one of expert 2's; of pass 1: one of expert 0's.
    let set = with_pool(&[(0, 0), (1, 1), (0, 1), (0, 2), (1, 0), (0, 0)]);
    let mut loader = set.loader_of(ModelId::Expert(1), 0, 1, 2);
    let mut keys = Vec::new();
    for step in 0..11 {
        let loaded = loader.batch(4 * step).unwrap();
        assert_eq!(loaded.valid, [true; 4]);
        keys.extend(loaded.keys);
    }
    let far = |keys: &[String]| -> BTreeSet<String> {
        keys.iter().filter(|key| key.starts_with("far")).cloned().collect()
    };
    let set_of = |keys: &[&str]| keys.iter().map(|&key| key.to_owned()).collect();
    assert_eq!(far(&keys[..15]), set_of(&["far000", "far003", "far005"]));
    assert_eq!(far(&keys[15..28]), set_of(&["far004"]));
    assert_eq!(far(&keys[28..43]), far(&keys[..15]), "the pool begins anew");
    for epoch in [&keys[..15], &keys[15..28], &keys[28..43]] {
        assert_eq!(epoch.iter().collect::<BTreeSet<_>>().len(), epoch.len());
        assert_eq!(epoch.iter().filter(|key| key.starts_with("own")).count(), 12);
    }
}

#[test]
fn tars_of_an_object_store_read_the_same_with_and_without_a_cache_and_it_keeps_to_its_size() {
    let tars: Vec<_> = (0..24).map(|number| pairs(&format!("t{number:02}-"), 4)).collect();
    let files = Dataset::of(&tars, true);
    let size = files.data.shards[0].bytes;
    let mut expected = files.loader(0, 1, 1);
    let expected: Vec<_> = (0..30).map(|step| expected.batch(4 * step).unwrap()).collect();
    for room in [None, Some(100 * size), Some(17 * size), Some(15 * size)] {
        let folder = tempfile::tempdir().unwrap();
        let cached = folder.path().join("cache");
        let mut set = Dataset::within(folder, Store::in_memory(), &tars, true);
        set.cache = room.map(|room| Arc::new(Cache::open(&cached, room).unwrap()));
        let mut loader = set.loader(0, 1, 2);
        for (step, expected) in (0..).zip(&expected) {
            assert_eq!(loader.batch(4 * step).unwrap(), *expected, "room for {room:?}");
        }
        drop(loader);
        let kept = || -> u64 {
            let Ok(files) = std::fs::read_dir(&cached) else { return 0 };
            // A download that was under way may come to its end between the listing and the look.
            files.map(|file| file.unwrap().metadata().map_or(0, |it| it.len())).sum()
        };
        // One that is renamed while the folder is listed may be seen under both names.
        let until = Instant::now() + Duration::from_secs(10);
        while kept() > room.unwrap_or(0) {
            assert!(Instant::now() < until, "{} in room for {room:?}", kept());
        }
        assert_eq!(kept() > 0, room.is_some_and(|room| room >= 16 * size));
    }
}

#[test]
fn a_copy_that_went_bad_in_the_cache_is_fetched_anew() {
    let folder = tempfile::tempdir().unwrap();
    let cached = folder.path().join("cache");
    let mut set = Dataset::within(folder, Store::in_memory(), &[pairs("a", 8)], true);
    set.cache = Some(Arc::new(Cache::open(&cached, 1 << 30).unwrap()));
    let expected = set.loader(0, 1, 1).batch(0).unwrap();
    let copy = cached.join(format!("{}.tar", set.data.shards[0].sha256.unwrap()));
    let sound = std::fs::read(&copy).unwrap();
    let mut bad = sound.clone();
    for row in rows_of(&sound) {
        bad[usize::try_from(row.offset).unwrap() + 9] ^= 1;
    }
    std::fs::write(&copy, bad).unwrap();
    assert_eq!(set.loader(0, 1, 2).batch(0).unwrap(), expected);
    assert!(std::fs::read(&copy).unwrap() == sound);
}

#[test]
fn whoever_waits_for_a_batch_is_asked_whether_to_go_on() {
    let set = Dataset::of(&[pairs("a", 8)], true);
    let place =
        Place { store: set.store.clone(), runtime: set.runtime.handle().clone(), cache: None };
    let (release, wait) = sync_channel::<()>(0);
    let wait = std::sync::Mutex::new(wait);
    let mut shape = shape(1);
    shape.memory = Arc::new(move |bytes| {
        // As slow as a tar from afar.
        let _ = wait.lock().unwrap().recv();
        vec![0; bytes]
    });
    let stream = Stream {
        seed: 7,
        model: ModelId::Seed,
        global_batch: 4,
        rank: 0,
        ranks: 1,
        max_pixels: 1_000_000,
        max_bad_share: 0.5,
    };
    let mut loader = Loader::new(place, stream, &set.data, shape).unwrap();
    assert_eq!(loader.batch_while(0, || false).unwrap(), None);
    // What was waited for is not lost.
    drop(release);
    assert_eq!(loader.batch(0).unwrap(), set.loader(0, 1, 1).batch(0).unwrap());
}

/// G4 by the loader itself: gangs of random widths that read, commit now and then, and die.
#[test]
fn along_the_committed_history_of_random_gangs_each_pair_comes_once_an_epoch() {
    let set = Dataset::of(&[pairs("a", 13), pairs("b", 9), pairs("c", 6)], false);
    let seed = 20_261_125;
    eprintln!("seed {seed}");
    let mut random = clade_core::order::Random::new(seed);
    let (mut committed, mut history) = (0, Vec::<String>::new());
    while committed < 3 * 28 {
        let ranks = [1, 2, 4][usize::try_from(random.below(3)).unwrap()];
        let mut gang: Vec<_> = (0..ranks).map(|rank| set.loader(rank, ranks, 2)).collect();
        let steps = random.below(6);
        let kept = random.below(steps + 1);
        for step in 0..steps {
            let loaded: Vec<_> =
                gang.iter_mut().map(|rank| rank.batch(committed + 4 * step).unwrap()).collect();
            assert!(loaded.iter().all(|it| it.keys == loaded[0].keys));
            assert!(loaded.iter().all(|it| it.valid.len() == 4 / ranks as usize));
            if step < kept {
                history.extend_from_slice(&loaded[0].keys);
            }
        }
        committed += 4 * kept;
    }
    for epoch in history.chunks_exact(28).take(3) {
        assert_eq!(epoch.iter().collect::<BTreeSet<_>>().len(), 28);
    }
}
