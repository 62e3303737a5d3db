//! `clade token`: made here, known to the coordinator by a file. No coordinator need run.

use std::time::SystemTime;

use clade_access::token::{Entry, Expiry, Token, append};

use crate::args::{self, TokenAction};
use crate::exit::{Exit, UsageError};
use crate::output;

pub(super) fn run(args: args::Token) -> anyhow::Result<Exit> {
    let TokenAction::New { name, role, expires, file } = args.action;
    let usage = |flag: &str, why: String| UsageError(format!("{flag}: {why}"));
    let expiry =
        Expiry::after(&expires, SystemTime::now()).map_err(|why| usage("--expires", why))?;
    let token = Token::draw()?;
    let entry = Entry::new(&token, &name, role, expiry)
        .map_err(|error| usage("--name", error.to_string()))?;
    match file {
        Some(path) => {
            append(&path, &entry)?;
            output::note(&format!("{} lets {name} in as {role} by this token:", path.display()));
        }
        None => {
            output::note(&format!(
                "put this into the coordinator's --tokens file:\n{}",
                entry.to_yaml()
            ));
            output::note("and give this token to its owner:");
        }
    }
    output::print(token.reveal())?;
    Ok(Exit::Done)
}
