//! Arguments of the commands that make tokens and certificates.

use std::path::PathBuf;

use clade_access::Role;
use clap::{Args, Subcommand};

/// Makes tokens, by which callers prove who they are.
#[derive(Args, Debug)]
pub(crate) struct Token {
    #[command(subcommand)]
    pub(crate) action: TokenAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenAction {
    /// Draws a token and prints it, this once; the coordinator's file holds only its digest.
    ///
    /// Give the token to its owner, who sets CLADE_TOKEN or gives --token-file. To withdraw it, take its
    /// entry out of the file: a running coordinator notices within seconds.
    #[command(after_help = "\
Examples:
  clade token new --name alice --role operator --expires 90d --file tokens.yaml
  clade token new --name gpu7 --role worker --expires never --file tokens.yaml > gpu7.token

Roles:
  viewer    reads
  operator  also applies and cancels runs, anybody's
  admin     also takes nodes out of service
  worker    joins as the worker NAME or NAME-…, and nothing else; * as any worker")]
    New {
        /// Whose it is: letters, digits and . _ @ -
        #[arg(long)]
        name: String,
        /// viewer, operator, admin or worker.
        #[arg(long)]
        role: Role,
        /// How long it is good: 12h, 90d; or never.
        #[arg(long, value_name = "TIME")]
        expires: String,
        /// Adds the entry to this token file; without it the entry is printed to standard error.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

/// Makes certificates, by which both sides prove who they are.
#[derive(Args, Debug)]
pub(crate) struct Certs {
    #[command(subcommand)]
    pub(crate) action: CertsAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertsAction {
    /// Makes an authority, a server's certificate and one client's for each role, for a trial.
    ///
    /// Whoever has an authority makes them there: a client's subject has the organization `clade:ROLE` and
    /// its name as common name. Certificates cannot be withdrawn one by one, so let them be short-lived.
    #[command(after_help = "\
Examples:
  clade certs new --out certs --host coordinator.example --host 10.0.0.7
  clade-coordinator --listen 0.0.0.0:7600 --tls-cert certs/server.pem --tls-key certs/server.key \\
      --client-ca certs/ca.pem
  clade --coordinator https://coordinator.example:7600 --ca certs/ca.pem \\
      --cert certs/operator.pem --key certs/operator.key status")]
    New {
        /// Folder for the files, mode 0600; files that are there stay, and are an error.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// A name or address by which clients reach the coordinator; may be given several times.
        #[arg(long = "host", value_name = "NAME", required = true)]
        hosts: Vec<String>,
        /// How long they are good.
        #[arg(long, value_name = "TIME", default_value = "90d")]
        expires: String,
    },
}
