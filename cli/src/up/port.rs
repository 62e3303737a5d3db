//! Looks at the coordinator's address before anything is started.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::time::Instant;

use crate::call::{Coordinator, Patience};

/// How long a coordinator that is just ending may keep its port.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub(super) enum PortError {
    #[error(
        "refuses to listen on {0}: there is no authentication yet, so only loopback addresses such \
         as 127.0.0.1:7600 are allowed"
    )]
    NotLoopback(SocketAddr),
    #[error(
        "another coordinator listens on {0}: use it with `clade apply -f run.yaml`, stop it, or \
         choose another address with --listen (127.0.0.1:0 takes a free port)"
    )]
    OtherCoordinator(SocketAddr),
    #[error(
        "port in use: another program listens on {0}; choose another address with --listen \
         (127.0.0.1:0 takes a free port)"
    )]
    InUse(SocketAddr),
    #[error("cannot listen on {address}")]
    Other {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// Refuses an address that strangers could reach.
pub(super) const fn check(address: SocketAddr) -> Result<SocketAddr, PortError> {
    if address.ip().is_loopback() { Ok(address) } else { Err(PortError::NotLoopback(address)) }
}

/// Makes sure that the address can be listened on; port 0 becomes a free one, kept for good.
pub(super) async fn claim(address: SocketAddr) -> Result<SocketAddr, PortError> {
    let began = Instant::now();
    loop {
        let error = match TcpListener::bind(address).and_then(|it| it.local_addr()) {
            Ok(claimed) => return Ok(claimed),
            Err(error) => error,
        };
        if error.kind() != io::ErrorKind::AddrInUse {
            return Err(PortError::Other { address, source: error });
        }
        if began.elapsed() > LEAVE_LIMIT {
            return Err(if is_coordinator(address).await {
                PortError::OtherCoordinator(address)
            } else {
                PortError::InUse(address)
            });
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn is_coordinator(address: SocketAddr) -> bool {
    let Ok(coordinator) = Coordinator::at(&format!("http://{address}")) else { return false };
    let coordinator = coordinator.with(Patience::Once);
    let answer = tokio::time::timeout(Duration::from_secs(1), coordinator.status(""));
    matches!(answer.await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_one_clear_sentence_and_port_0_becomes_a_free_one() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = claim(address).await.unwrap_err().to_string();
        assert!(error.starts_with("port in use: another program listens on 127.0.0.1:"), "{error}");
        let free = claim("127.0.0.1:0".parse().unwrap()).await.unwrap();
        assert_ne!(free.port(), 0);
    }

    #[test]
    fn an_address_that_others_can_reach_is_refused() {
        assert!(check("0.0.0.0:7600".parse().unwrap()).is_err());
        assert!(check("[::1]:7600".parse().unwrap()).is_ok());
    }
}
