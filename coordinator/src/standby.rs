//! A coordinator that does not lead: it mirrors the state, answers reads and says who leads.
//!
//! It decides nothing and writes nothing.

use std::time::{Duration, Instant};

use clade_core::ids::Term;
use clade_core::schedule::State;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::metadata::AsciiMetadataValue;
use tracing::{info, warn};

use crate::engine::now;
use crate::metrics::Metrics;
use crate::observed::Observed;
use crate::question::Question;
use crate::state::{Change, Follow, Leader, Rows, codec};

/// How often it is said that this process follows.
const LOOK: Duration = Duration::from_secs(3);

/// Response metadata that names where the leader is.
pub(crate) const LEADER: &str = "clade-leader";

/// A handle to a standby; cheap to clone.
#[derive(Clone)]
pub(crate) struct Standby {
    questions: mpsc::Sender<Question>,
    leader: watch::Receiver<Option<Leader>>,
}

impl Standby {
    /// Starts to mirror what `follow` tells, until the task is dropped.
    pub(crate) fn start(
        follow: Box<dyn Follow>,
        metrics: Metrics,
    ) -> (Self, AbortOnDropHandle<()>) {
        let (questions, asked) = mpsc::channel(256);
        let (told, leader) = watch::channel(None);
        let task = tokio::spawn(run(follow, asked, told, metrics));
        (Self { questions, leader }, AbortOnDropHandle::new(task))
    }

    /// Asks the mirror.
    pub(crate) async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Question,
    ) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        let unavailable =
            || Status::unavailable("this standby has not read the state yet; try again");
        self.questions.send(question(reply)).await.map_err(|_| unavailable())?;
        answer.await.map_err(|_| unavailable())
    }

    /// What anybody is told who wants more than to read.
    pub(crate) fn refusal(&self) -> Status {
        refusal(self.leader.borrow().as_ref())
    }
}

/// "Not me", with the address to try instead if it is known.
fn refusal(leader: Option<&Leader>) -> Status {
    let Some(leader) = leader else {
        return Status::unavailable("this coordinator is a standby and none leads yet; try again");
    };
    let url = &leader.address;
    let mut status = Status::unavailable(format!("this coordinator is a standby; {url} leads"));
    if let Ok(url) = AsciiMetadataValue::try_from(url) {
        status.metadata_mut().insert(LEADER, url);
    }
    status
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

    fn take(&mut self, change: Change, told: &watch::Sender<Option<Leader>>) {
        self.decoded = None;
        let leader = match change {
            Change::Anew { rows, leader } => {
                self.rows = Some(rows);
                leader
            }
            Change::Writes(writes) => {
                if let Some(rows) = &mut self.rows {
                    writes.into_iter().for_each(|write| write.apply(rows));
                }
                return;
            }
            Change::Leader(leader) => leader,
        };
        if let Some(leader) = &leader {
            self.term = leader.term;
        }
        if *told.borrow() != leader {
            match &leader {
                Some(Leader { address, term }) => info!(address, %term, "stands by"),
                None => info!("stands by; nobody leads"),
            }
        }
        told.send_replace(leader);
    }
}

async fn run(
    mut follow: Box<dyn Follow>,
    mut asked: mpsc::Receiver<Question>,
    told: watch::Sender<Option<Leader>>,
    metrics: Metrics,
) {
    let (mut mirror, observed) = (Mirror::default(), Observed::default());
    let mut looks = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = looks.tick() => if mirror.rows.is_some() && told.borrow().is_some() {
                metrics.follows(mirror.term.0, Instant::now());
            } else {
                metrics.lost_the_lead();
            },
            change = follow.next() => mirror.take(change, &told),
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
