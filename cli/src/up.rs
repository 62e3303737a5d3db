//! `clade up`: a whole system on one machine, supervised.
//!
//! It only supervises: it starts coordinator and worker agents as processes of their own, starts
//! them again when they die, and stops them. What runs where is the coordinator's to decide.

mod child;
mod cost;
mod fleet;
mod folder;
mod launch;
mod log;
mod orphans;
mod port;
mod programs;
mod restart;

use std::sync::Arc;

use clade_proto::v1::RunStatus;
use tokio::time::Instant;

use crate::args;
use crate::call::{Coordinator, Patience};
use crate::commands::{apply, explain_end, print_report};
use crate::document::Document;
use crate::exit::Exit;
use crate::follow::follow;
use crate::interrupt::Interrupts;
use crate::output;
use crate::render::{Standing, standing};
use crate::screen::Screen;

use fleet::{Fleet, GaveUp, Role};
use folder::DataFolder;
use launch::Launch;
use programs::Programs;

/// What ended the work before its own end.
enum Cut {
    Interrupted,
    GaveUp(GaveUp),
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Cut {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

pub(crate) async fn up(args: args::Up) -> anyhow::Result<Exit> {
    let began = Instant::now();
    let args::Up { file, workers, slots, threads_per_rank, data, listen, fresh, plain } = args;
    let document = file.as_deref().map(Document::read).transpose()?;
    let programs = Programs::find()?;
    let listen = port::check(listen)?;
    let folder = DataFolder::take(&data, listen)?;
    let listen = port::claim(listen).await?;
    if let (true, Some(document)) = (fresh, &document) {
        folder.clear(document)?;
    }
    folder.lay_out(workers, listen)?;
    let launch = Launch { programs, listen, workers, slots, threads_per_rank };
    let mut interrupts = Interrupts::listen()?;
    let screen = Screen::new(plain);
    let announce = {
        let screen = screen.clone();
        Arc::new(move |line: &str| screen.say(line))
    };
    let mut fleet = Fleet::new(announce)?;
    let ended =
        work(&mut fleet, &mut interrupts, &launch, &folder, document.as_ref(), &screen).await;

    let begun_anew = launch::go_on_with(std::env::args());
    match &ended {
        Err(Cut::Interrupted) => {
            screen.say("stopping: models save their checkpoints… (Ctrl-C again to stop at once)");
        }
        Err(Cut::GaveUp(_) | Cut::Failed(_)) => screen.say("stopping what was started"),
        Ok(_) => (),
    }
    tokio::select! {
        () = fleet.stop() => (),
        () = interrupts.next() => {
            screen.say("stopping at once");
            fleet.kill().await;
        }
    }
    screen.say(&cost::spent(began.elapsed())?);
    match ended {
        Ok(exit) => Ok(exit),
        Err(Cut::Interrupted) => {
            screen.say(&format!("everything is stopped; go on with: {begun_anew}"));
            Ok(Exit::Interrupted)
        }
        Err(Cut::GaveUp(why)) => Err(why.into()),
        Err(Cut::Failed(error)) => Err(error),
    }
}

async fn work(
    fleet: &mut Fleet,
    interrupts: &mut Interrupts,
    launch: &Launch,
    folder: &DataFolder,
    document: Option<&Document>,
    screen: &Screen,
) -> Result<Exit, Cut> {
    // It comes back as long as it is supervised; if it cannot, the fleet gives up.
    let coordinator = Coordinator::at(&launch.url())?.with(Patience::Endless);
    fleet.start(Role::Coordinator, launch.coordinator(folder));
    unless_cut(fleet, interrupts, coordinator.status("")).await??;
    screen.say(&format!("coordinator listens at {}; logs are in {}", launch.url(), folder.logs()));

    let Some(document) = document else {
        launch.agents(folder).into_iter().for_each(|agent| {
            fleet.start(Role::Agent, agent);
        });
        screen.say(&launch.stay_hint());
        return unless_cut(fleet, interrupts, std::future::pending()).await;
    };
    let run = document.run();
    let applied = unless_cut(fleet, interrupts, apply(&coordinator, document, true)).await??;
    let known = unless_cut(fleet, interrupts, status_of(&coordinator, &run)).await??;
    if standing(&known) == Standing::Finished {
        screen.say(&format!("run {run} has finished before; --fresh starts it over"));
        unless_cut(fleet, interrupts, print_report(&coordinator, &run)).await??;
        return Ok(Exit::Done);
    }
    screen.say(&applied);
    launch.agents(folder).into_iter().for_each(|agent| {
        fleet.start(Role::Agent, agent);
    });
    let ended = unless_cut(fleet, interrupts, follow(&coordinator, &run, screen)).await??;
    if standing(&ended) == Standing::Finished {
        unless_cut(fleet, interrupts, print_report(&coordinator, &run)).await??;
        return Ok(Exit::Done);
    }
    explain_end(&ended).iter().for_each(|line| output::note(line));
    Ok(Exit::RunFailed)
}

async fn status_of(coordinator: &Coordinator, run: &str) -> anyhow::Result<RunStatus> {
    let runs = coordinator.status(run).await?.runs;
    runs.into_iter()
        .find(|it| it.run == run)
        .ok_or_else(|| anyhow::anyhow!("the coordinator does not know run `{run}` that it took"))
}

/// Does `work` unless somebody wishes to stop or a child cannot be kept running.
async fn unless_cut<T>(
    fleet: &mut Fleet,
    interrupts: &mut Interrupts,
    work: impl Future<Output = T>,
) -> Result<T, Cut> {
    tokio::select! {
        done = work => Ok(done),
        () = interrupts.next() => Err(Cut::Interrupted),
        why = fleet.gave_up() => Err(Cut::GaveUp(why)),
    }
}
