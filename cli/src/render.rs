//! Turns what the coordinator says into text: the table, JSON, and the pieces of progress lines.
//!
//! Pure: no clock, no terminal. Time and width are arguments, so every picture can be tested.

pub(crate) mod fleet;
pub(crate) mod fleet_json;
pub(crate) mod jobs;
pub(crate) mod json;
pub(crate) mod number;
pub(crate) mod part;
pub(crate) mod table;

#[cfg(test)]
pub(crate) mod sample;

use clade_proto::v1::RunStatus;

/// Where a run stands, as far as waiting for it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    UnderWay,
    Finished,
    /// Failed or cancelled.
    Ended,
}

pub(crate) fn standing(run: &RunStatus) -> Standing {
    match run.phase.as_str() {
        "finished" => Standing::Finished,
        "failed" | "cancelled" => Standing::Ended,
        _ => Standing::UnderWay,
    }
}

/// One line without control characters: nothing a data set or a dead rank says moves the cursor.
pub(crate) fn one_line(text: &str) -> String {
    let visible = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    visible.collect::<String>().trim().to_owned()
}

/// Text of many lines without control characters other than line ends and tabs.
pub(crate) fn many_lines(text: &str) -> String {
    text.chars().filter(|&c| c == '\n' || c == '\t' || !c.is_control()).collect()
}

/// Cuts a line to `width` characters.
pub(crate) fn cut(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    line.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Seconds from its creation to its end, or to now.
pub(crate) fn elapsed_seconds(run: &RunStatus, now_ms: u64) -> f64 {
    let end = if run.ended_ms == 0 { now_ms } else { run.ended_ms };
    std::time::Duration::from_millis(end.saturating_sub(run.created_ms)).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_cannot_steer_the_terminal() {
        assert_eq!(one_line("a\x1b[2Jb\nc\t"), "a [2Jb c");
        assert_eq!(many_lines("a\x1b[2Jb\nc\td\r"), "a[2Jb\nc\td");
    }
}
