//! At which address of this machine ranks elsewhere reach those here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{UdpSocket, lookup_host};
use tokio::time::timeout;
use tonic::transport::Uri;

const LOOK_UP: Duration = Duration::from_secs(2);

/// The address from which this machine reaches the coordinator at `url`: others in the cluster reach
/// that one too. Loopback if the coordinator is there, or if nothing can be told.
pub(super) async fn towards(url: &str) -> IpAddr {
    let found = timeout(LOOK_UP, source_address(url)).await.ok().flatten();
    found.unwrap_or_else(|| {
        tracing::warn!(
            url,
            "cannot tell from where this machine reaches the coordinator: ranks on other machines \
             cannot join gangs that begin here, unless --gang-address says how"
        );
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    })
}

/// Asks the system which address it would send from. Sends nothing.
async fn source_address(url: &str) -> Option<IpAddr> {
    let uri: Uri = url.parse().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']).to_owned();
    let there: SocketAddr =
        lookup_host((host, uri.port_u16().unwrap_or(443))).await.ok()?.next()?;
    let any = if there.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(there).await.ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_coordinator_on_loopback_is_reached_from_there_and_one_elsewhere_is_not() {
        assert!(towards("http://127.0.0.1:7600").await.is_loopback());
        assert!(towards("http://localhost:7600").await.is_loopback());
        // Documentation's own network: nothing is sent there. Without any route it is loopback.
        let routes = std::fs::read_to_string("/proc/net/route").unwrap();
        let has_default =
            routes.lines().any(|line| line.split_whitespace().nth(1) == Some("00000000"));
        assert_eq!(towards("https://192.0.2.1:7600").await.is_loopback(), !has_default);
    }

    #[tokio::test]
    async fn nonsense_is_loopback() {
        for url in ["", "http://", "nowhere", "http://no-such-host.invalid:1"] {
            assert!(towards(url).await.is_loopback(), "{url}");
        }
    }
}
