//! The ranks of one gang as one of them sees it: how they meet, and what they agree on.

use std::sync::Arc;
use std::time::Duration;

use clade_core::job::Failure;
use clade_core::rendezvous::Rendezvous;
use clade_model::collective::{Collective, CollectiveError, Solo};
use clade_model::device::{self, Placement, Precision};
use clade_model::nccl::NcclError;

use crate::collective::{
    Exchange, MeetError, Meeting, OnGpus, Patience, Place, Secret, Waited, Watched, join,
};
use crate::context::{Context, Ending};
use crate::rank::Uplink;

const MEETING_PATIENCE: Duration = Duration::from_secs(60);

/// What a rank wants to do before the next step, and then what all of them do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Signs {
    pub(super) stop: bool,
    pub(super) save: bool,
}

pub(super) struct Gang {
    rank: u32,
    collective: Box<dyn Collective>,
    waited: Waited,
    /// By whom sums over ranks are made, and in which order.
    sums: &'static str,
}

impl Gang {
    /// Meets the other ranks.
    pub(super) fn gather(
        context: &Context,
        placement: Placement,
        uplink: &Uplink,
    ) -> Result<Self, Ending> {
        let job = &context.job;
        let rank = job.rank;
        if job.ranks == 1 {
            let waited = Waited::default();
            return Ok(Self { rank, collective: Box::new(Solo), waited, sums: "none" });
        }
        let place = Place { fence: job.fence().to_string(), rank, ranks: job.ranks };
        let patience = Patience::new(MEETING_PATIENCE, Arc::clone(&context.stop));
        let ring = if rank == 0 {
            let given = job.rendezvous.clone().unwrap_or_else(|| "127.0.0.1:0".into());
            // By hand the secret is what the job files say; an agent's gang gets a fresh one.
            let secret = if uplink.has_agent() { Secret::draw() } else { Secret::of(&given) };
            Meeting::listen(given.address()).and_then(|meeting| {
                let address = meeting.address().to_string();
                uplink.post_rendezvous(Rendezvous::new(&address, secret.as_str()));
                meeting.host(&place, &secret, &patience)
            })
        } else {
            let meets = match &job.rendezvous {
                Some(meets) => meets.clone(),
                None => uplink.await_rendezvous(MEETING_PATIENCE)?,
            };
            if uplink.has_agent() && meets.secret().is_empty() {
                let message = "it was told where its gang meets, and not the gang's secret";
                return Err(Failure::Launch { rank, message: message.to_owned() }.into());
            }
            join(meets.address(), &place, &Secret::of(&meets), &patience)
        };
        let ring = ring.map_err(|error| not_met(rank, &error))?;
        tracing::info!(rank, ranks = job.ranks, "the gang has met");
        let waited = ring.waited();
        let last = uplink.last_exchange();
        let brought = OnGpus::bring_up(ring, placement.device);
        let exchange = brought.map_err(|error| not_brought_up(rank, &error))?;
        let (collective, sums): (Box<dyn Collective>, _) = match exchange {
            Exchange::ByNccl(gpus) => {
                tracing::info!(rank, ?gpus, "exchanging tensors where they lie");
                (Box::new(Watched::new(*gpus, last)), "nccl, in buckets of 32 MB")
            }
            Exchange::ThroughHost { ring, why } => {
                if let Some(why) = why.filter(|_| placement.device.is_cuda()) {
                    tracing::warn!(rank, %why, "exchanging through host memory, which is slow");
                }
                (Box::new(Watched::new(ring, last)), "ring, by rank, in buckets of 32 MB")
            }
        };
        Ok(Self { rank, collective, waited, sums })
    }

    /// By whom sums over ranks are made, and in which order.
    pub(super) const fn sums(&self) -> &'static str {
        self.sums
    }

    /// How long this rank has waited for its peers since it was last asked.
    pub(super) fn take_waited(&self) -> Duration {
        self.waited.take()
    }

    pub(super) fn collective(&mut self) -> &mut dyn Collective {
        &mut *self.collective
    }

    /// All ranks do what any rank wants to.
    pub(super) fn agree(&mut self, own: Signs) -> Result<Signs, CollectiveError> {
        let Signs { stop, save } = own;
        let mut wishes = [stop, save].map(|wish| f32::from(u8::from(wish)));
        self.collective.all_reduce_sum(&mut wishes)?;
        let [stop, save] = wishes.map(|wishes| wishes > 0.0);
        Ok(Signs { stop, save })
    }

    /// Rank 0 tells all ranks a small number.
    pub(super) fn told(&mut self, own: u16) -> Result<u16, CollectiveError> {
        let mut number = [f32::from(own)];
        self.collective.broadcast(0, &mut number)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it was a u16 on rank 0"
        )]
        let told = number[0] as u16;
        Ok(told)
    }

    /// Refuses ranks that compute on other kinds of devices than the rest: they would end a step
    /// with other bits, and part at the first batch that is refused.
    pub(super) fn compare_devices(
        &mut self,
        context: &Context,
        placement: Placement,
    ) -> Result<(), Ending> {
        let own = [
            f32::from(u8::from(placement.device.is_cuda())),
            f32::from(u8::from(placement.precision == Precision::Bf16)),
        ];
        let mut all = Vec::new();
        let gathered = self.collective.all_gather(&own, &mut all);
        gathered.map_err(|error| self.broken(context, &error))?;
        if all.chunks_exact(own.len()).all(|other| other == own) {
            return Ok(());
        }
        let message = format!(
            "the ranks of this gang compute on different kinds of devices (rank {} on {}): give all \
             of its workers the same --device",
            self.rank,
            device::label(placement.device)
        );
        Err(Failure::Config { message }.into())
    }

    /// What a failed exchange means for this rank.
    pub(super) fn broken(&self, context: &Context, error: &CollectiveError) -> Ending {
        let rank = self.rank;
        if context.is_stopping() {
            // The others may leave a little earlier than this rank hears of it.
            tracing::info!(rank, %error, "the gang ended while stopping");
            return Ending::Stopped;
        }
        match error {
            CollectiveError::PeerLost { source, .. } => {
                tracing::warn!(rank, %error, cause = ?source, "the gang is broken");
                Failure::PeerLost { rank }.into()
            }
            CollectiveError::Timeout { .. } | CollectiveError::Damaged { .. } => {
                tracing::warn!(rank, %error, "the gang is broken");
                Failure::PeerLost { rank }.into()
            }
            CollectiveError::Mismatch { .. } | CollectiveError::Device { .. } => {
                Failure::Crashed { rank, message: error.to_string() }.into()
            }
            CollectiveError::Aborted => Ending::Stopped,
        }
    }
}

/// NCCL is there and does not come up.
fn not_brought_up(rank: u32, error: &NcclError) -> Ending {
    tracing::warn!(rank, %error, "the gang's GPUs do not come together");
    match error {
        NcclError::Collective(_) | NcclError::Timeout(_) => Failure::PeerLost { rank }.into(),
        NcclError::NotFound { .. }
        | NcclError::Unloadable { .. }
        | NcclError::TooOld { .. }
        | NcclError::Failed(_) => Failure::Launch { rank, message: error.to_string() }.into(),
    }
}

fn not_met(rank: u32, error: &MeetError) -> Ending {
    tracing::warn!(rank, %error, "the gang did not meet");
    match error {
        MeetError::Stopped => Ending::Stopped,
        MeetError::Timeout { .. } | MeetError::Peer { .. } => Failure::PeerLost { rank }.into(),
        MeetError::Bind { .. } | MeetError::Refused { .. } | MeetError::Impostor { .. } => {
            Failure::Launch { rank, message: error.to_string() }.into()
        }
    }
}
