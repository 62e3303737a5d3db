//! What must be so every second, and what must be so once all is done.

use clade_core::ids::{Incarnation, ModelId, WorkId};
use clade_core::schedule::invariants::whole;
use clade_core::schedule::{Phase, RunPhase, State, Wait, why_waiting};

use crate::setting::{EPOCH, Kind};
use crate::world::World;

/// Seconds for which nothing that could be seated may wait in a world without faults.
const IDLE: u32 = 6;

impl World {
    /// Judges the state as it is: the rows, the index, and what waits for nothing.
    pub(crate) fn judge_now(&mut self) {
        let Some(leader) = self.leader() else { return };
        if leader.is_still {
            return;
        }
        let time = clade_core::ids::Millis((EPOCH + self.now).saturating_add_signed(leader.offset));
        let mut broken = Vec::new();
        if self.now.is_multiple_of(4) || self.is_over {
            broken.extend(whole(&leader.state, time));
            broken.extend(differs(&self.database.load(leader.state.term), &leader.state));
        }
        let mut idle = Vec::new();
        if self.is_over {
            let is_one_kind =
                self.machines.iter().all(|it| it.offer.kind == self.machines[0].offer.kind);
            for (name, run) in &leader.state.runs {
                for id in run.works.keys() {
                    let requires = run.requires(*id);
                    let is_plain = requires.labels.is_empty() && requires.memory_gib.is_none();
                    let can = is_plain && (id.model().is_none() || is_one_kind);
                    let Some(Wait::Seats { needed, free, .. }) =
                        why_waiting(&leader.state, name, *id, time).filter(|_| can)
                    else {
                        continue;
                    };
                    if needed <= free {
                        idle.push((name.clone(), *id));
                    }
                }
            }
        }
        self.judge.idle.retain(|key, _| idle.contains(key));
        for key in idle {
            let seen = self.judge.idle.entry(key.clone()).or_default();
            *seen += 1;
            if *seen > IDLE {
                broken
                    .push(format!("{}/{} is not seated although its seats are free", key.0, key.1));
            }
        }
        for what in broken {
            self.broke(what);
        }
    }

    /// Judges a world in which every run has finished.
    pub(crate) fn judge_the_end(&mut self) {
        let mut broken = Vec::new();
        let Some(leader) = self.leader() else {
            self.broke("nobody leads at the end".to_owned());
            return;
        };
        let state = &leader.state;
        broken.extend(differs(&self.database.load(state.term), state));
        if state.taken().next().is_some() {
            broken.push("seats are taken after the end".to_owned());
        }
        for (name, run) in &state.runs {
            if run.head.phase != RunPhase::Finished {
                broken.push(format!("{name} is {:?}", run.head.phase));
            }
            for (id, work) in &run.works {
                if work.phase != Phase::Done {
                    broken.push(format!("{name}/{id} is {:?}", work.phase));
                }
                let is_first = work.incarnation == Incarnation(1) && work.restarts == 0;
                if self.setting.kind == Kind::Calm && !is_first {
                    broken.push(format!("G5: {name}/{id} was restarted: {:?}", work.last_failure));
                }
                let WorkId::Model(model) = id else { continue };
                let due = run.due(*model).0;
                if work.committed_step().0 != due {
                    broken
                        .push(format!("{name}/{id} is done at {} of {due}", work.committed_step()));
                    continue;
                }
                broken.extend(self.judge_history(name, *model, due));
            }
        }
        if self.faults_so_far() < 50 {
            broken.push(format!("only {} faults were injected", self.faults_so_far()));
        }
        for what in broken {
            self.broke(what);
        }
    }

    /// G4: along the parents of a model's last checkpoint every pair is used exactly once: the steps
    /// of its links cover every step from the first to the due one without gap or overlap.
    fn judge_history(
        &self,
        name: &clade_core::ids::RunName,
        model: ModelId,
        due: u64,
    ) -> Option<String> {
        let last = self.judge.records.get(&(name.clone(), model))?.last()?;
        let chain: Vec<_> = self.bucket.chain(name, last).collect();
        let mut covered = due;
        let mut incarnation = Incarnation(u64::MAX);
        for link in &chain {
            let at = &link.checkpoint;
            let from = link.parent.as_ref().map_or(0, |it| it.step.0);
            if at.step.0 != covered || from >= at.step.0 {
                return Some(format!(
                    "G4: {name}/{model} uses pairs of {from}..{} twice or never",
                    at.step
                ));
            }
            if at.model == model {
                if at.incarnation > incarnation {
                    return Some(format!("G2: {at} precedes one of incarnation {incarnation}"));
                }
                incarnation = at.incarnation;
            }
            covered = from;
        }
        if covered != 0 {
            return Some(format!("G4: {name}/{model} has no history before step {covered}"));
        }
        // An expert's roots are the seed's, and the seed's last one.
        let root = chain.iter().find(|it| it.checkpoint.model != model);
        let seed = self.judge.records.get(&(name.clone(), ModelId::Seed)).and_then(|it| it.last());
        let is_wrong = model != ModelId::Seed && root.map(|it| &it.checkpoint) != seed;
        is_wrong
            .then(|| format!("G4: {name}/{model} did not start from the seed's last checkpoint"))
    }
}

/// What a new leader would read otherwise than it is.
fn differs(read: &State, state: &State) -> Option<String> {
    if read.runs != state.runs {
        let run = read.runs.iter().find(|(name, run)| state.runs.get(*name) != Some(run));
        return Some(format!("the saved runs are others: {:?}", run.map(|(name, _)| name)));
    }
    if read.nodes != state.nodes {
        return Some("the saved nodes are others".to_owned());
    }
    let offers = |state: &State| -> Vec<_> {
        let workers = state.workers.iter();
        workers.map(|(id, it)| (id.clone(), it.offer.clone(), it.withdrawn.clone())).collect()
    };
    (offers(read) != offers(state)).then(|| "the saved workers are others".to_owned())
}
