//! What an agent and its rank say to each other: JSON, one message per line, over stdin and stdout.
//!
//! The pipe is also the rank's lifeline: a rank whose stdin ends has lost its agent, and dies.

use serde::{Deserialize, Serialize};

use clade_core::ids::{Digest, Step};
use clade_core::job::Outcome;
use clade_core::rendezvous::Rendezvous;

/// Said by a rank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FromRank {
    /// Said every second. `units` moves when work gets done.
    Alive { units: u64 },
    /// Rank 0 listens here.
    Rendezvous(Rendezvous),
    /// A checkpoint's manifest exists in the store.
    Checkpoint { step: Step, manifest: Digest },
    /// How far the rank is, how fast in units per second, and for how many milliseconds it worked
    /// per step without waiting for its peers.
    Progress { done: u64, total: u64, rate: f64, loss: Option<f64>, busy_ms: Option<f64> },
    /// The last message.
    Outcome(Outcome),
}

/// Said by an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ToRank {
    /// Where the gang meets.
    Rendezvous(Rendezvous),
    /// The rank is to leave; with `save`, after writing a checkpoint.
    Stop { save: bool },
}

/// Writes one message as its line.
pub fn line<T: Serialize>(message: &T) -> String {
    let mut line = serde_json::to_string(message).expect("messages have string keys only");
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_read_as_the_documents_show_them() {
        assert_eq!(line(&ToRank::Stop { save: true }), "{\"stop\":{\"save\":true}}\n");
        assert_eq!(
            line(&FromRank::Rendezvous("127.0.0.1:1234/secret".into())),
            "{\"rendezvous\":\"127.0.0.1:1234/secret\"}\n"
        );
        assert_eq!(
            line(&FromRank::Outcome(Outcome::Stopped)),
            "{\"outcome\":{\"kind\":\"stopped\"}}\n"
        );
    }
}
