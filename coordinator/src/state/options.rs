//! The flags that say where state is kept.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::OpenError;

/// Where decisions are kept, and under which name.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct StateArgs {
    /// Folder of the embedded state; made if it is not there. One coordinator alone
    #[arg(long, default_value = "clade-data/coordinator", conflicts_with = "etcd")]
    state: PathBuf,
    /// Members of an etcd cluster that keeps the state, so that several coordinators can stand by
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    etcd: Vec<String>,
    /// What every key in etcd begins with [default: /clade/CLUSTER]
    #[arg(long, requires = "etcd")]
    etcd_prefix: Option<String>,
    /// Certificates (PEM) that etcd's members are checked against
    #[arg(long, value_name = "FILE", requires = "etcd")]
    etcd_ca: Option<PathBuf>,
    /// Certificate (PEM) shown to etcd
    #[arg(long, value_name = "FILE", requires = "etcd_key")]
    etcd_cert: Option<PathBuf>,
    /// Key (PEM) of that certificate
    #[arg(long, value_name = "FILE", requires = "etcd_cert")]
    etcd_key: Option<PathBuf>,
    /// User of etcd
    #[arg(long, requires = "etcd_password_file")]
    etcd_user: Option<String>,
    /// File that holds the user's password
    #[arg(long, value_name = "FILE", requires = "etcd_user")]
    etcd_password_file: Option<PathBuf>,
    /// Name of the cluster, which all its coordinators share; state of another is refused
    #[arg(long, default_value = "clade")]
    cluster: String,
    /// Where clients and workers reach this coordinator [default: LISTEN, by https:// with --tls-cert]
    #[arg(long, value_name = "URL")]
    advertise: Option<String>,
}

/// The same, read and checked.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) place: Place,
    pub(crate) cluster: String,
    pub(crate) advertise: String,
}

#[derive(Clone, Debug)]
pub(crate) enum Place {
    Folder(PathBuf),
    Etcd(EtcdPlace),
}

/// How etcd is reached.
#[derive(Clone, Debug)]
pub(crate) struct EtcdPlace {
    pub(crate) urls: Vec<String>,
    /// Without a slash at its end.
    pub(crate) prefix: String,
    pub(crate) ca: Option<PathBuf>,
    /// Certificate and key: files, read again for each connection, since they are renewed.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    /// Name and password.
    pub(crate) user: Option<(String, String)>,
}

impl StateArgs {
    /// Reads the files that the flags name. `is_tls` says whether this coordinator serves over TLS.
    pub(crate) fn read(self, listen: SocketAddr, is_tls: bool) -> Result<Options, OpenError> {
        let Self {
            state,
            etcd,
            etcd_prefix,
            etcd_ca,
            etcd_cert,
            etcd_key,
            etcd_user,
            etcd_password_file,
            cluster,
            advertise,
        } = self;
        if cluster.is_empty() || cluster.contains('/') {
            let reason =
                format!("`{cluster}` cannot name a cluster: it must not be empty or hold `/`");
            return Err(OpenError::Flag { flag: "--cluster", reason });
        }
        let advertise = advertised(advertise, listen, is_tls, !etcd.is_empty())
            .map_err(|reason| OpenError::Flag { flag: "--advertise", reason })?;
        let place = if etcd.is_empty() {
            Place::Folder(state)
        } else {
            if let Some(url) = etcd.iter().find(|url| !is_url(url)) {
                let reason = format!("`{url}` is not a URL such as https://etcd-0:2379");
                return Err(OpenError::Flag { flag: "--etcd", reason });
            }
            let tls = etcd_ca.is_some() || etcd_cert.is_some();
            if let Some(url) = etcd.iter().find(|url| tls && url.starts_with("http://")) {
                let reason = format!(
                    "certificates are given, and `{url}` would not use them: write https://"
                );
                return Err(OpenError::Flag { flag: "--etcd", reason });
            }
            if let Some(url) = etcd.iter().find(|url| etcd_user.is_some() && !is_private(url)) {
                let reason = format!(
                    "the password would go to `{url}` for all to read: write https://, and serve \
                     etcd with TLS"
                );
                return Err(OpenError::Flag { flag: "--etcd-user", reason });
            }
            let prefix = etcd_prefix.unwrap_or_else(|| format!("/clade/{cluster}"));
            let password = etcd_password_file.map(|path| file(&path)).transpose()?;
            let password =
                password.map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned());
            // A name that is mistyped is told now, and not when etcd is first asked.
            for path in etcd_ca.iter().chain(&etcd_cert).chain(&etcd_key) {
                file(path)?;
            }
            Place::Etcd(EtcdPlace {
                urls: etcd,
                prefix: prefix.trim_end_matches('/').to_owned(),
                ca: etcd_ca,
                identity: etcd_cert.zip(etcd_key),
                user: etcd_user.zip(password),
            })
        };
        Ok(Options { place, cluster, advertise })
    }
}

/// Where others are told to find this coordinator; why nobody could.
fn advertised(
    given: Option<String>,
    listen: SocketAddr,
    is_tls: bool,
    has_peers: bool,
) -> Result<String, String> {
    let scheme = if is_tls { "https" } else { "http" };
    let Some(url) = given else {
        if has_peers && listen.ip().is_unspecified() {
            return Err(format!(
                "is missing: with --etcd others are told where the leader is, and {listen} is no place \
                 to go to; write {scheme}://HOST:{}, as clients and workers reach this machine",
                listen.port()
            ));
        }
        return Ok(format!("{scheme}://{listen}"));
    };
    if !url.is_ascii() || url.contains(char::is_whitespace) || !is_url(&url) {
        return Err(format!("`{url}` is not a URL such as {scheme}://clade-0:7600"));
    }
    if is_tls && url.starts_with("http://") {
        return Err(format!("`{url}` is not how this coordinator serves: write https://"));
    }
    Ok(url)
}

/// Whether nobody else can read what is sent there.
fn is_private(url: &str) -> bool {
    let host = url.parse::<tonic::transport::Uri>().ok();
    let host = host.as_ref().and_then(tonic::transport::Uri::host).unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    url.starts_with("https://")
        || host == "localhost"
        || address.is_ok_and(|address| address.is_loopback())
}

fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.is_empty() && text.parse::<tonic::transport::Uri>().is_ok())
}

fn file(path: &Path) -> Result<Vec<u8>, OpenError> {
    std::fs::read(path)
        .map_err(|error| OpenError::File { path: path.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        state: StateArgs,
    }

    /// The address that is told, or why it does not start.
    fn read(listen: &str, is_tls: bool, flags: &[&str]) -> String {
        let args = std::iter::once(&"clade-coordinator").chain(flags);
        let program = Program::try_parse_from(args).unwrap();
        match program.state.read(listen.parse().unwrap(), is_tls) {
            Ok(options) => options.advertise,
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn others_are_told_an_address_that_they_can_go_to() {
        let etcd = "--etcd=http://127.0.0.1:2379";
        assert_eq!(read("10.0.0.1:7600", false, &[etcd]), "http://10.0.0.1:7600");
        assert_eq!(read("10.0.0.1:7600", true, &[etcd]), "https://10.0.0.1:7600");
        for listen in ["0.0.0.0:7600", "[::]:7600"] {
            let error = read(listen, true, &[etcd]);
            assert!(error.starts_with("--advertise: is missing"), "{error}");
            assert!(error.contains("https://HOST:7600"), "{error}");
            assert!(read(listen, true, &[]).starts_with("https://"), "alone it tells nobody");
        }
        let given = |url: &str| read("0.0.0.0:7600", true, &[etcd, &format!("--advertise={url}")]);
        assert_eq!(given("https://clade-0:7600"), "https://clade-0:7600");
        for bad in ["http://clade-0:7600", "clade-0:7600", "https://a b", "https://"] {
            assert!(given(bad).starts_with("--advertise: `"), "{}", given(bad));
        }
    }

    #[test]
    fn a_password_goes_in_clear_to_this_machine_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "secret").unwrap();
        let file = format!("--etcd-password-file={}", file.display());
        let told = |urls: &str| {
            let etcd = format!("--etcd={urls}");
            read("127.0.0.1:7600", false, &[&etcd, "--etcd-user=clade", &file])
        };
        for good in ["http://127.0.0.1:2379", "http://[::1]:2379", "http://localhost:1,https://e:2"]
        {
            assert_eq!(told(good), "http://127.0.0.1:7600", "{good}");
        }
        for bad in ["http://etcd:2379", "http://10.0.0.1:2379", "https://e:2379,http://f:2379"] {
            assert!(told(bad).starts_with("--etcd-user: the password would go"), "{}", told(bad));
        }
    }
}
