use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use clade_core::rendezvous::Rendezvous;
use clade_model::collective::{Collective, CollectiveError, Solo};

use super::conformance::{COUNTS, Unfit, check};
use super::{MeetError, Meeting, Patience, Place, Secret, TcpRing, join};

fn patience(millis: u64) -> Patience {
    Patience::new(Duration::from_millis(millis), Arc::default())
}

fn place(rank: u32, ranks: u32) -> Place {
    Place { fence: "clipart/seed#3".to_owned(), rank, ranks }
}

fn secret() -> Secret {
    Secret::of(&Rendezvous::new("a:1", "open sesame"))
}

/// Runs `work` on every rank of a real ring and returns what each of them returns.
fn in_ring<T: Send>(ranks: u32, work: impl Fn(&mut TcpRing) -> T + Sync) -> Vec<T> {
    let meeting = Meeting::listen("127.0.0.1:0").unwrap();
    let address = meeting.address().to_string();
    let (work, address) = (&work, &address);
    thread::scope(|scope| {
        let host = scope.spawn(move || {
            work(&mut meeting.host(&place(0, ranks), &secret(), &patience(20_000)).unwrap())
        });
        let others: Vec<_> = (1..ranks)
            .map(|rank| {
                scope.spawn(move || {
                    let place = place(rank, ranks);
                    work(&mut join(address, &place, &secret(), &patience(20_000)).unwrap())
                })
            })
            .collect();
        std::iter::once(host).chain(others).map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn rings_of_1_to_8_ranks_sum_gather_and_broadcast_as_every_collective_must() {
    check(&mut Solo, &COUNTS).unwrap();
    for ranks in [2, 3, 4, 8] {
        // Eight ranks here share two cores.
        let counts = if ranks == 8 { &COUNTS[..5] } else { &COUNTS[..] };
        let found: Result<Vec<()>, Unfit> =
            in_ring(ranks, |ring| check(ring, counts)).into_iter().collect();
        found.unwrap_or_else(|error| panic!("{ranks} ranks: {error}"));
    }
}

#[test]
fn a_lost_peer_ends_the_ring_for_everyone_at_once() {
    for ranks in [2, 3, 8] {
        let lost_at = Mutex::new(None);
        let endings = in_ring(ranks, |ring| {
            if ring.rank() == 1 {
                *lost_at.lock().unwrap() = Some(Instant::now());
                return None;
            }
            let mut sum = vec![1.0; 100_000];
            loop {
                if let Err(error) = ring.all_reduce_sum(&mut sum) {
                    return Some((error, Instant::now()));
                }
            }
        });
        let lost_at = lost_at.lock().unwrap().unwrap();
        for (error, at) in endings.iter().flatten() {
            assert!(matches!(error, CollectiveError::PeerLost { .. }), "{error:?}");
            let noticed = at.saturating_duration_since(lost_at);
            assert!(noticed < Duration::from_secs(2), "{ranks} ranks: {noticed:?}");
        }
    }
}

#[test]
fn a_peer_that_stands_still_is_given_up_when_patience_ends() {
    const SHORT: Duration = Duration::from_millis(300);
    // The one that stands still holds its connections until the others have ended.
    let ended = Barrier::new(3);
    let endings = in_ring(3, |ring| {
        let ending = (ring.rank() != 1).then(|| {
            ring.give_up_after(SHORT);
            let begun = Instant::now();
            (ring.all_reduce_sum(&mut [1.0; 1_000]), begun.elapsed())
        });
        ended.wait();
        ending
    });
    let ends = endings.into_iter().flatten();
    let gave_up = ends.filter(|(end, waited)| {
        matches!(end, Err(CollectiveError::Timeout { .. })) && *waited >= SHORT
    });
    assert_eq!(gave_up.count(), 2);
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
fn a_rank_that_makes_another_call_than_its_peers_is_told_from_one_that_is_in_step() {
    let endings =
        in_ring(
            3,
            |ring| {
                if ring.rank() == 1 { ring.broadcast(0, &mut [0.0]) } else { ring.barrier() }
            },
        );
    assert!(endings.iter().all(Result::is_err), "{endings:?}");
    let text = format!("{endings:?}");
    assert!(text.contains("was due"), "{text}");
}

/// Passes on what comes from a caller, with one bit of byte `at` turned, if there is such a byte.
fn noisy_line(to: String, at: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut from, _) = listener.accept().unwrap();
        let mut to = TcpStream::connect(to).unwrap();
        let (mut back, mut answers) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut answers, &mut back));
        let (mut passed, mut buffer) = (0, [0; 4_096]);
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if (passed..passed + count).contains(&at) {
                buffer[at - passed] ^= 0x10;
            }
            passed += count;
            if to.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    });
    address
}

#[test]
fn one_bit_that_turns_on_the_way_is_noticed() {
    use super::handshake::{Purpose, admit, introduce};
    use super::transfer::{Neighbours, Wire};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let line = noisy_line(listener.local_addr().unwrap().to_string(), 100_000);
    // Both ends of one rank's wires, so that it is its own neighbour over the noisy line.
    let (next, prev) = thread::scope(|scope| {
        let prev = scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let caller = admit(&mut stream, &place(0, 2), &secret()).unwrap();
            Wire { rank: caller.place.rank, stream, seed: caller.seed }
        });
        let mut stream = TcpStream::connect(line).unwrap();
        let patience = patience(20_000);
        let seed = introduce(&mut stream, &place(1, 2), Purpose::Ring, &secret(), &patience);
        (Wire { rank: 0, stream, seed: seed.unwrap() }, prev.join().unwrap())
    });
    let mut both = Neighbours::new(next, prev, Duration::from_secs(20)).unwrap();
    let (sent, mut came) = (vec![7; 50_000], vec![0; 50_000]);
    both.exchange(&sent, &mut came).unwrap();
    assert_eq!(came, sent);
    let damaged = both.exchange(&sent, &mut came);
    assert!(matches!(damaged, Err(CollectiveError::Damaged { peer: 1 })), "{damaged:?}");
}

#[test]
fn a_stranger_another_incarnation_and_an_impostor_are_refused_and_the_gang_still_meets() {
    let meeting = Meeting::listen("127.0.0.1:0").unwrap();
    let address = meeting.address().to_string();
    thread::scope(|scope| {
        let host = scope.spawn(|| meeting.host(&place(0, 2), &secret(), &patience(20_000)));
        let mut stranger = TcpStream::connect(&address).unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(stranger.read(&mut [0; 16]).unwrap_or(0), 0, "a stranger was answered");
        let zombie = Place { fence: "clipart/seed#2".to_owned(), ..place(1, 2) };
        let refused = join(&address, &zombie, &secret(), &patience(20_000));
        assert!(matches!(refused, Err(MeetError::Refused { .. })), "{refused:?}");
        let guess = Secret::of(&Rendezvous::new("a:1", "open barley"));
        let refused = join(&address, &place(1, 2), &guess, &patience(20_000));
        assert!(matches!(refused, Err(MeetError::Impostor { .. })), "{refused:?}");
        let mut ring = join(&address, &place(1, 2), &secret(), &patience(20_000)).unwrap();
        let mut host = host.join().unwrap().unwrap();
        let waiting = scope.spawn(move || host.barrier());
        ring.barrier().unwrap();
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn a_caller_that_knows_the_place_and_not_the_secret_is_not_let_in() {
    use super::handshake::{Unproved, admit};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::scope(|scope| {
        let admitted = scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            admit(&mut stream, &place(0, 2), &secret()).map(|_| ())
        });
        let mut stream = TcpStream::connect(address).unwrap();
        let hello = format!(
            "{}\n\"{}\"\n",
            r#"{"protocol":"clade-ring/2","place":{"fence":"clipart/seed#3","rank":1,"ranks":2},"purpose":"ring","nonce":"1"}"#,
            "00".repeat(32)
        );
        stream.write_all(hello.as_bytes()).unwrap();
        let why = admitted.join().unwrap();
        assert!(matches!(why, Err(Unproved::Impostor)), "{why:?}");
    });
}

#[test]
fn a_rank_that_never_comes_is_named() {
    let meeting = Meeting::listen("127.0.0.1:0").unwrap();
    let alone = meeting.host(&place(0, 3), &secret(), &patience(50));
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
        let host = scope.spawn(|| meeting.host(&place(0, 3), &secret(), &waiting));
        let guest = scope.spawn(|| join(&address, &place(1, 3), &secret(), &waiting));
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(host.join().unwrap(), Err(MeetError::Stopped)));
        assert!(matches!(guest.join().unwrap(), Err(MeetError::Stopped)));
    });
}
