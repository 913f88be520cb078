//! Connects to a peer: at the addresses that DNS knows, and at the one that the peer itself has named.
//!
//! Both are tried. The likelier one has a head start of [`HEAD_START`], and the first connection wins
//! (RFC 8305 does so for IPv6 and IPv4). So an address where packets vanish, whether DNS or a hint named
//! it, costs the head start. A hint that comes during a dial is tried at once.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, Either, select},
    stream::FuturesUnordered,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, lookup_host},
    time::{sleep, timeout},
};
use tonic::{codegen::Service, transport::Uri};

use super::{
    dial_hints::{DialHints, KnownAddresses},
    peer_link::PeerLink,
};
use crate::{config::HostPort, types::Ordinal};

/// Limit of an attempt to connect to one address.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The next address is tried after this time, if no earlier one has answered.
const HEAD_START: Duration = Duration::from_millis(200);
/// Addresses of one name that are tried, at most.
const ADDRESSES_MAX: usize = 8;

/// Where a peer may be.
#[derive(Debug)]
pub struct DialTarget {
    pub ordinal: Ordinal,
    /// The configured address.
    pub configured: HostPort,
    pub hints: Arc<DialHints>,
}

impl DialTarget {
    /// A connection to the peer's host. The hello must verify that the peer is there.
    pub async fn dial(&self) -> io::Result<TcpStream> {
        loop {
            let known = self.hints.of(self.ordinal);
            tokio::select! {
                dialed = self.dial_known(known) => return dialed,
                // Its address is better than all that are being tried.
                () = self.hints.newer_than(self.ordinal, known.hint) => {}
            }
        }
    }

    async fn dial_known(&self, known: KnownAddresses) -> io::Result<TcpStream> {
        let resolved = self.dial_resolved(known.suspect);
        let Some(hint) = known.hint else { return resolved.await };
        let hinted = connect((hint.address, self.configured.port).into());
        if known.hint_is_best() {
            first_success(hinted, resolved).await
        } else {
            first_success(resolved, hinted).await
        }
    }

    /// Tries the addresses of the configured name, the suspect one last.
    async fn dial_resolved(&self, suspect: Option<IpAddr>) -> io::Result<TcpStream> {
        let HostPort { host, port } = &self.configured;
        let mut addresses: Vec<SocketAddr> = lookup_host((host.as_str(), *port)).await?.collect();
        addresses.sort_by_key(|address| Some(address.ip().to_canonical()) == suspect);
        addresses.truncate(ADDRESSES_MAX);
        connect_any(addresses.into()).await
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
    match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            // Small messages must not be delayed. The call fails on a connection that is gone already.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(error)) => Err(named(error)),
        Err(_) => Err(named(io::ErrorKind::TimedOut.into())),
    }
}

/// Starts `second` once `first` has failed, or its head start is over.
async fn first_success(
    first: impl Future<Output = io::Result<TcpStream>>,
    second: impl Future<Output = io::Result<TcpStream>>,
) -> io::Result<TcpStream> {
    let (first, head_start) = (std::pin::pin!(first), std::pin::pin!(sleep(HEAD_START)));
    let first = match select(first, head_start).await {
        Either::Left((Ok(stream), _)) => return Ok(stream),
        Either::Left((Err(error), _)) => return second.await.map_err(|other| both(&error, &other)),
        Either::Right(((), first)) => first,
    };
    let second = std::pin::pin!(second);
    match select(first, second).await {
        Either::Left((Err(error), second)) => second.await.map_err(|other| both(&error, &other)),
        Either::Right((Err(error), first)) => first.await.map_err(|other| both(&other, &error)),
        Either::Left((Ok(stream), _)) | Either::Right((Ok(stream), _)) => Ok(stream),
    }
}

fn both(first: &io::Error, second: &io::Error) -> io::Error {
    io::Error::new(first.kind(), format!("{first}; {second}"))
}

/// Tries the addresses in turn, each [`HEAD_START`] after the one before, or once all before have failed.
async fn connect_any(mut addresses: VecDeque<SocketAddr>) -> io::Result<TcpStream> {
    let mut attempts = FuturesUnordered::new();
    let mut failed: Option<io::Error> = None;
    loop {
        if let Some(address) = addresses.pop_front() {
            attempts.push(connect(address));
        }
        let next = async {
            if addresses.is_empty() {
                std::future::pending::<()>().await;
            }
            sleep(HEAD_START).await;
        };
        tokio::select! {
            attempt = attempts.next() => match attempt {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => {
                    let error = match &failed {
                        Some(first) => both(first, &error),
                        None => error,
                    };
                    failed = Some(error);
                }
                None => {
                    let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                    return Err(failed.unwrap_or_else(none));
                }
            },
            () = next => {}
        }
    }
}

/// Makes the connections of one channel. tonic calls it again whenever the connection has ended.
#[derive(Debug, Clone)]
pub struct PeerConnector {
    pub target: Arc<DialTarget>,
    pub link: Arc<PeerLink>,
}

impl Service<Uri> for PeerConnector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<TcpStream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let PeerConnector { target, link } = self.clone();
        async move {
            link.note_closed();
            let stream = target.dial().await?;
            link.note_open(stream.peer_addr()?.ip().to_canonical());
            Ok(TokioIo::new(stream))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpListener, time::Instant};

    use super::{super::dial_hints::DialHint, *};
    use crate::types::MemberId;

    const AT: Ordinal = Ordinal(2);
    const DEAD: [u8; 4] = [127, 0, 0, 2];
    const ALIVE: [u8; 4] = [127, 0, 0, 3];

    /// A peer that is configured at `configured`, and listens at `ALIVE` on the same port.
    async fn target(configured: [u8; 4]) -> (TcpListener, DialTarget) {
        let peer = TcpListener::bind((IpAddr::from(ALIVE), 0)).await.unwrap();
        let port = peer.local_addr().unwrap().port();
        let configured = HostPort { host: IpAddr::from(configured).to_string(), port };
        (peer, DialTarget { ordinal: AT, configured, hints: Arc::default() })
    }

    fn hint(boot: u64, address: [u8; 4]) -> DialHint {
        DialHint::new(MemberId(7), boot, &IpAddr::from(address).to_string()).unwrap()
    }

    async fn dialed(target: &DialTarget) -> IpAddr {
        target.dial().await.unwrap().peer_addr().unwrap().ip()
    }

    /// A listener that drops new connections: its queue is full.
    struct BlackHole {
        address: SocketAddr,
        _listener: std::net::TcpListener,
        _queue: Vec<TcpStream>,
    }

    impl BlackHole {
        async fn at(address: [u8; 4], port: u16) -> BlackHole {
            let address = SocketAddr::from((address, port));
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(address).unwrap();
            let listener = socket.listen(1).unwrap().into_std().unwrap();
            let address = listener.local_addr().unwrap();
            let mut queue = Vec::new();
            while let Ok(Ok(stream)) =
                timeout(Duration::from_millis(100), TcpStream::connect(address)).await
            {
                queue.push(stream);
            }
            BlackHole { address, _listener: listener, _queue: queue }
        }
    }

    #[tokio::test]
    async fn the_hint_leads_to_a_peer_whose_old_address_is_dead() {
        let (_peer, target) = target(DEAD).await;
        assert!(target.dial().await.unwrap_err().to_string().contains("127.0.0.2"));
        target.hints.note(AT, hint(1, ALIVE));
        assert_eq!(dialed(&target).await, IpAddr::from(ALIVE));
    }

    #[tokio::test]
    async fn a_stale_hint_costs_nothing() {
        let (_peer, target) = target(ALIVE).await;
        target.hints.note(AT, hint(1, DEAD));
        assert_eq!(dialed(&target).await, IpAddr::from(ALIVE));
    }

    #[tokio::test]
    async fn an_address_where_packets_vanish_costs_the_head_start() {
        let (_peer, target) = target(ALIVE).await;
        let _hole = BlackHole::at(DEAD, target.configured.port).await;
        for (hinted, configured) in [(DEAD, ALIVE), (ALIVE, DEAD)] {
            let configured = HostPort {
                host: IpAddr::from(configured).to_string(),
                ..target.configured.clone()
            };
            let target = DialTarget { ordinal: AT, configured, hints: Arc::default() };
            target.hints.note(AT, hint(1, hinted));
            // Also as the second choice.
            for _ in 0..2 {
                let start = Instant::now();
                assert_eq!(dialed(&target).await, IpAddr::from(ALIVE));
                assert!(start.elapsed() < CONNECT_TIMEOUT, "{:?}", start.elapsed());
                target.hints.note_suspect(AT, IpAddr::from(hinted));
            }
        }
    }

    #[tokio::test]
    async fn a_hint_that_comes_during_a_dial_is_tried_at_once() {
        let (_peer, target) = target(DEAD).await;
        let _hole = BlackHole::at(DEAD, target.configured.port).await;
        let start = Instant::now();
        let later = async {
            sleep(Duration::from_millis(50)).await;
            target.hints.note(AT, hint(1, ALIVE));
        };
        let (dialed, ()) = tokio::join!(dialed(&target), later);
        assert_eq!(dialed, IpAddr::from(ALIVE));
        assert!(start.elapsed() < CONNECT_TIMEOUT, "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn where_another_process_answered_is_tried_last() {
        let (peer, target) = target(ALIVE).await;
        let port = peer.local_addr().unwrap().port();
        let _other = TcpListener::bind((IpAddr::from(DEAD), port)).await.unwrap();
        target.hints.note(AT, hint(1, DEAD));
        assert_eq!(dialed(&target).await, IpAddr::from(DEAD));
        target.hints.note_suspect(AT, IpAddr::from(DEAD));
        assert_eq!(dialed(&target).await, IpAddr::from(ALIVE));
    }

    #[tokio::test]
    async fn all_addresses_of_a_name_are_tried() {
        let (peer, target) = target(ALIVE).await;
        let hole = BlackHole::at(DEAD, 0).await;
        let alive = peer.local_addr().unwrap();
        let refusing = SocketAddr::from(([127, 0, 0, 4], target.configured.port));
        let start = Instant::now();
        let addresses = [refusing, hole.address, refusing, alive];
        let stream = connect_any(VecDeque::from(addresses)).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), alive);
        assert!(start.elapsed() < CONNECT_TIMEOUT, "{:?}", start.elapsed());
        let none = connect_any(VecDeque::from([refusing])).await.unwrap_err().to_string();
        assert!(none.contains("127.0.0.4"), "{none}");
        assert!(connect_any(VecDeque::new()).await.is_err());
    }
}
