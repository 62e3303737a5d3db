//! Failed tries to prove an identity, counted per address in bounded memory.
//!
//! A token cannot be guessed, and looking one up is cheap; this keeps those who try from being told
//! more than to wait. It never judges a good token: whoever shares an address with others who fail
//! must not be shut out by them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(10);
const MOST_FAILURES: u32 = 20;
/// Addresses remembered at a time.
const MOST_ADDRESSES: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Limiter {
    /// By [`group`]: since when it is counted, and how often it failed.
    failures: BTreeMap<Option<IpAddr>, (Instant, u32)>,
}

impl Limiter {
    /// Counts a failure; whether the address may still be told why it failed.
    pub(super) fn failed(&mut self, address: Option<IpAddr>, now: Instant) -> bool {
        let address = address.map(group);
        if self.failures.len() >= MOST_ADDRESSES && !self.failures.contains_key(&address) {
            self.make_room(now);
        }
        let (since, count) = self.failures.entry(address).or_insert((now, 0));
        if has_passed(*since, now) {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= MOST_FAILURES
    }

    /// Forgets whose time has passed, else whoever has been counted longest.
    fn make_room(&mut self, now: Instant) {
        self.failures.retain(|_, (since, _)| !has_passed(*since, now));
        if self.failures.len() < MOST_ADDRESSES {
            return;
        }
        let oldest = self.failures.iter().min_by_key(|(_, (since, _))| *since);
        if let Some(oldest) = oldest.map(|(address, _)| *address) {
            self.failures.remove(&oldest);
        }
    }
}

fn has_passed(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) >= WINDOW
}

/// One host has a whole /64 of IPv6 to itself.
fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn v4(number: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    #[test]
    fn twenty_failures_in_ten_seconds_are_answered_and_further_ones_of_that_address_are_not() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        assert!((0..MOST_FAILURES).all(|_| limiter.failed(v4(1), start)));
        assert!(!limiter.failed(v4(1), start + WINDOW / 2));
        assert!(limiter.failed(v4(2), start));
        assert!(limiter.failed(v4(1), start + WINDOW));
        assert!(limiter.failed(v4(1), start + WINDOW), "it begins anew");
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        for number in 0..MOST_FAILURES {
            assert!(limiter.failed(format!("2001:db8::{number:x}").parse().ok(), start));
        }
        assert!(!limiter.failed("2001:db8::ffff".parse().ok(), start));
        assert!(limiter.failed("2001:db8:0:1::1".parse().ok(), start));
    }

    #[test]
    fn memory_is_bounded_and_the_newest_are_remembered() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        for number in 0..10_000 {
            limiter.failed(v4(number), start + Duration::from_micros(number.into()));
        }
        assert_eq!(limiter.failures.len(), MOST_ADDRESSES);
        assert!(limiter.failures.contains_key(&v4(9_999)));
        assert!(!limiter.failures.contains_key(&v4(0)));
        limiter.failed(v4(0), start + 2 * WINDOW);
        assert_eq!(limiter.failures.len(), 1);
    }
}
