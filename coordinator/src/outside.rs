//! The engine's dealings with the object store, and the words it answers with.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use clade_core::ids::{CheckpointRef, Fence, RunName};
use clade_core::job::Failure;
use clade_core::schedule::{Event, Refusal, Start};
use clade_proto::v1;
use clade_store::{Store, StoreError, checkpoint};
use futures::FutureExt as _;
use tokio::sync::mpsc;
use tonic::Status;
use tracing::{error, info, warn};

/// Lists what an ended gang left; tries until the store answers, since nothing can be decided before,
/// and says in `troubles` why it has not.
pub(crate) async fn inspect(
    store: String,
    fence: Fence,
    troubles: mpsc::Sender<(Fence, String)>,
) -> Option<Event> {
    let model = fence.work.model()?;
    let (store, asked) = (store.as_str(), &fence);
    let newest = insist(&fence, &troubles, || async move {
        let store = Store::open(store)?;
        checkpoint::newest_candidate(&store, &asked.run, model, asked.incarnation).await
    });
    let newest = newest.await;
    info!(%fence, newest = newest.as_ref().map(tracing::field::display), "inspected");
    Some(Event::Inspected { fence, newest })
}

/// Looks until it finds out, whatever fails or panics on the way.
async fn insist<T, F>(
    fence: &Fence,
    troubles: &mpsc::Sender<(Fence, String)>,
    look: impl Fn() -> F,
) -> T
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut wait = Duration::from_millis(200);
    loop {
        // A defect met on one listing must not leave the work waiting until the next election.
        let why = match AssertUnwindSafe(look()).catch_unwind().await {
            Ok(Ok(found)) => return found,
            Ok(Err(error)) => {
                let why = format!("{}", Failure::from(error));
                warn!(%fence, why, "cannot list candidates; tries again");
                why
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                let why = format!("the inspection panicked: {}", text.unwrap_or("without a word"));
                error!(%fence, why, "inspects again");
                why
            }
        };
        // Said again after the next try if there is no room.
        troubles.try_send((fence.clone(), why)).ok();
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(10));
    }
}

/// Deletes checkpoints that nothing refers to any more. What cannot be deleted is left and said.
pub(crate) async fn collect(
    store: String,
    run: RunName,
    checkpoints: Vec<CheckpointRef>,
) -> Option<Event> {
    let removed = async {
        let store = Store::open(&store)?;
        for at in &checkpoints {
            checkpoint::remove(&store, &run, at).await?;
        }
        Ok::<(), StoreError>(())
    };
    if let Err(error) = removed.await {
        warn!(%run, %error, "cannot delete old checkpoints");
    }
    None
}

/// A start order as the wire has it.
pub(crate) fn start_rank(start: &Start) -> v1::StartRank {
    let Start {
        seat,
        fence,
        rank,
        ranks,
        store,
        resume,
        fallbacks,
        models,
        rendezvous,
        grace_ms,
        between_failures,
    } = start;
    v1::StartRank {
        fence: Some(fence.into()),
        slot: seat.slot,
        rank: *rank,
        ranks: *ranks,
        store: store.clone(),
        resume: resume.as_ref().map(Into::into),
        fallbacks: fallbacks.iter().map(Into::into).collect(),
        models: models.values().map(Into::into).collect(),
        rendezvous: rendezvous.as_ref().map(|meets| meets.tell().to_owned()),
        grace_ms: *grace_ms,
        between_failures_ms: between_failures.map(|it| it.0),
    }
}

pub(crate) fn unknown_run(run: &RunName) -> Status {
    Status::not_found(format!("no run `{run}`; `clade status` lists the runs there are"))
}

pub(crate) fn other_document(run: &RunName) -> Status {
    Status::failed_precondition(format!(
        "run `{run}` exists with another document: give this one another metadata.name, or apply \
         the document it was made from"
    ))
}

/// What an operator is told whose wish was not taken.
pub(crate) fn refused(why: &Refusal) -> Status {
    match why {
        Refusal::UnknownNode { .. } => {
            Status::not_found(format!("{why}; `clade workers` lists the nodes there are"))
        }
        Refusal::UnknownWork
        | Refusal::Superseded { .. }
        | Refusal::NeverStarted { .. }
        | Refusal::NotSeated
        | Refusal::NotYours { .. }
        | Refusal::BeyondDue { .. }
        | Refusal::UnknownWorker
        | Refusal::WorkerChanged => Status::failed_precondition(why.to_string()),
    }
}

/// A refusal's reason as the wire has it.
pub(crate) const fn refusal_reason(why: &Refusal) -> v1::RefusalReason {
    use v1::RefusalReason as Reason;
    match why {
        // Nobody was started under such a fence: whoever speaks so is a rank of nobody.
        Refusal::UnknownWork | Refusal::UnknownNode { .. } => Reason::UnknownWork,
        Refusal::Superseded { .. } => Reason::Superseded,
        Refusal::NeverStarted { .. } | Refusal::NotSeated => Reason::NotSeated,
        Refusal::NotYours { .. } => Reason::NotYours,
        Refusal::BeyondDue { .. } => Reason::BeyondDue,
        Refusal::UnknownWorker => Reason::UnknownWorker,
        Refusal::WorkerChanged => Reason::WorkerChanged,
    }
}

/// Whole microseconds of what a worker says took so many milliseconds; 0 if that is no time.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
pub(crate) fn micros(millis: f64) -> u64 {
    if millis.is_finite() { (millis * 1_000.0).clamp(0.0, 1e12) as u64 } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use clade_core::ids::{Incarnation, ModelId, WorkId};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_inspection_says_what_it_meets_and_goes_on_after_errors_and_panics() {
        let run: RunName = "a".parse().unwrap();
        let work = WorkId::Model(ModelId::Seed);
        let fence = Fence { run, work, incarnation: Incarnation(3) };
        let (troubles, mut told) = mpsc::channel(8);
        let tries = AtomicU32::new(0);
        let found = insist(&fence, &troubles, || async {
            match tries.fetch_add(1, Ordering::Relaxed) {
                0 => {
                    let (uri, reason) = ("s3://b".to_owned(), "credentials refused".to_owned());
                    Err(StoreError::Unusable { uri, reason })
                }
                1 => panic!("half a page"),
                _ => Ok(7),
            }
        });
        assert_eq!(found.await, 7);
        let (first, second) = (told.recv().await.unwrap(), told.recv().await.unwrap());
        assert!(first.1.contains("credentials refused"), "{first:?}");
        assert_eq!(second, (fence, "the inspection panicked: half a page".to_owned()));
    }
}
