use super::*;

fn listen() -> SocketAddr {
    "127.0.0.1:7600".parse().unwrap()
}

fn document(folder: &Path, store: &str) -> Document {
    let text = format!(
        "apiVersion: clade/v1\nkind: Run\nmetadata: {{name: r}}\nspec:\n  store: {store}\n  \
         dataset: {{shards: x}}\n  embedding: {{encoder: x}}\n  clusters: {{fine: 2, experts: 2}}\n  \
         model: {{preset: tiny}}\n  training: {{globalBatch: 1, microBatch: 1, seedSteps: 1, \
         expertSteps: 1, learningRate: {{peak: 1.0}}}}\n  evaluation: {{}}\n"
    );
    let path = folder.join("run.yaml");
    fs::write(&path, text).unwrap();
    Document::read(&path).unwrap()
}

fn fill(path: &Path) {
    fs::create_dir_all(path).unwrap();
    fs::write(path.join("file"), "x").unwrap();
}

#[test]
fn a_folder_in_use_is_refused_with_the_name_of_its_holder() {
    let parent = tempfile::tempdir().unwrap();
    let data = parent.path().join("data");
    let held = DataFolder::take(&data, listen()).unwrap();
    let error = DataFolder::take(&data, listen()).unwrap_err().to_string();
    let who = format!("(pid {}, coordinator at http://127.0.0.1:7600)", std::process::id());
    assert!(error.contains(&who), "{error}");
    drop(held);
    DataFolder::take(&data, listen()).unwrap();
}

#[test]
fn a_folder_with_somebody_elses_logs_is_refused() {
    let data = tempfile::tempdir().unwrap();
    fill(&data.path().join("logs"));
    let error = DataFolder::take(data.path(), listen()).unwrap_err().to_string();
    assert!(error.contains("holds `logs`, but `clade up` did not make it"), "{error}");
}

#[test]
fn fresh_removes_state_and_the_runs_artefacts_and_nothing_else() {
    let parent = tempfile::tempdir().unwrap();
    let data = parent.path().join("data");
    drop(DataFolder::take(&data, listen()).unwrap());
    let kept = ["runs/other", "mine"].map(|name| data.join(name));
    let gone = ["runs/r", "coordinator", "workers/w0", "logs"].map(|name| data.join(name));
    kept.iter().chain(&gone).for_each(|path| fill(path));
    let document = document(parent.path(), &format!("file:{}", data.display()));
    DataFolder::take(&data, listen()).unwrap().clear(&document).unwrap();
    assert!(kept.iter().all(|path| path.join("file").exists()));
    assert!(gone.iter().all(|path| !path.exists()));
}

#[test]
fn fresh_removes_nothing_from_an_unmarked_folder_or_outside_of_it() {
    let parent = tempfile::tempdir().unwrap();
    let data = parent.path().join("data");
    fill(&data.join("runs/r"));
    let inside = document(parent.path(), &format!("file:{}", data.display()));
    let unmarked = DataFolder::take(&data, listen()).unwrap().clear(&inside).unwrap_err();
    assert!(matches!(unmarked, FolderError::Unmarked { .. }), "{unmarked}");
    let store = parent.path().join("store");
    fill(&store.join("runs/r"));
    let outside = document(parent.path(), &format!("file:{}", store.display()));
    let elsewhere = DataFolder::take(&data, listen()).unwrap().clear(&outside).unwrap_err();
    assert!(matches!(elsewhere, FolderError::Elsewhere { .. }), "{elsewhere}");
    assert!(data.join("runs/r/file").exists() && store.join("runs/r/file").exists());
}
