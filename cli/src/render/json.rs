//! `clade status -o json`: one document whose field names stay.
//!
//! What is unknown is `null`, never a magic number; times are milliseconds since the Unix epoch.

use std::collections::BTreeMap;

use clade_proto::v1;
use serde::Serialize;

/// The document, indented, with its keys in a fixed order.
pub(crate) fn render(status: &v1::GetStatusResponse) -> serde_json::Result<String> {
    serde_json::to_string_pretty(&Status::from(status))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    term: u64,
    is_mirror: bool,
    leader: Option<&'a str>,
    runs: Vec<Run<'a>>,
    workers: Vec<Worker<'a>>,
    closed_nodes: Vec<ClosedNode<'a>>,
    closed_node_count: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ClosedNode<'a> {
    node: &'a str,
    state: &'a str,
    why: Option<&'a str>,
    until_ms: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Run<'a> {
    name: &'a str,
    phase: &'a str,
    reason: Option<&'a str>,
    eta_seconds: Option<f64>,
    created_ms: u64,
    ended_ms: Option<u64>,
    report: Option<&'a str>,
    bundle: Option<&'a str>,
    parts: Vec<Part<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Part<'a> {
    name: &'a str,
    phase: &'a str,
    reason: Option<&'a str>,
    done: u64,
    total: u64,
    unit: &'a str,
    rate_per_second: Option<f64>,
    eta_seconds: Option<f64>,
    loss: Option<f64>,
    incarnation: u64,
    committed_step: u64,
    restarts: u32,
    ranks: Vec<Rank<'a>>,
    counts: BTreeMap<&'a str, u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rank<'a> {
    worker: &'a str,
    slot: u32,
    rank: u32,
    pid: Option<u32>,
    work: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Worker<'a> {
    name: &'a str,
    host: &'a str,
    pid: u32,
    phase: &'a str,
    slots: u32,
    busy: u32,
}

fn text(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn estimate(seconds: f64) -> Option<f64> {
    (seconds >= 0.0).then_some(seconds)
}

fn nonzero(number: f64) -> Option<f64> {
    (number != 0.0).then_some(number)
}

impl<'a> From<&'a v1::GetStatusResponse> for Status<'a> {
    fn from(status: &'a v1::GetStatusResponse) -> Self {
        let v1::GetStatusResponse {
            term,
            runs,
            workers,
            next_page_token: _,
            is_mirror,
            leader,
            closed_nodes,
            closed_node_count,
        } = status;
        Self {
            term: *term,
            is_mirror: *is_mirror,
            leader: text(leader),
            runs: runs.iter().map(Run::from).collect(),
            workers: workers.iter().map(Worker::from).collect(),
            closed_nodes: closed_nodes.iter().map(ClosedNode::from).collect(),
            closed_node_count: *closed_node_count,
        }
    }
}

impl<'a> From<&'a v1::ClosedNode> for ClosedNode<'a> {
    fn from(closed: &'a v1::ClosedNode) -> Self {
        let v1::ClosedNode { node, state, why, until_ms } = closed;
        Self { node, state, why: text(why), until_ms: (*until_ms != 0).then_some(*until_ms) }
    }
}

impl<'a> From<&'a v1::RunStatus> for Run<'a> {
    fn from(status: &'a v1::RunStatus) -> Self {
        let v1::RunStatus {
            run,
            phase,
            reason,
            parts,
            bundle,
            report,
            created_ms,
            ended_ms,
            eta_seconds,
        } = status;
        Self {
            name: run,
            phase,
            reason: text(reason),
            eta_seconds: estimate(*eta_seconds),
            created_ms: *created_ms,
            ended_ms: (*ended_ms != 0).then_some(*ended_ms),
            report: text(report),
            bundle: text(bundle),
            parts: parts.iter().map(Part::from).collect(),
        }
    }
}

impl<'a> From<&'a v1::PartStatus> for Part<'a> {
    fn from(status: &'a v1::PartStatus) -> Self {
        let v1::PartStatus {
            name,
            phase,
            done,
            total,
            unit,
            rate,
            eta_seconds,
            reason,
            incarnation,
            committed_step,
            loss,
            restarts,
            ranks,
            counts,
        } = status;
        Self {
            name,
            phase,
            reason: text(reason),
            done: *done,
            total: *total,
            unit,
            rate_per_second: nonzero(*rate),
            eta_seconds: estimate(*eta_seconds),
            loss: nonzero(*loss),
            incarnation: *incarnation,
            committed_step: *committed_step,
            restarts: *restarts,
            ranks: ranks.iter().map(Rank::from).collect(),
            counts: counts.iter().map(|(key, &count)| (key.as_str(), count)).collect(),
        }
    }
}

impl<'a> From<&'a v1::RankStatus> for Rank<'a> {
    fn from(status: &'a v1::RankStatus) -> Self {
        let v1::RankStatus { worker, slot, rank, pid, work } = status;
        let pid = (*pid != 0).then_some(*pid);
        Self { worker, slot: *slot, rank: *rank, pid, work: text(work) }
    }
}

impl<'a> From<&'a v1::WorkerStatus> for Worker<'a> {
    fn from(status: &'a v1::WorkerStatus) -> Self {
        let v1::WorkerStatus { worker, host, pid, phase, slots, busy } = status;
        Self { name: worker, host, pid: *pid, phase, slots: *slots, busy: *busy }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::sample;
    use super::*;

    #[test]
    fn unknown_values_are_null_and_names_are_camel_case() {
        let mut status = sample::status();
        status.runs[0].parts.drain(1..3);
        status.runs[0].parts.truncate(2);
        status.workers.truncate(1);
        expect![[r#"
            {
              "term": 3,
              "isMirror": false,
              "leader": null,
              "runs": [
                {
                  "name": "clipart",
                  "phase": "active",
                  "reason": null,
                  "etaSeconds": 250.0,
                  "createdMs": 1800000000000,
                  "endedMs": null,
                  "report": null,
                  "bundle": null,
                  "parts": [
                    {
                      "name": "index",
                      "phase": "done",
                      "reason": null,
                      "done": 12,
                      "total": 12,
                      "unit": "jobs",
                      "ratePerSecond": null,
                      "etaSeconds": null,
                      "loss": null,
                      "incarnation": 0,
                      "committedStep": 0,
                      "restarts": 0,
                      "ranks": [],
                      "counts": {
                        "pairs": 21793,
                        "pairs.expert-0": 9,
                        "unusable.truncatedImage": 3
                      }
                    },
                    {
                      "name": "seed",
                      "phase": "running",
                      "reason": null,
                      "done": 144,
                      "total": 288,
                      "unit": "steps",
                      "ratePerSecond": 3.21,
                      "etaSeconds": 44.6,
                      "loss": 3.214159,
                      "incarnation": 2,
                      "committedStep": 120,
                      "restarts": 1,
                      "ranks": [
                        {
                          "worker": "w0",
                          "slot": 0,
                          "rank": 0,
                          "pid": 4242,
                          "work": null
                        }
                      ],
                      "counts": {}
                    }
                  ]
                }
              ],
              "workers": [
                {
                  "name": "w0-k3f9",
                  "host": "laptop",
                  "pid": 4100,
                  "phase": "attached",
                  "slots": 1,
                  "busy": 1
                }
              ],
              "closedNodes": [],
              "closedNodeCount": 0
            }"#]]
        .assert_eq(&render(&status).unwrap());
    }
}
