//! The table of `clade status`.

use std::time::Duration;

use clade_proto::v1::{ClosedNode, GetStatusResponse, RunStatus, WorkerStatus};
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};

use super::{cut, elapsed_seconds, number, one_line, part};

/// Columns whose content is short and never wrapped; the last column takes the rest.
const HEADER: [&str; 7] = ["NAME", "PHASE", "PROGRESS", "RATE", "ETA", "LOSS", "WHY"];
/// What the last column needs at least to be of use.
const NARROWEST_WHY: u16 = 16;

/// Everything `status` knows, as lines of at most `width` columns (60 or more).
pub(crate) fn render(status: &GetStatusResponse, now_ms: u64, width: u16) -> String {
    let GetStatusResponse {
        term: _,
        runs,
        workers,
        next_page_token: _,
        is_mirror,
        leader,
        closed_nodes,
        closed_node_count,
    } = status;
    let mut sections: Vec<String> = runs.iter().map(|run| section(run, now_ms, width)).collect();
    if runs.is_empty() {
        sections.push("no runs yet: `clade apply -f run.yaml` gives one\n".to_owned());
    }
    let closed = closed_line(closed_nodes, *closed_node_count, now_ms, usize::from(width));
    sections.push(worker_section(workers, width) + &closed);
    if *is_mirror {
        sections.push(mirror_line(leader));
    }
    sections.join("\n")
}

/// `clipart  active  elapsed 3m12s  eta 4m10s`.
pub(crate) fn headline(run: &RunStatus, elapsed_seconds: f64) -> String {
    let mut line = format!(
        "{}  {}  elapsed {}",
        one_line(&run.run),
        one_line(&run.phase),
        number::duration(elapsed_seconds)
    );
    if run.ended_ms == 0 && run.eta_seconds > 0.0 {
        line += &format!("  eta {}", number::duration(run.eta_seconds));
    }
    line
}

fn section(run: &RunStatus, now_ms: u64, width: u16) -> String {
    let mut text = headline(run, elapsed_seconds(run, now_ms)) + "\n";
    for (label, value) in [("why", &run.reason), ("report", &run.report), ("bundle", &run.bundle)] {
        if !value.is_empty() {
            text += &format!("  {label}: {}\n", one_line(value));
        }
    }
    let mut table = new_table(width);
    table.set_header(HEADER);
    for it in &run.parts {
        table.add_row([
            one_line(&it.name),
            one_line(&it.phase),
            part::progress(it),
            part::rate(it),
            part::eta(it),
            number::loss(it.loss),
            part::why(it),
        ]);
    }
    last_column_wraps(&mut table);
    text + &table.trim_fmt() + "\n"
}

/// `3 nodes get nothing new: gpu-1 (cordoned: fan is loud), …`; nothing if there is none.
fn closed_line(nodes: &[ClosedNode], count: u32, now_ms: u64, width: usize) -> String {
    let told = nodes.iter().map(|ClosedNode { node, state, why, until_ms }| {
        let left = Duration::from_millis(until_ms.saturating_sub(now_ms)).as_secs_f64();
        let why = match (why.as_str(), until_ms) {
            ("", 0) => String::new(),
            ("", _) => format!(" for {}", number::duration(left)),
            (why, _) => format!(": {why}"),
        };
        one_line(&format!("{node} ({state}{why})"))
    });
    let told: Vec<String> = told.collect();
    if told.is_empty() {
        return String::new();
    }
    let nodes = if count == 1 { "1 node gets" } else { &format!("{count} nodes get") };
    let line = format!("{nodes} nothing new: {}", told.join(", "));
    format!("\n{}\n", cut(&line, width))
}

/// Whose word this is, if it is not the leader's.
fn mirror_line(leader: &str) -> String {
    let leads = match leader {
        "" => "none leads now".to_owned(),
        leader => format!("{} leads and was not reached", one_line(leader)),
    };
    format!("told by a standby, which knows no rates, losses and times left; {leads}\n")
}

fn worker_section(workers: &[WorkerStatus], width: u16) -> String {
    if workers.is_empty() {
        return "no workers: nothing can run until one joins\n".to_owned();
    }
    let mut table = new_table(width);
    table.set_header(["WORKER", "PHASE", "BUSY", "PID", "HOST"]);
    for WorkerStatus { worker, host, pid, phase, slots, busy } in workers {
        table.add_row([
            one_line(worker),
            one_line(phase),
            format!("{busy}/{slots}"),
            pid.to_string(),
            one_line(host),
        ]);
    }
    last_column_wraps(&mut table);
    table.trim_fmt() + "\n"
}

pub(super) fn new_table(width: u16) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .force_no_tty()
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width);
    table
}

pub(super) fn last_column_wraps(table: &mut Table) {
    let last = table.column_count().saturating_sub(1);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index == last { 0 } else { 2 }));
        column.set_constraint(if index == last {
            ColumnConstraint::LowerBoundary(Width::Fixed(NARROWEST_WHY))
        } else {
            ColumnConstraint::ContentWidth
        });
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::sample;
    use super::*;

    #[test]
    fn the_table_tells_of_every_part_and_worker_within_100_columns() {
        let text = render(&sample::status(), sample::NOW_MS, 100);
        assert!(text.lines().all(|line| line.chars().count() <= 100));
        expect![[r#"
            clipart  active  elapsed 3m12s  eta 4m10s
            NAME      PHASE    PROGRESS       RATE      ETA  LOSS   WHY
            index     done     12/12 jobs     -         -    -      21,793 pairs, 3 unusable.truncatedImage
            embed     running  8/12 jobs      25.2/min  10s  -      on w1:0, w2:0; restarted after: worker w9
                                                                    was lost
            cluster   waiting  0/1 jobs       -         -    -      waits for embed
            seed      running  144/288 steps  3.2/s     45s  3.214  on w0:0; saved at step 120; 1 restart
            dense     backoff  310/432 steps  -         -    2.900  rank 0 crashed: killed by signal 9; starts
                                                                    again in 4 s; saved at step 300; 4 restarts
            expert-0  waiting  0/432 steps    -         -    -      waits for seed and seal, and then for one
                                                                    free slot that no other gang holds on any
                                                                    worker

            WORKER   PHASE     BUSY  PID   HOST
            w0-k3f9  attached  1/1   4100  laptop
            w1-x81a  detached  1/1   4101  laptop
        "#]].assert_eq(&text);
    }

    #[test]
    fn a_narrow_terminal_wraps_only_the_reason() {
        let text = render(&sample::status(), sample::NOW_MS, 80);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.lines().any(|line| line.starts_with("expert-0  waiting")), "{text}");
    }

    #[test]
    fn a_finished_run_names_its_report_and_an_empty_coordinator_says_what_to_do() {
        let mut status = sample::status();
        status.workers.clear();
        let run = &mut status.runs[0];
        run.phase = "finished".to_owned();
        run.ended_ms = sample::NOW_MS;
        run.report = "/data/runs/clipart/evaluate/report.md".to_owned();
        run.bundle = "/data/runs/clipart/bundle/ab12".to_owned();
        run.parts.truncate(1);
        expect![[r#"
            clipart  finished  elapsed 3m12s
              report: /data/runs/clipart/evaluate/report.md
              bundle: /data/runs/clipart/bundle/ab12
            NAME   PHASE  PROGRESS    RATE  ETA  LOSS  WHY
            index  done   12/12 jobs  -     -    -     21,793 pairs, 3 unusable.truncatedImage

            no workers: nothing can run until one joins
        "#]]
        .assert_eq(&render(&status, sample::NOW_MS + 9_000_000, 100));
        status.runs.clear();
        expect![[r#"
            no runs yet: `clade apply -f run.yaml` gives one

            no workers: nothing can run until one joins
        "#]]
        .assert_eq(&render(&status, sample::NOW_MS, 100));
    }

    #[test]
    fn closed_nodes_take_one_line_and_a_standbys_word_is_told_as_such() {
        let mut status = sample::status();
        (status.runs, status.is_mirror) = (vec![], true);
        let node = |node: &str, state: &str, why: &str, until_ms| ClosedNode {
            node: node.to_owned(),
            state: state.to_owned(),
            why: why.to_owned(),
            until_ms,
        };
        status.closed_nodes = vec![
            node("gpu-1", "cordoned", "fan is loud", 0),
            node("gpu-2", "quarantined", "", sample::NOW_MS + 250_000),
        ];
        status.closed_node_count = 2;
        expect![[r#"
            no runs yet: `clade apply -f run.yaml` gives one

            WORKER   PHASE     BUSY  PID   HOST
            w0-k3f9  attached  1/1   4100  laptop
            w1-x81a  detached  1/1   4101  laptop

            2 nodes get nothing new: gpu-1 (cordoned: fan is loud), gpu-2 (quarantined for 4m10s)

            told by a standby, which knows no rates, losses and times left; none leads now
        "#]]
        .assert_eq(&render(&status, sample::NOW_MS, 100));
        status.leader = "http://b:7600".to_owned();
        let text = render(&status, sample::NOW_MS, 60);
        assert!(
            text.contains("\n2 nodes get nothing new: gpu-1 (cordoned: fan is loud), gpu…\n"),
            "{text}"
        );
        assert!(text.ends_with("; http://b:7600 leads and was not reached\n"), "{text}");
    }
}
