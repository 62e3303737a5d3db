//! What an agent does when the coordinator does not take what it said.

use std::collections::BTreeMap;

use clade_core::ids::Fence;
use clade_proto::PROTOCOL;
use clade_proto::convert::WireError;
use clade_proto::v1::{RefusalReason, Refused};

use super::state::{Agent, Phase};
use super::watch::Wish;

/// How often each reason was heard.
#[derive(Debug, Default)]
pub(super) struct Refusals(BTreeMap<RefusalReason, u64>);

impl Refusals {
    fn count(&mut self, reason: RefusalReason) -> u64 {
        let count = self.0.entry(reason).or_default();
        *count += 1;
        *count
    }
}

impl Agent {
    pub(super) fn refused(&mut self, refused: &Refused) -> Result<(), WireError> {
        let fence = refused.to_core()?;
        let (reason, message) = (refused.reason(), refused.message.as_str());
        let count = self.refusals.count(reason);
        let about = fence.as_ref().map(tracing::field::display);
        let name = reason.as_str_name();
        tracing::warn!(fence = about, reason = name, message, count, "refused");
        match reason {
            RefusalReason::UnknownWork
            | RefusalReason::Superseded
            | RefusalReason::NotSeated
            | RefusalReason::NotYours => {
                if let Some(fence) = fence {
                    self.kill_zombies(&fence, name);
                }
            }
            // The hello of the next stream makes it known.
            RefusalReason::UnknownWorker => self.hang_up(),
            RefusalReason::Protocol => self.give_up(format!(
                "the coordinator refuses this agent, which speaks version {PROTOCOL} of the \
                 protocol ({message}): install the clade-worker of the coordinator's version"
            )),
            RefusalReason::WorkerChanged => self.give_up(format!(
                "the coordinator refuses this agent, because another one has said the id {} before, \
                 or its node or slots changed ({message}): start it again, which gives it another \
                 id, and give every agent a --state of its own",
                self.worker()
            )),
            RefusalReason::Unspecified
            | RefusalReason::BeyondDue
            | RefusalReason::Flood
            | RefusalReason::Malformed
            | RefusalReason::Identity => (),
        }
        Ok(())
    }

    /// Ranks that nobody expects must not go on computing, or writing.
    fn kill_zombies(&self, refused: &Fence, reason: &str) {
        for (key, live) in self.live.iter().filter(|(key, _)| key.fence == *refused) {
            let (fence, rank, pid) = (&key.fence, key.rank, live.pid);
            tracing::warn!(%fence, rank, pid, reason, "killing a rank that was refused");
            live.wish(Wish::Kill);
        }
    }

    /// Leaves for good: whoever starts it again must change something first.
    fn give_up(&mut self, why: String) {
        if self.verdict.is_some() {
            return;
        }
        if self.live.is_empty() {
            self.phase = Phase::Finished;
        } else {
            self.leave("refused");
        }
        self.verdict = Some(why);
    }
}
