//! What NCCL knows of the gang's exchanges, asked of NCCL itself.
//!
//! Since 2.24 it has threads that watch the ranks of a job ("RAS"), and one on each machine answers whoever connects:
//! which communicators there are, which ranks are behind in which exchange, and who does not answer. Where several
//! gangs share a machine that may be another gang's, by the processes it names: give each an `NCCL_RAS_ADDR` then.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

/// Where it listens, if not where NCCL's own default is.
const VARIABLE: &str = "NCCL_RAS_ADDR";
const DEFAULT: &str = "localhost:28028";
/// An agent that has asked where a rank stands kills it after three seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// More than that nobody reads.
const MOST: u64 = 64 << 10;

/// NCCL's word, or why there is none.
pub(super) fn word() -> String {
    let address = std::env::var(VARIABLE).unwrap_or_else(|_| DEFAULT.to_owned());
    match ask(&address) {
        Ok(word) => format!("NCCL at {address} says:\n{word}"),
        Err(error) => format!("NCCL at {address} says nothing: {error}"),
    }
}

fn ask(address: &str) -> io::Result<String> {
    let begun = Instant::now();
    let left = || {
        let left = PATIENCE.checked_sub(begun.elapsed()).filter(|left| !left.is_zero());
        left.ok_or_else(|| io::Error::from(io::ErrorKind::TimedOut))
    };
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in address.to_socket_addrs()? {
        let mut stream = match TcpStream::connect_timeout(&address, left()?) {
            Ok(stream) => stream,
            Err(error) => {
                last = error;
                continue;
            }
        };
        // It waits so long for ranks that are silent; then it tells what the others have said.
        stream.write_all(b"timeout 1\nverbose status\n")?;
        let mut said = Vec::new();
        let mut piece = [0; 4096];
        while (said.len() as u64) < MOST {
            let read = left().and_then(|left| {
                stream.set_read_timeout(Some(left))?;
                stream.read(&mut piece)
            });
            match read {
                Ok(0) => break,
                Ok(count) => said.extend_from_slice(&piece[..count]),
                // What came until then is better than nothing.
                Err(_) if !said.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        let said = String::from_utf8_lossy(&said);
        return Ok(said.trim_start_matches("OK\n").trim().to_owned());
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::io::BufRead as _;
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers one caller as NCCL does, after it has asked as it should; and hangs up, or not.
    fn listener(answer: &'static str, hangs_up: bool) -> (String, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answering = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = io::BufReader::new(stream.try_clone().unwrap()).lines();
            let asked = (0..2).map(|_| lines.next().unwrap().unwrap()).collect();
            stream.write_all(answer.as_bytes()).unwrap();
            if !hangs_up {
                // Until the other side does.
                assert!(lines.next().is_none_or(|line| line.is_err()));
            }
            asked
        });
        (address, answering)
    }

    #[test]
    fn what_it_says_is_told_whole_and_in_time() {
        for hangs_up in [true, false] {
            let (address, answering) = listener("OK\nrank 3 is behind\nby two\n", hangs_up);
            let begun = Instant::now();
            assert_eq!(ask(&address).unwrap(), "rank 3 is behind\nby two");
            assert!(begun.elapsed() < PATIENCE + Duration::from_secs(1));
            assert_eq!(answering.join().unwrap(), ["timeout 1", "verbose status"]);
        }
    }

    #[test]
    fn nobody_there_and_no_address_are_said() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        assert_eq!(ask(&free).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        ask("nonsense").unwrap_err();
    }
}
