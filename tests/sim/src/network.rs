//! Streams between agents and coordinators: in order within one, in any order between two; late, cut
//! one way or both, broken with what was under way lost or not.

use clade_core::ids::{CheckpointRef, Fence, Term, WorkerId};
use clade_core::rendezvous::Rendezvous;
use clade_core::schedule::{Event, Start};

use crate::world::{Happening, World};

/// One stream, and how far each side knows of its end.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) agent: usize,
    pub(crate) machine: usize,
    pub(crate) leader: Term,
    /// Set when the leader has read the greeting.
    pub(crate) worker: Option<WorkerId>,
    up_from: u64,
    down_from: u64,
    /// No more is sent; what was under way may still arrive.
    pub(crate) is_broken: bool,
    is_lossy: bool,
    /// Its coordinator has heard the end: the task that reads a stream says so last.
    pub(crate) is_over_there: bool,
}

/// What an agent says.
#[derive(Clone, Debug)]
pub(crate) enum Up {
    /// With the attaching event.
    Hello(Event),
    Report {
        sequence: u64,
        event: Event,
    },
    /// Progress and goodbyes: said once.
    Once(Event),
}

/// What a coordinator orders.
#[derive(Clone, Debug)]
pub(crate) enum Down {
    Welcome,
    Start(Box<Start>),
    Stop { fence: Fence, rank: u32, save: bool },
    Share { fence: Fence, address: Rendezvous },
    Acknowledge(u64),
    Supersede,
}

impl World {
    fn latency(&mut self, machine: usize) -> u64 {
        let (until, extra) = self.machines[machine].slow_network;
        let extra = if until > self.now { self.random.below(extra) } else { 0 };
        1 + self.random.below(25) + extra
    }

    /// Opens a stream from an agent to a coordinator.
    pub(crate) fn open_stream(&mut self, agent: usize, leader: Term) -> u64 {
        let id = self.next_id();
        let stream = Stream {
            agent,
            machine: self.agents[agent].machine,
            leader,
            worker: None,
            up_from: self.now,
            down_from: self.now,
            is_broken: false,
            is_lossy: false,
            is_over_there: false,
        };
        self.streams.insert(id, stream);
        id
    }

    pub(crate) fn send_up(&mut self, id: u64, up: Up) {
        let Some(machine) = self.streams.get(&id).map(|it| it.machine) else { return };
        let latency = self.latency(machine);
        let is_twice =
            matches!(up, Up::Report { .. }) && !self.is_over && self.random.below(40) == 0;
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id).filter(|it| !it.is_broken) else { return };
        stream.up_from = stream.up_from.max(now + latency);
        let at = stream.up_from;
        if is_twice {
            self.note_fault("message duplicated");
            self.at(at, Happening::Up { stream: id, up: up.clone() });
        }
        self.at(at, Happening::Up { stream: id, up });
    }

    pub(crate) fn send_down(&mut self, id: u64, term: Term, down: Down) {
        let Some(machine) = self.streams.get(&id).map(|it| it.machine) else { return };
        let latency = self.latency(machine);
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id).filter(|it| !it.is_broken) else { return };
        stream.down_from = stream.down_from.max(now + latency);
        let at = stream.down_from;
        self.at(at, Happening::Down { stream: id, term, down });
    }

    pub(crate) fn up_arrives(&mut self, id: u64, up: Up) {
        let Some(stream) = self.streams.get(&id).filter(|it| !it.is_over_there) else { return };
        let mute = self.machines[stream.machine].mute_until;
        if mute > self.now {
            self.at(mute, Happening::Up { stream: id, up });
            return;
        }
        if stream.is_broken && (stream.is_lossy || self.random.below(3) == 0) {
            return;
        }
        self.coordinator_hears(id, up);
    }

    pub(crate) fn down_arrives(&mut self, id: u64, term: Term, down: Down) {
        let Some(stream) = self.streams.get(&id) else { return };
        let (agent, deaf) = (stream.agent, self.machines[stream.machine].deaf_until);
        if deaf > self.now {
            self.at(deaf, Happening::Down { stream: id, term, down });
            return;
        }
        // Orders of an old stream may wait in the agent's queue while a new one opens.
        if stream.is_broken && (stream.is_lossy || self.random.below(3) > 0) {
            return;
        }
        self.agent_hears(agent, id, term, down);
    }

    /// A stream ends: both sides hear it sooner or later.
    pub(crate) fn break_stream(&mut self, id: u64, agent_after: u64, leader_after: u64) {
        let is_lossy = self.random.below(2) == 0;
        let Some(stream) = self.streams.get_mut(&id).filter(|it| !it.is_broken) else { return };
        (stream.is_broken, stream.is_lossy) = (true, is_lossy);
        self.at(self.now + agent_after, Happening::AgentHearsEnd(id));
        self.at(self.now + leader_after, Happening::LeaderHearsEnd(id));
    }

    /// An agent hangs up by itself.
    pub(crate) fn hang_up(&mut self, agent: usize) {
        let Some(id) = self.agents[agent].link.take() else { return };
        self.agents[agent].is_welcome = false;
        let is_mute = self.machines[self.agents[agent].machine].mute_until > self.now;
        let after = if is_mute { 5_000 } else { 1 + self.random.below(20) };
        self.break_stream(id, 0, after);
    }

    /// The open stream of a machine's agent.
    pub(crate) fn link_of(&self, machine: usize) -> Option<u64> {
        self.agents[self.machines[machine].agent?].link
    }

    /// Nothing gets through for a while, one way or both. Keepalive ends streams that hear nothing
    /// for four seconds or so.
    pub(crate) fn cut(&mut self, machine: usize, is_mute: bool, is_deaf: bool, millis: u64) {
        let until = self.now + millis;
        if is_mute {
            self.machines[machine].mute_until = until;
        }
        if is_deaf {
            self.machines[machine].deaf_until = until;
        }
        if millis > 4_000
            && let Some(id) = self.link_of(machine)
        {
            let (agent, leader) =
                (4_000 + self.random.below(1_500), 4_000 + self.random.below(1_500));
            self.at(self.now + 4_000, Happening::Keepalive { stream: id, agent, leader });
        }
    }

    /// What a candidate is called in the trace.
    pub(crate) fn named(checkpoint: Option<&CheckpointRef>) -> String {
        checkpoint.map_or_else(|| "nothing".to_owned(), ToString::to_string)
    }
}

impl World {
    /// A stream on which nothing was heard for four seconds is given up by both sides.
    pub(crate) fn keepalive(&mut self, id: u64, agent: u64, leader: u64) {
        let Some(stream) = self.streams.get(&id) else { return };
        let machine = &self.machines[stream.machine];
        if machine.mute_until > self.now || machine.deaf_until > self.now {
            self.break_stream(id, agent.saturating_sub(4_000), leader.saturating_sub(4_000));
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.is_lossy = true;
            }
        }
    }

    /// A process has gone: what it said last arrives before the end of its stream.
    pub(crate) fn break_politely(&mut self, id: u64, after: u64) {
        let Some(stream) = self.streams.get(&id) else { return };
        let last = stream.up_from.max(self.now) - self.now;
        self.break_stream(id, 0, last + after);
    }

    /// An agent that is not welcomed tries elsewhere.
    pub(crate) fn patience_ends(&mut self, agent: usize, id: u64) {
        if self.agents[agent].link == Some(id) && !self.agents[agent].is_welcome {
            self.hang_up(agent);
            self.at(self.now + 100, Happening::Connect(agent));
        }
    }
}
