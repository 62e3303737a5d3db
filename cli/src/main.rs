//! `clade`: the one command line for everything.
//!
//! It speaks to a coordinator ([`call`]), shows what it says ([`render`], [`follow`]), and `clade
//! up` starts and supervises a whole system on one machine ([`up`]). It decides nothing about
//! runs: the coordinator does.

mod args;
mod call;
mod commands;
mod document;
mod exit;
mod follow;
mod interrupt;
mod output;
mod render;
mod screen;
mod terminal;
mod up;

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    clade_access::install_crypto();
    let ended = commands::run(args::Cli::parse()).await;
    exit::code(ended)
}
