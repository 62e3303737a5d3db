//! The first words on every connection of a gang: who calls, for which gang, and why.
//!
//! ```text
//! caller    ─ Hello { place, purpose, nonce } ─►  listener
//!           ◄─ Challenge { nonce, proof }  or  Refused(why) ─
//!           ─ Proof ─►
//!           ◄─ Welcome ─
//! ```
//!
//! Each end proves that it knows the gang's secret by an HMAC over all of the hello and both nonces, so
//! nothing that was heard on the way can be used again, or for another end. What follows on the connection is
//! not encrypted.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::patience::Patience;
use super::secret::{End, Secret, nonce};

/// Changes with the meaning of anything said over these connections.
const PROTOCOL: &str = "clade-ring/2";
const MAX_LINE_BYTES: usize = 64 * 1024;
/// How long one line may take: a silent stranger must not hold up the gang.
const LINE_PATIENCE: Duration = Duration::from_secs(2);

/// A rank's place in its gang.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// The gang's fence, as text.
    pub fence: String,
    pub rank: u32,
    pub ranks: u32,
}

/// Why a connection is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Purpose {
    /// To learn the others' addresses; `listen` is the caller's own.
    Meet { listen: String },
    /// To send to the successor in the ring.
    Ring,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hello {
    protocol: String,
    place: Place,
    purpose: Purpose,
    nonce: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Answer {
    Challenge { nonce: String, proof: String },
    Refused(String),
    Welcome,
}

#[derive(Debug, Serialize, Deserialize)]
struct Proof(String);

/// Every rank's listening address, by rank: rank 0's word to those who came to meet.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Peers(pub(super) Vec<String>);

/// A caller that has proved itself.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) place: Place,
    pub(super) purpose: Purpose,
    /// Of the digests on this connection.
    pub(super) seed: u64,
}

/// Why a caller is not let in, or will not go in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unproved {
    #[error("{0}")]
    Lost(#[from] io::Error),
    #[error("{0}")]
    Refused(String),
    #[error("it does not know the gang's secret")]
    Impostor,
}

/// Says who calls, and makes sure of who listens. Returns the seed of the digests on this connection.
pub(super) fn introduce(
    stream: &mut TcpStream,
    own: &Place,
    purpose: Purpose,
    secret: &Secret,
    patience: &Patience,
) -> Result<u64, Unproved> {
    let protocol = PROTOCOL.to_owned();
    let hello = Hello { protocol, place: own.clone(), purpose, nonce: nonce() };
    send_line(stream, &hello)?;
    // Whoever listens may be busy with others.
    patience.wait_for(stream)?;
    let (nonce, proof) = match receive_line(stream)? {
        Answer::Challenge { nonce, proof } => (nonce, proof),
        Answer::Refused(why) => return Err(Unproved::Refused(why)),
        Answer::Welcome => return Err(Unproved::Impostor),
    };
    let about = hello.text();
    if !secret.proves(&proof, End::Listener, &about, &nonce) {
        return Err(Unproved::Impostor);
    }
    send_line(stream, &Proof(secret.proof(End::Caller, &about, &nonce)))?;
    // Not before the listener has taken this connection may its peer count on it.
    match receive_line(stream)? {
        Answer::Welcome => Ok(secret.seed(&about, &nonce)),
        Answer::Refused(why) => Err(Unproved::Refused(why)),
        Answer::Challenge { .. } => Err(Unproved::Impostor),
    }
}

/// Hears who calls; a stranger of another gang is told why it is refused, and an impostor nothing.
pub(super) fn admit(
    stream: &mut TcpStream,
    own: &Place,
    secret: &Secret,
) -> Result<Caller, Unproved> {
    let hello: Hello = receive_line(stream)?;
    if let Err(why) = hello.judge(own) {
        send_line(stream, &Answer::Refused(format!("the caller {why}")))?;
        return Err(Unproved::Refused(why));
    }
    let (about, nonce) = (hello.text(), nonce());
    let proof = secret.proof(End::Listener, &about, &nonce);
    send_line(stream, &Answer::Challenge { nonce: nonce.clone(), proof })?;
    let Proof(proof) = receive_line(stream)?;
    if !secret.proves(&proof, End::Caller, &about, &nonce) {
        return Err(Unproved::Impostor);
    }
    send_line(stream, &Answer::Welcome)?;
    let seed = secret.seed(&about, &nonce);
    let Hello { protocol: _, place, purpose, nonce: _ } = hello;
    Ok(Caller { place, purpose, seed })
}

impl Hello {
    /// What the proofs are about.
    fn text(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers are always JSON")
    }

    /// Whether the caller belongs to the gang of `own`; the reason if not.
    fn judge(&self, own: &Place) -> Result<(), String> {
        let Self { protocol, place, purpose: _, nonce: _ } = self;
        if protocol != PROTOCOL {
            return Err(format!("speaks {protocol}, not {PROTOCOL}"));
        }
        if place.fence != own.fence {
            return Err(format!("belongs to {}, not to {}", place.fence, own.fence));
        }
        if place.ranks != own.ranks || place.rank >= own.ranks || place.rank == own.rank {
            return Err(format!(
                "claims rank {} of {} in a gang of {}",
                place.rank, place.ranks, own.ranks
            ));
        }
        Ok(())
    }
}

pub(super) fn send_line<T: Serialize>(stream: &mut TcpStream, message: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Reads one line, and not a byte beyond it: what follows belongs to the ring.
pub(super) fn receive_line<T: DeserializeOwned>(stream: &mut TcpStream) -> io::Result<T> {
    let until = Instant::now() + LINE_PATIENCE;
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        stream.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            return Ok(serde_json::from_slice(&line)?);
        }
        line.push(byte[0]);
        if line.len() > MAX_LINE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an endless line"));
        }
    }
}
