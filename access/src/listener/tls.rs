//! The server's certificate and whom it trusts, from files that may be renewed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::renewal::Trouble;

const LARGEST_FILE: u64 = 1 << 20;

/// Why TLS is not served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {what} {}: {source}", path.display())]
    Unreadable { what: &'static str, path: PathBuf, source: std::io::Error },

    #[error("{what} {} is not what it should be: {why}", path.display())]
    Malformed { what: &'static str, path: PathBuf, why: String },

    #[error("--tls-cert and --tls-key cannot be used: {0}")]
    Unusable(String),
}

/// Where certificate, key and trusted authorities lie. Owns the configuration made from them.
#[derive(Debug)]
pub struct TlsFiles {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    /// Whether a client must show a certificate, rather than may.
    must_show: bool,
    read: Files,
    config: watch::Sender<Arc<ServerConfig>>,
    trouble: Trouble,
}

#[derive(PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Files(…)")
    }
}

impl TlsFiles {
    /// Reads them. With `client_ca`, clients may show a certificate; with `must_show` they must.
    pub fn open(
        certificate: &Path,
        key: &Path,
        client_ca: Option<&Path>,
        must_show: bool,
    ) -> Result<Self, TlsError> {
        let read = Files::read(certificate, key, client_ca)?;
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        let client_ca = client_ca.map(Path::to_owned);
        let config = configure(&read, &certificate, &key, client_ca.as_deref(), must_show)?;
        let config = watch::Sender::new(config);
        Ok(Self {
            certificate,
            key,
            client_ca,
            must_show,
            read,
            config,
            trouble: Trouble::default(),
        })
    }

    /// For [`super::Incoming`]: always the newest.
    pub fn config(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.config.subscribe()
    }

    /// Reads them again; whether they have changed. Connections that stand go on as they are.
    pub fn reread(&mut self) -> Result<bool, TlsError> {
        let Self { certificate, key, client_ca, must_show, read, config, trouble: _ } = self;
        let newer = Files::read(certificate, key, client_ca.as_deref())?;
        if newer == *read {
            return Ok(false);
        }
        config.send_replace(configure(&newer, certificate, key, client_ca.as_deref(), *must_show)?);
        *read = newer;
        Ok(true)
    }

    /// Reads them again and logs what came of it.
    pub(crate) fn refresh(&mut self) {
        match self.reread() {
            Ok(true) => {
                tracing::info!(certificate = %self.certificate.display(), "certificates changed");
            }
            Ok(false) => (),
            Err(error) => return self.trouble.meet(&error),
        }
        self.trouble.clear();
    }
}

impl Files {
    fn read(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Self, TlsError> {
        let file = |what, path: &Path| {
            crate::file::read_small(path, LARGEST_FILE).map_err(|source| TlsError::Unreadable {
                what,
                path: path.to_owned(),
                source,
            })
        };
        Ok(Self {
            certificate: file("--tls-cert", certificate)?,
            key: file("--tls-key", key)?,
            client_ca: client_ca.map(|path| file("--client-ca", path)).transpose()?,
        })
    }
}

fn configure(
    files: &Files,
    certificate: &Path,
    key: &Path,
    client_ca: Option<&Path>,
    must_show: bool,
) -> Result<Arc<ServerConfig>, TlsError> {
    let malformed = |what, path: &Path, why: &dyn std::fmt::Display| TlsError::Malformed {
        what,
        path: path.to_owned(),
        why: why.to_string(),
    };
    let unusable = |error: &dyn std::fmt::Display| TlsError::Unusable(error.to_string());
    let chain = certificates(&files.certificate)
        .map_err(|error| malformed("--tls-cert", certificate, &error))?;
    let secret = PrivateKeyDer::from_pem_slice(&files.key)
        .map_err(|error| malformed("--tls-key", key, &error))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?;
    let builder = match (&files.client_ca, client_ca) {
        (Some(bytes), Some(path)) => {
            let wrong = |error: &dyn std::fmt::Display| malformed("--client-ca", path, error);
            let mut roots = RootCertStore::empty();
            for root in certificates(bytes).map_err(|error| wrong(&error))? {
                roots.add(root).map_err(|error| wrong(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if must_show { verifier } else { verifier.allow_unauthenticated() };
            let verifier = verifier.build().map_err(|error| wrong(&error))?;
            builder.with_client_cert_verifier(verifier)
        }
        (Some(_) | None, Some(_) | None) => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, secret).map_err(|error| unusable(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// At least one certificate, as PEM.
fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    let chain = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>()?;
    if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) }
}
