//! Progress on a terminal: a headline, and a bar per stage and model.
//!
//! Bars are places on the screen, not parts: each frame decides anew which parts to show in them,
//! so a run of 100 experts fits a terminal of 24 lines.

use std::time::Duration;

use clade_proto::v1::{PartStatus, RunStatus, WorkerStatus};
use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::sys::termios::LocalFlags;

use crate::render::{number, one_line, part, table};
use crate::screen::Screen;
use crate::terminal::Without;

const USUAL_SIZE: (u16, u16) = (24, 80);
/// What the words beside a bar need.
const WORDS_WIDTH: u16 = 90;

pub(super) struct BarsView {
    screen: Screen,
    multi: MultiProgress,
    head: ProgressBar,
    rows: Vec<ProgressBar>,
    lost_since: Option<Duration>,
    /// A `^C` written between the bars would shift them.
    _no_carets: Option<Without>,
}

impl BarsView {
    pub(super) fn new(screen: Screen) -> Self {
        let multi = screen.start_bars();
        let head = multi.add(ProgressBar::new(1));
        head.set_style(style("{wide_msg}"));
        let no_carets = Without::habits(LocalFlags::ECHOCTL);
        Self { screen, multi, head, rows: Vec::new(), lost_since: None, _no_carets: no_carets }
    }

    pub(super) fn show(&mut self, run: &RunStatus, workers: &[WorkerStatus], elapsed: Duration) {
        self.lost_since = None;
        let (rows, columns) = Term::stderr().size_checked().unwrap_or(USUAL_SIZE);
        // The headline, and a line for the cursor.
        let shown = choose(&run.parts, usize::from(rows).saturating_sub(2));
        let mut head = table::headline(run, elapsed.as_secs_f64());
        if shown.len() < run.parts.len() {
            let done = run.parts.iter().filter(|it| part::is_over(it)).count();
            head += &format!("  {done} of {} parts done", run.parts.len());
        }
        self.head.set_message(head + &workers_in_short(workers));
        let width = shown.iter().map(|it| it.name.chars().count()).max().unwrap_or(0);
        self.lay_out(shown.len(), width, columns.saturating_sub(WORDS_WIDTH).clamp(8, 16));
        for (row, it) in self.rows.iter().zip(shown) {
            row.set_prefix(one_line(&it.name));
            row.set_length(it.total.max(1));
            row.set_position(it.done);
            row.set_message(part::bar_message(it));
            row.tick();
        }
        self.head.tick();
    }

    pub(super) fn unreachable(&mut self, elapsed: Duration) {
        let since = *self.lost_since.get_or_insert(elapsed);
        let away = number::duration((elapsed - since).as_secs_f64());
        self.head.set_message(format!("coordinator unreachable for {away}, retrying"));
        self.head.tick();
    }

    fn lay_out(&mut self, count: usize, name_width: usize, bar_width: u16) {
        while self.rows.len() > count {
            if let Some(row) = self.rows.pop() {
                self.multi.remove(&row);
            }
        }
        while self.rows.len() < count {
            let row = self.multi.add(ProgressBar::new(1));
            self.rows.push(row);
        }
        let style = style(&format!("{{prefix:{name_width}}} [{{bar:{bar_width}}}] {{wide_msg}}"));
        self.rows.iter().for_each(|row| row.set_style(style.clone()));
    }
}

impl Drop for BarsView {
    /// Leaves the last picture on the screen.
    fn drop(&mut self) {
        // Draws the newest state once more, and nothing after it.
        self.multi.suspend(|| ());
        self.multi.set_draw_target(ProgressDrawTarget::hidden());
        self.screen.end_bars();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the templates here name only keys that indicatif has")
        .progress_chars("=> ")
}

/// `  workers 2, 1/2 slots busy`.
fn workers_in_short(workers: &[WorkerStatus]) -> String {
    let attached = workers.iter().filter(|it| it.phase == "attached");
    let (count, busy, slots) = attached
        .fold((0, 0, 0), |(count, busy, slots), it| (count + 1, busy + it.busy, slots + it.slots));
    match count {
        0 => "  no worker yet".to_owned(),
        1 => format!("  1 worker, {busy}/{slots} slots busy"),
        _ => format!("  {count} workers, {busy}/{slots} slots busy"),
    }
}

/// The parts that fit in `room` lines, in their own order: what moves first, what is over last.
fn choose(parts: &[PartStatus], room: usize) -> Vec<&PartStatus> {
    let urgency = |it: &PartStatus| match it.phase.as_str() {
        "running" | "starting" | "stopping" => 0,
        "backoff" | "failed" => 1,
        "waiting" => 2,
        _ => 3,
    };
    let mut order: Vec<(usize, &PartStatus)> = parts.iter().enumerate().collect();
    order.sort_by_key(|(at, it)| (urgency(it), *at));
    order.truncate(room);
    order.sort_by_key(|(at, _)| *at);
    order.into_iter().map(|(_, it)| it).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample;

    #[test]
    fn a_small_terminal_shows_what_moves_and_drops_what_is_over() {
        let parts = sample::status().runs.remove(0).parts;
        let names =
            |room| choose(&parts, room).iter().map(|it| it.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(2), ["embed", "seed"]);
        assert_eq!(names(3), ["embed", "seed", "dense"]);
        assert_eq!(names(5), ["embed", "cluster", "seed", "dense", "expert-0"]);
        assert_eq!(names(50).len(), 6);
    }

    #[test]
    fn only_attached_workers_are_counted() {
        assert_eq!(workers_in_short(&sample::status().workers), "  1 worker, 1/1 slots busy");
        assert_eq!(workers_in_short(&[]), "  no worker yet");
    }
}
