//! The client side: one gRPC connection to each peer for each class of traffic.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt, future::BoxFuture, stream::BoxStream};
use prost::Message;
use tonic::{Code, Response, Status, Streaming};

use super::{
    address::PeerAddresses,
    channels::{PeerCall, PeerChannels, Traffic},
    dial_hints::DialHints,
    dialer::CONNECT_TIMEOUT,
    hello::PeerIdentity,
    metrics::{PeerMetrics, PeerTraffic},
};
use crate::{
    membership::{BootstrapRpc, MemberRpc},
    node::{ForwardReplies, LeaderLink, LinkError},
    proto::peer,
    raft::{OpeningStream, Transport, TransportError},
    types::{MemberId, MemberRef, Ordinal},
};

/// Limit of the calls of `membership`, some of which cost the other side an fsync.
const MEMBERSHIP_CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// Calls other members. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PeerClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    channels: PeerChannels,
    identity: OnceLock<PeerIdentity>,
    /// The address of this pod, for the hints of other members; empty: unknown.
    address: String,
    metrics: Arc<PeerMetrics>,
}

impl PeerClient {
    /// `pod_ip` is the address of this member, for its peers.
    pub fn new(addresses: PeerAddresses, pod_ip: Option<IpAddr>) -> PeerClient {
        let inner = Inner {
            channels: PeerChannels::new(addresses),
            identity: OnceLock::new(),
            address: pod_ip.map_or_else(String::new, |ip| ip.to_string()),
            metrics: Arc::default(),
        };
        PeerClient { inner: Arc::new(inner) }
    }

    /// The addresses that the other members have named; the peer service stores them.
    pub fn hints(&self) -> &Arc<DialHints> {
        &self.inner.channels.hints
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
        let identity = self.inner.identity.get()?;
        Some(peer::Hello { address: self.inner.address.clone(), ..identity.hello(to) })
    }

    fn call(&self, to: Ordinal, traffic: Traffic) -> Result<PeerCall, String> {
        self.inner.channels.call(to, traffic)
    }

    fn call_of(&self, to: MemberRef, traffic: Traffic) -> Result<PeerCall, TransportError> {
        self.call(to.ordinal, traffic).map_err(|e| TransportError::Unreachable(to.member, e))
    }
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
        let call = self.call_of(to, traffic);
        let mut hello = self.hello(to.member);
        let traffic = self.inner.metrics.of(to.member);
        let sent = traffic.clone();
        let requests = requests
            .map(move |request| peer::AppendRequest { hello: hello.take(), ..request })
            .inspect(move |request| sent.sent(request));
        let requests = RequestStream(requests.boxed());
        Box::pin(async move {
            let mut call = call?;
            let opened = call.client.append(requests).await;
            match call.noted(to.member, opened) {
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
        let mut call = self.call_of(to, Traffic::Control)?;
        let traffic = self.inner.metrics.of(to.member);
        let vote = async |r: peer::VoteRequest| {
            let answer = call.client.vote(r).await;
            call.noted(to.member, answer)
        };
        call_unary(to.member, &traffic, request, limit, vote).await
    }

    async fn transfer_leader(
        &self,
        to: MemberRef,
        mut request: peer::TransferLeaderRequest,
        limit: Duration,
    ) -> Result<peer::TransferLeaderReply, TransportError> {
        request.hello = self.hello(to.member);
        let mut call = self.call_of(to, Traffic::Control)?;
        let traffic = self.inner.metrics.of(to.member);
        let transfer = async |r: peer::TransferLeaderRequest| {
            let answer = call.client.transfer_leader(r).await;
            call.noted(to.member, answer)
        };
        call_unary(to.member, &traffic, request, limit, transfer).await
    }

    fn snapshot(
        &self,
        to: MemberRef,
        chunks: BoxStream<'static, peer::SnapshotChunk>,
    ) -> OpeningStream<peer::SnapshotReply> {
        let call = self.call_of(to, Traffic::Snapshot);
        let mut hello = self.hello(to.member);
        let traffic = self.inner.metrics.of(to.member);
        let sent = traffic.clone();
        let chunks = chunks
            .map(move |chunk| peer::SnapshotChunk { hello: hello.take(), ..chunk })
            .inspect(move |chunk| sent.sent(chunk));
        let chunks = RequestStream(chunks.boxed());
        Box::pin(async move {
            let mut call = call?;
            let opened = call.client.snapshot(chunks).await;
            match call.noted(to.member, opened) {
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
        let call = self.call(to.ordinal, Traffic::Forward).map_err(LinkError);
        Box::pin(async move {
            let mut call = call?;
            let forward = async {
                let opened = call.client.forward(requests).await;
                call.noted(to.member, opened)
            };
            let opened = tokio::time::timeout(CONNECT_TIMEOUT * 2, forward).await;
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
        mut request: peer::StandingRequest,
    ) -> Result<peer::StandingReply, String> {
        request.address.clone_from(&self.inner.address);
        let mut call = self.call(to, Traffic::Control)?;
        call_membership(MEMBERSHIP_CALL_TIMEOUT, call.client.standing(request)).await
    }

    async fn may_stop(&self, to: MemberRef) -> Result<peer::MayStopReply, String> {
        let mut call = self.call(to.ordinal, Traffic::Control)?;
        let request = peer::MayStopRequest { hello: self.hello(to.member) };
        let may_stop = async {
            let answer = call.client.may_stop(request).await;
            call.noted(to.member, answer)
        };
        call_membership(MEMBERSHIP_CALL_TIMEOUT, may_stop).await
    }

    async fn change_members(
        &self,
        to: MemberRef,
        change: peer::change_members_request::Change,
        limit: Duration,
    ) -> Result<peer::ChangeMembersReply, String> {
        let mut call = self.call(to.ordinal, Traffic::Control)?;
        let hello = self.hello(to.member);
        let request = peer::ChangeMembersRequest { hello, change: Some(change) };
        let change_members = async {
            let answer = call.client.change_members(request).await;
            call.noted(to.member, answer)
        };
        call_membership(limit, change_members).await
    }

    fn ordinal_at(&self, address: &str) -> Result<Ordinal, String> {
        let addresses = &self.inner.channels.addresses;
        addresses.find(address).ok_or_else(|| addresses.to_string())
    }
}

impl BootstrapRpc for PeerClient {
    async fn promise(
        &self,
        to: Ordinal,
        request: peer::PromiseRequest,
    ) -> Result<peer::PromiseReply, String> {
        let mut call = self.call(to, Traffic::Control)?;
        call_membership(MEMBERSHIP_CALL_TIMEOUT, call.client.promise(request)).await
    }

    async fn join(
        &self,
        to: Ordinal,
        mut request: peer::JoinRequest,
    ) -> Result<peer::JoinReply, String> {
        request.address.clone_from(&self.inner.address);
        let mut call = self.call(to, Traffic::Control)?;
        call_membership(MEMBERSHIP_CALL_TIMEOUT, call.client.join(request)).await
    }
}
