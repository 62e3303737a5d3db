//! What can be read without leading: answered by the engine, and by a standby from its mirror.

use std::collections::BTreeMap;

use clade_core::ids::{Millis, RunName, Stage, WorkId};
use clade_core::schedule::{RunPhase, State};
use clade_core::spec::RunSpec;
use clade_proto::v1;
use tokio::sync::oneshot;

use crate::observed::Observed;
use crate::view;

/// A question with the place for its answer.
pub(crate) enum Question {
    Status {
        run: Option<RunName>,
        page: Page<RunName>,
        reply: oneshot::Sender<StatusTold>,
    },
    Find {
        run: RunName,
        reply: oneshot::Sender<Option<(RunSpec, RunPhase)>>,
    },
    Workers {
        page: Page<String>,
        reply: oneshot::Sender<v1::ListWorkersResponse>,
    },
    /// None if there is no such run.
    Jobs {
        run: RunName,
        stage: Option<Stage>,
        phase: String,
        page: Page<WorkId>,
        reply: oneshot::Sender<Option<v1::ListJobsResponse>>,
    },
}

/// A status, as far as the state tells it.
#[derive(Debug)]
pub(crate) struct StatusTold {
    pub(crate) status: v1::GetStatusResponse,
    /// Stores of the finished runs among them, which know where their bundles lie.
    pub(crate) stores: BTreeMap<RunName, String>,
}

/// A part of a long list: so many things after one.
#[derive(Clone, Debug)]
pub(crate) struct Page<T> {
    /// 0 for the default.
    pub(crate) size: u32,
    pub(crate) after: Option<T>,
}

impl<T> Page<T> {
    const DEFAULT: u32 = 200;
    const LARGEST: u32 = 1_000;

    /// Things on this page, at most.
    pub(crate) fn len(&self) -> usize {
        let size = if self.size == 0 { Self::DEFAULT } else { self.size.min(Self::LARGEST) };
        usize::try_from(size).expect("a page has at most a thousand things")
    }
}

/// An answer that waits to be sent.
pub(crate) type Reply = Box<dyn FnOnce() + Send>;

impl Question {
    /// Answers from `state`. Whoever asked may be gone.
    pub(crate) fn answer(self, state: &State, observed: &Observed, now: Millis) -> Reply {
        match self {
            Self::Status { run, page, reply } => {
                let told = view::status(state, observed, now, run.as_ref(), &page);
                Box::new(move || drop(reply.send(told)))
            }
            Self::Workers { page, reply } => {
                let workers = view::workers_page(state, &page);
                Box::new(move || drop(reply.send(workers)))
            }
            Self::Jobs { run, stage, phase, page, reply } => {
                let jobs = view::jobs_page(state, observed, now, &run, stage, &phase, &page);
                Box::new(move || drop(reply.send(jobs)))
            }
            Self::Find { run, reply } => {
                let found = state.runs.get(&run);
                let found = found.map(|run| (run.head.spec.clone(), run.head.phase.clone()));
                Box::new(move || drop(reply.send(found)))
            }
        }
    }
}
