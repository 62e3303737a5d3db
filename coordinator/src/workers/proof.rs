//! Whether a checkpoint that a worker reports is in the store: its word alone would make good ones count as
//! superseded, and those are deleted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clade_core::ids::{Fence, RunName};
use clade_core::schedule::Event;
use clade_store::{Store, checkpoint};
use tracing::warn;

use crate::engine::{Command, Engine};
use crate::question::Question;

/// For the store's answer. Reports behind this one wait too.
const PATIENCE: Duration = Duration::from_secs(3);
/// For which a store that did not answer is not asked again, so that exits are not told late for it.
const REST: Duration = Duration::from_secs(30);

/// The stores that one worker's checkpoints lie in.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    stores: BTreeMap<RunName, Store>,
    rests_until: Option<Instant>,
}

impl Proofs {
    /// Why an event must not count, if it speaks of a checkpoint that is not there as it is said to be.
    ///
    /// A store that does not answer proves nothing against the worker: its checkpoint would be found
    /// when its gang ends anyway, and the operator would see no progress until then.
    pub(super) async fn refuse(
        &mut self,
        engine: &Engine,
        event: &Event,
    ) -> Option<(Fence, String)> {
        let Event::CheckpointReported { fence, checkpoint: at, .. } = event else { return None };
        if self.rests_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let store = self.store(engine, &fence.run).await?;
        match tokio::time::timeout(PATIENCE, checkpoint::read(store, &fence.run, at)).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) if error.is_bad_artefact() => {
                Some((fence.clone(), format!("{at} is not in the store as reported: {error}")))
            }
            Ok(Err(error)) => {
                warn!(%fence, %error, "cannot look at a checkpoint, and takes the worker's word");
                None
            }
            Err(_) => {
                warn!(%fence, "the store does not answer: takes the worker's word for a checkpoint");
                self.rests_until = Some(Instant::now() + REST);
                None
            }
        }
    }

    async fn store(&mut self, engine: &Engine, run: &RunName) -> Option<&Store> {
        if !self.stores.contains_key(run) {
            let find = |reply| Command::Ask(Question::Find { run: run.clone(), reply });
            // An unknown run is refused by the scheduler.
            let (spec, _) = engine.ask(find).await.ok()??;
            self.stores.insert(run.clone(), Store::open(&spec.spec.store).ok()?);
        }
        self.stores.get(run)
    }
}
