//! What can be read without leading: answered by the engine, and by a standby from its mirror.

use clade_core::ids::{Millis, RunName};
use clade_core::schedule::{RunPhase, State};
use clade_core::spec::RunSpec;
use clade_proto::v1;
use tokio::sync::oneshot;

use crate::observed::Observed;
use crate::view;

/// A question with the place for its answer.
pub(crate) enum Question {
    Status { run: Option<RunName>, reply: oneshot::Sender<v1::GetStatusResponse> },
    Find { run: RunName, reply: oneshot::Sender<Option<(RunSpec, RunPhase)>> },
}

/// An answer that waits to be sent.
pub(crate) type Reply = Box<dyn FnOnce() + Send>;

impl Question {
    /// Answers from `state`. Whoever asked may be gone.
    pub(crate) fn answer(self, state: &State, observed: &Observed, now: Millis) -> Reply {
        match self {
            Self::Status { run, reply } => {
                let status = view::status(state, observed, now, run.as_ref());
                Box::new(move || drop(reply.send(status)))
            }
            Self::Find { run, reply } => {
                let found = state.runs.get(&run);
                let found = found.map(|run| (run.head.spec.clone(), run.head.phase.clone()));
                Box::new(move || drop(reply.send(found)))
            }
        }
    }
}
