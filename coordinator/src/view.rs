//! The state as operators see it: stages and models in the order of the data's flow.

use std::collections::BTreeMap;
use std::ops::Bound;

use clade_core::ids::{Fence, JobId, Millis, ModelId, NodeName, RunName, Stage, WorkId, WorkerId};
use clade_core::schedule::{
    Gang, Node, Offer, Phase, Run, RunPhase, State, Stop, StopFor, Trust, Work, Worker, why_waiting,
};
use clade_proto::v1;

use crate::observed::{Observed, Seen};
use crate::question::{Page, StatusTold};

/// Workers that a status shows; all of them are listed in pages.
const MOST_WORKERS: usize = 1_000;

/// Closed nodes that a status names.
const MOST_CLOSED: usize = 100;

/// Builds one page of the answer, for one run or for all.
pub(crate) fn status(
    state: &State,
    observed: &Observed,
    now: Millis,
    wanted: Option<&RunName>,
    page: &Page<RunName>,
) -> StatusTold {
    let from = page.after.clone().map_or(Bound::Unbounded, Bound::Excluded);
    let wanted = |(name, _): &(&RunName, &Run)| wanted.is_none_or(|wanted| wanted == *name);
    let mut rest = state.runs.range((from, Bound::Unbounded)).filter(wanted).peekable();
    let (mut runs, mut stores) = (Vec::new(), BTreeMap::new());
    for (name, run) in rest.by_ref().take(page.len()) {
        if run.head.phase == RunPhase::Finished {
            stores.insert(name.clone(), run.head.spec.spec.store.clone());
        }
        runs.push(run_status(state, observed, now, run));
    }
    let last = runs.last().filter(|_| rest.peek().is_some());
    let next_page_token = last.map(|run| run.run.clone()).unwrap_or_default();
    let is_first = page.after.is_none();
    let closed = || state.nodes.iter().filter_map(|(name, node)| closed_node(name, node));
    let status = v1::GetStatusResponse {
        term: state.term.0,
        runs,
        workers: if is_first { workers(state) } else { Vec::new() },
        next_page_token,
        is_mirror: observed.is_mirror(),
        leader: String::new(),
        closed_nodes: if is_first { closed().take(MOST_CLOSED).collect() } else { Vec::new() },
        closed_node_count: u32::try_from(closed().count()).unwrap_or(u32::MAX),
    };
    StatusTold { status, stores }
}

fn closed_node(name: &NodeName, node: &Node) -> Option<v1::ClosedNode> {
    let (state, why, until_ms) = match (&node.cordoned, &node.trust) {
        (Some(why), _) if node.draining => ("draining", why.clone(), 0),
        (Some(why), _) => ("cordoned", why.clone(), 0),
        (None, Trust::Quarantined { until }) => ("quarantined", String::new(), until.0),
        (None, Trust::Full | Trust::Retest) => return None,
    };
    Some(v1::ClosedNode { node: name.to_string(), state: state.to_owned(), why, until_ms })
}

fn workers(state: &State) -> Vec<v1::WorkerStatus> {
    let shown = state.workers.iter().take(MOST_WORKERS).map(|(id, worker)| v1::WorkerStatus {
        worker: id.to_string(),
        host: worker.offer.host.clone(),
        pid: worker.offer.pid,
        phase: worker_phase(worker).to_owned(),
        slots: worker.offer.slots,
        busy: busy(state, id),
    });
    shown.collect()
}

const fn worker_phase(worker: &Worker) -> &'static str {
    if worker.lost_at.is_some() { "detached" } else { "attached" }
}

fn busy(state: &State, worker: &WorkerId) -> u32 {
    u32::try_from(state.busy(worker)).unwrap_or(u32::MAX)
}

/// Workers by phase; every phase is named.
pub(crate) fn worker_counts(state: &State) -> [(&'static str, usize); 2] {
    let attached = state.workers.values().filter(|worker| worker.lost_at.is_none()).count();
    [("attached", attached), ("detached", state.workers.len() - attached)]
}

/// Works by phase; every phase is named.
pub(crate) fn work_counts(state: &State) -> Vec<(&'static str, usize)> {
    let names = ["waiting", "backoff", "running", "stopping", "done", "failed"];
    let mut counts: BTreeMap<&'static str, usize> = names.map(|name| (name, 0)).into();
    for work in state.runs.values().flat_map(|run| run.works.values()) {
        *counts.entry(phase_name(&work.phase, true)).or_default() += 1;
    }
    counts.into_iter().collect()
}

/// One page of the workers, in the order of their ids.
pub(crate) fn workers_page(state: &State, page: &Page<String>) -> v1::ListWorkersResponse {
    let after = page.after.clone().map(WorkerId);
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = state.workers.range((from, Bound::Unbounded));
    let shown = rest.by_ref().take(page.len());
    let workers: Vec<_> = shown.map(|(id, worker)| worker_info(state, id, worker)).collect();
    let last = workers.last().map(|info| info.worker.clone());
    let next_page_token = last.filter(|_| rest.next().is_some()).unwrap_or_default();
    v1::ListWorkersResponse { workers, next_page_token }
}

fn worker_info(state: &State, id: &WorkerId, worker: &Worker) -> v1::WorkerInfo {
    let Offer { node, host, domain, pid, slots, kind, memory_mib, labels, secret: _ } =
        &worker.offer;
    let known = state.nodes.get(node).cloned().unwrap_or_default();
    let quarantined_until_ms = match known.trust {
        Trust::Quarantined { until } => until.0,
        Trust::Full | Trust::Retest => 0,
    };
    let why = known.cordoned.clone().or_else(|| match known.trust {
        Trust::Full => None,
        Trust::Quarantined { .. } => Some("gangs kept failing here".to_owned()),
        Trust::Retest => Some("is retested: one work at a time".to_owned()),
    });
    let devices = (0..*slots).map(|slot| v1::Device {
        slot,
        kind: kind.clone(),
        memory_mib: *memory_mib,
        withdrawn: worker.withdrawn.get(&slot).cloned().unwrap_or_default(),
        ..v1::Device::default()
    });
    v1::WorkerInfo {
        worker: id.to_string(),
        node: node.to_string(),
        host: host.clone(),
        pid: *pid,
        domain: domain.clone(),
        labels: labels.clone().into_iter().collect(),
        phase: worker_phase(worker).to_owned(),
        slots: *slots,
        busy: busy(state, id),
        devices: devices.collect(),
        cordoned: known.cordoned.is_some(),
        draining: known.draining,
        quarantined_until_ms,
        why: why.unwrap_or_default(),
        straggler: known.slower_percent.is_some(),
    }
}

/// One page of a run's jobs, in the order of stages and parts; none if there is no such run.
pub(crate) fn jobs_page(
    state: &State,
    observed: &Observed,
    now: Millis,
    run: &RunName,
    stage: Option<Stage>,
    phase: &str,
    page: &Page<WorkId>,
) -> Option<v1::ListJobsResponse> {
    let run = state.runs.get(run)?;
    let view = RunView { state, observed, now, run };
    let from = page.after.map_or(Bound::Unbounded, Bound::Excluded);
    let wanted = run.works.range((from, Bound::Unbounded)).filter(|(id, work)| {
        let WorkId::Job(job) = id else { return false };
        stage.is_none_or(|stage| stage == job.stage)
            && (phase.is_empty() || phase_name(&work.phase, true) == phase)
    });
    let mut wanted = wanted.peekable();
    let mut jobs = Vec::new();
    let mut last = None;
    for (id, work) in wanted.by_ref().take(page.len()) {
        last = Some(*id);
        jobs.push(v1::JobStatus {
            work: id.to_string(),
            phase: phase_name(&work.phase, true).to_owned(),
            reason: view.reason(*id, work),
            incarnation: work.incarnation.0,
            restarts: work.restarts,
            ranks: view.ranks(*id, work),
        });
    }
    let next_page_token = last.filter(|_| wanted.peek().is_some());
    let next_page_token = next_page_token.map(|id| id.to_string()).unwrap_or_default();
    Some(v1::ListJobsResponse { jobs, next_page_token })
}

fn run_status(state: &State, observed: &Observed, now: Millis, run: &Run) -> v1::RunStatus {
    let (phase, reason) = match &run.head.phase {
        RunPhase::Active => ("active", String::new()),
        RunPhase::Stopping { then: StopFor::Cancel } => ("stopping", "cancelled".to_owned()),
        RunPhase::Stopping { then: StopFor::Failure { work, failure } } => {
            ("stopping", format!("{work}: {failure}"))
        }
        RunPhase::Stopping { then: StopFor::Resume } => {
            ("stopping", "goes on once its ranks have left".to_owned())
        }
        RunPhase::Finished => ("finished", String::new()),
        RunPhase::Failed { work, failure } => ("failed", format!("{work}: {failure}")),
        RunPhase::Cancelled => ("cancelled", String::new()),
    };
    let view = RunView { state, observed, now, run };
    let mut parts = Vec::new();
    for stage in Stage::ALL {
        if stage == Stage::Evaluate {
            parts.extend(run.plan().models().iter().filter_map(|model| view.model(*model)));
        }
        parts.push(view.stage(stage));
    }
    let eta_seconds = eta(&parts, state);
    v1::RunStatus {
        run: run.name().to_string(),
        phase: phase.to_owned(),
        reason,
        parts,
        bundle: String::new(),
        report: String::new(),
        created_ms: run.head.created.0,
        ended_ms: run.head.ended.map_or(0, |at| at.0),
        eta_seconds: if matches!(run.head.phase, RunPhase::Active) { eta_seconds } else { -1.0 },
    }
}

struct RunView<'a> {
    state: &'a State,
    observed: &'a Observed,
    now: Millis,
    run: &'a Run,
}

impl RunView<'_> {
    fn seen(&self, id: WorkId, work: &Work) -> Option<Seen> {
        let run = self.run.name().clone();
        let fence = Fence { run, work: id, incarnation: work.incarnation };
        work.gang().and_then(|_| self.observed.of(&fence))
    }

    fn ranks(&self, id: WorkId, work: &Work) -> Vec<v1::RankStatus> {
        let pid = self.seen(id, work).map_or(0, |seen| seen.pid);
        let alive = work.gang().into_iter().flat_map(Gang::alive);
        alive
            .map(|(rank, seat)| v1::RankStatus {
                worker: seat.worker.to_string(),
                slot: seat.slot,
                rank,
                pid: if rank == 0 { pid } else { 0 },
                work: id.to_string(),
            })
            .collect()
    }

    fn reason(&self, id: WorkId, work: &Work) -> String {
        let seats = |gang: &Gang| {
            let seats: Vec<String> = gang.alive().map(|(_, seat)| seat.to_string()).collect();
            seats.join(", ")
        };
        match &work.phase {
            Phase::Waiting | Phase::Backoff { .. } => {
                why_waiting(self.state, self.run.name(), id, self.now)
                    .map(|wait| wait.to_string())
                    .unwrap_or_default()
            }
            Phase::Running(gang) => format!("on {}", seats(gang)),
            Phase::Stopping { gang, cause } => {
                format!("waits for {} to leave{}", seats(gang), because(cause))
            }
            Phase::Inspecting { .. } => {
                let fence =
                    Fence { run: self.run.name().clone(), work: id, incarnation: work.incarnation };
                let looks = "looks for what the last gang left".to_owned();
                let trouble = self.observed.trouble_of(&fence);
                trouble.map_or(looks.clone(), |why| format!("{looks}; tries again after: {why}"))
            }
            Phase::Done => String::new(),
            Phase::Failed { failure } => failure.to_string(),
        }
    }

    fn model(&self, model: ModelId) -> Option<v1::PartStatus> {
        let id = WorkId::Model(model);
        let work = self.run.works.get(&id)?;
        let seen = self.seen(id, work);
        let due = self.run.due(model).0;
        let committed = work.committed_step().0;
        let first = if model == ModelId::Seed { 0 } else { self.run.due(ModelId::Seed).0 };
        let reached = seen.map_or(committed, |seen| seen.done.max(committed)).max(first);
        let rate = seen.map_or(0.0, |seen| seen.rate);
        // Only the leader hears how far a gang is.
        let phase = phase_name(&work.phase, seen.is_some() || self.observed.is_mirror());
        let mut reason = self.reason(id, work);
        let (ranks, most) = (self.ranks(id, work).len(), self.run.ranks(id));
        if matches!(work.phase, Phase::Running(_)) && ranks < most as usize {
            reason.push_str(&format!("; {ranks} of {most} ranks, for want of seats"));
        }
        if let (Phase::Running(_), Some(failure)) = (&work.phase, &work.last_failure) {
            reason.push_str(&format!("; restarted after: {failure}"));
        }
        Some(v1::PartStatus {
            name: model.to_string(),
            phase: phase.to_owned(),
            done: reached - first,
            total: due - first,
            unit: "steps".to_owned(),
            rate,
            eta_seconds: time_left(due.saturating_sub(reached), rate, phase),
            reason,
            incarnation: work.incarnation.0,
            committed_step: committed,
            loss: seen.map_or(0.0, |seen| seen.loss),
            restarts: work.restarts,
            ranks: self.ranks(id, work),
            counts: std::collections::HashMap::new(),
        })
    }

    /// All jobs of a stage as one part. Its progress is in jobs, a running one counting in part.
    fn stage(&self, stage: Stage) -> v1::PartStatus {
        let is_here =
            |id: &WorkId| matches!(id, WorkId::Job(JobId { stage: of, .. }) if *of == stage);
        let jobs: Vec<(WorkId, &Work)> = self
            .run
            .works
            .iter()
            .filter(|(id, _)| is_here(id))
            .map(|(id, work)| (*id, work))
            .collect();
        let done = jobs.iter().filter(|(_, work)| work.phase == Phase::Done).count();
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for (_, work) in &jobs {
            for (name, count) in &work.counts {
                *counts.entry(name.clone()).or_default() += count;
            }
        }
        // The first job that says most about where the stage stands.
        let telling = jobs.iter().min_by_key(|(_, work)| match work.phase {
            Phase::Failed { .. } => 0,
            Phase::Running(_) => 1,
            Phase::Stopping { .. } | Phase::Inspecting { .. } => 2,
            Phase::Backoff { .. } => 3,
            Phase::Waiting => 4,
            Phase::Done => 5,
        });
        let seen: Vec<Seen> = jobs.iter().filter_map(|(id, work)| self.seen(*id, work)).collect();
        let phase = telling.map_or("done", |(_, work)| phase_name(&work.phase, true));
        let share = |seen: &Seen| ratio(seen.done, seen.total);
        let left = as_float(jobs.len() - done) - seen.iter().map(share).sum::<f64>();
        let rate: f64 = seen.iter().map(|seen| seen.rate / as_float_u64(seen.total.max(1))).sum();
        let restarts = jobs.iter().map(|(_, work)| work.restarts).sum();
        v1::PartStatus {
            name: stage.to_string(),
            phase: phase.to_owned(),
            done: done as u64,
            total: jobs.len() as u64,
            unit: "jobs".to_owned(),
            rate,
            eta_seconds: match (phase, rate > 0.0) {
                ("done", _) => 0.0,
                (_, true) => left / rate,
                (_, false) => -1.0,
            },
            reason: telling.map(|(id, work)| self.reason(*id, work)).unwrap_or_default(),
            incarnation: 0,
            committed_step: 0,
            loss: 0.0,
            restarts,
            ranks: jobs.iter().flat_map(|(id, work)| self.ranks(*id, work)).collect(),
            counts: counts.into_iter().collect(),
        }
    }
}

/// Why a gang was told to stop, where the run itself does not say so.
fn because(cause: &Stop) -> String {
    match cause {
        Stop::RankGone | Stop::RunStopping => String::new(),
        Stop::Preempted { by, work } => format!(": {by}/{work} goes first"),
        Stop::Drained { node } => format!(": node {node} is drained"),
        Stop::DeviceWithdrawn { seat } => format!(": the device of {seat} was withdrawn"),
        Stop::Hung { seconds } => format!(": no step for {seconds} s"),
        Stop::Widened { to } => format!(": there are seats for {to} ranks"),
    }
}

const fn phase_name(phase: &Phase, is_seen: bool) -> &'static str {
    match phase {
        Phase::Waiting => "waiting",
        Phase::Backoff { .. } => "backoff",
        Phase::Running(_) if is_seen => "running",
        Phase::Running(_) => "starting",
        Phase::Stopping { .. } | Phase::Inspecting { .. } => "stopping",
        Phase::Done => "done",
        Phase::Failed { .. } => "failed",
    }
}

/// Seconds until the models are trained, if one of them tells how fast it goes.
///
/// Work left divided by the seats there are, at the rate per seat seen now; the stages before and
/// after are short beside it and are not counted.
fn eta(parts: &[v1::PartStatus], state: &State) -> f64 {
    let models = || parts.iter().filter(|part| part.unit == "steps");
    let moving: Vec<&v1::PartStatus> = models().filter(|part| part.rate > 0.0).collect();
    if moving.is_empty() {
        return if models().all(|part| part.phase == "done") { 0.0 } else { -1.0 };
    }
    let seats: usize = moving.iter().map(|part| part.ranks.len()).sum();
    let per_seat = moving.iter().map(|part| part.rate).sum::<f64>() / as_float(seats.max(1));
    let left: u64 = models().map(|part| part.total.saturating_sub(part.done)).sum();
    let all: u32 = state.workers.values().map(Worker::usable).sum();
    as_float_u64(left) / (per_seat * f64::from(all.max(1)))
}

fn time_left(units: u64, rate: f64, phase: &str) -> f64 {
    match (phase, rate > 0.0) {
        ("done", _) => 0.0,
        (_, true) => as_float_u64(units) / rate,
        (_, false) => -1.0,
    }
}

fn ratio(done: u64, total: u64) -> f64 {
    if total == 0 { 0.0 } else { as_float_u64(done) / as_float_u64(total) }
}

#[expect(clippy::cast_precision_loss, reason = "shown to people")]
const fn as_float(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "shown to people")]
const fn as_float_u64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
