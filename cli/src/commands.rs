//! The commands, one file each; `up` has a room of its own.

mod apply;
mod cancel;
mod certs;
mod cordon;
mod drain;
mod jobs;
mod logs;
mod provenance;
mod report;
mod run_choice;
mod status;
mod token;
mod workers;

use crate::args::{Cli, Command};
use crate::call::Coordinator;
use crate::exit::Exit;

pub(crate) use apply::{apply, explain_end};
pub(crate) use report::print_report;

pub(crate) async fn run(cli: Cli) -> anyhow::Result<Exit> {
    let Cli { connection, command } = cli;
    let connect = || Coordinator::from_flags(&connection);
    match command {
        Command::Up(args) => crate::up::up(args).await,
        Command::Apply(args) => apply::run(&connect()?, args).await,
        Command::Status(args) => status::run(&connect()?, args).await,
        Command::Jobs(args) => jobs::run(&connect()?, args).await,
        Command::Logs(args) => logs::run(&connect()?, args).await,
        Command::Workers(args) => workers::run(&connect()?, args).await,
        Command::Cordon(args) => cordon::cordon(&connect()?, args).await,
        Command::Uncordon(args) => cordon::uncordon(&connect()?, args).await,
        Command::Drain(args) => drain::run(&connect()?, args).await,
        Command::Cancel(args) => cancel::run(&connect()?, args).await,
        Command::Provenance(args) => provenance::run(args).await,
        Command::Token(args) => token::run(args),
        Command::Certs(args) => certs::run(args),
        Command::Report(args) => report::run(&connect()?, args).await,
    }
}
