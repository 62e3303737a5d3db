//! The leader's lease: kept alive, and given up by our own clock before etcd's can run out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::members::Members;

/// How long etcd waits for a sign of life before somebody else may lead: long enough for etcd to
/// elect a leader of its own on a busy machine, short enough to be replaced within 10 s.
pub(super) const LIFE: Duration = Duration::from_secs(6);

/// How long this process acts after its last confirmed sign of life. Counted from before that was
/// sent, so it ends before etcd's own count does, whatever the clocks' rates within a tenth.
const ACTS: Duration = Duration::from_millis(5_400);

const BETWEEN: Duration = Duration::from_millis(1_500);
const PATIENCE: Duration = Duration::from_secs(1);
const AFTER_TROUBLE: Duration = Duration::from_millis(200);

/// A lease that is kept alive while this lives.
pub(super) struct Lease {
    until: Arc<Mutex<Instant>>,
    lost: CancellationToken,
    /// Ends with this.
    _keeper: AbortOnDropHandle<()>,
}

impl Lease {
    /// Keeps `id` alive, which was granted by a request sent at `asked`.
    pub(super) fn keep(members: Arc<Members>, id: i64, asked: Instant) -> Self {
        let until = Arc::new(Mutex::new(asked + ACTS));
        let lost = CancellationToken::new();
        let keeper = keep(members, id, Arc::clone(&until), lost.clone());
        Self { until, lost, _keeper: AbortOnDropHandle::new(tokio::spawn(keeper)) }
    }

    pub(super) fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Whether it is held by our own clock, right now.
    pub(super) fn is_held(&self) -> bool {
        !self.lost.is_cancelled() && Instant::now() < read(&self.until)
    }
}

fn read(until: &Mutex<Instant>) -> Instant {
    *until.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn keep(members: Arc<Members>, id: i64, until: Arc<Mutex<Instant>>, lost: CancellationToken) {
    loop {
        let end = read(&until);
        let asked = Instant::now();
        // All members at once: one that is stopped must not use up the time there is.
        let renewal = members.ask_all(PATIENCE, |client| async move {
            match client.lease_client().keep_alive(id).await {
                Ok(_) => Ok(true),
                Err(Error::LeaseKeepAliveError(_)) => Ok(false),
                Err(error) => Err(error),
            }
        });
        let wait = match tokio::time::timeout_at(end, renewal).await {
            Ok(Ok(true)) => {
                *until.lock().unwrap_or_else(PoisonError::into_inner) = asked + ACTS;
                BETWEEN
            }
            Ok(Ok(false)) => {
                warn!("etcd has let the leader's lease run out");
                break;
            }
            Ok(Err(trouble)) => {
                debug!(%trouble, "cannot renew the leader's lease; tries again");
                AFTER_TROUBLE
            }
            Err(_) => break,
        };
        if tokio::time::timeout_at(read(&until), tokio::time::sleep(wait)).await.is_err() {
            break;
        }
    }
    lost.cancel();
}
