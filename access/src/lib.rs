//! Who may ask what, and how both sides prove who they are.
//!
//! The server's half takes connections ([`listener`]) and judges every request ([`guard`]) by one
//! table ([`rpc`]); the client's half finds the leading coordinator among several addresses and
//! says who asks ([`client`]).
//!
//! It decides nothing about runs, and keeps no secret of a client on the server: a token file
//! holds digests only.

mod certificate;
pub mod client;
mod file;
pub mod guard;
mod identity;
pub mod listener;
mod renewal;
mod role;
pub mod rpc;
pub mod token;
pub mod trial;

pub use certificate::CertificateError;
pub use file::write_private;
pub use identity::{ANY_WORKER, BadName, Identity, check_name};
pub use renewal::keep_fresh;
pub use role::{NoRole, Role};

/// Makes the one crypto provider of this tree the process's own.
///
/// Call it first in every `main`: another library that is asked first might choose differently.
pub fn install_crypto() {
    // An error says that it is installed already.
    let _ = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().install_default();
}
