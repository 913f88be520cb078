//! Binds ports; the errors name the flag to change.
//!
//! A listener on `[::]` accepts IPv6 and IPv4 (RFC 3493, 3.7), whatever the default of the kernel. Where
//! the kernel has no IPv6, the listener takes `0.0.0.0` instead: a flag, or its default, cannot know.
//! Every other address is bound as it is given, so `0.0.0.0` accepts IPv4 alone.
//!
//! A port that another process holds in one of the two families is in use: a member that only some of
//! its clients and peers can reach would be harder to notice than one that does not start.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that wait to be accepted, at most.
const BACKLOG: i32 = 1024;

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
pub fn bind(
    what: &'static str,
    flag: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, ListenError> {
    listen(address, open).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { what, address, flag },
        _ => ListenError::Other { what, address, flag, source },
    })
}

/// Makes a TCP socket of a family.
fn open(domain: Domain) -> io::Result<Socket> {
    Socket::new(domain, Type::STREAM, Some(Protocol::TCP))
}

fn listen(
    address: SocketAddr,
    open: impl Fn(Domain) -> io::Result<Socket>,
) -> io::Result<TcpListener> {
    let error = match listen_on(address, &open) {
        Ok(listener) => return TcpListener::from_std(listener),
        Err(NotListening::NoIpv6(error)) if address.ip().is_unspecified() => error,
        Err(NotListening::NoIpv6(error) | NotListening::Other(error)) => return Err(error),
    };
    let ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
    tracing::info!(%address, instead = %ipv4, %error, "kernel without IPv6: listening on IPv4");
    match listen_on(ipv4, &open) {
        Ok(listener) => TcpListener::from_std(listener),
        Err(NotListening::NoIpv6(error) | NotListening::Other(error)) => Err(error),
    }
}

/// The reason why a port is not bound.
enum NotListening {
    /// The kernel cannot make an IPv6 socket, or no interface has IPv6.
    NoIpv6(io::Error),
    Other(io::Error),
}

fn listen_on(
    address: SocketAddr,
    open: impl Fn(Domain) -> io::Result<Socket>,
) -> Result<std::net::TcpListener, NotListening> {
    let other = NotListening::Other;
    let socket = open(Domain::for_address(address));
    let socket = socket.map_err(if address.is_ipv6() { NotListening::NoIpv6 } else { other })?;
    if address.is_ipv6() {
        socket.set_only_v6(false).map_err(other)?;
    }
    // A restarted process need not wait until the connections of the previous one are forgotten.
    socket.set_reuse_address(true).map_err(other)?;
    socket.set_nonblocking(true).map_err(other)?;
    socket.bind(&address.into()).map_err(|error| match error.kind() {
        io::ErrorKind::AddrNotAvailable if address.is_ipv6() => NotListening::NoIpv6(error),
        _ => NotListening::Other(error),
    })?;
    socket.listen(BACKLOG).map_err(other)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, TcpListener as Blocking, TcpStream};

    use super::*;

    const ANY: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

    /// Tests of IPv6 need it on this host.
    fn has_ipv6() -> bool {
        let has = Blocking::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        if !has {
            eprintln!("SKIPPED: this host has no IPv6 on loopback");
        }
        has
    }

    fn bound(address: SocketAddr) -> Result<TcpListener, ListenError> {
        bind("client port", "--listen-client-urls", address)
    }

    /// Accepts IPv4 and IPv6 on this port?
    fn reachable(port: u16) -> (bool, bool) {
        let ipv4 = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        (ipv4, TcpStream::connect((Ipv6Addr::LOCALHOST, port)).is_ok())
    }

    fn port(listener: &TcpListener) -> u16 {
        listener.local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn all_addresses_are_those_of_both_families() {
        if has_ipv6() {
            let both = bound((ANY, 0).into()).unwrap();
            assert_eq!(reachable(port(&both)), (true, true));
            let ipv4 = bound((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
            assert_eq!(reachable(port(&ipv4)), (true, false));
            let one = bound((Ipv6Addr::LOCALHOST, 0).into()).unwrap();
            assert_eq!(reachable(port(&one)), (false, true));
        }
    }

    #[tokio::test]
    async fn without_ipv6_in_the_kernel_all_addresses_are_those_of_ipv4() {
        let ipv4_alone = |domain| match domain {
            Domain::IPV4 => open(domain),
            _ => Err(io::Error::other("address family not supported")),
        };
        let listener = listen((ANY, 0).into(), ipv4_alone).unwrap();
        assert!(listener.local_addr().unwrap().is_ipv4());
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port(&listener))).is_ok());
        // In use is in use, also after the fallback.
        let again = listen((ANY, port(&listener)).into(), ipv4_alone).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
        // An address that was chosen is not replaced by another.
        let loopback = listen((Ipv6Addr::LOCALHOST, 0).into(), ipv4_alone).unwrap_err();
        assert!(loopback.to_string().contains("not supported"), "{loopback}");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_in_one_family_is_in_use() {
        if !has_ipv6() {
            return;
        }
        let in_use = |port| {
            let error = bound((ANY, port).into()).unwrap_err();
            assert!(matches!(error, ListenError::InUse { .. }), "{error}");
            let error = error.to_string();
            assert!(error.contains(&format!("[::]:{port} is in use")), "{error}");
            assert!(error.contains("--listen-client-urls"), "{error}");
        };
        for ipv4 in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST] {
            let other = Blocking::bind((ipv4, 0)).unwrap();
            in_use(other.local_addr().unwrap().port());
        }
        let other = open(Domain::IPV6).unwrap();
        other.set_only_v6(true).unwrap();
        other.bind(&SocketAddr::from((ANY, 0)).into()).unwrap();
        other.listen(1).unwrap();
        let taken = other.local_addr().unwrap().as_socket().unwrap().port();
        in_use(taken);
        // IPv4 alone does not need the port of the other family.
        let ipv4 = bound((Ipv4Addr::UNSPECIFIED, taken).into()).unwrap();
        assert_eq!(port(&ipv4), taken);
    }
}
