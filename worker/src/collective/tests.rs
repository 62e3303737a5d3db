use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clade_core::order::Random;
use clade_model::collective::{Collective, CollectiveError};

use super::{MeetError, Meeting, Patience, Place, TcpRing, join};

fn patience(millis: u64) -> Patience {
    Patience::new(Duration::from_millis(millis), Arc::default())
}

fn place(rank: u32, ranks: u32) -> Place {
    Place { fence: "clipart/seed#3".to_owned(), rank, ranks }
}

/// Runs `work` on every rank of a real ring and returns what each of them returns.
fn in_ring<T: Send>(ranks: u32, work: impl Fn(&mut TcpRing) -> T + Sync) -> Vec<T> {
    let meeting = Meeting::listen("127.0.0.1:0").unwrap();
    let address = meeting.address().to_string();
    let (work, address) = (&work, &address);
    thread::scope(|scope| {
        let host = scope
            .spawn(move || work(&mut meeting.host(&place(0, ranks), &patience(20_000)).unwrap()));
        let others: Vec<_> = (1..ranks)
            .map(|rank| {
                scope.spawn(move || {
                    work(&mut join(address, &place(rank, ranks), &patience(20_000)).unwrap())
                })
            })
            .collect();
        std::iter::once(host).chain(others).map(|thread| thread.join().unwrap()).collect()
    })
}

#[expect(clippy::cast_possible_truncation, reason = "any f32 will do")]
fn values(rank: usize, count: usize) -> Vec<f32> {
    let mut random = Random::new(rank as u64 + 1);
    (0..count).map(|_| random.unit() as f32 - 0.5).collect()
}

/// Nothing, less than one per rank, odd, and more than two pieces for every rank.
const COUNTS: [usize; 6] = [0, 1, 3, 17, 1001, 500_009];

#[test]
fn a_sum_is_right_and_has_the_same_bits_on_every_rank() {
    for ranks in 2..=4 {
        let sums = in_ring(ranks, |ring| {
            COUNTS.map(|count| {
                let mut sum = values(ring.rank(), count);
                ring.all_reduce_sum(&mut sum).unwrap();
                sum
            })
        });
        for (which, count) in COUNTS.into_iter().enumerate() {
            let all: Vec<_> = (0..sums.len()).map(|rank| values(rank, count)).collect();
            for (at, sum) in sums[0][which].iter().enumerate() {
                let expected: f64 = all.iter().map(|own| f64::from(own[at])).sum();
                assert!((f64::from(*sum) - expected).abs() < 1e-5, "{ranks} ranks, {count}, {at}");
            }
            let bits = |sum: &[f32]| sum.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            for other in &sums[1..] {
                assert_eq!(bits(&other[which]), bits(&sums[0][which]), "{ranks} ranks, {count}");
            }
        }
    }
}

#[test]
fn a_gather_orders_the_parts_by_rank() {
    for ranks in 2..=4 {
        let gathered = in_ring(ranks, |ring| {
            COUNTS.map(|count| {
                let mut all = vec![7.0];
                ring.all_gather(&values(ring.rank(), count), &mut all).unwrap();
                all
            })
        });
        for (which, count) in COUNTS.into_iter().enumerate() {
            let expected: Vec<f32> =
                (0..gathered.len()).flat_map(|rank| values(rank, count)).collect();
            assert!(gathered.iter().all(|all| all[which] == expected), "{ranks} ranks, {count}");
        }
    }
}

#[test]
fn a_broadcast_reaches_everyone_from_any_root() {
    for ranks in 2..=4 {
        for root in 0..usize::try_from(ranks).unwrap() {
            let heard = in_ring(ranks, |ring| {
                COUNTS.map(|count| {
                    let mut own = values(ring.rank(), count);
                    ring.broadcast(root, &mut own).unwrap();
                    own
                })
            });
            for (which, count) in COUNTS.into_iter().enumerate() {
                assert!(heard.iter().all(|own| own[which] == values(root, count)));
            }
        }
    }
}

#[test]
fn a_lost_peer_ends_the_ring_for_everyone() {
    let endings = in_ring(3, |ring| {
        if ring.rank() == 1 {
            return None;
        }
        let mut sum = vec![1.0; 1_000_000];
        loop {
            if let Err(error) = ring.all_reduce_sum(&mut sum) {
                return Some(error);
            }
        }
    });
    let lost =
        |ending: &Option<CollectiveError>| matches!(ending, Some(CollectiveError::PeerLost { .. }));
    assert!(lost(&endings[0]) && lost(&endings[2]), "{endings:?}");
}

#[test]
fn ranks_with_different_lengths_notice() {
    let endings = in_ring(2, |ring| ring.all_reduce_sum(&mut vec![0.0; 10 + ring.rank()]));
    for (rank, ending) in endings.into_iter().enumerate() {
        let Err(CollectiveError::Mismatch { expected, found, .. }) = ending else {
            panic!("rank {rank} took {ending:?}");
        };
        assert_eq!((expected, found), (10 + rank, 11 - rank));
    }
}

#[test]
fn a_stranger_and_another_incarnation_are_refused_and_the_gang_still_meets() {
    let meeting = Meeting::listen("127.0.0.1:0").unwrap();
    let address = meeting.address().to_string();
    thread::scope(|scope| {
        let host = scope.spawn(|| meeting.host(&place(0, 2), &patience(20_000)));
        let mut stranger = TcpStream::connect(&address).unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(stranger.read(&mut [0; 16]).unwrap_or(0), 0, "a stranger was answered");
        let zombie = Place { fence: "clipart/seed#2".to_owned(), ..place(1, 2) };
        let refused = join(&address, &zombie, &patience(20_000));
        assert!(matches!(refused, Err(MeetError::Refused { .. })), "{refused:?}");
        let mut ring = join(&address, &place(1, 2), &patience(20_000)).unwrap();
        let mut host = host.join().unwrap().unwrap();
        let waiting = scope.spawn(move || host.barrier());
        ring.barrier().unwrap();
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn a_rank_that_never_comes_is_named() {
    let meeting = Meeting::listen("127.0.0.1:0").unwrap();
    let alone = meeting.host(&place(0, 3), &patience(50));
    let Err(MeetError::Timeout { missing, .. }) = alone else { panic!("{alone:?}") };
    assert_eq!(missing, [1, 2]);
}

#[test]
fn a_rank_that_is_to_stop_waits_no_longer_for_its_gang() {
    let stop = Arc::new(AtomicBool::new(false));
    let waiting = Patience::new(Duration::from_secs(600), Arc::clone(&stop));
    let meeting = Meeting::listen("127.0.0.1:0").unwrap();
    let address = meeting.address().to_string();
    thread::scope(|scope| {
        let host = scope.spawn(|| meeting.host(&place(0, 3), &waiting));
        let guest = scope.spawn(|| join(&address, &place(1, 3), &waiting));
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(host.join().unwrap(), Err(MeetError::Stopped)));
        assert!(matches!(guest.join().unwrap(), Err(MeetError::Stopped)));
    });
}
