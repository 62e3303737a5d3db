//! One stage or model in words: how far it is, and why it is where it is.

use clade_proto::v1::{PartStatus, RankStatus};

use super::number::{self, UNKNOWN};
use super::one_line;

/// `144/432 steps`.
pub(crate) fn progress(part: &PartStatus) -> String {
    if part.total == 0 {
        return UNKNOWN.to_owned();
    }
    format!("{}/{} {}", part.done, part.total, one_line(&part.unit)).trim_end().to_owned()
}

pub(crate) fn is_over(part: &PartStatus) -> bool {
    matches!(part.phase.as_str(), "done" | "failed" | "cancelled")
}

/// The rate, unless it is only a memory.
pub(crate) fn rate(part: &PartStatus) -> String {
    if part.phase == "running" { number::rate(part.rate) } else { UNKNOWN.to_owned() }
}

/// The time left, unless there is none.
pub(crate) fn eta(part: &PartStatus) -> String {
    if is_over(part) { UNKNOWN.to_owned() } else { number::duration(part.eta_seconds) }
}

/// Why it is in its phase: the coordinator's reason, where it runs, what is saved, what was counted.
pub(crate) fn why(part: &PartStatus) -> String {
    let mut pieces = Vec::new();
    let reason = one_line(&part.reason);
    // A stage's reason is that of one of its jobs; its seats are those of all.
    let (place, rest) = match reason.strip_prefix("on ") {
        Some(text) => (true, text.split_once("; ").map_or("", |(_, rest)| rest)),
        None => (reason.is_empty(), reason.as_str()),
    };
    if place && !part.ranks.is_empty() {
        pieces.push(seats(&part.ranks));
    }
    if !rest.is_empty() {
        pieces.push(rest.to_owned());
    }
    if !is_over(part) && part.committed_step > 0 {
        pieces.push(format!("saved at step {}", part.committed_step));
    }
    match part.restarts {
        0 => (),
        1 => pieces.push("1 restart".to_owned()),
        many => pieces.push(format!("{many} restarts")),
    }
    if part.phase == "done" {
        pieces.extend(counts(part));
    }
    pieces.join("; ")
}

/// `on w0:0, w1:0`: each seat once, ranks in order.
fn seats(ranks: &[RankStatus]) -> String {
    let seats: Vec<String> =
        ranks.iter().map(|rank| format!("{}:{}", one_line(&rank.worker), rank.slot)).collect();
    format!("on {}", seats.join(", "))
}

/// Totals, and whatever was unusable; counts per expert and the like are for JSON.
fn counts(part: &PartStatus) -> Option<String> {
    let mut shown: Vec<(&String, &u64)> = part
        .counts
        .iter()
        .filter(|(key, count)| !key.contains('.') || (key.starts_with("unusable.") && **count > 0))
        .collect();
    shown.sort();
    let words: Vec<String> = shown
        .into_iter()
        .map(|(key, &number)| format!("{} {}", number::count(number), one_line(key)))
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// `expert-2: running, 144/432 steps, 3.2/s, eta 1m30s, loss 3.214 (on w0:0)`.
pub(crate) fn plain_line(part: &PartStatus) -> String {
    let mut pieces = vec![one_line(&part.phase)];
    let labelled = [
        ("", progress(part)),
        ("", rate(part)),
        ("eta ", eta(part)),
        ("loss ", number::loss(part.loss)),
    ];
    let known = labelled.into_iter().filter(|(_, value)| value != UNKNOWN);
    pieces.extend(known.map(|(label, value)| format!("{label}{value}")));
    let why = why(part);
    let why = if why.is_empty() { why } else { format!(" ({why})") };
    format!("{}: {}{why}", one_line(&part.name), pieces.join(", "))
}

/// What stands right of a part's bar.
pub(crate) fn bar_message(part: &PartStatus) -> String {
    let loss = match number::loss(part.loss) {
        none if none == UNKNOWN => String::new(),
        loss => format!("loss {loss}"),
    };
    format!(
        "{:<9} {:<14} {:>8} {:>6}  {loss:<10}  {}",
        one_line(&part.phase),
        progress(part),
        rate(part),
        eta(part),
        why(part)
    )
    .trim_end()
    .to_owned()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::sample;
    use super::*;

    #[test]
    fn a_plain_line_says_what_is_known_and_nothing_else() {
        let lines: Vec<String> =
            sample::status().runs[0].parts.iter().map(|part| plain_line(part) + "\n").collect();
        expect![[r#"
            index: done, 12/12 jobs (21,793 pairs, 3 unusable.truncatedImage)
            embed: running, 8/12 jobs, 25.2/min, eta 10s (on w1:0, w2:0; restarted after: worker w9 was lost)
            cluster: waiting, 0/1 jobs (waits for embed)
            seed: running, 144/288 steps, 3.2/s, eta 45s, loss 3.214 (on w0:0; saved at step 120; 1 restart)
            dense: backoff, 310/432 steps, loss 2.900 (rank 0 crashed: killed by signal 9; starts again in 4 s; saved at step 300; 4 restarts)
            expert-0: waiting, 0/432 steps (waits for seed and seal, and then for one free slot that no other gang holds on any worker)
        "#]].assert_eq(&lines.concat());
    }

    #[test]
    fn the_words_beside_a_bar_stand_in_columns() {
        let lines: Vec<String> = sample::status().runs[0]
            .parts
            .iter()
            .map(|part| format!("{:<9} [bar] {}\n", part.name, bar_message(part)))
            .collect();
        expect![[r#"
            index     [bar] done      12/12 jobs            -      -              21,793 pairs, 3 unusable.truncatedImage
            embed     [bar] running   8/12 jobs      25.2/min    10s              on w1:0, w2:0; restarted after: worker w9 was lost
            cluster   [bar] waiting   0/1 jobs              -      -              waits for embed
            seed      [bar] running   144/288 steps     3.2/s    45s  loss 3.214  on w0:0; saved at step 120; 1 restart
            dense     [bar] backoff   310/432 steps         -      -  loss 2.900  rank 0 crashed: killed by signal 9; starts again in 4 s; saved at step 300; 4 restarts
            expert-0  [bar] waiting   0/432 steps           -      -              waits for seed and seal, and then for one free slot that no other gang holds on any worker
        "#]].assert_eq(&lines.concat());
    }
}
