//! Which run is meant when a command names none, and which argument is what.

use clade_core::ids::{ModelId, Stage, WorkId};
use clade_proto::v1::RunStatus;

use crate::exit::UsageError;

/// The only run there is.
pub(super) fn only_run(runs: &[RunStatus]) -> Result<String, UsageError> {
    match runs {
        [run] => Ok(run.run.clone()),
        [] => Err(UsageError(
            "the coordinator has no run yet: `clade apply -f run.yaml` gives it one".to_owned(),
        )),
        several => {
            let names: Vec<&str> = several.iter().map(|it| it.run.as_str()).collect();
            Err(UsageError(format!(
                "there are several runs ({}): name the one you mean",
                names.join(", ")
            )))
        }
    }
}

/// Reads `[RUN] [WORK]` where RUN may be left out: the run, and the work or nothing.
pub(super) fn run_and_work(
    first: Option<String>,
    second: Option<String>,
    runs: &[RunStatus],
) -> Result<(String, String), UsageError> {
    match (first, second) {
        (None, _) => only_run(runs).map(|run| (run, String::new())),
        (Some(run), Some(work)) => check_work(&work).map(|()| (run, work)),
        (Some(one), None) if runs.iter().any(|it| it.run == one) => Ok((one, String::new())),
        (Some(one), None) if check_work(&one).is_ok() => only_run(runs).map(|run| (run, one)),
        (Some(one), None) => {
            let names: Vec<&str> = runs.iter().map(|it| it.run.as_str()).collect();
            Err(UsageError(format!(
                "`{one}` is neither a run ({}) nor a work such as expert-2, embed or embed.3",
                if names.is_empty() { "there is none".to_owned() } else { names.join(", ") }
            )))
        }
    }
}

fn check_work(text: &str) -> Result<(), UsageError> {
    let is_work = text.parse::<WorkId>().is_ok()
        || text.parse::<ModelId>().is_ok()
        || text.parse::<Stage>().is_ok();
    if is_work {
        return Ok(());
    }
    Err(UsageError(format!("`{text}` is no work: write one such as expert-2, embed or embed.3")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(names: &[&str]) -> Vec<RunStatus> {
        let run = |name: &&str| RunStatus { run: (*name).to_owned(), ..RunStatus::default() };
        names.iter().map(run).collect()
    }

    fn choose(
        first: &str,
        second: Option<&str>,
        names: &[&str],
    ) -> Result<(String, String), String> {
        run_and_work(Some(first.to_owned()), second.map(str::to_owned), &runs(names))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_single_argument_is_a_run_if_there_is_one_of_that_name_and_a_work_otherwise() {
        let both = |run: &str, work: &str| Ok((run.to_owned(), work.to_owned()));
        assert_eq!(choose("a", None, &["a", "b"]), both("a", ""));
        assert_eq!(choose("expert-2", None, &["a"]), both("a", "expert-2"));
        assert_eq!(choose("embed.3", None, &["a"]), both("a", "embed.3"));
        assert_eq!(choose("seed", None, &["seed"]), both("seed", ""));
        assert_eq!(choose("a", Some("embed"), &[]), both("a", "embed"));
        assert!(choose("expert-2", None, &["a", "b"]).unwrap_err().contains("several runs (a, b)"));
        assert!(choose("expertt", None, &["a"]).unwrap_err().contains("neither a run (a)"));
        assert!(choose("a", Some("expertt"), &["a"]).unwrap_err().contains("no work"));
    }
}
