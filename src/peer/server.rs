//! The server side: checks the hello and passes the call to its layer.

use std::sync::{Arc, OnceLock};

use futures_util::{Stream, StreamExt, stream::BoxStream};
use prost::Message;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{
    address::PeerAddresses,
    channels::{REPLY_BYTES_MAX, REQUEST_BYTES_MAX},
    client::PeerClient,
    dial_hints::{DialHint, DialHints},
    hello::{BootCounters, HelloRejection, PeerIdentity},
    metrics::{PeerMetrics, PeerTraffic},
};
use crate::{
    lane::Lanes,
    membership::{
        Bootstrap, FoundingOrderError, JoinContext, JoinService, MembershipReconciler, Stage,
        StopPermit, describe_volume,
    },
    node::Node,
    proto::peer::{
        self,
        peer_server::{Peer, PeerServer},
    },
    raft::{Raft, RpcError},
    shutdown::ShutdownSignal,
    types::{MemberId, MemberRef, Ordinal},
};

/// The boot counter of a member that has not run yet.
const FIRST_BOOT: u64 = 1;

/// The layers that answer once this volume is a running member.
#[derive(Debug, Clone)]
pub struct RunningMember {
    pub raft: Raft,
    pub node: Node,
    pub reconciler: Arc<MembershipReconciler<Node>>,
}

/// The peer service of one volume; it starts before the volume is a member.
#[derive(Debug, Clone)]
pub struct PeerService {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bootstrap: Arc<Bootstrap>,
    running: OnceLock<RunningMember>,
    boots: BootCounters,
    join_service: JoinService,
    addresses: PeerAddresses,
    lanes: Lanes,
    shutdown: ShutdownSignal,
    metrics: Arc<PeerMetrics>,
    hints: Arc<DialHints>,
}

impl PeerService {
    /// Streams of other members end with `shutdown`; they never end by themselves. Metrics and dial hints are
    /// those of `peers`.
    pub fn new(
        bootstrap: Arc<Bootstrap>,
        addresses: PeerAddresses,
        lanes: Lanes,
        peers: &PeerClient,
        shutdown: ShutdownSignal,
    ) -> PeerService {
        let inner = Inner {
            bootstrap,
            running: OnceLock::new(),
            boots: BootCounters::default(),
            join_service: JoinService::default(),
            addresses,
            lanes,
            shutdown,
            metrics: peers.metrics().clone(),
            hints: peers.hints().clone(),
        };
        PeerService { inner: Arc::new(inner) }
    }

    /// Starts handling Raft's messages. Called once.
    pub fn set_running(&self, running: RunningMember) {
        assert!(self.inner.running.set(running).is_ok(), "a process is one member only");
    }

    pub fn into_server(self) -> PeerServer<PeerService> {
        PeerServer::new(self)
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(REPLY_BYTES_MAX)
    }

    /// The running member, if the hello is accepted.
    fn admit(&self, hello: Option<peer::Hello>) -> Result<&RunningMember, Status> {
        let hello = hello.ok_or(HelloRejection::Missing)?;
        let Some(identity) = self.inner.bootstrap.identity() else {
            return Err(Status::unavailable("this volume belongs to no cluster yet"));
        };
        PeerIdentity::from(&identity).check(&hello)?;
        let Some(running) = self.inner.running.get() else {
            // The cluster knows this member: the bootstrap has succeeded.
            self.inner.bootstrap.note_contact();
            return Err(Status::unavailable("this member is starting"));
        };
        let roster = running.raft.view().roster();
        let published = roster.members.get(&MemberId(hello.from)).map_or(0, |member| member.boot);
        self.inner.boots.check(&hello, published)?;
        let from = MemberRef { member: MemberId(hello.from), ordinal: Ordinal(hello.from_ordinal) };
        self.note_address(running, from, hello.boot, &hello.address);
        Ok(running)
    }

    /// Stores the address of a member as a hint for dialing it.
    fn note_address(&self, running: &RunningMember, from: MemberRef, boot: u64, address: &str) {
        if let Some(hint) = DialHint::new(from.member, boot, address)
            && running.raft.members().iter().any(|member| member.member_ref == from)
        {
            self.inner.hints.note(from.ordinal, hint);
        }
    }
}

fn sender(hello: Option<&peer::Hello>) -> MemberId {
    MemberId(hello.map_or(0, |hello| hello.from))
}

/// Rejects the call of a removed member: its id is not in the membership, and is used up or below the
/// newest id. Raft's own messages are exempt: a follower may learn of a new member from that member itself.
fn check_not_removed(running: &RunningMember, from: MemberId) -> Result<(), HelloRejection> {
    let members = running.raft.members();
    if members.is_empty() || members.iter().any(|m| m.member_ref.member == from) {
        return Ok(());
    }
    let newest = members.iter().map(|m| m.member_ref.member).max().unwrap_or_default();
    let used = running.raft.view().roster().was_used(from);
    if from <= newest || used { Err(HelloRejection::Removed(from)) } else { Ok(()) }
}

/// The messages of a stream until it breaks, or this member stops. Messages that arrived before are still
/// answered.
fn incoming<T: Message + 'static>(
    stream: Streaming<T>,
    traffic: Arc<PeerTraffic>,
    mut shutdown: ShutdownSignal,
) -> impl Stream<Item = T> + Send + Unpin {
    Box::pin(
        stream
            .inspect(move |message| match message {
                Ok(message) => traffic.received(message),
                Err(_) => traffic.receive_failures.increment(),
            })
            .take_while(|message| std::future::ready(message.is_ok()))
            .filter_map(|message| std::future::ready(message.ok()))
            .take_until(async move { shutdown.wait().await }),
    )
}

async fn first_message<T>(stream: &mut Streaming<T>) -> Result<T, Status> {
    stream.message().await?.ok_or_else(|| HelloRejection::Missing.into())
}

fn failed(e: &RpcError) -> Status {
    match e {
        RpcError::InvalidMessage(_) => Status::invalid_argument(e.to_string()),
        RpcError::Stopped(_) => Status::unavailable(e.to_string()),
        RpcError::Snapshot(_) => Status::aborted(e.to_string()),
    }
}

fn not_ordered(e: &FoundingOrderError) -> Status {
    let code = match e {
        FoundingOrderError::Changed | FoundingOrderError::Orchestrator(_) => Code::Unavailable,
        FoundingOrderError::NoPod
        | FoundingOrderError::Member(_)
        | FoundingOrderError::Formed(_)
        | FoundingOrderError::NoRecord
        | FoundingOrderError::ClaimsUnknown(_) => Code::FailedPrecondition,
    };
    Status::new(code, format!("ordinal: {e}"))
}

/// Counts the stream as open until its replies end.
fn outgoing<T: Message + 'static>(
    stream: BoxStream<'static, Result<T, RpcError>>,
    traffic: Arc<PeerTraffic>,
) -> BoxStream<'static, Result<T, Status>> {
    let open = traffic.open();
    let reply = move |reply: Result<T, RpcError>| {
        let _open = &open;
        reply.inspect(|reply| traffic.sent(reply)).map_err(|e| failed(&e))
    };
    stream.map(reply).boxed()
}

#[tonic::async_trait]
impl Peer for PeerService {
    type AppendStream = BoxStream<'static, Result<peer::AppendReply, Status>>;
    type SnapshotStream = BoxStream<'static, Result<peer::SnapshotReply, Status>>;
    type ForwardStream = BoxStream<'static, Result<peer::ForwardReply, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<peer::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let mut stream = request.into_inner();
        let mut first = first_message(&mut stream).await?;
        let from = sender(first.hello.as_ref());
        let running = self.admit(first.hello.take())?;
        let traffic = self.inner.metrics.of(from);
        traffic.received(&first);
        let rest = incoming(stream, traffic.clone(), self.inner.shutdown.clone());
        Ok(Response::new(outgoing(running.raft.handle_append(first, rest), traffic)))
    }

    async fn vote(
        &self,
        request: Request<peer::VoteRequest>,
    ) -> Result<Response<peer::VoteReply>, Status> {
        let mut request = request.into_inner();
        let running = self.admit(request.hello.take())?;
        running.raft.handle_vote(request).await.map(Response::new).map_err(|e| failed(&e))
    }

    async fn transfer_leader(
        &self,
        request: Request<peer::TransferLeaderRequest>,
    ) -> Result<Response<peer::TransferLeaderReply>, Status> {
        let mut request = request.into_inner();
        let running = self.admit(request.hello.take())?;
        let reply = running.raft.handle_transfer_leader(request).await;
        reply.map(Response::new).map_err(|e| failed(&e))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<peer::SnapshotChunk>>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let mut stream = request.into_inner();
        let mut first = first_message(&mut stream).await?;
        let from = sender(first.hello.as_ref());
        let running = self.admit(first.hello.take())?;
        let traffic = self.inner.metrics.of(from);
        traffic.received(&first);
        let rest = incoming(stream, traffic.clone(), self.inner.shutdown.clone());
        Ok(Response::new(outgoing(running.raft.handle_snapshot(first, rest), traffic)))
    }

    async fn forward(
        &self,
        request: Request<Streaming<peer::ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let mut stream = request.into_inner();
        let first = first_message(&mut stream).await?;
        let from = sender(first.hello.as_ref());
        let running = self.admit(first.hello)?;
        check_not_removed(running, from)?;
        let traffic = self.inner.metrics.of(from);
        let requests = incoming(stream, traffic.clone(), self.inner.shutdown.clone());
        let replies = running.node.handle_forward(requests).map(Ok).boxed();
        Ok(Response::new(outgoing(replies, traffic)))
    }

    async fn promise(
        &self,
        request: Request<peer::PromiseRequest>,
    ) -> Result<Response<peer::PromiseReply>, Status> {
        let bootstrap = self.inner.bootstrap.clone();
        let request = request.into_inner();
        let kept = self.inner.lanes.run("promise", move || bootstrap.handle_promise(request)).await;
        match kept {
            Ok(Some(Ok(reply))) => Ok(Response::new(reply)),
            Ok(Some(Err(e))) => Err(Status::internal(e.to_string())),
            Ok(None) | Err(_) => Err(Status::internal("the promise could not be kept")),
        }
    }

    async fn join(
        &self,
        request: Request<peer::JoinRequest>,
    ) -> Result<Response<peer::JoinReply>, Status> {
        let identity = self.inner.bootstrap.identity();
        let (Some(running), Some(identity)) = (self.inner.running.get(), &identity) else {
            let not_formed = peer::NotFormed {
                pristine: self.inner.bootstrap.is_pristine(),
                // The volume will answer as a member soon.
                starting: identity.is_some_and(|identity| {
                    matches!(identity.stage, Stage::Member | Stage::Recovering)
                }),
                ordinal: Some(self.inner.bootstrap.ordinal().0),
                home: self.inner.bootstrap.home().to_string(),
            };
            let result = peer::join_reply::Result::NotFormed(not_formed);
            let reply = peer::JoinReply { result: Some(result), has_quorum: false };
            return Ok(Response::new(reply));
        };
        let request = request.into_inner();
        let context = JoinContext {
            cluster: identity.cluster,
            home: &identity.home,
            dialable: self.inner.addresses.of(Ordinal(request.ordinal)).is_some(),
        };
        let (ordinal, address) = (Ordinal(request.ordinal), request.address.clone());
        let admission = request.member_id != 0;
        let join_service = &self.inner.join_service;
        let reply = join_service.handle_join(request, context, &running.raft, &running.node).await;
        if let Some(peer::join_reply::Result::Joined(joined)) = &reply.result
            && admission
        {
            let member_ref = MemberRef { member: MemberId(joined.member_id), ordinal };
            self.note_address(running, member_ref, FIRST_BOOT, &address);
        }
        Ok(Response::new(reply))
    }

    async fn standing(
        &self,
        request: Request<peer::StandingRequest>,
    ) -> Result<Response<peer::StandingReply>, Status> {
        let (request, identity) = (request.into_inner(), self.inner.bootstrap.identity());
        if request.cluster_id == 0 {
            let raft = self.inner.running.get().map(|running| &running.raft);
            let volume = Some(describe_volume(&self.inner.bootstrap, raft));
            let standing = peer::standing_reply::Standing::Unknown.into();
            return Ok(Response::new(peer::StandingReply { standing, volume }));
        }
        let (Some(running), Some(identity)) = (self.inner.running.get(), identity) else {
            return Err(Status::unavailable("this member is starting"));
        };
        let from =
            MemberRef { member: MemberId(request.member_id), ordinal: Ordinal(request.ordinal) };
        let (boot, address) = (request.boot, request.address.clone());
        let join_service = &self.inner.join_service;
        let reply =
            join_service.handle_member_status(request, identity.cluster, &running.raft).await;
        if reply.standing() == peer::standing_reply::Standing::Member {
            self.note_address(running, from, boot, &address);
        }
        Ok(Response::new(reply))
    }

    async fn may_stop(
        &self,
        request: Request<peer::MayStopRequest>,
    ) -> Result<Response<peer::MayStopReply>, Status> {
        use peer::may_stop_reply::Result as Reply;
        let hello = request.into_inner().hello;
        let (from, boot) = (sender(hello.as_ref()), hello.as_ref().map_or(0, |hello| hello.boot));
        let running = self.admit(hello)?;
        let result = match running.reconciler.may_stop(from, boot) {
            StopPermit::Granted => Reply::Granted(peer::Granted {}),
            StopPermit::NotLeader => Reply::NotLeader(peer::NotLeader { leader: 0 }),
            StopPermit::Wait(why) => Reply::Wait(why),
        };
        Ok(Response::new(peer::MayStopReply { result: Some(result) }))
    }

    async fn change_members(
        &self,
        request: Request<peer::ChangeMembersRequest>,
    ) -> Result<Response<peer::ChangeMembersReply>, Status> {
        let peer::ChangeMembersRequest { hello, change } = request.into_inner();
        let from = sender(hello.as_ref());
        let running = self.admit(hello)?;
        check_not_removed(running, from)?;
        let change = change.ok_or_else(|| Status::invalid_argument("no change is named"))?;
        Ok(Response::new(running.reconciler.handle_change(change).await))
    }

    async fn found(
        &self,
        request: Request<peer::FoundRequest>,
    ) -> Result<Response<peer::FoundReply>, Status> {
        if !request.into_inner().despite_volumes {
            return Err(Status::invalid_argument(
                "without an order, a pod founds as soon as it may; set despite_volumes to order it",
            ));
        }
        let claims = self.inner.bootstrap.order_founding().await.map_err(|e| not_ordered(&e))?;
        let former_claims = claims.into_iter().map(|claim| claim.name).collect();
        Ok(Response::new(peer::FoundReply { former_claims }))
    }
}
