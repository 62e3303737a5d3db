//! `clade apply`: gives a run to a coordinator, and waits for its end if asked to.

use std::time::Duration;

use clade_proto::v1::{ApplyEffect, ApplyRunResponse, RunStatus};

use super::print_report;
use crate::args;
use crate::call::Coordinator;
use crate::document::Document;
use crate::exit::Exit;
use crate::follow::follow;
use crate::interrupt::Interrupts;
use crate::output;
use crate::render::{Standing, one_line, part, standing};
use crate::screen::Screen;

/// After this time a wait is explained.
const MOMENT: Duration = Duration::from_secs(2);

pub(super) async fn run(coordinator: &Coordinator, args: args::Apply) -> anyhow::Result<Exit> {
    let args::Apply { file, queue, wait, plain } = args;
    let document = Document::read(&file)?;
    let screen = Screen::new(plain);
    let line = {
        let mut applying = std::pin::pin!(apply(coordinator, &document, queue));
        match tokio::time::timeout(MOMENT, applying.as_mut()).await {
            Ok(line) => line?,
            Err(_) => {
                screen.say(
                    "the coordinator looks for the run's input tars and tries its store; for large \
                     buckets that takes a minute or two",
                );
                applying.await?
            }
        }
    };
    screen.say(&line);
    let run = document.run();
    if !wait {
        screen.say("see it with `clade status --watch`");
        return Ok(Exit::Done);
    }
    let mut interrupts = Interrupts::listen()?;
    let ended = tokio::select! {
        ended = follow(coordinator, &run, &screen) => ended?,
        () = interrupts.next() => {
            screen.say("run goes on without you: `clade status --watch` shows it, `clade cancel` stops it");
            return Ok(Exit::Interrupted);
        }
    };
    if standing(&ended) == Standing::Finished {
        print_report(coordinator, &run).await?;
        return Ok(Exit::Done);
    }
    explain_end(&ended).iter().for_each(|line| output::note(line));
    Ok(Exit::RunFailed)
}

/// Applies a document and says in a line what that did. With `queue`, a run may need more seats than
/// the cluster has now.
pub(crate) async fn apply(
    coordinator: &Coordinator,
    document: &Document,
    queue: bool,
) -> anyhow::Result<String> {
    // A base folder in anything but UTF-8 was refused when the document was read.
    let base_dir = document.base_dir.to_string_lossy();
    let answer = coordinator.apply(&document.text, &base_dir, queue).await?;
    let effect = answer.effect();
    let ApplyRunResponse { run, effect: _ } = answer;
    Ok(match effect {
        ApplyEffect::Created => format!("run {run} created"),
        ApplyEffect::Resumed => format!("run {run} goes on from what is saved"),
        ApplyEffect::Unchanged | ApplyEffect::Unspecified => {
            format!("run {run} is under way or finished already; nothing changed")
        }
    })
}

/// Why a run did not finish: its own reason and that of each part that failed.
pub(crate) fn explain_end(run: &RunStatus) -> Vec<String> {
    let RunStatus { run: name, phase, reason, parts, .. } = run;
    let mut lines = vec![format!("run {name} {phase}")];
    if !reason.is_empty() {
        lines[0] += &format!(": {}", one_line(reason));
    }
    let failed = parts.iter().filter(|it| it.phase == "failed");
    lines.extend(failed.map(|it| format!("  {}", part::plain_line(it))));
    lines.push(match phase.as_str() {
        "cancelled" => "applying it again goes on from what is saved".to_owned(),
        _ => {
            "`clade logs` shows what its ranks wrote; applying it again goes on from what is saved"
                .to_owned()
        }
    });
    lines
}
