//! `clade logs`.

use clade_proto::v1::{GetLogsResponse, Log};

use super::run_choice::run_and_work;
use crate::args;
use crate::call::Coordinator;
use crate::exit::Exit;
use crate::output;
use crate::render::{many_lines, one_line};

pub(super) async fn run(coordinator: &Coordinator, args: args::Logs) -> anyhow::Result<Exit> {
    let args::Logs { first, second, tail } = args;
    let (run, work) = if let (Some(run), Some(_)) = (&first, &second) {
        run_and_work(Some(run.clone()), second, &[])?
    } else {
        let runs = coordinator.status("").await?.runs;
        run_and_work(first, second, &runs)?
    };
    let GetLogsResponse { logs, left_out } = coordinator.logs(&run, &work, tail).await?;
    if logs.is_empty() {
        let what = if work.is_empty() { String::new() } else { format!(" of {work}") };
        output::note(&format!("no logs{what} in run {run} yet"));
    } else {
        output::print(&render(&logs, tail))?;
    }
    if left_out > 0 {
        output::note(&format!(
            "{left_out} more logs do not fit one answer: name a work such as expert-2 or embed.3, or \
             lower --tail"
        ));
    }
    Ok(Exit::Done)
}

/// More of one log no coordinator gives.
const LONGEST_TAIL: u64 = 1 << 20;

/// Each log below its name.
fn render(logs: &[Log], tail: u64) -> String {
    let mut text = String::new();
    for (index, Log { name, text: body, is_cut }) in logs.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        let end = match (is_cut, tail < LONGEST_TAIL) {
            (false, _) => "",
            (true, true) => " (its end; --tail shows more)",
            (true, false) => " (its last MiB; the whole lies in the run's store)",
        };
        text += &format!("==> {}{end} <==\n", one_line(name));
        let body = many_lines(body);
        text += &body;
        if !body.is_empty() && !body.ends_with('\n') {
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn each_log_stands_below_its_name() {
        let log = |name: &str, text: &str, is_cut| Log {
            name: name.to_owned(),
            text: text.to_owned(),
            is_cut,
        };
        let logs = [
            log("models/seed/gang-1/logs/rank-0.log", "step 3\nkilled", false),
            log("models/seed/gang-2/logs/rank-0.log", "step 4\n", true),
        ];
        expect![[r#"
            ==> models/seed/gang-1/logs/rank-0.log <==
            step 3
            killed

            ==> models/seed/gang-2/logs/rank-0.log (its end; --tail shows more) <==
            step 4
        "#]]
        .assert_eq(&render(&logs, 65_536));
        assert!(
            render(&logs, 9 << 20).contains("(its last MiB; the whole lies in the run's store)")
        );
    }
}
