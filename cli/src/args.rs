//! The command line's grammar and its help.

mod access;

use std::net::SocketAddr;
use std::path::PathBuf;

use clade_access::client::ConnectFlags;
use clade_core::ids::Stage;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use access::{Certs, CertsAction, Token, TokenAction};

/// Trains CLIP data experts: a dataset goes in, a routed ensemble and a report come out.
#[derive(Debug, Parser)]
#[command(name = "clade", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connection: ConnectFlags,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  clade up -f run.yaml            start everything on this machine, train, print the report, stop
  clade up                        start coordinator and workers, and stay
  clade apply -f run.yaml --wait  give a run to a coordinator and watch it to its end
  clade status --watch            what every stage and model does, and why it waits
  clade logs expert-2             what the ranks of expert-2 wrote, the dead ones too
  clade jobs --phase failed       the jobs of a run one by one, and why each is where it is
  clade report                    the report of the finished run
  clade workers                   the machines, their devices, and why one gets nothing
  clade drain NODE --reason TEXT  empty a machine before its repair, without losing a step
  clade provenance who-saw KEY    which models were trained on a pair, and how often

Exit codes:
  0    done; for `up -f` and `apply --wait`: the run finished
  1    the run failed or was cancelled, or the request was refused
  2    the command line or the run document is wrong
  3    no coordinator answers
  130  interrupted by Ctrl-C or SIGTERM";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Up(Up),
    Apply(Apply),
    Status(Status),
    Jobs(Jobs),
    Logs(Logs),
    Cancel(Cancel),
    Report(Report),
    Workers(Workers),
    Cordon(Cordon),
    Uncordon(Uncordon),
    Drain(Drain),
    Provenance(Provenance),
    Token(Token),
    Certs(Certs),
}

/// Starts coordinator and workers on this machine and keeps them running.
///
/// With -f it applies the run, shows its progress, prints its report, stops everything and exits
/// with the run's status. Without -f it stays until Ctrl-C.
///
/// Each process gets a log file below DATA/logs. One that dies is started again with the same
/// port and flags. Ctrl-C lets models save their checkpoints; the same command goes on from there.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  clade up -f deploy/demo/run.yaml             one run, from pictures to report
  clade up -f run.yaml --workers 4 --slots 2   8 ranks at a time
  clade up -f run.yaml --fresh                 forget the run's earlier work and start over
  clade up --data /var/lib/clade               a system that stays; `clade apply` gives it runs")]
pub(crate) struct Up {
    /// The run document; relative paths in it are seen from the current folder.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Worker agents to start.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) workers: u32,
    /// Ranks that each worker holds at a time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) slots: u32,
    /// CPU threads of each rank; by default the cores are divided among all slots.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) threads_per_rank: Option<u32>,
    /// Folder for the state and logs of coordinator and workers. Artefacts go to the run's own `store`.
    #[arg(long, value_name = "DATA", default_value = "./clade-data")]
    pub(crate) data: PathBuf,
    /// Address of the coordinator; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7600")]
    pub(crate) listen: SocketAddr,
    /// First removes all state below DATA and the run's artefacts.
    #[arg(long, requires = "file")]
    pub(crate) fresh: bool,
    /// Shows progress as plain lines even on a terminal.
    #[arg(long)]
    pub(crate) plain: bool,
}

/// Gives a run to the coordinator, or takes a failed or cancelled one up again.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  clade apply -f run.yaml          returns at once
  clade apply -f run.yaml --wait   shows progress; exits with the run's status")]
pub(crate) struct Apply {
    /// The run document; relative paths in it are seen from the current folder.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Takes a run that needs more seats than the workers have now; it waits until they come.
    #[arg(long)]
    pub(crate) queue: bool,
    /// Shows progress until the run ends. Ctrl-C leaves the run going.
    #[arg(long)]
    pub(crate) wait: bool,
    /// With --wait, shows progress as plain lines even on a terminal.
    #[arg(long, requires = "wait")]
    pub(crate) plain: bool,
}

/// Tells for every stage and model its phase, progress, rate, time left, and why it waits.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  clade status                 every run and worker
  clade status clipart --watch redrawn each second; q or Ctrl-C quits
  clade status -o json | jq '.runs[0].parts[] | select(.phase == \"running\") | .name'")]
pub(crate) struct Status {
    /// The run; all of them if left out.
    pub(crate) run: Option<String>,
    /// Redraws in place until q or Ctrl-C, also while the coordinator restarts.
    #[arg(short, long)]
    pub(crate) watch: bool,
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

/// Lists the jobs of a run one by one: their phase, tries, seats, and why each is where it is.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  clade jobs --phase failed            what failed in the only run, and why
  clade jobs clipart --stage embed     one stage of a named run
  clade jobs -o json | jq -r '.jobs[] | select(.restarts > 0) | .work'")]
pub(crate) struct Jobs {
    /// The run; may be left out when there is exactly one.
    pub(crate) run: Option<String>,
    /// Only jobs of this stage, such as `embed`.
    #[arg(long)]
    pub(crate) stage: Option<Stage>,
    /// Only jobs in this phase.
    #[arg(long, value_parser = ["waiting", "backoff", "running", "stopping", "done", "failed"])]
    pub(crate) phase: Option<String>,
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// Prints what the ranks of a work wrote, those of dead ones too.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  clade logs                          every log of the only run
  clade logs expert-2                 one model of the only run
  clade logs clipart embed.3          one job of a named run
  clade logs clipart embed --tail 4k  the end of each log of a stage")]
pub(crate) struct Logs {
    /// The run; may be left out when there is exactly one.
    #[arg(value_name = "RUN")]
    pub(crate) first: Option<String>,
    /// A model (`expert-2`), a stage (`embed`) or a job (`embed.3`); everything if left out.
    #[arg(value_name = "WORK")]
    pub(crate) second: Option<String>,
    /// Bytes of each log, from its end: 4000, 64k, 1M, which is the most.
    #[arg(long, value_name = "BYTES", default_value = "64k", value_parser = parse_bytes)]
    pub(crate) tail: u64,
}

/// Stops a run; its models save their checkpoints first. `clade apply` takes it up again.
#[derive(Args, Debug)]
pub(crate) struct Cancel {
    pub(crate) run: String,
}

/// Lists the workers: their machines, devices and seats, and why one gets nothing.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  clade workers
  clade workers -o json | jq -r '.workers[] | select(.cordoned) | .node'")]
pub(crate) struct Workers {
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// Gives a machine nothing new; what runs there goes on.
///
/// It holds for the node, however often its agents restart, until `clade uncordon`.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  clade cordon gpu-17 --reason 'fan is loud'")]
pub(crate) struct Cordon {
    /// The machine, as `clade workers` names it.
    pub(crate) node: String,
    /// Shown wherever somebody wonders why nothing runs there.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) reason: String,
}

/// Takes a machine up again: ends cordon, drain and quarantine.
#[derive(Args, Debug)]
pub(crate) struct Uncordon {
    /// The machine, as `clade workers` names it.
    pub(crate) node: String,
}

/// Empties a machine: what runs there saves a checkpoint, stops, and goes on elsewhere.
///
/// The machine gets nothing new until `clade uncordon`. A model that finds no other seats waits for
/// some, and `clade status` says so.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  clade drain gpu-17 --reason 'new memory'          returns at once
  clade drain gpu-17 --reason 'new memory' --wait   until nothing runs there any more")]
pub(crate) struct Drain {
    /// The machine, as `clade workers` names it.
    pub(crate) node: String,
    /// Shown wherever somebody wonders why nothing runs there.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) reason: String,
    /// Waits until no rank runs there any more. Ctrl-C stops the waiting only.
    #[arg(long)]
    pub(crate) wait: bool,
}

/// Prints the report of a finished run.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  clade report > report.md
  clade report clipart --json | jq .")]
pub(crate) struct Report {
    /// The run; may be left out when there is exactly one.
    pub(crate) run: Option<String>,
    /// As JSON instead of Markdown.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Answers from the manifests in the store; no coordinator need run.
#[derive(Args, Debug)]
pub(crate) struct Provenance {
    #[command(subcommand)]
    pub(crate) question: ProvenanceQuestion,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProvenanceQuestion {
    /// Tells which models and checkpoints were trained on a pair, and how often.
    ///
    /// Nothing was recorded for it: the order of data is a pure function of the run's manifests, and a
    /// checkpoint says how far its model was. An expert saw a pair through its own steps, and through
    /// those of the seed that it began from.
    #[command(after_help = "\
Examples:
  clade provenance who-saw 000123
  clade provenance who-saw 000123 --store s3://bucket/clade --run laion --json")]
    WhoSaw {
        /// The pair's key: the name of its members without their endings.
        key: String,
        /// The run's `store`: a folder, or the address of a bucket.
        #[arg(long, value_name = "STORE", env = "CLADE_STORE", default_value = "./clade-data")]
        store: String,
        /// The run; may be left out when the store holds exactly one.
        #[arg(long)]
        run: Option<String>,
        /// As JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'M')) => (&text[..at], 1 << 20),
        _ => (text, 1),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| "write a number of bytes such as 4000, 64k or 2M".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_grammar_has_no_contradictions() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bytes_take_a_binary_unit_and_nothing_else() {
        assert_eq!(parse_bytes("64k"), Ok(65_536));
        assert_eq!(parse_bytes("12"), Ok(12));
        for bad in ["", "k", "-1", "1x", "0", "99999999999999999999M", "é"] {
            assert!(parse_bytes(bad).is_err(), "{bad:?} was taken");
        }
    }
}
