//! Everything that goes wrong. A fault counts only if it was really done to something.

use clade_core::ids::Fence;
use clade_core::job::{Failure, Outcome};
use clade_core::schedule::{Event, Phase};

use crate::agent::Life;
use crate::coordinator::Mishap;
use crate::setting::Kind;
use crate::training::crashed;
use crate::world::{Happening, World};

type Inject = fn(&mut World) -> bool;

/// What restarts nothing.
const GENTLE: [(&str, u64, Inject); 9] = [
    ("stream reset", 8, World::reset),
    ("network late", 4, World::late),
    ("short cut", 5, World::blip),
    ("leader crashes", 1, World::leader_crashes),
    ("leader stands still", 2, World::leader_stalls),
    ("clock leaps", 2, World::clock_leaps),
    ("mishap", 2, World::mishap),
    ("leader deposed", 1, World::leader_deposed),
    ("lie", 6, World::lie),
];

const ROUGH: [(&str, u64, Inject); 17] = [
    ("rank killed", 10, World::rank_killed),
    ("rank hangs", 2, World::rank_hangs),
    ("rank fails", 4, World::rank_fails),
    ("agent killed", 4, World::agent_killed),
    ("agent told to leave", 3, World::agent_leaves),
    ("cut", 4, World::long_cut),
    ("cut one way", 3, World::one_way),
    ("flapping", 2, World::flaps),
    ("store errors", 3, World::store_fails),
    ("checkpoint damaged", 2, World::damage),
    ("machine slow", 2, World::machine_slow),
    ("machine bad", 2, World::machine_bad),
    ("device withdrawn", 2, World::withdraw),
    ("cordon", 2, World::cordon_one),
    ("drain", 2, World::drain_one),
    ("cancel", 2, World::cancel),
    ("applied again", 1, World::apply_again),
];

impl World {
    /// Does one fault, whichever can be done.
    pub(crate) fn fault(&mut self) {
        if self.is_over {
            return;
        }
        let rough = if self.setting.kind == Kind::Calm { &[][..] } else { &ROUGH[..] };
        let all: Vec<&(&'static str, u64, Inject)> = GENTLE.iter().chain(rough).collect();
        let total: u64 = all.iter().map(|(_, weight, _)| weight).sum();
        for _ in 0..20 {
            let mut drawn = self.random.below(total);
            for (name, weight, inject) in &all {
                if drawn >= *weight {
                    drawn -= weight;
                    continue;
                }
                if inject(self) {
                    // A mishap counts when it befalls.
                    if *name != "mishap" {
                        self.note_fault(name);
                    }
                    return;
                }
                break;
            }
        }
    }

    fn index(&mut self, count: usize) -> usize {
        let count = u64::try_from(count).expect("small");
        usize::try_from(self.random.below(count)).expect("small")
    }

    fn machine(&mut self) -> usize {
        self.index(self.machines.len())
    }

    fn is_calm(&self) -> bool {
        self.setting.kind == Kind::Calm
    }

    fn reset(&mut self) -> bool {
        let machine = self.machine();
        let Some(link) = self.link_of(machine) else { return false };
        let (agent, leader) = (self.random.below(50), self.random.below(50));
        self.break_stream(link, agent, leader);
        true
    }

    fn flaps(&mut self) -> bool {
        let machine = self.machine();
        let Some(link) = self.link_of(machine) else { return false };
        self.break_stream(link, 1, 1);
        for again in 1..5 {
            self.at(self.now + again * 900, Happening::Reset(machine));
        }
        true
    }

    pub(crate) fn reset_again(&mut self, machine: usize) {
        if let Some(link) = self.link_of(machine).filter(|_| !self.is_over) {
            self.note_fault("flapping on");
            self.break_stream(link, 1, 1);
        }
    }

    fn late(&mut self) -> bool {
        let machine = self.machine();
        let extra = if self.is_calm() { 300 } else { 1_800 };
        self.machines[machine].slow_network = (self.now + 5_000, extra);
        true
    }

    fn blip(&mut self) -> bool {
        let machine = self.machine();
        let most = if self.is_calm() { 500 } else { 3_500 };
        let millis = 100 + self.random.below(most);
        let (is_mute, is_deaf) = (self.random.below(2) == 0, self.random.below(2) == 0);
        self.cut(machine, is_mute || !is_deaf, is_deaf || !is_mute, millis);
        true
    }

    fn long_cut(&mut self) -> bool {
        let machine = self.machine();
        let millis = 4_500 + self.random.below(16_000);
        self.cut(machine, true, true, millis);
        true
    }

    fn one_way(&mut self) -> bool {
        let machine = self.machine();
        let is_mute = self.random.below(2) == 0;
        let millis = 4_500 + self.random.below(10_000);
        self.cut(machine, is_mute, !is_mute, millis);
        true
    }

    fn is_led(&self) -> bool {
        self.leader().is_some_and(|it| !it.is_still)
    }

    fn leader_crashes(&mut self) -> bool {
        let is_led = self.is_led();
        if is_led {
            self.leader_goes(self.database.guard);
        }
        is_led
    }

    /// Longer than its workers are waited for, but it keeps its lease.
    fn leader_stalls(&mut self) -> bool {
        let term = self.database.guard;
        let wakes = self.now + 2_500 + self.random.below(4_000);
        let Some(leader) = self.leaders.get_mut(&term).filter(|it| !it.is_still) else {
            return false;
        };
        leader.is_still = true;
        self.at(wakes, Happening::LeaderWakes(term));
        true
    }

    fn leader_deposed(&mut self) -> bool {
        let is_led = self.is_led();
        if is_led {
            self.depose(self.database.guard, Vec::new());
        }
        is_led
    }

    fn mishap(&mut self) -> bool {
        let mishap = match self.random.below(4) {
            0 => Mishap::CrashBeforeActing,
            1 => Mishap::StallBeforeActing,
            2 => Mishap::Unknown { is_saved: true },
            _ => Mishap::Unknown { is_saved: false },
        };
        self.mishap = Some(mishap);
        self.is_led()
    }

    fn clock_leaps(&mut self) -> bool {
        let leap = match self.random.below(6) {
            0 => 3_600_000,
            1 => -3_600_000,
            2 | 3 => 2_500 + i64::try_from(self.random.below(20_000)).expect("small"),
            _ => -100 - i64::try_from(self.random.below(20_000)).expect("small"),
        };
        let term = self.database.guard;
        let Some(leader) = self.leaders.get_mut(&term) else { return false };
        leader.offset += leap;
        leader.told.leapt();
        true
    }

    /// A living rank of some gang, or job.
    fn any_rank(&mut self) -> Option<(Fence, u32)> {
        let all = self
            .gangs
            .iter()
            .flat_map(|(fence, gang)| gang.members.keys().map(move |rank| (fence.clone(), *rank)));
        let all: Vec<(Fence, u32)> = all.collect();
        if all.is_empty() {
            return None;
        }
        let at = self.index(all.len());
        Some(all[at].clone())
    }

    fn rank_killed(&mut self) -> bool {
        let Some((fence, rank)) = self.any_rank() else { return false };
        self.rank_ends(&fence, rank, crashed(rank, "signal 9"));
        true
    }

    fn rank_hangs(&mut self) -> bool {
        let Some((fence, _)) = self.any_rank() else { return false };
        let gang = self.gangs.get_mut(&fence).filter(|_| fence.work.model().is_some());
        gang.is_some_and(|gang| !std::mem::replace(&mut gang.is_hung, true))
    }

    fn rank_fails(&mut self) -> bool {
        let Some((fence, rank)) = self.any_rank() else { return false };
        let message = "as drawn".to_owned();
        let failure = match self.random.below(12) {
            0 => Failure::Data { message },
            1 => Failure::Config { message },
            2..=5 => Failure::Stalled { rank, seconds: 60 },
            _ => Failure::Storage { message },
        };
        self.rank_ends(&fence, rank, Outcome::Failed(failure));
        true
    }

    fn serving(&mut self) -> Option<usize> {
        let machine = self.machine();
        let agent = self.machines[machine].agent?;
        (self.agents[agent].life == Life::Serving).then_some(agent)
    }

    fn agent_killed(&mut self) -> bool {
        let machine = self.machine();
        let Some(agent) = self.machines[machine].agent else { return false };
        self.agent_dies(agent);
        true
    }

    fn agent_leaves(&mut self) -> bool {
        let Some(agent) = self.serving() else { return false };
        self.leave(agent);
        true
    }

    fn store_fails(&mut self) -> bool {
        self.bucket.fails_until = self.now + 500 + self.random.below(5_000);
        true
    }

    /// Damages the newest committed checkpoint of a model that has an older one to fall back to.
    fn damage(&mut self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let kept = leader.state.runs.iter().flat_map(|(name, run)| {
            let many = run.works.values().filter(|work| work.committed.len() > 1);
            // The last one of all has nothing to fall back to for those who read it.
            many.filter(|work| work.phase != Phase::Done)
                .filter_map(|work| work.committed.last())
                .filter(|at| at.step < run.due(at.model))
                .map(move |at| (name.clone(), at.clone()))
        });
        let kept: Vec<_> = kept.collect();
        if kept.is_empty() {
            return false;
        }
        let at = self.index(kept.len());
        let (run, checkpoint) = &kept[at];
        if self.judge.is_damaged(run, checkpoint.model) {
            return false;
        }
        self.judge.damaged(run, checkpoint.model);
        let found = self.bucket.find_mut(run, checkpoint);
        found.is_some_and(|it| !std::mem::replace(&mut it.is_damaged, true))
    }

    fn machine_slow(&mut self) -> bool {
        let machine = self.machine();
        let is_fast = self.machines[machine].slowness == 1;
        self.machines[machine].slowness = if is_fast { 3 } else { 1 };
        self.judge.slowed(&self.machines[machine].offer.node);
        true
    }

    fn machine_bad(&mut self) -> bool {
        let machine = self.machine();
        self.machines[machine].bad_until = self.now + 10_000 + self.random.below(15_000);
        true
    }

    fn withdraw(&mut self) -> bool {
        let Some(agent) = self.serving() else { return false };
        let slots = self.machines[self.agents[agent].machine].offer.slots;
        let slot = u32::try_from(self.random.below(u64::from(slots))).expect("few slots");
        let reason = "XID 79".to_owned();
        if self.agents[agent].withdrawn.insert(slot, reason.clone()).is_some() {
            return false;
        }
        let worker = self.agents[agent].id.clone();
        self.owe(agent, Event::DeviceWithdrawn { worker, slot, reason });
        true
    }

    fn cordon_one(&mut self) -> bool {
        let machine = self.machine();
        self.cordon(machine, false)
    }

    fn drain_one(&mut self) -> bool {
        let machine = self.machine();
        self.cordon(machine, true)
    }

    fn cancel(&mut self) -> bool {
        let at = self.index(self.setting.runs.len());
        let run = self.setting.runs[at].name().clone();
        self.judge.cancelled(&run);
        self.tell_leader(Event::CancelRequested { run })
    }

    fn apply_again(&mut self) -> bool {
        let at = self.index(self.setting.runs.len());
        self.apply(at);
        self.is_led()
    }
}
