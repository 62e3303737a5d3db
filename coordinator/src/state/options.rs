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
    /// Where clients and workers reach this coordinator [default: http://LISTEN]
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
    pub(crate) ca: Option<Vec<u8>>,
    /// Certificate and key.
    pub(crate) identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Name and password.
    pub(crate) user: Option<(String, String)>,
}

impl StateArgs {
    /// Reads the files that the flags name.
    pub(crate) fn read(self, listen: SocketAddr) -> Result<Options, OpenError> {
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
        let advertise = advertise.unwrap_or_else(|| format!("http://{listen}"));
        if !advertise.is_ascii() || advertise.contains(char::is_whitespace) {
            let reason = format!("`{advertise}` is not a URL");
            return Err(OpenError::Flag { flag: "--advertise", reason });
        }
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
            let prefix = etcd_prefix.unwrap_or_else(|| format!("/clade/{cluster}"));
            let password = etcd_password_file.map(|path| file(&path)).transpose()?;
            let password =
                password.map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned());
            let (cert, key) = (etcd_cert.map(|path| file(&path)), etcd_key.map(|path| file(&path)));
            Place::Etcd(EtcdPlace {
                urls: etcd,
                prefix: prefix.trim_end_matches('/').to_owned(),
                ca: etcd_ca.map(|path| file(&path)).transpose()?,
                identity: cert.transpose()?.zip(key.transpose()?),
                user: etcd_user.zip(password),
            })
        };
        Ok(Options { place, cluster, advertise })
    }
}

fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.is_empty() && text.parse::<tonic::transport::Uri>().is_ok())
}

fn file(path: &Path) -> Result<Vec<u8>, OpenError> {
    std::fs::read(path)
        .map_err(|error| OpenError::File { path: path.to_owned(), reason: error.to_string() })
}
