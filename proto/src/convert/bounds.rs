//! How much one message may hold: what workers say is kept, in rows that have a largest size, and shown.
//!
//! Names and addresses that are too long are refused, since a shortened one would be another one.
//! Text for people is shortened, since a long reason is better heard in part than not at all.

use clade_core::rendezvous::Rendezvous;
use std::collections::BTreeMap;

use super::WireError;
use crate::v1;

/// Bytes of a name, as of a host's in DNS.
pub const LONGEST_NAME: usize = 253;

/// Bytes of a label's key: a prefix such as Kubernetes has them, a slash and a name.
const LONGEST_KEY: usize = LONGEST_NAME + 1 + 63;

/// Bytes of a text for people about a rank: 32 jobs share a row.
pub(super) const LONGEST_TEXT: usize = 2_048;

/// Bytes of a text for people about one device: a worker's all share a row.
pub(super) const LONGEST_REASON: usize = 512;

/// No machine has so many devices.
pub const MOST_SLOTS: u32 = 1_024;

const MOST_LABELS: usize = 64;

/// Counts of one job: the seal has one for each expert.
const MOST_COUNTS: usize = 4_096;

/// Bytes of a count's name.
const LONGEST_COUNT: usize = 64;

/// A text for people, of at most `most` bytes and in one encoding: without control characters, which
/// take six bytes each in a row.
pub fn shortened(text: &str, most: usize) -> String {
    let plain = |c: char| if c.is_control() && c != '\n' { ' ' } else { c };
    let Some(room) = (text.len() > most).then(|| most.saturating_sub('…'.len_utf8())) else {
        return text.chars().map(plain).collect();
    };
    let cut = text.floor_char_boundary(room);
    text[..cut].chars().map(plain).chain(['…']).collect()
}

fn length(field: &'static str, text: &str, most: usize) -> Result<(), WireError> {
    let found = text.len();
    if found > most { Err(WireError::TooLong { field, most, found }) } else { Ok(()) }
}

fn number(field: &'static str, found: usize, most: usize) -> Result<(), WireError> {
    if found > most { Err(WireError::TooMany { field, most, found }) } else { Ok(()) }
}

/// Whether it can name something, or may be left empty.
fn name(field: &'static str, text: &str, most: usize) -> Result<(), WireError> {
    length(field, text, most)?;
    if text.contains(char::is_control) { Err(WireError::BadName { field }) } else { Ok(()) }
}

/// Whether it can be a part of a key in the state.
fn key(field: &'static str, text: &str) -> Result<(), WireError> {
    name(field, text, LONGEST_NAME)?;
    if text.is_empty() || text.contains('/') { Err(WireError::BadName { field }) } else { Ok(()) }
}

/// An `address:port` that others can be told to call, and a secret of a usual length.
pub(super) fn rendezvous(field: &'static str, meets: &Rendezvous) -> Result<(), WireError> {
    name(field, meets.address(), LONGEST_NAME + ":65535".len())?;
    name(field, meets.secret(), LONGEST_NAME)?;
    let port = meets.address().rsplit_once(':').filter(|(host, _)| !host.is_empty());
    let is_port = port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0));
    if is_port { Ok(()) } else { Err(WireError::BadName { field }) }
}

pub(super) fn id(field: &'static str, text: &str) -> Result<(), WireError> {
    length(field, text, LONGEST_NAME)
}

/// What a job counted.
pub(super) fn counts(done: &v1::Done) -> Result<BTreeMap<String, u64>, WireError> {
    let v1::Done { counts } = done;
    number("done.counts", counts.len(), MOST_COUNTS)?;
    let checked = counts.iter().map(|(what, count)| {
        name("done.counts", what, LONGEST_COUNT)?;
        Ok((what.clone(), *count))
    });
    checked.collect()
}

impl v1::Hello {
    /// Whether all that it says of itself is of a size that can be kept.
    pub fn check(&self) -> Result<(), WireError> {
        let Self { worker, host, pid: _, slots, ranks, protocol: _, .. } = self;
        let Self { node, domain, labels, devices, secret: _, .. } = self;
        key("worker", worker)?;
        key("node", node)?;
        name("host", host, LONGEST_NAME)?;
        name("domain", domain, LONGEST_NAME)?;
        if *slots == 0 || *slots > MOST_SLOTS {
            return Err(WireError::Slots { found: *slots });
        }
        number("ranks", ranks.len(), usize::try_from(MOST_SLOTS).unwrap_or(usize::MAX))?;
        number("labels", labels.len(), MOST_LABELS)?;
        labels.iter().try_for_each(|(key, value)| {
            name("labels", key, LONGEST_KEY)?;
            name("labels", value, LONGEST_NAME)
        })?;
        number("devices", devices.len(), usize::try_from(*slots).unwrap_or(usize::MAX))?;
        devices.iter().try_for_each(|device| device.check(*slots))
    }
}

impl v1::Device {
    fn check(&self, slots: u32) -> Result<(), WireError> {
        let Self { slot, kind, uuid, memory_mib: _, withdrawn: _, driver, pci, linked_slots } =
            self;
        if *slot >= slots {
            return Err(WireError::NoSuchSlot { slot: *slot, slots });
        }
        name("devices.kind", kind, LONGEST_NAME)?;
        name("devices.uuid", uuid, LONGEST_NAME)?;
        name("devices.driver", driver, LONGEST_NAME)?;
        name("devices.pci", pci, LONGEST_NAME)?;
        number("devices.linked_slots", linked_slots.len(), usize::try_from(slots).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> v1::Hello {
        let device = |slot| v1::Device { slot, kind: "cpu".to_owned(), ..v1::Device::default() };
        v1::Hello {
            worker: "w-1".to_owned(),
            node: "n".to_owned(),
            slots: 2,
            labels: [("topology.kubernetes.io/zone".to_owned(), "a".to_owned())].into(),
            devices: vec![device(0), device(1)],
            ..v1::Hello::default()
        }
    }

    #[test]
    fn whatever_a_hello_could_fill_a_row_with_is_bounded() {
        assert_eq!(hello().check(), Ok(()));
        let long = || "x".repeat(300);
        let device = |device| v1::Hello { devices: vec![device], ..hello() };
        let labels = |count: usize, value: String| v1::Hello {
            labels: (0..count).map(|it| (format!("k{it}"), value.clone())).collect(),
            ..hello()
        };
        let key = [("k".repeat(400), String::new())].into();
        for lie in [
            v1::Hello { worker: long(), ..hello() },
            v1::Hello { worker: "a\u{7}".to_owned(), ..hello() },
            v1::Hello { node: String::new(), ..hello() },
            v1::Hello { node: "a/b".to_owned(), ..hello() },
            v1::Hello { host: long(), ..hello() },
            v1::Hello { domain: long(), ..hello() },
            v1::Hello { domain: "a\nb".to_owned(), ..hello() },
            v1::Hello { slots: 0, ..hello() },
            v1::Hello { slots: 1_025, ..hello() },
            v1::Hello { slots: 1, ..hello() },
            v1::Hello { ranks: vec![v1::LiveRank::default(); 1_025], ..hello() },
            v1::Hello { labels: key, ..hello() },
            labels(65, String::new()),
            labels(1, long()),
            device(v1::Device { slot: 2, ..v1::Device::default() }),
            device(v1::Device { kind: long(), ..v1::Device::default() }),
            device(v1::Device { uuid: long(), ..v1::Device::default() }),
            device(v1::Device { driver: long(), ..v1::Device::default() }),
            device(v1::Device { pci: long(), ..v1::Device::default() }),
            device(v1::Device { linked_slots: vec![0; 3], ..v1::Device::default() }),
        ] {
            let refused = lie.check().unwrap_err();
            assert!(refused.to_string().len() < 300, "it repeats what it refuses: {refused}");
        }
    }

    #[test]
    fn text_for_people_is_shortened_and_never_torn_or_blown_up() {
        assert_eq!(shortened("disk full\nfree some", 100), "disk full\nfree some");
        assert_eq!(shortened("a\u{0}b\u{1b}[1m", 100), "a b [1m");
        assert_eq!(shortened("äöü", 5), "ä…");
        let long = shortened(&"\u{1}é".repeat(1 << 20), LONGEST_TEXT);
        assert!(long.len() <= LONGEST_TEXT && long.ends_with('…'));
    }

    #[test]
    fn a_rendezvous_is_an_address_and_a_port() {
        let check = |text: &str| rendezvous("address", &Rendezvous::from(text));
        for good in ["10.0.0.1:4000", "[fe80::1]:1", "pod-0.workers:65535/5f3a"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let long = format!("a:1/{}", "x".repeat(1 << 20));
        for bad in ["", ":1", "host", "host:0", "host:99999", "a\nb:1", "a:1/\n", "host/x:1", &long]
        {
            assert!(check(bad).is_err(), "{bad:.20}");
        }
        assert!(check(&"x".repeat(1 << 20)).is_err());
    }
}
