//! The client side: one gRPC connection to each peer for each class of traffic.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt, future::BoxFuture, stream::BoxStream};
use prost::Message;
use tonic::{
    Code, Response, Status, Streaming,
    transport::{Channel, Endpoint},
};

use super::{
    address::PeerAddresses,
    hello::PeerIdentity,
    metrics::{PeerMetrics, PeerTraffic},
};
use crate::{
    config::MAX_REQUEST_BYTES_MAX,
    membership::{BootstrapRpc, MemberRpc},
    node::{ForwardReplies, LeaderLink, LinkError},
    proto::peer::{self, peer_client::PeerClient as Generated},
    raft::{OpeningStream, Transport, TransportError},
    types::{MemberId, MemberRef, Ordinal},
};

/// A peer that does not accept a connection within this time is unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// An idle connection is pinged after this time, and closed if this time passes without an answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// The largest request: about 1 MiB of log entries, or one entry of any size that
/// [`MAX_REQUEST_BYTES_MAX`] allows.
pub const REQUEST_BYTES_MAX: usize = MAX_REQUEST_BYTES_MAX + (8 << 20);
/// The largest reply: the reads of all transactions in one forwarded batch.
pub const REPLY_BYTES_MAX: usize = 256 << 20;
/// Flow-control window, large enough that a batch never waits for a window update.
const WINDOW_BYTES: u32 = 4 << 20;
/// Limit of the calls of `membership`, some of which cost the other side an fsync.
const MEMBERSHIP_CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// The class of a connection's traffic: a snapshot must not delay the log, nor the log a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Traffic {
    Control,
    Log,
    Forward,
    Snapshot,
}

/// Calls other members. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PeerClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    addresses: PeerAddresses,
    identity: OnceLock<PeerIdentity>,
    channels: Mutex<BTreeMap<(Ordinal, Traffic), Channel>>,
    metrics: Arc<PeerMetrics>,
}

impl PeerClient {
    pub fn new(addresses: PeerAddresses) -> PeerClient {
        let inner = Inner {
            addresses,
            identity: OnceLock::new(),
            channels: Mutex::default(),
            metrics: Arc::default(),
        };
        PeerClient { inner: Arc::new(inner) }
    }

    /// The metrics of all traffic with other members; the peer service shares them.
    pub fn metrics(&self) -> &Arc<PeerMetrics> {
        &self.inner.metrics
    }

    /// Sets the identity that every further call opens with. Called once.
    pub fn set_identity(&self, identity: PeerIdentity) {
        assert!(self.inner.identity.set(identity).is_ok(), "a process is one member only");
    }

    fn hello(&self, to: MemberId) -> Option<peer::Hello> {
        self.inner.identity.get().map(|identity| identity.hello(to))
    }

    fn client(&self, to: Ordinal, traffic: Traffic) -> Result<Generated<Channel>, String> {
        let mut channels = self.inner.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match channels.get(&(to, traffic)) {
            Some(channel) => channel.clone(),
            None => {
                let address = self.inner.addresses.of(to);
                let address = address.ok_or_else(|| format!("no address of ordinal {to}"))?;
                let channel = endpoint(&address)?.connect_lazy();
                channels.insert((to, traffic), channel.clone());
                channel
            }
        };
        Ok(Generated::new(channel)
            .max_decoding_message_size(REPLY_BYTES_MAX)
            .max_encoding_message_size(REQUEST_BYTES_MAX))
    }
}

impl PeerClient {
    fn client_of(
        &self,
        to: MemberRef,
        traffic: Traffic,
    ) -> Result<Generated<Channel>, TransportError> {
        self.client(to.ordinal, traffic).map_err(|e| TransportError::Unreachable(to.member, e))
    }
}

fn endpoint(address: &str) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|e| format!("{address}: {e}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_INTERVAL)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES * 4);
    Ok(endpoint)
}

/// A stream of requests without a lifetime parameter: the compiler rejects generated clients that are called
/// from a boxed future with `dyn Stream + 'static` (rust-lang/rust#102211).
struct RequestStream<T>(BoxStream<'static, T>);

impl<T> Stream for RequestStream<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_next_unpin(cx)
    }
}

/// An unreachable peer, or one that rejects this member, will remain so for a while. Other errors may pass
/// at once.
fn failed(to: MemberId, status: &Status) -> TransportError {
    let text = format!("{}: {}", status.code(), status.message());
    match status.code() {
        Code::Unavailable | Code::FailedPrecondition => TransportError::Unreachable(to, text),
        _ => TransportError::Broken(to, text),
    }
}

fn replies<T: Message + 'static>(
    to: MemberId,
    traffic: Arc<PeerTraffic>,
    stream: Streaming<T>,
) -> BoxStream<'static, Result<T, TransportError>> {
    let open = traffic.open();
    stream
        .map(move |reply| {
            let _open = &open;
            reply.inspect(|reply| traffic.received(reply)).map_err(|status| failed(to, &status))
        })
        .boxed()
}

/// Makes a unary call with a time limit.
async fn call_unary<Q: Message, R: Message>(
    to: MemberId,
    traffic: &PeerTraffic,
    request: Q,
    limit: Duration,
    call: impl AsyncFnOnce(Q) -> Result<Response<R>, Status>,
) -> Result<R, TransportError> {
    traffic.sent(&request);
    match tokio::time::timeout(limit, call(request)).await {
        Ok(Ok(reply)) => {
            let reply = reply.into_inner();
            traffic.received(&reply);
            Ok(reply)
        }
        Ok(Err(status)) => Err(failed(to, &status)),
        Err(_) => Err(TransportError::Broken(to, "no answer in time".into())),
    }
}

impl Transport for PeerClient {
    fn append(
        &self,
        to: MemberRef,
        heartbeats: bool,
        requests: BoxStream<'static, peer::AppendRequest>,
    ) -> OpeningStream<peer::AppendReply> {
        let traffic = if heartbeats { Traffic::Control } else { Traffic::Log };
        let client = self.client_of(to, traffic);
        let mut hello = self.hello(to.member);
        let traffic = self.inner.metrics.of(to.member);
        let sent = traffic.clone();
        let requests = requests
            .map(move |request| peer::AppendRequest { hello: hello.take(), ..request })
            .inspect(move |request| sent.sent(request));
        let requests = RequestStream(requests.boxed());
        Box::pin(async move {
            match client?.append(requests).await {
                Ok(stream) => Ok(replies(to.member, traffic, stream.into_inner())),
                Err(status) => Err(failed(to.member, &status)),
            }
        })
    }

    async fn vote(
        &self,
        to: MemberRef,
        mut request: peer::VoteRequest,
        limit: Duration,
    ) -> Result<peer::VoteReply, TransportError> {
        request.hello = self.hello(to.member);
        let mut client = self.client_of(to, Traffic::Control)?;
        let traffic = self.inner.metrics.of(to.member);
        call_unary(to.member, &traffic, request, limit, async |r| client.vote(r).await).await
    }

    async fn transfer_leader(
        &self,
        to: MemberRef,
        mut request: peer::TransferLeaderRequest,
        limit: Duration,
    ) -> Result<peer::TransferLeaderReply, TransportError> {
        request.hello = self.hello(to.member);
        let mut client = self.client_of(to, Traffic::Control)?;
        let traffic = self.inner.metrics.of(to.member);
        call_unary(to.member, &traffic, request, limit, async |r| client.transfer_leader(r).await)
            .await
    }

    fn snapshot(
        &self,
        to: MemberRef,
        chunks: BoxStream<'static, peer::SnapshotChunk>,
    ) -> OpeningStream<peer::SnapshotReply> {
        let client = self.client_of(to, Traffic::Snapshot);
        let mut hello = self.hello(to.member);
        let traffic = self.inner.metrics.of(to.member);
        let sent = traffic.clone();
        let chunks = chunks
            .map(move |chunk| peer::SnapshotChunk { hello: hello.take(), ..chunk })
            .inspect(move |chunk| sent.sent(chunk));
        let chunks = RequestStream(chunks.boxed());
        Box::pin(async move {
            match client?.snapshot(chunks).await {
                Ok(stream) => Ok(replies(to.member, traffic, stream.into_inner())),
                Err(status) => Err(failed(to.member, &status)),
            }
        })
    }
}

impl LeaderLink for PeerClient {
    fn open(
        &self,
        to: MemberRef,
        requests: BoxStream<'static, peer::ForwardRequest>,
    ) -> BoxFuture<'static, Result<ForwardReplies, LinkError>> {
        // The hello is a message of its own, so that the stream opens before the first request.
        let hello = peer::ForwardRequest { hello: self.hello(to.member), id: 0, request: None };
        let traffic = self.inner.metrics.of(to.member);
        let sent = traffic.clone();
        let requests = futures_util::stream::once(std::future::ready(hello))
            .chain(requests)
            .inspect(move |request| sent.sent(request));
        let requests = RequestStream(requests.boxed());
        let client = self.client(to.ordinal, Traffic::Forward).map_err(LinkError);
        Box::pin(async move {
            let mut client = client?;
            let opened = tokio::time::timeout(CONNECT_TIMEOUT * 2, client.forward(requests)).await;
            let broken =
                move |status: &Status| LinkError(format!("{}: {}", to.member, status.message()));
            match opened {
                Ok(Ok(stream)) => {
                    let open = traffic.open();
                    let reply = move |reply: Result<_, Status>| {
                        let _open = &open;
                        reply
                            .inspect(|reply| traffic.received(reply))
                            .map_err(|status| broken(&status))
                    };
                    Ok(stream.into_inner().map(reply).boxed())
                }
                Ok(Err(status)) => Err(broken(&status)),
                Err(_) => Err(LinkError(format!("{}: no answer in time", to.member))),
            }
        })
    }
}

/// Makes a call of `membership` with a time limit; the error is a text.
async fn call_membership<R>(
    limit: Duration,
    call: impl Future<Output = Result<Response<R>, Status>>,
) -> Result<R, String> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(status.message().to_string()),
        Err(_) => Err("no answer in time".into()),
    }
}

impl MemberRpc for PeerClient {
    async fn member_status(
        &self,
        to: Ordinal,
        request: peer::StandingRequest,
    ) -> Result<peer::StandingReply, String> {
        let mut client = self.client(to, Traffic::Control)?;
        call_membership(MEMBERSHIP_CALL_TIMEOUT, client.standing(request)).await
    }

    async fn may_stop(&self, to: MemberRef) -> Result<peer::MayStopReply, String> {
        let mut client = self.client(to.ordinal, Traffic::Control)?;
        let request = peer::MayStopRequest { hello: self.hello(to.member) };
        call_membership(MEMBERSHIP_CALL_TIMEOUT, client.may_stop(request)).await
    }

    async fn change_members(
        &self,
        to: MemberRef,
        change: peer::change_members_request::Change,
        limit: Duration,
    ) -> Result<peer::ChangeMembersReply, String> {
        let mut client = self.client(to.ordinal, Traffic::Control)?;
        let hello = self.hello(to.member);
        let request = peer::ChangeMembersRequest { hello, change: Some(change) };
        call_membership(limit, client.change_members(request)).await
    }

    fn ordinal_at(&self, address: &str) -> Result<Ordinal, String> {
        let addresses = &self.inner.addresses;
        addresses.find(address).ok_or_else(|| addresses.to_string())
    }
}

impl BootstrapRpc for PeerClient {
    async fn promise(
        &self,
        to: Ordinal,
        request: peer::PromiseRequest,
    ) -> Result<peer::PromiseReply, String> {
        let mut client = self.client(to, Traffic::Control)?;
        call_membership(MEMBERSHIP_CALL_TIMEOUT, client.promise(request)).await
    }

    async fn join(
        &self,
        to: Ordinal,
        request: peer::JoinRequest,
    ) -> Result<peer::JoinReply, String> {
        let mut client = self.client(to, Traffic::Control)?;
        call_membership(MEMBERSHIP_CALL_TIMEOUT, client.join(request)).await
    }
}
