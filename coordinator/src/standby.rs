//! A coordinator that does not lead: it mirrors the state, answers reads and says who leads.
//!
//! It decides nothing and writes nothing. Following has a task of its own, so that no question and no
//! tick makes it begin anew. A copy of the state that nobody has confirmed for long is kept and not
//! shown: whoever asks is told how old it is.

use std::time::Instant;

use clade_core::ids::Term;
use clade_core::schedule::State;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::metadata::AsciiMetadataValue;
use tracing::{info, warn};

use crate::engine::now;
use crate::metrics::{Metrics, STALE};
use crate::observed::Observed;
use crate::question::Question;
use crate::state::{Change, Follow, Leader, Rows, codec};

/// Changes that may wait while a question is answered.
const CHANGES: usize = 256;

/// Response metadata that names where the leader is.
pub(crate) const LEADER: &str = "clade-leader";

/// A handle to a standby; cheap to clone.
#[derive(Clone)]
pub(crate) struct Standby {
    questions: mpsc::Sender<Question>,
    known: watch::Receiver<Known>,
}

/// What a standby knows of the cluster.
#[derive(Clone, Debug, Default, PartialEq)]
struct Known {
    leader: Option<Leader>,
    /// The copy of the state is as the state was then.
    as_of: Option<Instant>,
}

impl Standby {
    /// Starts to mirror what `follow` tells, until the task is dropped.
    pub(crate) fn start(
        follow: Box<dyn Follow>,
        metrics: Metrics,
    ) -> (Self, AbortOnDropHandle<()>) {
        let (questions, asked) = mpsc::channel(256);
        let (told, known) = watch::channel(Known::default());
        let task = tokio::spawn(run(follow, asked, told, metrics));
        (Self { questions, known }, AbortOnDropHandle::new(task))
    }

    /// Asks the mirror, unless what it shows is too old to be shown.
    pub(crate) async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Question,
    ) -> Result<T, Status> {
        let since = self.known.borrow().as_of.map(|as_of| as_of.elapsed());
        if let Some(since) = since.filter(|since| *since > STALE) {
            return Err(self.hinting(Status::unavailable(format!(
                "this standby's copy of the state is {since:.0?} old, and the state's store does not \
                 confirm it: ask another coordinator"
            ))));
        }
        let (reply, answer) = oneshot::channel();
        let unavailable =
            || Status::unavailable("this standby has not read the state yet; try again");
        self.questions.send(question(reply)).await.map_err(|_| unavailable())?;
        answer.await.map_err(|_| unavailable())
    }

    /// What anybody is told who wants more than to read.
    pub(crate) fn refusal(&self) -> Status {
        let status = match self.leader() {
            Some(Leader { address, .. }) => {
                Status::unavailable(format!("this coordinator is a standby; {address} leads"))
            }
            None => {
                Status::unavailable("this coordinator is a standby and none leads yet; try again")
            }
        };
        self.hinting(status)
    }

    /// Who leads, as far as it knows.
    pub(crate) fn leader(&self) -> Option<Leader> {
        self.known.borrow().leader.clone()
    }

    /// The same with the address to try instead, if it is known.
    fn hinting(&self, mut status: Status) -> Status {
        let url = self.leader().map(|leader| leader.address);
        if let Some(Ok(url)) = url.map(AsciiMetadataValue::try_from) {
            status.metadata_mut().insert(LEADER, url);
        }
        status
    }
}

/// The rows as told, and what they stand for once somebody asks.
#[derive(Default)]
struct Mirror {
    rows: Option<Rows>,
    decoded: Option<State>,
    term: Term,
}

impl Mirror {
    fn state(&mut self) -> Option<&State> {
        if self.decoded.is_none() {
            let decoded = codec::decode(self.rows.as_ref()?, self.term);
            self.decoded = decoded
                .inspect_err(|error| warn!(%error, "cannot read the state that is followed"))
                .ok();
        }
        self.decoded.as_ref()
    }

    fn take(&mut self, change: Change, told: &watch::Sender<Known>) {
        let leader = match change {
            Change::Confirmed { as_of } => {
                told.send_modify(|known| known.as_of = Some(as_of));
                return;
            }
            Change::Anew { rows, leader } => {
                self.rows = Some(rows);
                leader
            }
            Change::Writes(writes) => {
                self.decoded = None;
                if let Some(rows) = &mut self.rows {
                    writes.into_iter().for_each(|write| write.apply(rows));
                }
                return;
            }
            Change::Leader(leader) => leader,
        };
        self.decoded = None;
        if let Some(leader) = &leader {
            self.term = leader.term;
        }
        if told.borrow().leader != leader {
            match &leader {
                Some(Leader { address, term }) => info!(address, %term, "stands by"),
                None => info!("stands by; nobody leads"),
            }
        }
        told.send_modify(|known| known.leader = leader);
    }

    /// Tells the kubelet whether to ask this process.
    fn say(&self, known: &Known, metrics: &Metrics) {
        match (&self.rows, known) {
            (Some(_), Known { leader: Some(leader), as_of: Some(as_of) }) => {
                metrics.follows(leader.term.0, *as_of);
            }
            (Some(_) | None, Known { leader: Some(_) | None, as_of: Some(_) | None }) => {
                metrics.lost_the_lead();
            }
        }
    }
}

async fn run(
    mut follow: Box<dyn Follow>,
    mut asked: mpsc::Receiver<Question>,
    told: watch::Sender<Known>,
    metrics: Metrics,
) {
    let (mut mirror, observed) = (Mirror::default(), Observed::nothing());
    let (changes, mut changed) = mpsc::channel(CHANGES);
    // Ends with this.
    let mut following = JoinSet::new();
    following.spawn(async move { while changes.send(follow.next().await).await.is_ok() {} });
    loop {
        tokio::select! {
            change = changed.recv() => match change {
                Some(change) => {
                    mirror.take(change, &told);
                    mirror.say(&told.borrow(), &metrics);
                }
                // It panicked; nobody is shown what nobody follows any more.
                None => return,
            },
            question = asked.recv() => match question {
                // Unread yet: the question is dropped, and whoever asked is told to try again.
                Some(question) => if let Some(state) = mirror.state() {
                    question.answer(state, &observed, now())();
                },
                None => return,
            },
        }
    }
}

#[cfg(test)]
mod tests;
