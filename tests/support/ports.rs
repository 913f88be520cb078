//! TCP ports on which nothing listens.
//!
//! They lie below the ports that the kernel assigns to outgoing connections, so a restarted process
//! finds its port free again. A probe connects instead of binding: a process that another test starts
//! at that moment would inherit a bound socket.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::atomic::{AtomicU32, Ordering},
};

/// The ports of one member.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub client: SocketAddr,
    pub peer: SocketAddr,
    pub admin: SocketAddr,
}

impl Ports {
    pub fn free() -> Ports {
        let [client, peer, admin] = [0, 1, 2].map({
            let first = free_ports(3);
            move |offset| local(first.port() + offset)
        });
        Ports { client, peer, admin }
    }
}

pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

pub fn free_port() -> SocketAddr {
    free_ports(1)
}

/// The first of `count` consecutive ports. No other test of this process gets any of them.
pub fn free_ports(count: u16) -> SocketAddr {
    free_aligned_ports(count, 1)
}

/// The same; the number of the first port is a multiple of `alignment`.
pub fn free_aligned_ports(count: u16, alignment: u16) -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 18_000;
    // Several test processes may run at a time.
    let start = std::process::id() % 40 * 450;
    loop {
        let taken = u32::from(count + alignment - 1);
        let at = FIRST + (start + NEXT.fetch_add(taken, Ordering::Relaxed)) % COUNT;
        let first = u16::try_from(at).unwrap().next_multiple_of(alignment);
        if (first..first + count).all(|port| TcpStream::connect(local(port)).is_err()) {
            return local(first);
        }
    }
}
