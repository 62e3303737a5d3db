//! What is done to the cluster, drawn from a seed: every kind once, in any order, before any kind again.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use clade_core::order::Random;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cluster::Cluster;
use super::proxy::Mode;
use super::service::Service;

/// At most so many at a time.
const AT_ONCE: usize = 3;
/// At most so many workers hurt at a time, so that a gang of two fits on the rest.
const WORKERS_AT_ONCE: usize = 2;
/// Between two faults of whoever leads: while nobody does, nothing is placed, and faults of workers hurt nobody.
const LED: Duration = Duration::from_secs(12);
/// Pieces wait up to so long in a slow network.
const SLOW: Duration = Duration::from_millis(150);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// SIGKILL, and another start.
    Kill,
    /// SIGTERM, and another start once it is gone.
    End,
    /// SIGSTOP and SIGCONT: afterwards it believes that no time has passed.
    Stall,
    /// Off the network and on again.
    Cut,
    /// Its disk is full, and then no more.
    Fill,
    Slow,
    Fail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    Rank,
    Worker,
    /// The coordinator that leads.
    Leader,
    /// The member of etcd that leads.
    Etcd,
    /// The paths from workers and clients to the coordinators.
    Doors,
    Store,
}

/// Kinds of faults, and how many seconds each lasts.
const KINDS: [(Harm, Victim, u64); 19] = [
    (Harm::Kill, Victim::Rank, 0),
    (Harm::Stall, Victim::Rank, 4),
    // Longer than its agent waits for a sign of life.
    (Harm::Stall, Victim::Rank, 19),
    (Harm::Kill, Victim::Worker, 2),
    (Harm::End, Victim::Worker, 1),
    // Longer than it takes to be declared lost: it comes back as a zombie, its rank was never away.
    (Harm::Stall, Victim::Worker, 12),
    (Harm::Cut, Victim::Worker, 3),
    (Harm::Cut, Victim::Worker, 13),
    (Harm::Fill, Victim::Worker, 5),
    (Harm::Kill, Victim::Leader, 2),
    (Harm::End, Victim::Leader, 1),
    (Harm::Stall, Victim::Leader, 9),
    (Harm::Cut, Victim::Leader, 9),
    (Harm::Kill, Victim::Etcd, 3),
    (Harm::Stall, Victim::Etcd, 7),
    (Harm::Cut, Victim::Etcd, 6),
    (Harm::Fill, Victim::Etcd, 5),
    (Harm::Slow, Victim::Doors, 8),
    (Harm::Fail, Victim::Store, 5),
];

struct Fault {
    harm: Harm,
    victim: Victim,
    /// Number of the service, or process of the rank.
    which: usize,
    until: Instant,
}

/// Draws faults, does them and undoes them.
pub struct Faults {
    random: Random,
    deck: Vec<(Harm, Victim, u64)>,
    active: Vec<Fault>,
    next: Instant,
    /// When whoever leads may be hurt again.
    led: Instant,
    hurt_once: BTreeSet<Victim>,
    /// How many were done.
    pub done: usize,
    /// Programs that ended by themselves and were started again.
    pub fallen: Vec<String>,
    began: Instant,
}

impl Faults {
    pub fn new(seed: u64) -> Self {
        let now = Instant::now();
        Self {
            random: Random::new(seed),
            deck: Vec::new(),
            active: Vec::new(),
            next: now,
            led: now,
            hurt_once: BTreeSet::new(),
            done: 0,
            fallen: Vec::new(),
            began: now,
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.below(bound as u64)).expect("below a usize")
    }

    /// Begins faults that are due, if any are to begin, and ends those whose time is over.
    pub fn tick(&mut self, cluster: &mut Cluster, are_more_wanted: bool) -> anyhow::Result<()> {
        let now = Instant::now();
        let over: Vec<Fault> = self.active.extract_if(.., |fault| fault.until <= now).collect();
        for fault in over {
            self.undo(cluster, fault)?;
        }
        self.restart_fallen(cluster)?;
        if !are_more_wanted || now < self.next || self.active.len() >= AT_ONCE {
            return Ok(());
        }
        if self.deck.is_empty() {
            self.deck = KINDS.to_vec();
        }
        // The first in a random order that can be done now.
        for _ in 0..self.deck.len() {
            let at = self.below(self.deck.len());
            let (harm, victim, seconds) = self.deck[at];
            if let Some(which) = self.choose(cluster, victim)? {
                self.deck.swap_remove(at);
                self.begin(cluster, harm, victim, which, seconds)?;
                break;
            }
        }
        self.next = Instant::now() + Duration::from_millis(500 + self.random.below(2_000));
        Ok(())
    }

    /// Whether ranks and workers were hurt at least once; who leads is before any fault is drawn.
    pub fn covered(&self) -> anyhow::Result<()> {
        let all = [Victim::Rank, Victim::Worker];
        let spared: Vec<&Victim> = all.iter().filter(|it| !self.hurt_once.contains(it)).collect();
        anyhow::ensure!(spared.is_empty(), "these were never hurt: {spared:?}");
        Ok(())
    }

    pub fn are_over(&self) -> bool {
        self.active.is_empty()
    }

    fn hurt(&self, victim: Victim) -> impl Iterator<Item = usize> {
        self.active.iter().filter(move |it| it.victim == victim).map(|it| it.which)
    }

    fn choose(&mut self, cluster: &Cluster, victim: Victim) -> anyhow::Result<Option<usize>> {
        let hurt: Vec<usize> = self.hurt(victim).collect();
        Ok(match victim {
            Victim::Rank => {
                let ranks = cluster.ranks()?;
                if ranks.is_empty()
                    || hurt.len() + self.hurt(Victim::Worker).count() >= WORKERS_AT_ONCE
                {
                    return Ok(None);
                }
                usize::try_from(ranks[self.below(ranks.len())].0).ok()
            }
            Victim::Worker => {
                if hurt.len() + self.hurt(Victim::Rank).count() >= WORKERS_AT_ONCE {
                    return Ok(None);
                }
                // Those who have something to lose.
                let ranks = cluster.ranks()?;
                let is_busy = |at: usize| {
                    let disk = format!("{}/", cluster.disks[at].display());
                    ranks.iter().any(|(_, line)| line.contains(&disk))
                };
                let busy =
                    (0..cluster.workers.len()).filter(|at| !hurt.contains(at) && is_busy(*at));
                let busy: Vec<usize> = busy.collect();
                (!busy.is_empty()).then(|| busy[self.below(busy.len())])
            }
            Victim::Leader | Victim::Etcd if !hurt.is_empty() || Instant::now() < self.led => None,
            Victim::Leader => cluster.leader(),
            Victim::Etcd => cluster.etcd.leader(),
            Victim::Doors | Victim::Store => hurt.is_empty().then_some(0),
        })
    }

    fn say(&self, what: &str, harm: Harm, victim: Victim, which: usize) {
        let at = self.began.elapsed().as_secs_f64();
        eprintln!("{at:6.1} s  {what} {harm:?} {victim:?} {which}");
    }

    fn begin(
        &mut self,
        cluster: &mut Cluster,
        harm: Harm,
        victim: Victim,
        which: usize,
        seconds: u64,
    ) -> anyhow::Result<()> {
        self.say("begin", harm, victim, which);
        self.done += 1;
        self.hurt_once.insert(victim);
        match victim {
            Victim::Rank => {
                let signal = if harm == Harm::Kill { Signal::SIGKILL } else { Signal::SIGSTOP };
                signal_process(which, signal);
            }
            Victim::Doors => cluster.doors.iter().for_each(|door| door.set(Mode::Slow(SLOW))),
            Victim::Store => cluster.store.set(Mode::Fail),
            Victim::Worker => {
                let disk = cluster.disks[which].clone();
                hurt(&mut cluster.workers[which], harm, &disk)?;
            }
            Victim::Leader => {
                let folder = cluster.folder.clone();
                hurt(&mut cluster.coordinators[which], harm, &folder)?;
            }
            Victim::Etcd => {
                let disk = cluster.etcd.disks[which].clone();
                hurt(&mut cluster.etcd.members[which], harm, &disk)?;
            }
        }
        let until = Instant::now() + Duration::from_secs(seconds);
        if matches!(victim, Victim::Leader | Victim::Etcd) {
            self.led = until + LED;
        }
        self.active.push(Fault { harm, victim, which, until });
        Ok(())
    }

    fn undo(&mut self, cluster: &mut Cluster, fault: Fault) -> anyhow::Result<()> {
        let Fault { harm, victim, which, .. } = fault;
        let (service, disk) = match victim {
            Victim::Rank => {
                signal_process(which, Signal::SIGCONT);
                return Ok(());
            }
            Victim::Doors => {
                cluster.doors.iter().for_each(|door| door.set(Mode::Pass));
                self.say("end  ", harm, victim, which);
                return Ok(());
            }
            Victim::Store => {
                cluster.store.set(Mode::Pass);
                self.say("end  ", harm, victim, which);
                return Ok(());
            }
            Victim::Worker => (&mut cluster.workers[which], &cluster.disks[which]),
            Victim::Leader => (&mut cluster.coordinators[which], &cluster.folder),
            Victim::Etcd => (&mut cluster.etcd.members[which], &cluster.etcd.disks[which]),
        };
        match harm {
            Harm::Kill => service.start()?,
            Harm::End if service.is_alive() => {
                // Ranks save before they go.
                let until = Instant::now() + Duration::from_millis(500);
                self.active.push(Fault { until, ..fault });
                return Ok(());
            }
            Harm::End => service.start()?,
            Harm::Stall => service.signal(Signal::SIGCONT),
            Harm::Cut => service.machine.join()?,
            Harm::Fill => std::fs::remove_file(disk.join(BALLAST))?,
            Harm::Slow | Harm::Fail => (),
        }
        self.say("end  ", harm, victim, which);
        Ok(())
    }

    /// Starts again whatever ended by itself, as a supervisor does.
    fn restart_fallen(&mut self, cluster: &mut Cluster) -> anyhow::Result<()> {
        let groups: [(Victim, &mut Vec<Service>); 3] = [
            (Victim::Worker, &mut cluster.workers),
            (Victim::Leader, &mut cluster.coordinators),
            (Victim::Etcd, &mut cluster.etcd.members),
        ];
        for (victim, services) in groups {
            let away: Vec<usize> = self.hurt(victim).collect();
            for (at, service) in services.iter_mut().enumerate() {
                if !away.contains(&at) && !service.is_alive() {
                    eprintln!("          {} had ended and is started again", service.name());
                    self.fallen.push(service.name().to_owned());
                    service.start()?;
                }
            }
        }
        Ok(())
    }
}

const BALLAST: &str = "ballast";

fn hurt(service: &mut Service, harm: Harm, disk: &Path) -> anyhow::Result<()> {
    match harm {
        Harm::Kill => service.kill(),
        Harm::End => service.signal(Signal::SIGTERM),
        Harm::Stall => service.signal(Signal::SIGSTOP),
        Harm::Cut => service.machine.cut()?,
        Harm::Fill => {
            let mut ballast = File::create(disk.join(BALLAST))?;
            let piece = vec![0; 64 << 10];
            // Until nothing more fits, and then the last bytes.
            while ballast.write_all(&piece).is_ok() {}
            while ballast.write_all(&[0; 64]).is_ok() {}
        }
        Harm::Slow | Harm::Fail => (),
    }
    Ok(())
}

fn signal_process(pid: usize, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        kill(Pid::from_raw(pid), signal).ok();
    }
}
