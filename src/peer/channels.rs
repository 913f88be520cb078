//! The channels to the other members: one for each ordinal and class of traffic.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use super::{
    address::PeerAddresses,
    dial_hints::DialHints,
    dialer::{DialTarget, PeerConnector},
    peer_link::PeerLink,
};
use crate::{
    config::{HostPort, MAX_REQUEST_BYTES_MAX},
    proto::peer::peer_client::PeerClient as Generated,
    types::{MemberId, Ordinal},
};

/// An idle connection is pinged after this time, and closed if this time passes without an answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// The largest request: about 1 MiB of log entries, or one entry of any size that
/// [`MAX_REQUEST_BYTES_MAX`] allows.
pub const REQUEST_BYTES_MAX: usize = MAX_REQUEST_BYTES_MAX + (8 << 20);
/// The largest reply: the reads of all transactions in one forwarded batch.
pub const REPLY_BYTES_MAX: usize = 256 << 20;
/// Flow-control window, large enough that a batch never waits for a window update.
const WINDOW_BYTES: u32 = 4 << 20;

/// The class of a connection's traffic: a snapshot must not delay the log, nor the log a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Traffic {
    Control,
    Log,
    Forward,
    Snapshot,
}

/// A client for one call, and the connection that it uses.
#[derive(Debug)]
pub struct PeerCall {
    pub client: Generated<Channel>,
    link: Arc<PeerLink>,
}

impl PeerCall {
    /// Passes on the answer to a call with a hello to `to`, and notes whether the peer has accepted it.
    pub fn noted<T>(&self, to: MemberId, answer: Result<T, Status>) -> Result<T, Status> {
        self.link.note_answer(to, &answer);
        answer
    }
}

/// A channel, with what is known of its connection.
type LinkedChannel = (Channel, Arc<PeerLink>);

/// All channels of this member. A channel connects at its first call, and again when its connection has
/// ended.
#[derive(Debug)]
pub struct PeerChannels {
    pub addresses: PeerAddresses,
    pub hints: Arc<DialHints>,
    open: Mutex<BTreeMap<(Ordinal, Traffic), LinkedChannel>>,
}

impl PeerChannels {
    pub fn new(addresses: PeerAddresses) -> PeerChannels {
        PeerChannels { addresses, hints: Arc::default(), open: Mutex::default() }
    }

    /// A client of the member at this ordinal.
    pub fn call(&self, to: Ordinal, traffic: Traffic) -> Result<PeerCall, String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let usable = open.get(&(to, traffic)).filter(|(_, link)| !link.is_misdirected());
        let (channel, link) = match usable {
            Some(usable) => usable.clone(),
            None => {
                // Calls on the former channel go on; its connection ends with the last of them.
                let new = self.connect(to)?;
                open.insert((to, traffic), new.clone());
                new
            }
        };
        let client = Generated::new(channel)
            .max_decoding_message_size(REPLY_BYTES_MAX)
            .max_encoding_message_size(REQUEST_BYTES_MAX);
        Ok(PeerCall { client, link })
    }

    fn connect(&self, to: Ordinal) -> Result<LinkedChannel, String> {
        let address = self.addresses.of(to).ok_or_else(|| format!("no address of ordinal {to}"))?;
        let target = DialTarget {
            ordinal: to,
            configured: address.parse::<HostPort>().map_err(|e| e.to_string())?,
            hints: self.hints.clone(),
        };
        let link = Arc::new(PeerLink::new(to, self.hints.clone()));
        let connector = PeerConnector { target: Arc::new(target), link: link.clone() };
        let channel = endpoint(&address)?.connect_with_connector_lazy(connector);
        Ok((channel, link))
    }
}

fn endpoint(address: &str) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|e| format!("{address}: {e}"))?
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_INTERVAL)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES * 4);
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tokio::{net::TcpListener, task::JoinHandle};
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{Code, service::Routes};

    use super::{super::dial_hints::DialHint, *};
    use crate::proto::peer::VoteRequest;

    const AT: Ordinal = Ordinal(0);
    const PEER: MemberId = MemberId(7);

    /// Answers every vote request with this code.
    #[derive(Debug, Clone)]
    struct Process(Code);

    impl tonic::server::NamedService for Process {
        const NAME: &'static str = "ordinal.peer.v1.Peer";
    }

    impl tonic::codegen::Service<http::Request<tonic::body::Body>> for Process {
        type Response = http::Response<tonic::body::Body>;
        type Error = std::convert::Infallible;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

        fn poll_ready(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), Self::Error>> {
            std::task::Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<tonic::body::Body>) -> Self::Future {
            std::future::ready(Ok(Status::new(self.0, "this process").into_http()))
        }
    }

    async fn process(address: [u8; 4], port: u16, answer: Code) -> (u16, JoinHandle<()>) {
        let listener = TcpListener::bind((IpAddr::from(address), port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tonic::transport::Server::builder()
            .add_routes(Routes::new(Process(answer)))
            .serve_with_incoming(TcpListenerStream::new(listener));
        (port, tokio::spawn(async move { server.await.unwrap() }))
    }

    async fn vote(channels: &PeerChannels) -> Code {
        let mut call = channels.call(AT, Traffic::Control).unwrap();
        let answer = call.client.vote(VoteRequest::default()).await;
        call.noted(PEER, answer).map_or_else(|status| status.code(), |_| Code::Ok)
    }

    #[tokio::test]
    async fn a_hint_to_another_process_gives_way_to_dns() {
        // An answer that a member gives to an accepted call.
        let (port, _peer) = process([127, 0, 0, 3], 0, Code::Aborted).await;
        let (_, _other) = process([127, 0, 0, 2], port, Code::FailedPrecondition).await;
        let addresses = PeerAddresses::list(vec![format!("127.0.0.3:{port}")]).unwrap();
        let channels = PeerChannels::new(addresses);
        channels.hints.note(AT, DialHint::new(PEER, 1, "127.0.0.2").unwrap());
        assert_eq!(vote(&channels).await, Code::FailedPrecondition);
        for _ in 0..3 {
            assert_eq!(vote(&channels).await, Code::Aborted);
        }
    }

    #[tokio::test]
    async fn dns_that_names_another_process_gives_way_to_a_hint() {
        let (port, _peer) = process([127, 0, 0, 3], 0, Code::Aborted).await;
        let (_, _other) = process([127, 0, 0, 2], port, Code::FailedPrecondition).await;
        let addresses = PeerAddresses::list(vec![format!("127.0.0.2:{port}")]).unwrap();
        let channels = PeerChannels::new(addresses);
        assert_eq!(vote(&channels).await, Code::FailedPrecondition);
        channels.hints.note(AT, DialHint::new(PEER, 1, "127.0.0.3").unwrap());
        let reached = async {
            while vote(&channels).await != Code::Aborted {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reached).await.unwrap();
    }

    #[tokio::test]
    async fn a_hint_where_no_peer_speaks_gives_way_to_dns() {
        let (port, _peer) = process([127, 0, 0, 3], 0, Code::Aborted).await;
        let other = TcpListener::bind((IpAddr::from([127, 0, 0, 2]), port)).await.unwrap();
        // Closes each connection at once.
        let _other = tokio::spawn(async move { while other.accept().await.is_ok() {} });
        let addresses = PeerAddresses::list(vec![format!("127.0.0.3:{port}")]).unwrap();
        let channels = PeerChannels::new(addresses);
        channels.hints.note(AT, DialHint::new(PEER, 1, "127.0.0.2").unwrap());
        let reached = async {
            while vote(&channels).await != Code::Aborted {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reached).await.unwrap();
    }
}
