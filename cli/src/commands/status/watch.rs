//! `clade status --watch`: the table, redrawn in place, also while the coordinator restarts.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use clade_proto::v1::GetStatusResponse;
use console::Term;
use tokio::time::{Instant, MissedTickBehavior};

use super::keys::Keys;
use super::{now_ms, width};
use crate::call::{CallError, Coordinator, Patience};
use crate::exit::Exit;
use crate::interrupt::Interrupts;
use crate::output;
use crate::render::{cut, number, table};

const PERIOD: Duration = Duration::from_secs(1);
const HOME: &str = "\x1b[H";
const CLEAR: &str = "\x1b[2J";
const CLEAR_LINE_END: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

pub(super) async fn watch(coordinator: &Coordinator, run: &str) -> anyhow::Result<Exit> {
    let mut interrupts = Interrupts::listen()?;
    let keys = Keys::listen();
    let quit = async {
        match &keys {
            Some(keys) => keys.quit().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        // To quit is how watching ends, so Ctrl-C is no failure here.
        () = quit => Ok(Exit::Done),
        () = interrupts.next() => Ok(Exit::Done),
        ended = redraw(coordinator, run) => ended.map(|()| Exit::Done),
    }
}

async fn redraw(coordinator: &Coordinator, run: &str) -> anyhow::Result<()> {
    let coordinator = coordinator.with(Patience::Once);
    let is_terminal = io::stdout().is_terminal();
    let mut last: Option<GetStatusResponse> = None;
    let mut lost_since: Option<Instant> = None;
    let mut before = String::new();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    if is_terminal {
        output::print(CLEAR)?;
    }
    loop {
        ticks.tick().await;
        match coordinator.status(run).await {
            Ok(status) => {
                last = Some(status);
                lost_since = None;
            }
            Err(error) if error.may_pass() => {
                lost_since.get_or_insert_with(Instant::now);
            }
            Err(error @ CallError::Failed { .. }) if last.is_some() => {
                // A coordinator that is just starting may fail a call; the picture says so.
                lost_since.get_or_insert_with(Instant::now);
                drop(error);
            }
            Err(error) => return Err(error.into()),
        }
        let trouble = lost_since.map(|since| trouble(coordinator.url(), since.elapsed()));
        let frame = frame(last.as_ref(), trouble.as_deref());
        if is_terminal {
            let rows = Term::stdout().size_checked().map_or(24, |(rows, _)| rows);
            output::print(&in_place(&frame, usize::from(rows), usize::from(width())))?;
        } else if frame != before {
            output::print(&frame)?;
            before = frame;
        }
    }
}

fn trouble(url: &str, away: Duration) -> String {
    let away = number::duration(away.as_secs_f64());
    format!("coordinator unreachable at {url} for {away}, retrying; below is what it last said")
}

fn frame(last: Option<&GetStatusResponse>, trouble: Option<&str>) -> String {
    let mut text = String::new();
    if let Some(trouble) = trouble {
        text += trouble;
        text += "\n\n";
    }
    if let Some(status) = last {
        text += &table::render(status, now_ms(), width());
    }
    text
}

/// Writes over the last picture without clearing it first, so that nothing flickers.
fn in_place(frame: &str, rows: usize, width: usize) -> String {
    let lines: Vec<&str> = frame.lines().collect();
    // The last row stays free: a line end there would scroll.
    let room = rows.saturating_sub(2).max(1);
    let mut text = HOME.to_owned();
    for line in lines.iter().take(room) {
        text += &format!("{}{CLEAR_LINE_END}\n", cut(line, width));
    }
    let hint = match lines.len().saturating_sub(room) {
        0 => "q quits".to_owned(),
        more => format!("q quits; {more} more lines need a taller terminal"),
    };
    text + &cut(&hint, width) + CLEAR_LINE_END + CLEAR_BELOW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_taller_than_the_terminal_is_cut_and_says_so() {
        let text = in_place("a\nb\nc\nd\ne\n", 5, 80);
        assert_eq!(
            text,
            "\x1b[Ha\x1b[K\nb\x1b[K\nc\x1b[K\nq quits; 2 more lines need a taller terminal\x1b[K\x1b[J"
        );
    }

    #[test]
    fn a_lost_coordinator_is_named_above_its_last_words() {
        let status = crate::render::sample::status();
        let text = frame(Some(&status), Some(&trouble("http://c", Duration::from_secs(3))));
        assert!(text.starts_with("coordinator unreachable at http://c for 3s, retrying"), "{text}");
        assert!(text.contains("expert-0"));
    }
}
