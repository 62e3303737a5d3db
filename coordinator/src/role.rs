//! Whether this process leads or stands by, as the services are told, and the loop that changes it.
//!
//! A coordinator campaigns all its life. Once it leads it loads the state and starts an engine;
//! when it loses the lead it forgets everything and stands by again. It ends only when it is told
//! to, or when only people can help.

use std::time::Instant;

use anyhow::Context as _;
use clade_core::schedule::Limits;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{error, info, warn};

use crate::engine::{self, Ended, Engine};
use crate::metrics::Metrics;
use crate::question::Question;
use crate::standby::Standby;
use crate::state::{self, Backend, Lead, LeadError, Options, codec};

/// What this process is at the moment.
#[derive(Clone)]
pub(crate) enum Role {
    /// It has not reached its state yet.
    Starting,
    Standby(Standby),
    Leading(Engine),
}

/// How the services see the role; cheap to clone.
#[derive(Clone)]
pub(crate) struct Roles(watch::Receiver<Role>);

impl Roles {
    pub(crate) fn new() -> (watch::Sender<Role>, Self) {
        let (sender, receiver) = watch::channel(Role::Starting);
        (sender, Self(receiver))
    }

    /// The engine, or who leads instead.
    pub(crate) fn engine(&self) -> Result<Engine, Status> {
        match &*self.0.borrow() {
            Role::Starting => Err(starting()),
            Role::Standby(standby) => Err(standby.refusal()),
            Role::Leading(engine) => Ok(engine.clone()),
        }
    }

    /// Who leads instead of this process, if it stands by and knows.
    pub(crate) fn leader_elsewhere(&self) -> Option<String> {
        match &*self.0.borrow() {
            Role::Standby(standby) => standby.leader().map(|leader| leader.address),
            Role::Starting | Role::Leading(_) => None,
        }
    }

    /// What to say instead of `status`, which a leader might not have to say: its disk may hold what a
    /// standby's does not.
    pub(crate) fn or_leader(&self, status: Status) -> Status {
        self.engine().err().unwrap_or(status)
    }

    /// Asks what a standby may answer, too.
    pub(crate) async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Question,
    ) -> Result<T, Status> {
        let role = self.0.borrow().clone();
        match role {
            Role::Starting => Err(starting()),
            Role::Standby(standby) => standby.ask(question).await,
            Role::Leading(engine) => {
                engine.ask(|reply| engine::Command::Ask(question(reply))).await
            }
        }
    }
}

fn starting() -> Status {
    Status::unavailable("this coordinator has not reached its state yet; try again")
}

/// Campaigns, leads and stands by in turn until `shutdown`.
pub(crate) async fn run(
    options: Options,
    limits: Limits,
    role: watch::Sender<Role>,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let backend = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        opened = state::open(&options) => opened?,
    };
    while !shutdown.is_cancelled() {
        let lead = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            lead = stand_by(backend.as_ref(), &role, &metrics) => lead?,
        };
        let led = lead_on(lead, limits, &role, &metrics, &shutdown).await;
        metrics.lost_the_lead();
        match led {
            Ok(()) => (),
            Err(LeadError::Deposed { term, why }) => warn!(%term, why, "steps down and stands by"),
            // A defect of ours, or a lie that got past every check: no reason to leave the others alone.
            Err(error @ (LeadError::TooLarge { .. } | LeadError::TooManyKeys { .. })) => {
                error!(%error, "forgets what it decided last, steps down and stands by");
            }
            Err(error) => return Err(error).context("cannot lead"),
        }
    }
    Ok(())
}

/// Mirrors the state until this process leads.
async fn stand_by(
    backend: &dyn Backend,
    role: &watch::Sender<Role>,
    metrics: &Metrics,
) -> Result<Box<dyn Lead>, state::OpenError> {
    let (standby, _mirroring) = Standby::start(backend.follow(), metrics.clone());
    role.send_replace(Role::Standby(standby));
    backend.campaign().await
}

async fn lead_on(
    mut lead: Box<dyn Lead>,
    limits: Limits,
    role: &watch::Sender<Role>,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> Result<(), LeadError> {
    let rows = lead.load().await?;
    let state = codec::decode(&rows, lead.term())?;
    let term = lead.term();
    info!(%term, runs = state.runs.len(), workers = state.workers.len(), "takes the lead");
    metrics.leads(term.0, Instant::now());
    let (engine, task) = engine::new(lead, limits, state, metrics.clone());
    role.send_replace(Role::Leading(engine));
    match task.run(shutdown).await? {
        Ended::Shutdown(lead) => {
            lead.resign().await;
            info!(%term, "gave the lead up");
        }
        Ended::Deposed => {
            let why = "its lease ran out".to_owned();
            return Err(LeadError::Deposed { term, why });
        }
    }
    Ok(())
}
