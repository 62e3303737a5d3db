//! Certificates for a trial: an authority of one's own, made in a moment, for one cluster.
//!
//! Whoever has an authority already, or cert-manager, needs none of this.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

use crate::certificate::ORGANIZATION;
use crate::token::TokenDigest;
use crate::{ANY_WORKER, Role, write_private};

/// Clocks of machines differ a little.
const SLACK: Duration = Duration::from_secs(300);

/// Why no certificates were made.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    #[error("cannot write {}: {source}", path.display())]
    Unwritable { path: PathBuf, source: io::Error },

    #[error("cannot make {what}: {source}")]
    Failed { what: String, source: rcgen::Error },
}

/// An authority that signs for one cluster.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    from: SystemTime,
    to: SystemTime,
}

/// A certificate and its private key, both PEM.
pub struct Signed {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    /// Makes one whose certificates, its own too, are good from a little before `from` to `to`.
    pub fn new(from: SystemTime, to: SystemTime) -> Result<Self, TrialError> {
        let failed = |source| TrialError::Failed { what: "the authority".to_owned(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        // Two authorities of one name would be taken for one another, and blamed for bad signatures.
        let number = TokenDigest::of(&key.public_key_pem()).to_string();
        let name = format!("clade trial authority {}", &number[..16]);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = ((from - SLACK).into(), to.into());
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(failed)?;
        Ok(Self { issuer, from, to })
    }

    /// What others trust it by.
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// For a server that is reached by these names and addresses.
    pub fn server(&self, hosts: &[String]) -> Result<Signed, TrialError> {
        self.sign("the server's certificate", hosts, |params| {
            let name = hosts.first().map_or("clade", String::as_str);
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
    }

    /// For a client of this name and role.
    pub fn client(&self, name: &str, role: Role) -> Result<Signed, TrialError> {
        self.sign(&format!("the certificate of {name}"), &[], |params| {
            let organization = format!("{ORGANIZATION}{role}");
            params.distinguished_name.push(DnType::OrganizationName, organization);
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    fn sign(
        &self,
        what: &str,
        hosts: &[String],
        fill: impl FnOnce(&mut CertificateParams),
    ) -> Result<Signed, TrialError> {
        let failed = |source| TrialError::Failed { what: what.to_owned(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(hosts).map_err(failed)?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        (params.not_before, params.not_after) = ((self.from - SLACK).into(), self.to.into());
        fill(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Signed { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// Writes an authority, a server's certificate and one client's per role into `folder`.
///
/// Files that are there already stay, and are an error.
pub fn write(
    folder: &Path,
    hosts: &[String],
    from: SystemTime,
    to: SystemTime,
) -> Result<Vec<PathBuf>, TrialError> {
    let authority = Authority::new(from, to)?;
    let mut files = vec![
        ("ca.pem".to_owned(), authority.certificate()),
        ("ca.key".to_owned(), authority.issuer.key().serialize_pem()),
    ];
    let mut add = |name: &str, Signed { certificate, key }: Signed| {
        files.push((format!("{name}.pem"), certificate));
        files.push((format!("{name}.key"), key));
    };
    add("server", authority.server(hosts)?);
    for role in Role::ALL {
        let name = if role == Role::Worker { ANY_WORKER } else { role.word() };
        add(role.word(), authority.client(name, role)?);
    }
    let unwritable = |path: &Path, source| TrialError::Unwritable { path: path.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(|source| unwritable(folder, source))?;
    let mut written = Vec::new();
    for (name, text) in files {
        let path = folder.join(name);
        write_private(&path, &text).map_err(|source| unwritable(&path, source))?;
        written.push(path);
    }
    Ok(written)
}
