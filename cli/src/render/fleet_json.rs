//! `clade workers -o json`: one document whose field names stay.

use std::collections::BTreeMap;

use clade_proto::v1;
use serde::Serialize;

/// The document, indented, with its keys in a fixed order.
pub(crate) fn render(workers: &[v1::WorkerInfo]) -> serde_json::Result<String> {
    let workers = workers.iter().map(Worker::from).collect();
    serde_json::to_string_pretty(&Fleet { workers })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fleet<'a> {
    workers: Vec<Worker<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Worker<'a> {
    worker: &'a str,
    node: &'a str,
    host: &'a str,
    pid: u32,
    domain: &'a str,
    labels: BTreeMap<&'a str, &'a str>,
    phase: &'a str,
    slots: u32,
    busy: u32,
    cordoned: bool,
    draining: bool,
    quarantined_until_ms: Option<u64>,
    why: Option<&'a str>,
    straggler: bool,
    devices: Vec<Device<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Device<'a> {
    slot: u32,
    kind: &'a str,
    uuid: Option<&'a str>,
    #[serde(rename = "memoryMiB")]
    memory_mib: Option<u64>,
    driver: Option<&'a str>,
    pci: Option<&'a str>,
    linked_slots: &'a [u32],
    withdrawn: Option<&'a str>,
}

fn known(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

impl<'a> From<&'a v1::WorkerInfo> for Worker<'a> {
    fn from(info: &'a v1::WorkerInfo) -> Self {
        let v1::WorkerInfo {
            worker,
            node,
            host,
            pid,
            domain,
            labels,
            phase,
            slots,
            busy,
            devices,
            cordoned,
            draining,
            quarantined_until_ms,
            why,
            straggler,
        } = info;
        Self {
            worker,
            node,
            host,
            pid: *pid,
            domain,
            labels: labels.iter().map(|(key, value)| (&**key, &**value)).collect(),
            phase,
            slots: *slots,
            busy: *busy,
            cordoned: *cordoned,
            draining: *draining,
            quarantined_until_ms: (*quarantined_until_ms > 0).then_some(*quarantined_until_ms),
            why: known(why),
            straggler: *straggler,
            devices: devices.iter().map(Device::from).collect(),
        }
    }
}

impl<'a> From<&'a v1::Device> for Device<'a> {
    fn from(device: &'a v1::Device) -> Self {
        let v1::Device { slot, kind, uuid, memory_mib, withdrawn, driver, pci, linked_slots } =
            device;
        Self {
            slot: *slot,
            kind,
            uuid: known(uuid),
            memory_mib: (*memory_mib > 0).then_some(*memory_mib),
            driver: known(driver),
            pci: known(pci),
            linked_slots,
            withdrawn: known(withdrawn),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::sample;
    use super::*;

    #[test]
    fn what_is_unknown_is_null() {
        let fleet = sample::fleet();
        expect![[r#"
            {
              "workers": [
                {
                  "worker": "gpu-0-0a1b",
                  "node": "gpu-0",
                  "host": "gpu-0",
                  "pid": 4100,
                  "domain": "rack-7",
                  "labels": {
                    "zone": "a"
                  },
                  "phase": "attached",
                  "slots": 2,
                  "busy": 2,
                  "cordoned": false,
                  "draining": false,
                  "quarantinedUntilMs": null,
                  "why": null,
                  "straggler": true,
                  "devices": [
                    {
                      "slot": 0,
                      "kind": "NVIDIA H100 80GB HBM3",
                      "uuid": "GPU-0",
                      "memoryMiB": 81559,
                      "driver": "570.86",
                      "pci": "00000000:00:00.0",
                      "linkedSlots": [
                        1
                      ],
                      "withdrawn": null
                    },
                    {
                      "slot": 1,
                      "kind": "NVIDIA H100 80GB HBM3",
                      "uuid": "GPU-1",
                      "memoryMiB": 81559,
                      "driver": "570.86",
                      "pci": "00000000:01:00.0",
                      "linkedSlots": [
                        0
                      ],
                      "withdrawn": null
                    }
                  ]
                }
              ]
            }"#]]
        .assert_eq(&render(&fleet[..1]).unwrap());
    }
}
