//! Progress without a terminal: every 10 s the lines that changed.

use std::collections::BTreeMap;
use std::time::Duration;

use clade_proto::v1::RunStatus;

use crate::render::{Standing, number, part, standing, table};

const PERIOD: Duration = Duration::from_secs(10);

/// What was last said of each part.
#[derive(Debug, Default)]
pub(super) struct PlainView {
    said: BTreeMap<String, String>,
    next: Duration,
    lost_since: Option<Duration>,
}

impl PlainView {
    /// The lines to say `elapsed` after the beginning; none between two periods, except at the end.
    pub(super) fn show(&mut self, run: &RunStatus, elapsed: Duration) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(since) = self.lost_since.take() {
            let away = number::duration((elapsed - since).as_secs_f64());
            lines.push(stamped(elapsed, &format!("coordinator answers again after {away}")));
        }
        if elapsed < self.next && standing(run) == Standing::UnderWay {
            return lines;
        }
        while self.next <= elapsed {
            self.next += PERIOD;
        }
        let mut changed = Vec::new();
        for it in &run.parts {
            let line = part::plain_line(it);
            if self.said.get(&it.name) != Some(&line) {
                changed.push(stamped(elapsed, &line));
                self.said.insert(it.name.clone(), line);
            }
        }
        if !changed.is_empty() || standing(run) != Standing::UnderWay {
            lines.push(table::headline(run, elapsed.as_secs_f64()));
        }
        lines.append(&mut changed);
        lines
    }

    /// The line to say when nobody answers; once per absence.
    pub(super) fn unreachable(&mut self, elapsed: Duration) -> Option<String> {
        let is_news = self.lost_since.is_none();
        self.lost_since.get_or_insert(elapsed);
        is_news.then(|| stamped(elapsed, "coordinator unreachable, retrying"))
    }
}

fn stamped(elapsed: Duration, line: &str) -> String {
    format!("[{:>6}] {line}", number::duration(elapsed.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::render::sample;

    #[test]
    fn only_lines_that_changed_are_said_again_and_only_every_10_seconds() {
        let mut run = sample::status().runs.remove(0);
        run.parts.drain(..3);
        let mut view = PlainView::default();
        let mut said = Vec::new();
        said.extend(view.show(&run, Duration::from_secs(0)));
        run.parts[0].done += 9;
        said.extend(view.show(&run, Duration::from_secs(4)));
        said.push("-- 10 s --".to_owned());
        said.extend(view.show(&run, Duration::from_secs(10)));
        said.extend(view.unreachable(Duration::from_secs(11)));
        said.extend(view.unreachable(Duration::from_secs(12)));
        said.extend(view.show(&run, Duration::from_secs(14)));
        said.extend(view.show(&run, Duration::from_secs(21)));
        said.push("-- end --".to_owned());
        run.phase = "finished".to_owned();
        run.ended_ms = sample::NOW_MS;
        said.extend(view.show(&run, Duration::from_secs(23)));
        expect![[r#"
            clipart  active  elapsed 0s  eta 4m10s
            [    0s] seed: running, 144/288 steps, 3.2/s, eta 45s, loss 3.214 (on w0:0; saved at step 120; 1 restart)
            [    0s] dense: backoff, 310/432 steps, loss 2.900 (rank 0 crashed: killed by signal 9; starts again in 4 s; saved at step 300; 4 restarts)
            [    0s] expert-0: waiting, 0/432 steps (waits for seed and seal, and then for one free slot that no other gang holds on any worker)
            -- 10 s --
            clipart  active  elapsed 10s  eta 4m10s
            [   10s] seed: running, 153/288 steps, 3.2/s, eta 45s, loss 3.214 (on w0:0; saved at step 120; 1 restart)
            [   11s] coordinator unreachable, retrying
            [   14s] coordinator answers again after 3s
            -- end --
            clipart  finished  elapsed 23s
        "#]].assert_eq(&(said.join("\n") + "\n"));
    }
}
