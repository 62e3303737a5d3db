//! `clade logs`.

use clade_proto::v1::Log;

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
    let logs = coordinator.logs(&run, &work, tail).await?;
    if logs.is_empty() {
        let what = if work.is_empty() { String::new() } else { format!(" of {work}") };
        output::note(&format!("no logs{what} in run {run} yet"));
    } else {
        output::print(&render(&logs))?;
    }
    Ok(Exit::Done)
}

/// Each log below its name.
fn render(logs: &[Log]) -> String {
    let mut text = String::new();
    for (index, Log { name, text: body, is_cut }) in logs.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        let end = if *is_cut { " (its end; --tail shows more)" } else { "" };
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
        .assert_eq(&render(&logs));
    }
}
