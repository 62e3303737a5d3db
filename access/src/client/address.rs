//! One coordinator's address as its users write it.

use std::net::IpAddr;

use http::Uri;
use tonic::transport::Endpoint;

use super::ConnectError;

/// A URL of scheme, host and port, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    url: String,
    uri: Uri,
}

impl Address {
    /// Takes `http://HOST:PORT` and `https://HOST:PORT`; without a scheme it is http.
    pub(super) fn parse(text: &str) -> Result<Self, ConnectError> {
        let text = text.trim();
        let bad =
            |why: &str| ConnectError::BadAddress { url: text.to_owned(), why: why.to_owned() };
        let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = url.trim_end_matches('/').to_owned();
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(bad("only https:// and http:// are spoken"));
        }
        let uri: Uri =
            url.parse().map_err(|error: http::uri::InvalidUri| bad(&error.to_string()))?;
        if uri.host().is_none_or(str::is_empty) {
            return Err(bad("it names no host"));
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(bad("nothing may follow the port"));
        }
        if uri.authority().is_some_and(|it| it.as_str().contains('@')) {
            return Err(bad("names and passwords are not used; a token is"));
        }
        Ok(Self { url, uri })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn is_tls(&self) -> bool {
        self.uri.scheme() == Some(&http::uri::Scheme::HTTPS)
    }

    /// Whether nobody else can read what is sent there: by TLS, or since it stays on this machine.
    pub(super) fn is_private(&self) -> bool {
        let host = self.uri.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let is_loopback = bare.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        self.is_tls() || host == "localhost" || is_loopback
    }

    pub(super) fn endpoint(&self) -> Result<Endpoint, ConnectError> {
        Endpoint::from_shared(self.url.clone()).map_err(|error| ConnectError::BadAddress {
            url: self.url.clone(),
            why: error.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_scheme_a_host_and_a_port() {
        let url = |text: &str| Address::parse(text).map(|it| it.url().to_owned());
        assert_eq!(url("127.0.0.1:7600").unwrap(), "http://127.0.0.1:7600");
        assert_eq!(url(" https://clade.example:7600/ ").unwrap(), "https://clade.example:7600");
        for bad in
            ["ftp://there", "https://", "https://a:1/b", "http://me:pass@a:1", "http://a b", ""]
        {
            assert!(url(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_token_may_go_over_tls_or_stay_on_the_machine() {
        let private = |text: &str| Address::parse(text).unwrap().is_private();
        for fine in ["https://a:1", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"] {
            assert!(private(fine), "{fine}");
        }
        for open in ["http://a:1", "http://10.0.0.1:1", "http://localhost.example:1"] {
            assert!(!private(open), "{open}");
        }
    }
}
