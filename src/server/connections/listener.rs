//! Accepts the connections of one port.
//!
//! Invariants: at most [`CONNECTIONS_MAX`] connections are open, and accepting continues after an error.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::Semaphore, time::sleep};

use super::{
    permit::{ConnectionCounters, ConnectionPermit},
    stream::ConnectionStream,
};
use crate::shutdown::ShutdownSignal;

/// Open connections, at most; further ones wait in the kernel until one closes.
const CONNECTIONS_MAX: usize = 8192;
/// Wait after a failed accept: the process is out of file descriptors, and may remain so for a while.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// A bound port, and the bound on its connections.
#[derive(Debug)]
pub struct ConnectionListener {
    listener: TcpListener,
    room: Arc<Semaphore>,
    abort: ShutdownSignal,
    counts: Arc<ConnectionCounters>,
}

impl ConnectionListener {
    /// `abort` ends all connections of the port.
    pub fn new(
        listener: TcpListener,
        abort: ShutdownSignal,
        counts: Arc<ConnectionCounters>,
    ) -> ConnectionListener {
        ConnectionListener {
            listener,
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            abort,
            counts,
        }
    }

    /// The next connection, and its client's address: of IPv4 if the client speaks IPv4, though a listener
    /// for both families reports it as an IPv6 address. Cancel-safe.
    pub async fn accept(&mut self) -> (ConnectionStream, SocketAddr) {
        let Ok(permit) = self.room.clone().acquire_owned().await else {
            unreachable!("the semaphore is never closed")
        };
        loop {
            match self.listener.accept().await {
                Ok((tcp, from)) => {
                    let permit = ConnectionPermit::new(permit, self.counts.clone());
                    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                    return (ConnectionStream::new(tcp, &self.abort, permit), from);
                }
                Err(e) => {
                    tracing::warn!(error = %e, "accepting a connection failed");
                    sleep(ACCEPT_RETRY_INTERVAL).await;
                }
            }
        }
    }
}

/// For axum, which serves the admin port.
impl axum::serve::Listener for ConnectionListener {
    type Io = ConnectionStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (ConnectionStream, SocketAddr) {
        ConnectionListener::accept(self).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use tokio::net::TcpStream;

    use super::*;
    use crate::shutdown::Shutdown;

    #[tokio::test]
    async fn a_client_has_the_address_of_its_own_family() {
        let Ok(both) = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).await else {
            eprintln!("SKIPPED: this host has no IPv6");
            return;
        };
        let port = both.local_addr().unwrap().port();
        let abort = Shutdown::default();
        let mut listener = ConnectionListener::new(both, abort.signal(), Arc::default());
        let Ok(client) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
            eprintln!("SKIPPED: this host has IPv6 sockets for IPv6 only");
            return;
        };
        let (_connection, from) = listener.accept().await;
        assert_eq!(from, client.local_addr().unwrap());
    }
}
