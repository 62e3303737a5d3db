//! `clade jobs`, as a table and as a document whose field names stay.

use clade_proto::v1::{JobStatus, RankStatus};
use serde::Serialize;

use super::one_line;
use super::table::{last_column_wraps, new_table};

/// All jobs, as lines of at most `width` columns (60 or more).
pub(crate) fn table(jobs: &[JobStatus], width: u16) -> String {
    if jobs.is_empty() {
        return "no such jobs\n".to_owned();
    }
    let mut table = new_table(width);
    table.set_header(["JOB", "PHASE", "TRY", "RESTARTS", "WHY"]);
    for JobStatus { work, phase, reason, incarnation, restarts, ranks: _ } in jobs {
        table.add_row([
            one_line(work),
            one_line(phase),
            incarnation.to_string(),
            restarts.to_string(),
            one_line(reason),
        ]);
    }
    last_column_wraps(&mut table);
    table.trim_fmt() + "\n"
}

/// The document, indented, with its keys in a fixed order.
pub(crate) fn json(jobs: &[JobStatus]) -> serde_json::Result<String> {
    serde_json::to_string_pretty(&Jobs { jobs: jobs.iter().map(Job::from).collect() })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Jobs<'a> {
    jobs: Vec<Job<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Job<'a> {
    work: &'a str,
    phase: &'a str,
    reason: Option<&'a str>,
    incarnation: u64,
    restarts: u32,
    ranks: Vec<Rank<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rank<'a> {
    worker: &'a str,
    slot: u32,
    pid: Option<u32>,
}

impl<'a> From<&'a JobStatus> for Job<'a> {
    fn from(job: &'a JobStatus) -> Self {
        let JobStatus { work, phase, reason, incarnation, restarts, ranks } = job;
        Self {
            work,
            phase,
            reason: (!reason.is_empty()).then_some(reason),
            incarnation: *incarnation,
            restarts: *restarts,
            ranks: ranks.iter().map(Rank::from).collect(),
        }
    }
}

impl<'a> From<&'a RankStatus> for Rank<'a> {
    fn from(rank: &'a RankStatus) -> Self {
        let RankStatus { worker, slot, rank: _, pid, work: _ } = rank;
        Self { worker, slot: *slot, pid: (*pid != 0).then_some(*pid) }
    }
}
