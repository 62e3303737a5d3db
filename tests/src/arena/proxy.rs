//! A TCP proxy between parts of the cluster that can be slow, and that can fail as object stores do.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clade_core::order::Random;

/// What the proxy does with what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Each piece waits up to so long, each connection for itself: pieces of different connections overtake
    /// each other.
    Slow(Duration),
    /// Of the pieces of requests, one in three is answered 503, cut, or swallowed for two seconds and cut.
    Fail,
}

const UNAVAILABLE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const SWALLOWED: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Shared {
    mode: Mutex<Mode>,
    random: Mutex<Random>,
}

impl Shared {
    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).below(bound)
    }
}

/// A proxy at an address of the hub; it serves until the process ends.
#[derive(Clone, Debug)]
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Listens at `at` (port 0 takes a free one) for `server`.
    pub fn start(at: &str, server: &str, seed: u64) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(at)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            mode: Mutex::new(Mode::Pass),
            random: Mutex::new(Random::new(seed)),
        });
        let (serving, server) = (Arc::clone(&shared), server.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().filter_map(Result::ok) {
                let (shared, server) = (Arc::clone(&serving), server.clone());
                std::thread::spawn(move || carry(&client, &server, &shared).ok());
            }
        });
        Ok(Self { address, shared })
    }

    pub fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap_or_else(PoisonError::into_inner) = mode;
    }
}

fn carry(client: &TcpStream, server: &str, shared: &Arc<Shared>) -> anyhow::Result<()> {
    let upstream = TcpStream::connect_timeout(&server.parse()?, Duration::from_secs(3))?;
    for stream in [client, &upstream] {
        stream.set_nodelay(true)?;
    }
    let (from, to) = (upstream.try_clone()?, client.try_clone()?);
    let back = Arc::clone(shared);
    let answers = std::thread::spawn(move || copy(&from, &to, &back, false));
    copy(client, &upstream, shared, true);
    answers.join().ok();
    Ok(())
}

/// Copies until one side ends, and then ends the other.
fn copy(mut from: &TcpStream, mut to: &TcpStream, shared: &Shared, are_requests: bool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        match shared.mode() {
            Mode::Pass => (),
            Mode::Slow(most) => {
                let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
                std::thread::sleep(Duration::from_micros(shared.below(most.max(1))));
            }
            Mode::Fail if !are_requests => (),
            Mode::Fail => match shared.below(9) {
                0 => {
                    from.write_all(UNAVAILABLE).ok();
                    break;
                }
                1 => break,
                2 => {
                    std::thread::sleep(SWALLOWED);
                    break;
                }
                _ => (),
            },
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    for end in [from, to] {
        end.shutdown(Shutdown::Both).ok();
    }
}
