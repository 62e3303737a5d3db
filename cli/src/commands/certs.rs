//! `clade certs`: certificates for a trial. No coordinator need run.

use std::time::SystemTime;

use clade_access::token::Expiry;
use clade_access::trial;

use crate::args::{self, CertsAction};
use crate::exit::{Exit, UsageError};
use crate::output;

pub(super) fn run(args: args::Certs) -> anyhow::Result<Exit> {
    let CertsAction::New { out, hosts, expires } = args.action;
    let now = SystemTime::now();
    let to = match Expiry::after(&expires, now) {
        Ok(Expiry::At(to)) => to,
        Ok(Expiry::Never) => {
            return Err(UsageError("--expires: a certificate always ends".to_owned()).into());
        }
        Err(why) => return Err(UsageError(format!("--expires: {why}")).into()),
    };
    let written = trial::write(&out, &hosts, now, to)?;
    let lines = written.iter().map(|path| path.display().to_string());
    output::print(&lines.collect::<Vec<_>>().join("\n"))?;
    Ok(Exit::Done)
}
