//! Reports that must arrive: numbered, kept until acknowledged, repeated over every new stream.

use std::collections::BTreeMap;

use clade_proto::v1::SessionRequest;
use clade_proto::v1::session_request::Report;

/// The reports one worker still owes its coordinator, in order.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    last: u64,
    waiting: BTreeMap<u64, Report>,
}

impl Outbox {
    /// Keeps a report and gives it its number.
    pub(super) fn push(&mut self, report: Report) -> SessionRequest {
        self.last += 1;
        self.waiting.insert(self.last, report.clone());
        SessionRequest { sequence: self.last, report: Some(report) }
    }

    pub(super) fn acknowledge(&mut self, sequence: u64) {
        self.waiting.remove(&sequence);
    }

    /// Everything unacknowledged, oldest first.
    pub(super) fn unacknowledged(&self) -> impl Iterator<Item = SessionRequest> {
        let numbered = |(&sequence, report): (&u64, &Report)| SessionRequest {
            sequence,
            report: Some(report.clone()),
        };
        self.waiting.iter().map(numbered)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use clade_proto::v1::{CheckpointWritten, RendezvousPosted};

    use super::*;

    #[test]
    fn only_what_is_acknowledged_is_forgotten_and_the_order_stays() {
        let mut outbox = Outbox::default();
        let posted = || Report::RendezvousPosted(RendezvousPosted::default());
        let written = || Report::CheckpointWritten(CheckpointWritten::default());
        let sequences = [posted(), written(), written()].map(|it| outbox.push(it).sequence);
        assert_eq!(sequences, [1, 2, 3]);
        outbox.acknowledge(2);
        outbox.acknowledge(2);
        outbox.acknowledge(9);
        let left: Vec<u64> = outbox.unacknowledged().map(|request| request.sequence).collect();
        assert_eq!(left, [1, 3]);
    }
}
