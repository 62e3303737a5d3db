//! What a worker says of itself when it joins, judged before the engine hears of it.

use std::collections::BTreeMap;

use clade_access::Identity;
use clade_core::ids::{Fence, NodeName, WorkerId};
use clade_core::schedule::{Event, LiveRank, Offer};
use clade_proto::PROTOCOL;
use clade_proto::convert::{WireError, required, shortened};
use clade_proto::v1;
use tracing::{info, warn};

/// Why a hello is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unwelcome {
    #[error(
        "the worker speaks version {found} of the protocol and this coordinator version {PROTOCOL}: \
         install the same version of Clade on both"
    )]
    Protocol { found: u32 },
    #[error(transparent)]
    Malformed(#[from] WireError),
    #[error(
        "`{name}` may not speak for worker `{worker}`: a worker's id begins with the name of its token \
         or certificate"
    )]
    Worker { name: String, worker: String },
    #[error(
        "`{name}` may not claim node `{node}`: a node's name begins with the name of its worker's token \
         or certificate, unless that is for any node; docs/access.md says how"
    )]
    Node { name: String, node: String },
}

/// Who joins, as `identity` lets it, and the event that tells the engine.
pub(super) fn judge(hello: v1::Hello, identity: &Identity) -> Result<(WorkerId, Event), Unwelcome> {
    if hello.protocol != PROTOCOL {
        return Err(Unwelcome::Protocol { found: hello.protocol });
    }
    hello.check()?;
    let secret = hello.secret()?;
    let name = || identity.name().to_owned();
    if !identity.may_speak_for(&hello.worker) {
        return Err(Unwelcome::Worker { name: name(), worker: hello.worker });
    }
    if !identity.may_claim(&hello.node) {
        return Err(Unwelcome::Node { name: name(), node: hello.node });
    }
    let Device { kind, memory_mib, withdrawn } = device(&hello);
    let v1::Hello { worker, host, pid, slots, ranks, node, domain, labels, .. } = hello;
    let ranks = ranks.iter().map(live_rank).collect::<Result<Vec<_>, _>>()?;
    info!(worker, node, host, pid, slots, ranks = ranks.len(), "attaches");
    let offer = Offer {
        domain: if domain.is_empty() { host.clone() } else { domain },
        node: NodeName(node),
        host,
        pid,
        slots,
        kind,
        memory_mib,
        labels: labels.into_iter().collect(),
        secret: secret.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    let worker = WorkerId(worker);
    let event = Event::WorkerAttached { worker: worker.clone(), offer, withdrawn, ranks };
    Ok((worker, event))
}

fn live_rank(wire: &v1::LiveRank) -> Result<LiveRank, WireError> {
    let v1::LiveRank { fence, rank, slot, pid: _ } = wire;
    let fence = Fence::try_from(&required("fence", fence.clone())?)?;
    Ok(LiveRank { fence, rank: *rank, slot: *slot })
}

/// What all usable slots of a worker have in common.
struct Device {
    kind: String,
    /// Of the smallest.
    memory_mib: u64,
    withdrawn: BTreeMap<u32, String>,
}

/// A worker is placed by one kind of device, that of its first slot: slots of any other are taken out
/// of use, since gangs refuse mixed kinds and nobody could ask for these.
fn device(hello: &v1::Hello) -> Device {
    let mut devices: Vec<&v1::Device> = hello.devices.iter().collect();
    devices.sort_by_key(|device| device.slot);
    let mut withdrawn: BTreeMap<u32, String> =
        devices.iter().filter_map(|device| device.withdrawal()).collect();
    let Some(first) = devices.first() else {
        return Device { kind: "cpu".to_owned(), memory_mib: 0, withdrawn };
    };
    for device in devices.iter().filter(|device| device.kind != first.kind) {
        let (own, kind) = (shortened(&device.kind, 100), shortened(&first.kind, 100));
        let why = format!(
            "it is a {own}, and slot {} of the same worker a {kind}: a worker offers one kind of device, \
             so start an agent for each",
            first.slot
        );
        warn!(worker = hello.worker, slot = device.slot, why, "leaves a slot unused");
        withdrawn.entry(device.slot).or_insert(why);
    }
    let same = devices.iter().filter(|device| device.kind == first.kind);
    let memory_mib = same.map(|device| device.memory_mib).min().unwrap_or(0);
    Device { kind: first.kind.clone(), memory_mib, withdrawn }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_a_second_kind_of_device_are_taken_out_of_use_with_the_reason() {
        let device = |slot, kind: &str, memory_mib| v1::Device {
            slot,
            kind: kind.to_owned(),
            memory_mib,
            ..v1::Device::default()
        };
        let broken = v1::Device { withdrawn: "XID 79".to_owned(), ..device(3, "H100", 80_000) };
        let devices = vec![
            device(2, "T400", 4_000),
            device(0, "H100", 81_000),
            broken,
            device(1, "H100", 81_000),
        ];
        let hello = v1::Hello { slots: 4, devices, ..v1::Hello::default() };
        let found = super::device(&hello);
        assert_eq!((&*found.kind, found.memory_mib), ("H100", 80_000));
        assert_eq!(found.withdrawn.keys().copied().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(found.withdrawn[&3], "XID 79");
        assert!(found.withdrawn[&2].contains("start an agent for each"), "{:?}", found.withdrawn);
    }
}
