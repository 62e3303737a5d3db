use super::*;

const MODEL: ModelId = ModelId::Expert(1);
const GANG: Incarnation = Incarnation(3);

fn run() -> RunName {
    "toy".parse().unwrap()
}

fn open(folder: &Path) -> Store {
    Store::open(&format!("file://{}", folder.display())).unwrap()
}

/// Writes a checkpoint of one part whose content is `content`.
async fn write(store: &Store, step: u64, content: &str) -> CheckpointRef {
    let folder = keys::step(&run(), MODEL, GANG, Step(step));
    let sha256 = store.put(&format!("{folder}/model.bin"), content.to_owned()).await.unwrap();
    let part = Part { name: "model.bin".to_owned(), bytes: content.len() as u64, sha256 };
    let manifest = CheckpointManifest {
        run: run(),
        model: MODEL,
        incarnation: GANG,
        step: Step(step),
        cursor: step * 8,
        parts: vec![part],
        parent: None,
        seed: 7,
        world_size: 1,
        how: None,
        data: digest(b"data"),
        spec: digest(b"spec"),
        code_version: "test".to_owned(),
    };
    commit(store, &run(), &manifest).await.unwrap()
}

async fn newest(store: &Store) -> Option<u64> {
    newest_candidate(store, &run(), MODEL, GANG).await.unwrap().map(|found| found.step.0)
}

#[tokio::test]
async fn the_newest_step_is_the_candidate_by_number_not_by_name() {
    let store = Store::in_memory();
    assert_eq!(newest(&store).await, None);
    write(&store, 9, "nine").await;
    let ten = write(&store, 10, "ten").await;
    assert_eq!(newest_candidate(&store, &run(), MODEL, GANG).await.unwrap(), Some(ten));
    assert_eq!(newest_candidate(&store, &run(), MODEL, Incarnation(4)).await.unwrap(), None);
}

#[tokio::test]
async fn an_unsound_checkpoint_is_passed_over_for_the_next_older() {
    let store = Store::in_memory();
    for step in 1..=6 {
        write(&store, step, "weights").await;
    }
    let key = |step, name| format!("{}/{name}", keys::step(&run(), MODEL, GANG, Step(step)));

    store.delete(&key(6, "manifest.json")).await.unwrap();
    assert_eq!(newest(&store).await, Some(5), "parts without a manifest");
    store.put(&key(5, "manifest.json"), "{\"run\":").await.unwrap();
    assert_eq!(newest(&store).await, Some(4), "a garbled manifest");
    store.delete(&key(4, "model.bin")).await.unwrap();
    assert_eq!(newest(&store).await, Some(3), "a missing part");
    store.put(&key(3, "model.bin"), "weigh").await.unwrap();
    assert_eq!(newest(&store).await, Some(2), "a short part");
    let other = store.get(&key(1, "manifest.json")).await.unwrap();
    store.put(&key(2, "manifest.json"), other).await.unwrap();
    assert_eq!(newest(&store).await, Some(1), "a manifest that names another checkpoint");
}

#[tokio::test]
async fn fetching_proves_manifest_and_parts() {
    let folder = tempfile::tempdir().unwrap();
    let (store, into) = (open(&folder.path().join("store")), folder.path().join("into"));
    let at = write(&store, 4, "weights").await;
    let manifest = fetch(&store, &run(), &at, &into).await.unwrap();
    assert_eq!(manifest.cursor, 32);
    assert_eq!(std::fs::read(into.join("model.bin")).unwrap(), b"weights");

    // The same size, so that only the digest can tell.
    store.put(&format!("{}/model.bin", keys::checkpoint(&run(), &at)), "wEights").await.unwrap();
    std::fs::remove_file(into.join("model.bin")).unwrap();
    let error = fetch(&store, &run(), &at, &into).await.unwrap_err();
    assert!(error.is_bad_artefact() && error.to_string().contains("model.bin"), "{error}");
    assert!(!into.join("model.bin").exists());

    let wrong = CheckpointRef { manifest: digest(b"other"), ..at };
    assert!(matches!(read(&store, &run(), &wrong).await, Err(StoreError::Damaged { .. })));
}

#[tokio::test]
async fn a_commit_may_be_repeated_but_not_changed() {
    let store = Store::in_memory();
    let at = write(&store, 4, "weights").await;
    assert_eq!(write(&store, 4, "weights").await, at);
    let mut other = read(&store, &run(), &at).await.unwrap();
    other.cursor = 0;
    let refused = commit(&store, &run(), &other).await;
    assert!(matches!(refused, Err(StoreError::AlreadyExists { .. })));
}

#[tokio::test]
async fn a_removed_checkpoint_leaves_nothing() {
    let store = Store::in_memory();
    write(&store, 3, "old").await;
    let at = write(&store, 4, "weights").await;
    remove(&store, &run(), &at).await.unwrap();
    assert_eq!(newest(&store).await, Some(3));
    assert_eq!(store.list(&keys::checkpoint(&run(), &at)).await.unwrap(), []);
}
