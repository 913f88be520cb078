//! Binds ports; the errors name the flag to change.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

/// A port could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "{what}: {address} is in use by another process; stop it, or choose another with {flag}"
    )]
    InUse { what: &'static str, address: SocketAddr, flag: &'static str },
    #[error("{what}: cannot listen on {address}: {source}; choose another with {flag}")]
    Other { what: &'static str, address: SocketAddr, flag: &'static str, source: io::Error },
}

/// Binds a port; `what` and `flag` name it in errors.
pub async fn bind(
    what: &'static str,
    flag: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { what, address, flag },
        _ => ListenError::Other { what, address, flag, source },
    })
}
