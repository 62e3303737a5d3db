//! The first words on every connection of a gang: who calls, for which gang, and why.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Changes with the meaning of anything said over these connections.
const PROTOCOL: &str = "clade-ring/1";
const MAX_LINE_BYTES: usize = 64 * 1024;

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
pub(super) struct Hello {
    protocol: String,
    pub(super) place: Place,
    pub(super) purpose: Purpose,
}

impl Hello {
    pub(super) fn new(place: &Place, purpose: Purpose) -> Self {
        Self { protocol: PROTOCOL.to_owned(), place: place.clone(), purpose }
    }

    /// Whether the caller belongs to the gang of `own`; the reason if not.
    pub(super) fn judge(&self, own: &Place) -> Result<(), String> {
        let Self { protocol, place, purpose: _ } = self;
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

/// Rank 0's answer to those who came to meet.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Reply {
    /// Every rank's listening address, by rank.
    Peers(Vec<String>),
    Refused(String),
}

pub(super) fn send_line<T: Serialize>(stream: &mut TcpStream, message: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Reads one line, and not a byte beyond it: what follows belongs to the ring.
pub(super) fn receive_line<T: DeserializeOwned>(stream: &mut TcpStream) -> io::Result<T> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
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
