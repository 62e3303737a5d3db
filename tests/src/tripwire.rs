//! A proxy to an object store that lets a test act at one named request: when it comes, or when it was done.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;

/// When a request is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the store hears of it.
    Before,
    /// When its first bytes are there and the rest is not.
    Midway,
    /// When the store has done it and its answer is not told.
    After,
}

#[derive(Debug, Default)]
struct Wire {
    /// What a request's first line must hold, once armed.
    armed: Option<(Vec<String>, Moment)>,
    /// The first line of the request that is held.
    held: Option<String>,
}

type Shared = Arc<(Mutex<Wire>, Condvar)>;

fn locked(shared: &Shared) -> MutexGuard<'_, Wire> {
    shared.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The proxy; it serves until the process ends.
#[derive(Clone, Debug)]
pub struct Tripwire {
    pub address: SocketAddr,
    shared: Shared,
}

impl Tripwire {
    pub fn start(server: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Shared::default();
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().filter_map(Result::ok) {
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || carry(&client, server, &shared).ok());
            }
        });
        Ok(Self { address, shared })
    }

    /// Holds the next request whose first line holds all of `words`.
    pub fn arm(&self, words: &[&str], moment: Moment) {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        *locked(&self.shared) = Wire { armed: Some((words, moment)), held: None };
    }

    /// Waits until a request is held; returns its first line.
    pub fn wait(&self, limit: Duration) -> anyhow::Result<String> {
        let until = Instant::now() + limit;
        let mut wire = locked(&self.shared);
        loop {
            if let Some(line) = &wire.held {
                return Ok(line.clone());
            }
            let left = until.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "no request came within {limit:?}");
            let waited = self.shared.1.wait_timeout(wire, left);
            wire = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The moment at which the request that begins with `piece` is to be held.
fn trips(piece: &[u8], shared: &Shared) -> Option<(String, Moment)> {
    let line = piece.split(|byte| *byte == b'\r').next()?;
    let line = String::from_utf8_lossy(line).into_owned();
    let mut wire = locked(shared);
    let (words, moment) = wire.armed.as_ref()?;
    if !line.contains(" HTTP/1.") || !words.iter().all(|word| line.contains(word)) {
        return None;
    }
    let moment = *moment;
    wire.armed = None;
    Some((line, moment))
}

/// Tells the test; the connection ends with whoever is killed meanwhile.
fn hold(line: String, shared: &Shared, client: &TcpStream) {
    locked(shared).held = Some(line);
    shared.1.notify_all();
    // Its owner is killed, or the test has failed: either way this ends.
    let mut rest = [0; 4096];
    while let Ok(1..) = (&mut &*client).read(&mut rest) {}
}

fn carry(client: &TcpStream, server: SocketAddr, shared: &Shared) -> anyhow::Result<()> {
    let upstream = TcpStream::connect(server)?;
    for stream in [client, &upstream] {
        stream.set_nodelay(true)?;
    }
    let (from, to) = (upstream.try_clone()?, client.try_clone()?);
    let is_mute = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mute = Arc::clone(&is_mute);
    let (answered, answers) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = (&mut &from).read(&mut buffer) {
            answered.send(()).ok();
            let is_mute = mute.load(std::sync::atomic::Ordering::SeqCst);
            if !is_mute && (&mut &to).write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        // Who is held does not learn that the store has hung up.
        if !mute.load(std::sync::atomic::Ordering::SeqCst) {
            to.shutdown(Shutdown::Both).ok();
        }
    });
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = (&mut &*client).read(&mut buffer) {
        let piece = &buffer[..count];
        match trips(piece, shared) {
            None => (&upstream).write_all(piece)?,
            Some((line, Moment::Before)) => {
                hold(line, shared, client);
                break;
            }
            Some((line, Moment::Midway)) => {
                (&upstream).write_all(&piece[..piece.len() / 2])?;
                hold(line, shared, client);
                break;
            }
            Some((line, Moment::After)) => {
                while answers.try_recv().is_ok() {}
                is_mute.store(true, std::sync::atomic::Ordering::SeqCst);
                (&upstream).write_all(piece)?;
                // A body may come in pieces of its own.
                client.set_read_timeout(Some(Duration::from_millis(20)))?;
                while answers.try_recv().is_err() {
                    if let Ok(count @ 1..) = (&mut &*client).read(&mut buffer) {
                        (&upstream).write_all(&buffer[..count])?;
                    }
                }
                client.set_read_timeout(None)?;
                hold(line, shared, client);
                break;
            }
        }
    }
    for end in [client, &upstream] {
        end.shutdown(Shutdown::Both).ok();
    }
    Ok(())
}
