//! What a client proves itself by, and what it trusts: files, read again when they are renewed.

use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::{Bearer, ConnectError, ConnectFlags};

/// The name of the variable that holds a token.
const TOKEN: &str = "CLADE_TOKEN";
/// Far more than a chain of certificates needs.
const LARGEST_FILE: u64 = 1 << 20;

/// Never shows a token or a key.
#[derive(Clone, Default)]
pub struct Credentials {
    origin: Option<ConnectFlags>,
    from_environment: Option<OsString>,
    ca: Option<Vec<u8>>,
    certificate: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    token: Option<String>,
}

impl Credentials {
    /// Proves nothing: enough for a coordinator on this machine that asks nobody.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads the files that the flags name, and the token's variable.
    pub fn read(flags: &ConnectFlags) -> Result<Self, ConnectError> {
        Self::gather(flags, std::env::var_os(TOKEN))
    }

    fn gather(flags: &ConnectFlags, variable: Option<OsString>) -> Result<Self, ConnectError> {
        let ConnectFlags { coordinator: _, ca, certificate, key, token_file } = flags;
        let file = |what, path: &Option<_>| path.as_deref().map(|it| read(what, it)).transpose();
        let token = match (token_file, &variable) {
            (Some(path), _) => {
                let bytes = read("the token's file", path)?;
                Some(token(&bytes, &path.display().to_string())?)
            }
            (None, Some(value)) if !value.is_empty() => {
                Some(token(value.as_encoded_bytes(), TOKEN)?)
            }
            (None, Some(_) | None) => None,
        };
        Ok(Self {
            origin: Some(flags.clone()),
            from_environment: variable,
            ca: file("the certificates of --ca", ca)?,
            certificate: file("the certificate", certificate)?,
            key: file("the key", key)?,
            token,
        })
    }

    /// Reads everything again; something only if it has changed.
    pub(super) fn again(&self) -> Result<Option<Self>, ConnectError> {
        let Some(flags) = &self.origin else { return Ok(None) };
        let newer = Self::gather(flags, self.from_environment.clone())?;
        Ok((!newer.equals(self)).then_some(newer))
    }

    fn equals(&self, other: &Self) -> bool {
        (&self.ca, &self.certificate, &self.key, &self.token)
            == (&other.ca, &other.certificate, &other.key, &other.token)
    }

    pub(super) const fn has_token(&self) -> bool {
        self.token.is_some()
    }

    pub(super) fn bearer(&self) -> Bearer {
        self.token.as_deref().and_then(Bearer::new).unwrap_or_default()
    }

    pub(super) fn tls(&self) -> ClientTlsConfig {
        let config = match &self.ca {
            Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => config.identity(Identity::from_pem(certificate, key)),
            (Some(_) | None, Some(_) | None) => config,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin: _, from_environment: _, ca, certificate, key: _, token } = self;
        f.debug_struct("Credentials")
            .field("ca", &ca.is_some())
            .field("certificate", &certificate.is_some())
            .field("token", &token.is_some())
            .finish_non_exhaustive()
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, ConnectError> {
    crate::file::read_small(path, LARGEST_FILE).map_err(|source| ConnectError::Unreadable {
        what,
        path: path.display().to_string(),
        source,
    })
}

fn token(bytes: &[u8], origin: &str) -> Result<String, ConnectError> {
    let wrong = || ConnectError::NotAToken { origin: origin.to_owned() };
    let text = std::str::from_utf8(bytes).map_err(|_| wrong())?.trim();
    if text.is_empty() || text.contains(char::is_whitespace) || Bearer::new(text).is_none() {
        return Err(wrong());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(token_file: &Path) -> ConnectFlags {
        ConnectFlags {
            coordinator: Vec::new(),
            ca: None,
            certificate: None,
            key: None,
            token_file: Some(token_file.to_owned()),
        }
    }

    #[test]
    fn a_token_comes_from_its_file_before_the_environment_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "clade_fromfile\n").unwrap();
        let variable = Some("clade_fromvariable".into());
        let credentials = Credentials::gather(&flags(&file), variable.clone()).unwrap();
        assert_eq!(credentials.token.as_deref(), Some("clade_fromfile"));
        let shown = format!("{credentials:?} {:?}", credentials.bearer());
        assert!(!shown.contains("from"), "{shown}");
        let without = ConnectFlags { token_file: None, ..flags(&file) };
        let credentials = Credentials::gather(&without, variable).unwrap();
        assert_eq!(credentials.token.as_deref(), Some("clade_fromvariable"));
    }

    #[test]
    fn a_renewed_file_is_taken_and_an_empty_one_is_no_token() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "clade_old").unwrap();
        let credentials = Credentials::gather(&flags(&file), None).unwrap();
        assert!(credentials.again().unwrap().is_none());
        std::fs::write(&file, "clade_new").unwrap();
        let newer = credentials.again().unwrap().unwrap();
        assert_eq!(newer.token.as_deref(), Some("clade_new"));
        for bad in ["", "\n", "two words", "new\nline", "ünicode\u{7}"] {
            std::fs::write(&file, bad).unwrap();
            let error = credentials.again().unwrap_err().to_string();
            assert!(error.contains("holds no token"), "{bad:?}: {error}");
        }
    }
}
