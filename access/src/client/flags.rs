//! The flags by which a program finds its coordinators and says who it is.

use std::path::PathBuf;

use clap::Args;

/// Flatten into a program's arguments.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub struct ConnectFlags {
    /// Where coordinators answer; of several, separated by commas, the leader is found.
    #[arg(
        long,
        global = true,
        value_name = "URL[,URL…]",
        env = "CLADE_COORDINATOR",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7600"
    )]
    pub coordinator: Vec<String>,

    /// Certificates (PEM) of who signs coordinators' certificates; by default those that this
    /// machine trusts.
    #[arg(id = "connect_ca", long = "ca", global = true, value_name = "FILE", env = "CLADE_CA")]
    pub ca: Option<PathBuf>,

    /// Certificate (PEM) that says who you are, with --key.
    #[arg(
        id = "connect_cert",
        long = "cert",
        global = true,
        value_name = "FILE",
        env = "CLADE_CERT",
        requires = "connect_key"
    )]
    pub certificate: Option<PathBuf>,

    /// Private key (PEM) of --cert.
    #[arg(
        id = "connect_key",
        long = "key",
        global = true,
        value_name = "FILE",
        env = "CLADE_KEY",
        requires = "connect_cert"
    )]
    pub key: Option<PathBuf>,

    /// File with the token that says who you are; without it the token itself in CLADE_TOKEN.
    #[arg(
        id = "connect_token_file",
        long = "token-file",
        global = true,
        value_name = "FILE",
        env = "CLADE_TOKEN_FILE"
    )]
    pub token_file: Option<PathBuf>,
}
