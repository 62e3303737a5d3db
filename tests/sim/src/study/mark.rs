//! Marks as every benchmark of this project prints them.

use std::io::Write as _;

/// Prints one line of figures.
pub(crate) fn say(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    // Nobody is left to read it: the exit status tells as much.
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}

/// Prints a mark that wants at most so much.
pub(crate) fn mark(name: &str, value: f64, unit: &str, wanted: f64) {
    let verdict = if value <= wanted { "met" } else { "short" };
    say(format_args!("mark {name} {value:.3} {unit} want <= {wanted}: {verdict}"));
}
