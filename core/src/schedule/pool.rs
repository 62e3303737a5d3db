//! Free seats of the workers that may be given work, in the orders that placement asks for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{NodeName, Seat, WorkerId};

/// All free seats. Devices of one kind form a pool: a gang never mixes kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pools {
    places: BTreeMap<WorkerId, Place>,
    kinds: BTreeMap<String, Pool>,
    free: u32,
}

/// The free seats of one worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) kind: String,
    pub(super) domain: String,
    pub(super) node: NodeName,
    pub(super) slots: BTreeSet<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Pool {
    free: u32,
    workers: BTreeSet<(u32, WorkerId)>,
    domains: BTreeMap<String, Domain>,
    by_free: BTreeSet<(u32, String)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Domain {
    free: u32,
    workers: BTreeSet<(u32, WorkerId)>,
}

/// What a gang looks for.
pub(super) struct Wish<'a> {
    pub(super) ranks: u32,
    pub(super) accepts_kind: &'a dyn Fn(&str) -> bool,
    pub(super) accepts: &'a dyn Fn(&WorkerId, &NodeName) -> bool,
    /// Nodes where it sat before: plans stay stable, and caches warm.
    pub(super) home: &'a BTreeSet<NodeName>,
}

impl Pools {
    pub(super) const fn free(&self) -> u32 {
        self.free
    }

    /// Free seats of the kinds that are wanted.
    pub(super) fn free_of(&self, accepts_kind: &dyn Fn(&str) -> bool) -> u32 {
        self.kinds.iter().filter(|(kind, _)| accepts_kind(kind)).map(|(_, pool)| pool.free).sum()
    }

    /// Free seats of a kind at workers that will do.
    pub(super) fn free_with(&self, kind: &str, accepts: &dyn Fn(&WorkerId) -> bool) -> u32 {
        let workers = self.kinds.get(kind).into_iter().flat_map(|pool| &pool.workers);
        workers.filter(|(_, id)| accepts(id)).map(|(free, _)| free).sum()
    }

    /// Replaces what is known of a worker; returns whether it has seats that it had not.
    pub(super) fn set(&mut self, id: &WorkerId, place: Option<Place>) -> bool {
        let place = place.filter(|place| !place.slots.is_empty());
        let before = self.places.remove(id);
        if let Some(before) = &before {
            self.count(id, before, false);
        }
        let Some(place) = place else { return false };
        self.count(id, &place, true);
        let has_more = before.is_none_or(|before| !place.slots.is_subset(&before.slots));
        self.places.insert(id.clone(), place);
        has_more
    }

    fn count(&mut self, id: &WorkerId, place: &Place, is_there: bool) {
        let count = u32::try_from(place.slots.len()).unwrap_or(u32::MAX);
        let entry = (count, id.clone());
        let pool = self.kinds.entry(place.kind.clone()).or_default();
        let domain = pool.domains.entry(place.domain.clone()).or_default();
        pool.by_free.remove(&(domain.free, place.domain.clone()));
        if is_there {
            self.free += count;
            pool.free += count;
            domain.free += count;
            pool.workers.insert(entry.clone());
            domain.workers.insert(entry);
        } else {
            self.free -= count;
            pool.free -= count;
            domain.free -= count;
            pool.workers.remove(&entry);
            domain.workers.remove(&entry);
        }
        if domain.workers.is_empty() {
            pool.domains.remove(&place.domain);
        } else {
            pool.by_free.insert((domain.free, place.domain.clone()));
        }
        if pool.workers.is_empty() {
            self.kinds.remove(&place.kind);
        }
    }

    /// Seats for a whole gang, or none: on one worker if any holds it all (one it knows, else the
    /// fullest), else in one domain (the fullest), else in one kind; then on few workers.
    pub(super) fn find(&self, wish: &Wish<'_>) -> Option<Vec<Seat>> {
        let kinds = || self.kinds.iter().filter(|(kind, _)| (wish.accepts_kind)(kind));
        let fits = |pool: &&Pool| pool.free >= wish.ranks;
        let pools: Vec<&Pool> = kinds().map(|(_, pool)| pool).filter(fits).collect();
        pools
            .iter()
            .find_map(|pool| self.on_one_worker(pool, wish))
            .or_else(|| pools.iter().find_map(|pool| self.in_one_domain(pool, wish)))
            .or_else(|| pools.iter().find_map(|pool| self.anywhere(pool, wish)))
    }

    fn accepted(&self, id: &WorkerId, wish: &Wish<'_>) -> bool {
        self.places.get(id).is_some_and(|place| (wish.accepts)(id, &place.node))
    }

    fn is_home(&self, id: &WorkerId, wish: &Wish<'_>) -> bool {
        self.places.get(id).is_some_and(|place| wish.home.contains(&place.node))
    }

    fn on_one_worker(&self, pool: &Pool, wish: &Wish<'_>) -> Option<Vec<Seat>> {
        let first = (wish.ranks, WorkerId(String::new()));
        let fitting = || pool.workers.range(first.clone()..).map(|(_, id)| id);
        let mut known = fitting().filter(|_| !wish.home.is_empty());
        let home = known.find(|id| self.is_home(id, wish) && self.accepted(id, wish));
        let found = home.or_else(|| fitting().find(|id| self.accepted(id, wish)))?;
        self.take([found], wish.ranks)
    }

    fn in_one_domain(&self, pool: &Pool, wish: &Wish<'_>) -> Option<Vec<Seat>> {
        pool.by_free.range((wish.ranks, String::new())..).find_map(|(_, name)| {
            let domain = pool.domains.get(name)?;
            self.take(self.emptiest_first(domain, wish), wish.ranks)
        })
    }

    fn anywhere(&self, pool: &Pool, wish: &Wish<'_>) -> Option<Vec<Seat>> {
        let domains = pool.by_free.iter().rev().filter_map(|(_, name)| pool.domains.get(name));
        self.take(domains.flat_map(|domain| self.emptiest_first(domain, wish)), wish.ranks)
    }

    /// The domain's workers: those it knows, then those with most free seats.
    fn emptiest_first<'a>(&'a self, domain: &'a Domain, wish: &Wish<'_>) -> Vec<&'a WorkerId> {
        let accepted = domain.workers.iter().filter(|(_, id)| self.accepted(id, wish));
        let mut workers: Vec<(bool, Reverse<u32>, &WorkerId)> = accepted
            .map(|(free, id)| {
                let is_strange = !wish.home.is_empty() && !self.is_home(id, wish);
                (is_strange, Reverse(*free), id)
            })
            .collect();
        workers.sort_unstable();
        workers.into_iter().map(|(.., id)| id).collect()
    }

    fn take<'a>(
        &self,
        workers: impl IntoIterator<Item = &'a WorkerId>,
        ranks: u32,
    ) -> Option<Vec<Seat>> {
        let ranks = usize::try_from(ranks).ok()?;
        let seats = workers.into_iter().flat_map(|id| {
            let slots = self.places.get(id).into_iter().flat_map(|place| place.slots.iter());
            slots.map(|&slot| Seat { worker: id.clone(), slot })
        });
        let seats: Vec<Seat> = seats.take(ranks).collect();
        (seats.len() == ranks).then_some(seats)
    }
}
