//! Whom this coordinator lets in: its flags, checked before anything is served.
//!
//! Nobody is let in unasked by accident: without a way to prove who asks it does not start, and
//! what would send a token in clear over a network is refused.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use clade_access::guard::{Accepts, Guard};
use clade_access::listener::{FailedHandshakes, Incoming, TlsError, TlsFiles};
use clade_access::token::{TokenFile, TokenFileError};
use clap::Args;
use tokio::net::TcpListener;

/// Whom to let in
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Access")]
pub(crate) struct AccessFlags {
    /// File of the tokens that let callers in, as `clade token new --file` writes it; read again when
    /// it changes
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Certificates (PEM) to serve TLS with, the own first; read again when they change
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key (PEM) of --tls-cert
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Certificates (PEM) of who signs clients' certificates; those say who a caller is
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    client_ca: Option<PathBuf>,
    /// Let everybody do everything; on loopback only
    #[arg(long, conflicts_with_all = ["tokens", "client_ca"])]
    no_auth: bool,
}

/// Why a coordinator does not start with these flags.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    #[error(
        "will not serve everybody unasked: give --tokens FILE (made by `clade token new --file FILE`) \
         or --client-ca FILE (made by `clade certs new`); or, on loopback only, --no-auth"
    )]
    NobodyKnown,

    #[error(
        "will not listen on {0} with --no-auth: everybody who reaches it could do everything; give \
         --tokens or --client-ca, or listen on a loopback address such as 127.0.0.1:7600"
    )]
    OpenToAll(SocketAddr),

    #[error(
        "will not listen on {0} without TLS: tokens would be sent for all to read; give --tls-cert and \
         --tls-key, or listen on a loopback address such as 127.0.0.1:7600"
    )]
    InClear(SocketAddr),

    #[error(transparent)]
    Tokens(#[from] TokenFileError),

    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What stands between the network and the services.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) tokens: Option<TokenFile>,
    pub(crate) tls: Option<TlsFiles>,
    accepts: Accepts,
    pub(crate) failed_handshakes: FailedHandshakes,
}

impl AccessFlags {
    /// Whether callers find TLS here.
    pub(crate) const fn is_tls(&self) -> bool {
        self.tls_cert.is_some()
    }

    /// Reads what the flags name, if serving so on `listen` is safe.
    pub(crate) fn open(&self, listen: SocketAddr) -> Result<Door, AccessError> {
        let Self { tokens, tls_cert, tls_key, client_ca, no_auth } = self;
        let is_loopback = listen.ip().is_loopback();
        match (no_auth, tokens, client_ca) {
            (true, _, _) if !is_loopback => return Err(AccessError::OpenToAll(listen)),
            (false, None, None) => return Err(AccessError::NobodyKnown),
            (true | false, Some(_) | None, Some(_) | None) => (),
        }
        let tls = match (tls_cert, tls_key) {
            (Some(certificate), Some(key)) => {
                Some(TlsFiles::open(certificate, key, client_ca.as_deref(), tokens.is_none())?)
            }
            (Some(_) | None, Some(_) | None) if is_loopback => None,
            (Some(_) | None, Some(_) | None) => return Err(AccessError::InClear(listen)),
        };
        let tokens = tokens.as_deref().map(TokenFile::open).transpose()?;
        let accepts = if *no_auth {
            Accepts::Anybody
        } else {
            Accepts::Known { tokens: tokens.as_ref().map(TokenFile::tokens) }
        };
        Ok(Door { tokens, tls, accepts, failed_handshakes: FailedHandshakes::default() })
    }
}

impl Door {
    /// The layer around all services.
    pub(crate) fn guard(&self) -> Guard {
        Guard::new(self.accepts.clone(), SystemTime::now)
    }

    /// The connections to serve.
    pub(crate) fn incoming(&self, listener: TcpListener) -> Incoming {
        let tls = self.tls.as_ref().map(TlsFiles::config);
        Incoming::new(listener, tls, self.failed_handshakes.clone())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        access: AccessFlags,
    }

    fn open(listen: &str, flags: &[&str]) -> String {
        let args = std::iter::once(&"clade-coordinator").chain(flags);
        match Program::try_parse_from(args) {
            Ok(program) => match program.access.open(listen.parse().unwrap()) {
                Ok(_) => "opens".to_owned(),
                Err(error) => error.to_string(),
            },
            Err(error) => format!("usage: {:?}", error.kind()),
        }
    }

    struct Files {
        _folder: tempfile::TempDir,
        names: [String; 4],
    }

    fn files() -> Files {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let later = now + std::time::Duration::from_secs(3600);
        let hosts = ["localhost".to_owned()];
        clade_access::trial::write(folder.path(), &hosts, now, later).unwrap();
        std::fs::write(folder.path().join("tokens.yaml"), "[]").unwrap();
        let name = |name| folder.path().join(name).display().to_string();
        let names = [name("tokens.yaml"), name("server.pem"), name("server.key"), name("ca.pem")];
        Files { _folder: folder, names }
    }

    #[test]
    fn a_coordinator_that_could_ask_nobody_does_not_start_and_says_the_ways_out() {
        for listen in ["127.0.0.1:0", "0.0.0.0:0"] {
            let error = open(listen, &[]);
            assert!(error.contains("--tokens FILE") && error.contains("--client-ca"), "{error}");
        }
        assert_eq!(open("127.0.0.1:0", &["--no-auth"]), "opens");
        assert_eq!(open("[::1]:0", &["--no-auth"]), "opens");
        for listen in ["0.0.0.0:0", "10.0.0.1:0", "[::]:0"] {
            let error = open(listen, &["--no-auth"]);
            assert!(error.starts_with("will not listen on"), "{error}");
        }
    }

    #[test]
    fn tokens_go_in_clear_on_loopback_only() {
        let Files { _folder, names: [tokens, certificate, key, ca] } = files();
        let by_token = ["--tokens", &tokens];
        let tls = ["--tls-cert", &certificate, "--tls-key", &key];
        assert_eq!(open("127.0.0.1:0", &by_token), "opens");
        let error = open("0.0.0.0:0", &by_token);
        assert!(error.contains("without TLS"), "{error}");
        assert_eq!(
            open("0.0.0.0:0", &[by_token, [tls[0], tls[1]]].concat()),
            "usage: MissingRequiredArgument"
        );
        assert_eq!(open("0.0.0.0:0", &[&by_token[..], &tls].concat()), "opens");
        assert_eq!(open("0.0.0.0:0", &[&["--client-ca", &ca][..], &tls].concat()), "opens");
        let error = open("0.0.0.0:0", &tls);
        assert!(error.starts_with("will not serve everybody"), "{error}");
        for contradiction in [by_token, ["--client-ca", &ca]] {
            let flags = [&contradiction[..], &tls, &["--no-auth"]].concat();
            assert_eq!(open("127.0.0.1:0", &flags), "usage: ArgumentConflict");
        }
        assert_eq!(open("127.0.0.1:0", &["--client-ca", &ca]), "usage: MissingRequiredArgument");
    }

    #[test]
    fn files_that_are_wrong_are_told_at_start() {
        let Files { _folder, names: [tokens, certificate, key, ca] } = files();
        let told = |flags: &[&str]| open("127.0.0.1:0", flags);
        assert!(told(&["--tokens", "/nowhere"]).starts_with("cannot read the tokens in /nowhere"));
        let tls = |certificate: &str, key: &str, ca: &str| {
            told(&["--tls-cert", certificate, "--tls-key", key, "--client-ca", ca])
        };
        assert_eq!(tls(&certificate, &key, &ca), "opens");
        assert!(tls(&key, &key, &ca).starts_with("--tls-cert"), "{}", tls(&key, &key, &ca));
        assert!(tls(&certificate, &tokens, &ca).starts_with("--tls-key"));
        assert!(tls(&certificate, &key, &tokens).starts_with("--client-ca"));
        let other = key.replace("server.key", "ca.key");
        assert!(
            tls(&certificate, &other, &ca).contains("cannot be used"),
            "{}",
            tls(&certificate, &other, &ca)
        );
    }
}
