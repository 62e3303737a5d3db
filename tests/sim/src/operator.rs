//! Operators: apply, cancel, cordon, drain, and what they mend once faults have stopped.

use clade_core::schedule::{Event, MAX_CHANGED, Phase, Run, RunPhase};

use crate::agent::Life;
use crate::coordinator::Mail;
use crate::setting::Kind;
use crate::world::{Happening, World};

impl World {
    /// Says something to whoever leads; says it again later if nobody does.
    pub(crate) fn tell_leader(&mut self, event: Event) -> bool {
        let term = self.database.guard;
        let is_there = self.leaders.get(&term).is_some_and(|it| !it.is_still);
        if is_there {
            self.mail(term, Mail::Event(event));
        }
        is_there
    }

    pub(crate) fn apply(&mut self, run: usize) {
        let event = Event::Applied {
            spec: Box::new(self.setting.runs[run].clone()),
            tars: self.setting.tars,
        };
        self.tell_leader(event);
        // A crash may have swallowed it.
        let name = self.setting.runs[run].name().clone();
        let is_known = self.leader().is_some_and(|it| it.state.runs.contains_key(&name));
        if !is_known {
            self.at(self.now + 700, Happening::Apply { run });
        }
    }

    /// Once a second: what ended badly is applied again, and everything that waits is asked why.
    pub(crate) fn supervise(&mut self) {
        self.at(self.now + 1_000, Happening::Supervise);
        self.ask_why();
        self.judge_now();
        self.cancel_widely();
        self.judge_overdue();
        for run in 0..self.setting.runs.len() {
            let name = self.setting.runs[run].name();
            let phase = self.leader().and_then(|it| it.state.runs.get(name));
            let Some(phase) = phase.map(|run| run.head.phase.clone()) else { continue };
            let is_hasty = self.is_over || self.random.below(4) == 0;
            let again = match phase {
                RunPhase::Failed { .. } | RunPhase::Cancelled => is_hasty,
                RunPhase::Stopping { .. } => self.random.below(6) == 0,
                RunPhase::Active | RunPhase::Finished => false,
            };
            if again {
                self.apply(run);
            }
        }
    }

    /// Once in a wide world: cancels when more gangs run than one transaction takes.
    fn cancel_widely(&mut self) {
        if self.setting.kind != Kind::Wide || self.is_over || self.was_cancelled_widely {
            return;
        }
        let Some(leader) = self.leader().filter(|it| !it.is_still) else { return };
        let is_wide = |run: &&Run| {
            let running = run.works.values().filter(|it| matches!(it.phase, Phase::Running(_)));
            running.count() > MAX_CHANGED
        };
        let Some(run) = leader.state.runs.values().find(is_wide).map(|run| run.name().clone())
        else {
            return;
        };
        self.was_cancelled_widely = true;
        self.note_fault("cancel of more than a transaction");
        self.judge.cancelled(&run);
        self.tell_leader(Event::CancelRequested { run });
    }

    pub(crate) fn cordon(&mut self, machine: usize, drain: bool) -> bool {
        let node = self.machines[machine].node().clone();
        let is_open = self
            .leader()
            .is_some_and(|it| it.state.nodes.get(&node).is_none_or(|node| node.cordoned.is_none()));
        if !is_open {
            return false;
        }
        self.judge.cordoned(&node, drain);
        let reason = "a fan rattles".to_owned();
        let is_told = self.tell_leader(Event::NodeCordoned { node, reason, drain });
        let until = self.now + 4_000 + self.random.below(10_000);
        self.at(until, Happening::Uncordon(machine));
        is_told
    }

    pub(crate) fn uncordon(&mut self, machine: usize) {
        let node = self.machines[machine].node().clone();
        let is_known = self.leader().is_some_and(|it| it.state.nodes.contains_key(&node));
        if is_known {
            self.tell_leader(Event::NodeUncordoned { node });
        }
        if self.leader().is_none_or(|it| it.is_still) {
            self.at(self.now + 1_000, Happening::Uncordon(machine));
        }
    }

    /// Nothing goes wrong from here on, and what is broken is mended.
    pub(crate) fn faults_stop(&mut self) {
        self.is_over = true;
        self.mishap = None;
        self.bucket.fails_until = self.now;
        self.trace(|_| "faults stop".to_owned());
        for machine in 0..self.machines.len() {
            let now = self.now;
            let it = &mut self.machines[machine];
            // Cuts last as long as they were to: what waits in them would come later than the rest
            // of its stream, which no network does without ending the stream.
            it.bad_until = 0;
            (it.slow_network, it.slowness) = ((0, 0), 1);
            let agent = it.agent;
            self.at(now + 500, Happening::Uncordon(machine));
            let Some(agent) = agent else { continue };
            // A device that was withdrawn is replaced, and its agent restarted.
            if !self.agents[agent].withdrawn.is_empty() && self.agents[agent].life == Life::Serving
            {
                self.leave(agent);
            }
        }
    }
}
