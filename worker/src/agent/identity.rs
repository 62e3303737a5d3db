//! Who an agent says it is.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use clade_core::ids::WorkerId;
use clade_proto::PROTOCOL;
use clade_proto::convert::Secret;
use clade_proto::v1::Hello;

/// What places and names this agent; the same for its whole life.
#[derive(Clone, Debug)]
pub(super) struct Abode {
    /// Worker ids begin with it.
    pub(super) name: String,
    /// The machine: cordon, drain and quarantine go by it.
    pub(super) node: String,
    /// Part of the topology within which links are fast.
    pub(super) domain: String,
    pub(super) labels: BTreeMap<String, String>,
}

/// One worker: one id with its secret. An agent becomes another worker when it was given up.
#[derive(Debug)]
pub(super) struct Identity {
    abode: Abode,
    host: String,
    pub(super) worker: WorkerId,
    /// Made with the id; never logged.
    secret: Secret,
}

impl Identity {
    /// A worker that never was before.
    pub(super) fn new(abode: Abode) -> io::Result<Self> {
        let worker = WorkerId(String::new());
        let mut identity = Self { abode, host: host_name(), worker, secret: Secret::default() };
        identity.renew()?;
        Ok(identity)
    }

    /// Takes another id, and another secret with it.
    pub(super) fn renew(&mut self) -> io::Result<()> {
        let mut suffix = [0; 4];
        getrandom::fill(&mut suffix)?;
        getrandom::fill(&mut self.secret)?;
        let suffix = u32::from_le_bytes(suffix);
        self.worker = WorkerId(format!("{}-{suffix:08x}", self.abode.name));
        Ok(())
    }

    /// Hello, but for ranks, slots and devices.
    pub(super) fn hello(&self) -> Hello {
        let Self { abode, host, worker, secret } = self;
        let Abode { name: _, node, domain, labels } = abode;
        Hello {
            worker: worker.0.clone(),
            host: host.clone(),
            pid: std::process::id(),
            protocol: PROTOCOL,
            node: node.clone(),
            domain: domain.clone(),
            labels: labels.clone().into_iter().collect(),
            secret: secret.to_vec(),
            ..Hello::default()
        }
    }
}

/// The host's name; empty if the system does not tell.
pub fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_id_has_another_secret_and_the_same_abode() {
        let labels = [("zone".to_owned(), "a".to_owned())].into();
        let [name, node, domain] = ["w", "n", "d"].map(str::to_owned);
        let mut identity = Identity::new(Abode { name, node, domain, labels }).unwrap();
        let first = identity.hello();
        assert_eq!(first, identity.hello(), "an id keeps its secret");
        identity.renew().unwrap();
        let second = identity.hello();
        assert_ne!(first.worker, second.worker);
        assert_ne!(first.secret().unwrap(), second.secret().unwrap());
        assert_eq!((second.node.as_str(), second.domain.as_str()), ("n", "d"));
        assert_eq!(second.labels, first.labels);
        assert_eq!(second.protocol, PROTOCOL);
    }
}
