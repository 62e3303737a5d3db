//! An agent, by the rules of `worker/src/agent`: fences, orders that may be repeated, an outbox.

use std::collections::BTreeMap;

use clade_core::ids::{Fence, Term, WorkerId};
use clade_core::job::{Failure, Outcome};
use clade_core::rendezvous::Rendezvous;
use clade_core::schedule::{Event, LiveRank, Start};

use crate::network::{Down, Up};
use crate::world::{Happening, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Serving,
    /// Declared lost: its ranks die, then it joins as another.
    Superseded,
    /// Told to leave: its ranks are saving.
    Leaving,
    Gone,
}

#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) id: WorkerId,
    pub(crate) machine: usize,
    pub(crate) life: Life,
    secret: u64,
    pub(crate) link: Option<u64>,
    pub(crate) is_welcome: bool,
    outbox: BTreeMap<u64, Event>,
    sequence: u64,
    /// By slot.
    pub(crate) live: BTreeMap<(Fence, u32), u32>,
    gone: BTreeMap<(Fence, u32), Outcome>,
    pub(crate) withdrawn: BTreeMap<u32, String>,
}

impl World {
    pub(crate) fn start_agent(&mut self, machine: usize) {
        let agent = self.agents.len();
        let fresh = Agent {
            id: WorkerId(String::new()),
            machine,
            life: Life::Serving,
            secret: 0,
            link: None,
            is_welcome: false,
            outbox: BTreeMap::new(),
            sequence: 0,
            live: BTreeMap::new(),
            gone: BTreeMap::new(),
            withdrawn: BTreeMap::new(),
        };
        self.agents.push(fresh);
        self.machines[machine].agent = Some(agent);
        self.take_new_id(agent);
        self.at(self.now + 1, Happening::Connect(agent));
    }

    fn take_new_id(&mut self, agent: usize) {
        let number = self.next_id();
        let secret = self.random.next();
        let machine = self.agents[agent].machine;
        let it = &mut self.agents[agent];
        it.id = WorkerId(format!("w{machine}-{number}"));
        it.secret = secret;
        it.outbox.clear();
    }

    pub(crate) fn hello(&self, agent: usize) -> Event {
        let it = &self.agents[agent];
        let mut offer = self.machines[it.machine].offer.clone();
        offer.secret = format!("{:x}", it.secret);
        let ranks = it.live.iter().map(|((fence, rank), slot)| LiveRank {
            fence: fence.clone(),
            rank: *rank,
            slot: *slot,
        });
        Event::WorkerAttached {
            worker: it.id.clone(),
            offer,
            withdrawn: it.withdrawn.clone(),
            ranks: ranks.collect(),
        }
    }

    /// Tries to reach a coordinator: any that takes streams.
    pub(crate) fn connect(&mut self, agent: usize) {
        let it = &self.agents[agent];
        if it.life == Life::Gone || it.link.is_some() {
            return;
        }
        let machine = &self.machines[it.machine];
        let is_cut = machine.mute_until > self.now || machine.deaf_until > self.now;
        let leaders: Vec<Term> = self.leaders.keys().copied().collect();
        if is_cut || leaders.is_empty() {
            let again = self.now + 200 + self.random.below(600);
            self.at(again, Happening::Connect(agent));
            return;
        }
        let count = u64::try_from(leaders.len()).expect("few leaders");
        let at = usize::try_from(self.random.below(count)).expect("few leaders");
        let id = self.open_stream(agent, leaders[at]);
        (self.agents[agent].link, self.agents[agent].is_welcome) = (Some(id), false);
        let hello = self.hello(agent);
        self.send_up(id, Up::Hello(hello));
        self.at(self.now + 5_000, Happening::Patience { agent, stream: id });
    }

    pub(crate) fn agent_hears_end(&mut self, id: u64) {
        let Some(stream) = self.streams.get(&id) else { return };
        let agent = stream.agent;
        if self.agents[agent].link == Some(id) {
            (self.agents[agent].link, self.agents[agent].is_welcome) = (None, false);
            let again = self.now + 50 + self.random.below(900);
            self.at(again, Happening::Connect(agent));
        }
    }

    /// Says something that need not arrive.
    pub(crate) fn say(&mut self, agent: usize, event: Event) {
        if let (true, Some(id)) = (self.agents[agent].is_welcome, self.agents[agent].link) {
            self.send_up(id, Up::Once(event));
        }
    }

    /// Says something until it is acknowledged.
    pub(crate) fn owe(&mut self, agent: usize, event: Event) {
        let it = &mut self.agents[agent];
        if matches!(it.life, Life::Superseded | Life::Gone) {
            return;
        }
        it.sequence += 1;
        let sequence = it.sequence;
        it.outbox.insert(sequence, event.clone());
        if let (true, Some(id)) = (it.is_welcome, it.link) {
            self.send_up(id, Up::Report { sequence, event });
        }
    }

    pub(crate) fn agent_hears(&mut self, agent: usize, stream: u64, term: Term, down: Down) {
        let it = &self.agents[agent];
        // Said over a stream that was hung up.
        if it.life == Life::Gone || it.link.is_none() {
            return;
        }
        let machine = it.machine;
        if !self.machines[machine].admit_term(term) {
            self.trace(|w| format!("{} refuses term {term}: {down:?}", w.agents[agent].id));
            self.hang_up(agent);
            let again = self.now + 100 + self.random.below(400);
            self.at(again, Happening::Connect(agent));
            return;
        }
        match down {
            Down::Welcome => self.welcomed(agent, stream),
            Down::Supersede => self.superseded(agent),
            Down::Start(start) => self.start_rank(agent, *start),
            Down::Stop { fence, rank, save } => self.stop_rank(agent, fence, rank, save),
            Down::Share { fence, address } => self.share(agent, &fence, &address),
            Down::Acknowledge(sequence) => {
                self.agents[agent].outbox.remove(&sequence);
                self.advance(agent);
            }
        }
    }

    fn welcomed(&mut self, agent: usize, stream: u64) {
        if self.agents[agent].link != Some(stream) {
            return;
        }
        self.agents[agent].is_welcome = true;
        for (sequence, event) in self.agents[agent].outbox.clone() {
            self.send_up(stream, Up::Report { sequence, event });
        }
        self.advance(agent);
    }

    fn superseded(&mut self, agent: usize) {
        match self.agents[agent].life {
            Life::Serving => {
                self.agents[agent].life = Life::Superseded;
                self.kill_all(agent);
            }
            Life::Leaving => self.kill_all(agent),
            Life::Superseded | Life::Gone => (),
        }
        self.advance(agent);
    }

    fn kill_all(&mut self, agent: usize) {
        let live: Vec<(Fence, u32)> = self.agents[agent].live.keys().cloned().collect();
        for (fence, rank) in live {
            self.kill(&fence, rank);
        }
    }

    fn start_rank(&mut self, agent: usize, start: Start) {
        if self.agents[agent].life != Life::Serving {
            return;
        }
        let key = (start.fence.clone(), start.rank);
        if self.agents[agent].live.contains_key(&key) {
            if let Some(address) = &start.rendezvous {
                self.share(agent, &start.fence, &address.clone());
            }
            return;
        }
        if let Some(outcome) = self.agents[agent].gone.get(&key).cloned() {
            self.report_exit(agent, key, outcome);
            return;
        }
        let machine = self.agents[agent].machine;
        let slot = start.seat.slot;
        let refusal = if !self.machines[machine].admit(&start.fence) {
            Some("the incarnation is below one seen here".to_owned())
        } else if slot >= self.machines[machine].offer.slots {
            self.broke(format!("{} was ordered to slot {slot}", start.fence));
            None
        } else if let Some(holder) = self.machines[machine].locks.get(&slot).cloned() {
            if self.agents[agent].live.contains_key(&holder) {
                self.broke(format!(
                    "G1: {} rank {} was given {} while {} rank {} lives there",
                    start.fence, start.rank, start.seat, holder.0, holder.1
                ));
            }
            Some(format!("slot {slot} is taken: its rank has not ended"))
        } else if self.machines[machine].bad_until > self.now && self.random.below(2) == 0 {
            Some("no such file".to_owned())
        } else {
            None
        };
        if let Some(message) = refusal {
            let failure = Failure::Launch { rank: start.rank, message };
            self.report_exit(agent, key, Outcome::Failed(failure));
            return;
        }
        self.machines[machine].locks.insert(slot, key.clone());
        self.agents[agent].live.insert(key, slot);
        self.launch(agent, start);
    }

    fn stop_rank(&mut self, agent: usize, fence: Fence, rank: u32, save: bool) {
        let key = (fence, rank);
        if self.agents[agent].live.contains_key(&key) {
            if save {
                self.wish_save(&key.0, rank);
            } else {
                self.kill(&key.0, rank);
            }
            return;
        }
        let outcome = self.agents[agent].gone.get(&key).cloned().unwrap_or(Outcome::Stopped);
        self.report_exit(agent, key, outcome);
    }

    fn share(&mut self, agent: usize, fence: &Fence, address: &Rendezvous) {
        let live = self.agents[agent].live.keys().filter(|(it, rank)| it == fence && *rank > 0);
        let ranks: Vec<u32> = live.map(|(_, rank)| *rank).collect();
        for rank in ranks {
            self.meets(fence, rank, address);
        }
    }

    fn report_exit(&mut self, agent: usize, (fence, rank): (Fence, u32), outcome: Outcome) {
        let worker = self.agents[agent].id.clone();
        let event =
            Event::RankExited { worker, fence: fence.clone(), rank, outcome: outcome.clone() };
        self.owe(agent, event);
        let is_older = |it: &Fence| {
            (&it.run, it.work) == (&fence.run, fence.work) && it.incarnation < fence.incarnation
        };
        self.agents[agent].gone.retain(|(it, _), _| !is_older(it));
        self.agents[agent].gone.insert((fence, rank), outcome);
    }

    /// A rank's process is gone and its device free.
    pub(crate) fn rank_ended(&mut self, agent: usize, key: (Fence, u32), outcome: Outcome) {
        if self.agents[agent].live.remove(&key).is_some() && self.agents[agent].life != Life::Gone {
            self.report_exit(agent, key, outcome);
            self.advance(agent);
        }
    }

    /// The machine is asked to go: a spot notice, or a new version.
    pub(crate) fn leave(&mut self, agent: usize) {
        if self.agents[agent].life != Life::Serving {
            return;
        }
        self.agents[agent].life = Life::Leaving;
        let live: Vec<(Fence, u32)> = self.agents[agent].live.keys().cloned().collect();
        for (fence, rank) in live {
            self.wish_save(&fence, rank);
        }
        self.at(self.now + 8_000, Happening::LastWords(agent));
        self.advance(agent);
    }

    fn advance(&mut self, agent: usize) {
        let it = &self.agents[agent];
        if !it.live.is_empty() {
            return;
        }
        match it.life {
            Life::Superseded => {
                self.agents[agent].life = Life::Serving;
                self.hang_up(agent);
                self.take_new_id(agent);
                self.trace(|w| format!("joins as {}", w.agents[agent].id));
                let again = self.now + 10 + self.random.below(200);
                self.at(again, Happening::Connect(agent));
            }
            Life::Leaving if it.outbox.is_empty() => self.say_goodbye(agent),
            Life::Leaving | Life::Serving | Life::Gone => (),
        }
    }

    /// Goes, with a last word if there is a stream.
    pub(crate) fn say_goodbye(&mut self, agent: usize) {
        if self.agents[agent].life != Life::Leaving {
            return;
        }
        let worker = self.agents[agent].id.clone();
        self.say(agent, Event::WorkerLeft { worker });
        self.agent_dies(agent);
    }

    /// The process is gone. Its ranks notice by their pipes, within a while.
    pub(crate) fn agent_dies(&mut self, agent: usize) {
        let machine = self.agents[agent].machine;
        self.agents[agent].life = Life::Gone;
        self.machines[machine].agent = None;
        if let Some(id) = self.agents[agent].link.take() {
            // What it said last is under way: a closed socket is heard after it.
            let after = 30 + self.random.below(100);
            self.break_politely(id, after);
        }
        let live: Vec<(Fence, u32)> = self.agents[agent].live.keys().cloned().collect();
        for (fence, rank) in live {
            self.kill(&fence, rank);
        }
        let back = self.now + 500 + self.random.below(6_000);
        self.at(back, Happening::AgentReturns(machine));
    }
}
