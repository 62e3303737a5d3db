//! The shell around `step`, as `coordinator/src/engine.rs` has it: one event, one transaction, then
//! actions. Several may believe to lead; the database lets one write.

use std::collections::BTreeMap;

use clade_core::ids::{Fence, Millis, Term, WorkerId};
use clade_core::schedule::invariants::{self, About};
use clade_core::schedule::{Action, Effects, Event, State, step};

use crate::judge::Told;
use crate::network::{Down, Up};
use crate::setting::EPOCH;
use crate::world::{Happening, World};

/// One coordinator that believes to lead.
#[derive(Debug)]
pub(crate) struct Leader {
    pub(crate) state: State,
    /// What its clock is ahead of the true time.
    pub(crate) offset: i64,
    /// It stands still, and its post waits.
    pub(crate) is_still: bool,
    post: Vec<Mail>,
    held: Vec<Action>,
    streams: BTreeMap<WorkerId, u64>,
    pub(crate) told: Told,
}

/// What comes to a coordinator's one task.
#[derive(Clone, Debug)]
pub(crate) enum Mail {
    Event(Event),
    Attach { stream: u64, event: Event },
    Report { worker: WorkerId, sequence: u64, event: Event },
    End { stream: u64 },
}

/// What a fault does to the next transaction that changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// It is saved; the coordinator dies before it acts.
    CrashBeforeActing,
    /// It is saved; the coordinator stands still before it acts, so long that another leads.
    StallBeforeActing,
    /// The database does not say whether it was saved; it was, or it was not.
    Unknown { is_saved: bool },
}

impl World {
    /// A standby takes the lead.
    pub(crate) fn elect(&mut self) {
        let last = self.database.guard;
        let term = last.next();
        self.database.guard = term;
        let state = self.database.load(last);
        let skew = i64::try_from(self.random.below(4_000)).expect("small") - 2_000;
        let leader = Leader {
            state,
            offset: if self.is_over { 0 } else { skew },
            is_still: false,
            post: Vec::new(),
            held: Vec::new(),
            streams: BTreeMap::new(),
            told: Told::default(),
        };
        self.trace(|_| format!("term {term} takes the lead"));
        self.leaders.insert(term, leader);
        self.event(term, Event::TookLead { term });
        self.at(self.now + 100, Happening::LeaderTicks(term));
    }

    pub(crate) fn leader_ticks(&mut self, term: Term) {
        let Some(leader) = self.leaders.get(&term) else { return };
        if !leader.is_still {
            self.event(term, Event::Tick);
        }
        self.at(self.now + 100, Happening::LeaderTicks(term));
    }

    pub(crate) fn leader_wakes(&mut self, term: Term) {
        let Some(leader) = self.leaders.get_mut(&term) else { return };
        leader.is_still = false;
        // As if its clock had leapt: time passed that it did not live through.
        leader.told.leapt();
        let (held, post) = (std::mem::take(&mut leader.held), std::mem::take(&mut leader.post));
        self.trace(|_| format!("term {term} wakes, {} actions held", held.len()));
        for action in held {
            self.perform(term, action);
        }
        // Either may come first: the ticker's branch, or the queue's.
        if self.random.below(2) == 0 {
            self.event(term, Event::Tick);
        }
        for mail in post {
            self.mail(term, mail);
        }
    }

    /// A coordinator ends, and its streams with it.
    pub(crate) fn leader_goes(&mut self, term: Term) {
        if self.leaders.remove(&term).is_none() {
            return;
        }
        self.trace(|_| format!("term {term} ends"));
        let ids = self.streams.iter().filter(|(_, it)| it.leader == term && !it.is_broken);
        let ids: Vec<u64> = ids.map(|(id, _)| *id).collect();
        for id in ids {
            let after = 1 + self.random.below(50);
            self.break_stream(id, after, after);
        }
        if self.database.guard == term {
            let after = 300 + self.random.below(3_000);
            self.at(self.now + after, Happening::Elect);
        }
    }

    /// What a stream brings to its coordinator.
    pub(crate) fn coordinator_hears(&mut self, id: u64, up: Up) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let term = stream.leader;
        let mail = match up {
            Up::Hello(event) => {
                if let Event::WorkerAttached { worker, .. } = &event {
                    stream.worker = Some(worker.clone());
                }
                Mail::Attach { stream: id, event }
            }
            Up::Report { sequence, event } => {
                let Some(worker) = stream.worker.clone() else { return };
                Mail::Report { worker, sequence, event }
            }
            Up::Once(event) => Mail::Event(event),
        };
        self.mail(term, mail);
    }

    pub(crate) fn leader_hears_end(&mut self, id: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.is_over_there = true;
        let term = stream.leader;
        self.mail(term, Mail::End { stream: id });
    }

    pub(crate) fn mail(&mut self, term: Term, mail: Mail) {
        let Some(leader) = self.leaders.get_mut(&term) else { return };
        if leader.is_still {
            leader.post.push(mail);
            return;
        }
        match mail {
            Mail::Event(event) => {
                self.event(term, event);
            }
            Mail::Attach { stream, event } => {
                let Some(worker) = self.streams.get(&stream).and_then(|it| it.worker.clone())
                else {
                    return;
                };
                let old = leader.streams.insert(worker, stream);
                if let Some(old) = old.filter(|old| *old != stream) {
                    self.break_stream(old, 5, 5);
                }
                self.send_down(stream, term, Down::Welcome);
                self.event(term, event);
            }
            Mail::Report { worker, sequence, event } => {
                if self.event(term, event) {
                    self.order(term, &worker, Down::Acknowledge(sequence));
                }
            }
            Mail::End { stream } => {
                let worker = self.streams.get(&stream).and_then(|it| it.worker.clone());
                let Some(worker) = worker else { return };
                if leader.streams.get(&worker) == Some(&stream) {
                    leader.streams.remove(&worker);
                    self.event(term, Event::WorkerDetached { worker });
                }
            }
        }
    }

    /// The choke point. Returns whether the event is dealt with, so that it may be acknowledged.
    pub(crate) fn event(&mut self, term: Term, event: Event) -> bool {
        let Some(leader) = self.leaders.get_mut(&term) else { return false };
        let time = Millis((EPOCH + self.now).saturating_add_signed(leader.offset));
        let about = About::of(&event);
        let is_telling = event != Event::Tick;
        let shown = (self.is_verbose() && is_telling).then(|| format!("{event:?}"));
        let Some(leader) = self.leaders.get_mut(&term) else { return false };
        let effects = step(&mut leader.state, self.setting.limits, time, event.clone());
        if effects.refusal.is_none() {
            leader.told.hears(&event);
        }
        for violation in invariants::violations(&about, &effects, &leader.state) {
            let what = format!("{}: {} (after {event:?})", violation.invariant, violation.seen);
            self.broke(what);
        }
        if let Some(shown) = shown {
            let why =
                effects.refusal.as_ref().map_or(String::new(), |why| format!(" refused: {why}"));
            let mut shown = format!("term {term}: {shown}{why}");
            shown.truncate(400);
            self.trace(|_| shown);
        }
        self.last_refusal = effects.refusal.as_ref().map(clade_core::schedule::Refusal::name);
        self.cover(term, &event, &effects);
        if effects.changed.is_empty() {
            self.judge_orders(term, &effects);
            self.perform_all(term, effects.actions);
            return true;
        }
        self.save(term, &event, effects)
    }

    fn save(&mut self, term: Term, event: &Event, effects: Effects) -> bool {
        let leads = term == self.database.guard;
        let mishap = if leads { self.mishap.take() } else { None };
        let is_saved = mishap != Some(Mishap::Unknown { is_saved: false });
        let Some(leader) = self.leaders.get(&term) else { return false };
        let saved = is_saved && self.database.save(term, &leader.state, &effects.changed);
        if saved {
            self.judge_saved(term, event, &effects);
        }
        match mishap {
            Some(Mishap::Unknown { .. }) => {
                self.note_fault("database of unknown outcome");
                self.leader_goes(term);
                return false;
            }
            Some(Mishap::CrashBeforeActing) => {
                self.note_fault("leader crashes before it acts");
                self.leader_goes(term);
                return false;
            }
            Some(Mishap::StallBeforeActing) => {
                self.note_fault("leader deposed before it acts");
                self.judge_orders(term, &effects);
                self.depose(term, effects.actions);
                return false;
            }
            None => (),
        }
        if !saved {
            // Deposed, and now it knows.
            self.leader_goes(term);
            return false;
        }
        self.judge_orders(term, &effects);
        self.perform_all(term, effects.actions);
        true
    }

    /// A leader stands still until its lease has gone to another, and then goes on where it was.
    pub(crate) fn depose(&mut self, term: Term, held: Vec<Action>) {
        let Some(leader) = self.leaders.get_mut(&term) else { return };
        leader.is_still = true;
        leader.held = held;
        let elected = self.now + 500 + self.random.below(1_500);
        self.at(elected, Happening::Elect);
        let wakes = elected + 100 + self.random.below(3_000);
        self.at(wakes, Happening::LeaderWakes(term));
        // Its own lease tells it at last, if no transaction does.
        let knows = wakes + self.random.below(2_500);
        self.at(knows, Happening::LeaderGoes(term));
    }

    fn perform_all(&mut self, term: Term, actions: Vec<Action>) {
        for action in actions {
            self.perform(term, action);
        }
    }

    fn perform(&mut self, term: Term, action: Action) {
        self.trace(|_| {
            let mut shown = format!("    -> {action:?}");
            shown.truncate(300);
            shown
        });
        match action {
            Action::StartRank(start) => {
                let worker = start.seat.worker.clone();
                self.order(term, &worker, Down::Start(Box::new(start)));
            }
            Action::StopRank { seat, fence, rank, save, .. } => {
                self.order(term, &seat.worker, Down::Stop { fence, rank, save });
            }
            Action::ShareRendezvous { worker, fence, address } => {
                self.order(term, &worker, Down::Share { fence, address });
            }
            // Whoever was refused is told; its ranks are stopped when it attaches.
            Action::Refuse { .. } => (),
            Action::Supersede { worker } => self.order(term, &worker, Down::Supersede),
            Action::Inspect { fence } => {
                let at = self.now + 20 + self.random.below(900);
                // An action may be done twice, and the second answer come when all has moved on.
                if self.random.below(6) == 0 {
                    let again = at + self.random.below(5_000);
                    self.at(again, Happening::Inspect { term, fence: fence.clone() });
                }
                self.at(at, Happening::Inspect { term, fence });
            }
            Action::Collect { run, checkpoints } => {
                for checkpoint in checkpoints {
                    if let Some(found) = self.bucket.find_mut(&run, &checkpoint) {
                        found.is_deleted = true;
                    }
                }
            }
        }
    }

    fn order(&mut self, term: Term, worker: &WorkerId, down: Down) {
        let leader = self.leaders.get(&term);
        let Some(&stream) = leader.and_then(|it| it.streams.get(worker)) else { return };
        self.send_down(stream, term, down);
    }

    /// A listing of the object store comes back.
    pub(crate) fn inspects(&mut self, term: Term, fence: Fence) {
        if self.bucket.fails_until > self.now {
            self.at(self.now + 500, Happening::Inspect { term, fence });
            return;
        }
        let Some(model) = fence.work.model() else { return };
        let newest = self.bucket.newest(&fence.run, model, fence.incarnation);
        self.mail(term, Mail::Event(Event::Inspected { fence, newest }));
    }
}
