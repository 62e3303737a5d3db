//! Reads tokens and certificates again while a server runs.
//!
//! By looking at the contents every second, not by notifications: mounted secrets are swapped as
//! links, and shared file systems notify nobody.

use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::listener::TlsFiles;
use crate::token::TokenFile;

const EVERY: Duration = Duration::from_secs(1);

/// Keeps both fresh until `end`. What is broken changes nothing.
pub async fn keep_fresh(
    mut tokens: Option<TokenFile>,
    mut tls: Option<TlsFiles>,
    end: CancellationToken,
) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            _ = ticks.tick() => (),
        }
        // A file system that hangs must not hold up what the server does.
        let read = tokio::task::spawn_blocking(move || {
            tokens.iter_mut().for_each(TokenFile::refresh);
            tls.iter_mut().for_each(TlsFiles::refresh);
            (tokens, tls)
        });
        tokio::select! {
            () = end.cancelled() => return,
            read = read => match read {
                Ok(read) => (tokens, tls) = read,
                Err(error) => return tracing::error!(%error, "tokens are read no more"),
            },
        }
    }
}

/// Why a file could not be taken: told once, and only if it stays.
///
/// A certificate and its key are two files, and between two writes they do not fit.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    text: Option<String>,
    is_told: bool,
}

impl Trouble {
    pub(crate) fn meet(&mut self, error: &dyn std::error::Error) {
        let text = error.to_string();
        if self.text.as_ref() != Some(&text) {
            *self = Self { text: Some(text), is_told: false };
        } else if !self.is_told {
            tracing::error!("{text}; what was read before stays in force");
            self.is_told = true;
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
