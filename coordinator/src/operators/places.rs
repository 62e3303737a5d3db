//! Where the bundles and reports of finished runs lie, for people.
//!
//! A finished run's places never change, so each is asked for once. The store may be down or slow: a
//! status that waits for it would tell nothing at all, so it goes without what is not there in time.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clade_core::ids::RunName;
use clade_store::{Store, keys};
use futures::{StreamExt as _, stream};

/// How long a status waits for stores, all of them together.
const PATIENCE: Duration = Duration::from_secs(1);

/// Stores asked at a time.
const AT_ONCE: usize = 32;

/// Runs whose places are remembered.
const MOST_KNOWN: usize = 10_000;

/// What finished runs' stores have told.
#[derive(Default)]
pub(super) struct Places {
    /// Places of bundle and report.
    known: Mutex<BTreeMap<RunName, (String, String)>>,
}

impl Places {
    /// Bundle and report of each run, by name; a bundle is empty if its store did not tell in time.
    pub(super) async fn of(
        &self,
        stores: BTreeMap<RunName, String>,
    ) -> BTreeMap<String, (String, String)> {
        let (mut told, mut asked) = (BTreeMap::new(), Vec::new());
        for (run, uri) in stores {
            let known = self.lock().get(&run).cloned();
            match (known, Store::open(&uri)) {
                (Some(known), _) => drop(told.insert(run.to_string(), known)),
                (None, Ok(store)) => {
                    let without = (String::new(), report(&run, &store));
                    told.insert(run.to_string(), without);
                    asked.push((run, store));
                }
                (None, Err(_)) => (),
            }
        }
        let looks = asked.into_iter().map(|(run, store)| async move {
            let places = look(&run, &store).await;
            (run, places)
        });
        let looks = stream::iter(looks).buffer_unordered(AT_ONCE);
        let mut looks = std::pin::pin!(looks.take_until(tokio::time::sleep(PATIENCE)));
        while let Some((run, (bundle, report))) = looks.next().await {
            let Some(bundle) = bundle else { continue };
            told.insert(run.to_string(), (bundle.clone(), report.clone()));
            let mut known = self.lock();
            if known.len() < MOST_KNOWN {
                known.insert(run, (bundle, report));
            }
        }
        told
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<RunName, (String, String)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bundle, if the store knows it, and the report.
pub(super) async fn look(run: &RunName, store: &Store) -> (Option<String>, String) {
    let pointer = store.get(&keys::bundle_pointer(run)).await.ok();
    let bundle = pointer
        .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
        .and_then(|pointer| Some(show(store, pointer.get("key")?.as_str()?)));
    (bundle, report(run, store))
}

fn report(run: &RunName, store: &Store) -> String {
    show(store, &keys::report_md(run))
}

fn show(store: &Store, key: &str) -> String {
    store.local_path(key).map_or_else(|| key.to_owned(), |path| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::Instant;

    use super::*;

    /// Makes a bundle pointer that is there.
    async fn finished(folder: &std::path::Path, run: &RunName) -> String {
        let uri = format!("file://{}", folder.display());
        let store = Store::open(&uri).unwrap();
        let pointer = br#"{"key": "runs/x/bundle/ab12"}"#.to_vec();
        store.put(&keys::bundle_pointer(run), pointer).await.unwrap();
        uri
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn stores_that_do_not_answer_cost_a_status_a_second_however_many_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let (here, away): (RunName, RunName) = ("here".parse().unwrap(), "away".parse().unwrap());
        let mut stores = BTreeMap::from([(here.clone(), finished(folder.path(), &here).await)]);
        // Reading a pipe that nobody writes to is how a dead mount looks.
        for nth in 0..20 {
            let run: RunName = format!("{away}-{nth}").parse().unwrap();
            let root = folder.path().join(run.to_string());
            let pointer = root.join(keys::bundle_pointer(&run));
            std::fs::create_dir_all(pointer.parent().unwrap()).unwrap();
            let pipe = folder.path().join("pipe");
            if nth == 0 {
                nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
            }
            symlink(&pipe, &pointer).unwrap();
            stores.insert(run, format!("file://{}", root.display()));
        }
        let places = Places::default();
        let began = Instant::now();
        let told = places.of(stores.clone()).await;
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        assert!(told["here"].0.ends_with("runs/x/bundle/ab12"), "{told:?}");
        assert_eq!(told["away-7"].0, "");
        assert!(told["away-7"].1.ends_with("runs/away-7/evaluate/report.md"), "{told:?}");
        // What was told once is not asked for again.
        std::fs::remove_dir_all(folder.path().join("runs")).unwrap();
        let again = places.of([(here.clone(), stores[&here].clone())].into()).await;
        assert_eq!(again["here"], told["here"]);
        // Lets the readers go, which the runtime would wait for.
        let pipe = std::fs::OpenOptions::new().write(true).open(folder.path().join("pipe"));
        drop(pipe);
    }
}
