//! What is proved and written before a run is taken in: its paths, its store, its folder.
//!
//! The files that every rank reads are created and never overwritten, so whoever is first decides
//! what the run is, however many applies race and whoever still believes to lead. Whoever comes later
//! with another document is refused before the state hears of it.

use clade_core::ids::RunName;
use clade_core::job::Failure;
use clade_core::spec::RunSpec;
use clade_store::{Inputs, Store, StoreError, keys};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Status;

use super::failed;
use crate::state::Cluster;

/// Whether the paths a run names are there, so that it does not fail an hour later.
pub(super) fn check_paths(spec: &RunSpec) -> Result<(), String> {
    let inner = &spec.spec;
    let one = |key: &'static str, path: &String| (key, path.clone());
    let mut paths = vec![
        one("spec.embedding.encoder", &inner.embedding.encoder),
        one("spec.model.vocabulary", &inner.model.vocabulary),
    ];
    let sets = &inner.evaluation;
    paths.extend(sets.classification.iter().map(|it| one("spec.evaluation.classification", it)));
    paths.extend(sets.retrieval.iter().map(|it| one("spec.evaluation.retrieval", it)));
    for (key, path) in paths {
        let plain = path.strip_prefix("file://").unwrap_or(&path);
        if !std::path::Path::new(plain).exists() {
            return Err(format!("{key}: `{plain}` is not there; `make setup` brings the demo's"));
        }
    }
    Ok(())
}

/// Proves that the run's store can be written to and keeps its promises, before anything rests on it.
pub(super) async fn check_store(spec: &RunSpec) -> Result<(), Status> {
    let refused = |error: StoreError| {
        let otherwise = failed(&error);
        match Failure::from(error) {
            failure if failure.may_retry() => otherwise,
            failure => Status::invalid_argument(format!("spec.store: {failure}")),
        }
    };
    let store = Store::open(&spec.spec.store).map_err(refused)?;
    store.check().await.map_err(refused)
}

/// Creates what every rank of the run reads. Repeating it with the same run is harmless.
pub(super) async fn write_run(
    cluster: &Cluster,
    spec: &RunSpec,
    document: &str,
    inputs: &Inputs,
) -> Result<(), Status> {
    let name = spec.name();
    let store = Store::open(&spec.spec.store).map_err(|error| failed(&error))?;
    let ours = [keys::cluster(name), keys::spec(name), keys::inputs(name), keys::spec_source(name)];
    let known = store.list(&keys::run(name)).await.map_err(|error| failed(&error))?;
    if let Some(stranger) = known.iter().find(|it| !ours.contains(&it.key)) {
        return Err(Status::failed_precondition(format!(
            "{} holds artefacts of another run `{name}` (such as {}), which this coordinator does \
             not know: choose another metadata.name or store, or remove that folder",
            store.uri(),
            stranger.key
        )));
    }
    claim(&store, cluster, name).await?;
    create(&store, name, &keys::spec(name), spec, "another document").await?;
    create(&store, name, &keys::inputs(name), inputs, "other input tars").await?;
    // For people. One that is there is of the same meaning, and at most its comments differ.
    match store.put_new(&keys::spec_source(name), document.as_bytes().to_vec()).await {
        Ok(_) | Err(StoreError::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(failed(&error)),
    }
}

/// Creates one file of a run, or proves that the one that is there says the same.
async fn create<T: Serialize + DeserializeOwned + PartialEq>(
    store: &Store,
    run: &RunName,
    key: &str,
    value: &T,
    other: &str,
) -> Result<(), Status> {
    let bytes = serde_json::to_vec_pretty(value);
    let bytes = bytes.map_err(|error| Status::internal(error.to_string()))?;
    match store.put_new(key, bytes.clone()).await {
        Ok(_) => return Ok(()),
        Err(StoreError::AlreadyExists { .. }) => (),
        Err(error) => return Err(failed(&error)),
    }
    let found = store.get(key).await.map_err(|error| failed(&error))?;
    if found == bytes || serde_json::from_slice::<T>(&found).is_ok_and(|found| found == *value) {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "run `{run}` is being applied with {other}, or an apply that came to no end left {key} in \
         {}: apply that one again, choose another metadata.name, or remove the folder {}",
        store.uri(),
        keys::run(run)
    )))
}

/// Makes a run's folder this cluster's, or refuses it if it is another's: two clusters may share a
/// bucket, and never a run.
async fn claim(store: &Store, cluster: &Cluster, run: &RunName) -> Result<(), Status> {
    let own = serde_json::to_vec(cluster).map_err(|error| Status::internal(error.to_string()))?;
    let key = keys::cluster(run);
    match store.put_new(&key, own.clone()).await {
        Ok(_) => return Ok(()),
        Err(StoreError::AlreadyExists { .. }) => (),
        Err(error) => return Err(failed(&error)),
    }
    let found = store.get(&key).await.map_err(|error| failed(&error))?;
    if found == own {
        return Ok(());
    }
    let other = serde_json::from_slice::<Cluster>(&found).map(|it| it.name);
    let other = other.unwrap_or_else(|_| "nobody knows whose".to_owned());
    Err(Status::failed_precondition(format!(
        "{}/{} is a run of another cluster (`{other}`), or of this one before its state was removed: \
         choose another metadata.name or store, or remove that folder",
        store.uri(),
        keys::run(run)
    )))
}

#[cfg(test)]
mod tests {
    use clade_store::InputTar;

    use super::*;

    const DEMO: &str = include_str!("../../../deploy/demo/run.yaml");

    fn spec(folder: &tempfile::TempDir, seed: &str) -> (RunSpec, String) {
        let document = DEMO.replace("seed: 7", seed);
        let mut spec = RunSpec::parse(&document).unwrap();
        spec.resolve(&folder.path().display().to_string());
        (spec, document)
    }

    fn inputs(bytes: u64) -> Inputs {
        Inputs { tars: vec![InputTar { uri: "/data/0.tar".to_owned(), bytes }] }
    }

    /// Both found no such run in the state: what the other writes must not become theirs.
    #[tokio::test]
    async fn whoever_creates_a_runs_files_first_decides_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Cluster { name: "clade".to_owned(), id: "1".to_owned() };
        let (first, document) = spec(&folder, "seed: 7");
        let (second, other_document) = spec(&folder, "seed: 8");
        assert_ne!(first, second);
        write_run(&cluster, &first, &document, &inputs(1)).await.unwrap();
        let refused = write_run(&cluster, &second, &other_document, &inputs(1)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        assert!(refused.message().contains("with another document"), "{refused}");
        let refused = write_run(&cluster, &first, &document, &inputs(2)).await.unwrap_err();
        assert!(refused.message().contains("with other input tars"), "{refused}");
        // Its own may be applied again, comments and all.
        write_run(&cluster, &first, &format!("# again\n{document}"), &inputs(1)).await.unwrap();

        let (store, name) = (Store::open(&first.spec.store).unwrap(), first.name());
        let (kept, _) = store.get_manifest::<RunSpec>(&keys::spec(name)).await.unwrap();
        assert_eq!(kept, first);
        let (kept, _) = store.get_manifest::<Inputs>(&keys::inputs(name)).await.unwrap();
        assert_eq!(kept, inputs(1));
        assert_eq!(store.get(&keys::spec_source(name)).await.unwrap(), document.as_bytes());
    }
}
