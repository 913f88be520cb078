//! The answering side: checks the hello, hands the rest to whom it concerns.

use std::sync::{Arc, OnceLock};

use futures_util::{Stream, StreamExt, stream::BoxStream};
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use super::{
    address::PeerAddresses,
    client::{REPLY_BYTES_MAX, REQUEST_BYTES_MAX},
    hello::{Boots, Me, Refused},
    metrics::{PeerMetrics, PeerTraffic},
};
use crate::{
    lane::Lanes,
    membership::{Door, Formation, House, MayStop, Stage, Steward},
    node::Node,
    proto::peer::{
        self,
        peer_server::{Peer, PeerServer},
    },
    raft::{PeerError, Raft},
    stop::Stopping,
    types::{MemberId, Ordinal},
};

/// What answers once this volume is a running member.
#[derive(Debug, Clone)]
pub struct Running {
    pub raft: Raft,
    pub node: Node,
    pub steward: Arc<Steward<Node>>,
}

/// The peer service of one member, from before it is one.
#[derive(Debug, Clone)]
pub struct PeerService {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    formation: Arc<Formation>,
    running: OnceLock<Running>,
    boots: Boots,
    door: Door,
    addresses: PeerAddresses,
    lanes: Lanes,
    stopping: Stopping,
    metrics: Arc<PeerMetrics>,
}

impl PeerService {
    /// Streams of other members, which never end by themselves, end with `stopping`.
    pub fn new(
        formation: Arc<Formation>,
        addresses: PeerAddresses,
        lanes: Lanes,
        metrics: Arc<PeerMetrics>,
        stopping: Stopping,
    ) -> PeerService {
        let (running, boots, door) = (OnceLock::new(), Boots::default(), Door::default());
        let inner = Inner { formation, running, boots, door, addresses, lanes, stopping, metrics };
        PeerService { inner: Arc::new(inner) }
    }

    /// From now on Raft's messages are handled. Once.
    pub fn run(&self, running: Running) {
        assert!(self.inner.running.set(running).is_ok(), "a process is one member only");
    }

    pub fn into_server(self) -> PeerServer<PeerService> {
        PeerServer::new(self)
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(REPLY_BYTES_MAX)
    }

    /// Who runs here, for a caller that may know.
    fn admit(&self, hello: Option<peer::Hello>) -> Result<&Running, Status> {
        let hello = hello.ok_or(Refused::NoHello)?;
        let Some(identity) = self.inner.formation.identity() else {
            return Err(Status::unavailable("this volume belongs to no cluster yet"));
        };
        Me::from(&identity).check(&hello)?;
        let Some(running) = self.inner.running.get() else {
            // Our cluster knows us: formation is over.
            self.inner.formation.note_contact();
            return Err(Status::unavailable("this member is starting"));
        };
        let told = running.raft.view().roster();
        let told = told.members.get(&MemberId(hello.from)).map_or(0, |said| said.boot);
        self.inner.boots.check(&hello, told)?;
        Ok(running)
    }
}

fn sender(hello: Option<&peer::Hello>) -> MemberId {
    MemberId(hello.map_or(0, |hello| hello.from))
}

/// An id that is not in the membership and not above the last one given out is dead: it may not ask
/// for anything. Raft's own messages are not checked so: a follower may have to hear of a new member
/// from that member itself.
fn check_alive(running: &Running, from: MemberId) -> Result<(), Refused> {
    let members = running.raft.members();
    if members.is_empty() || members.iter().any(|m| m.place.member == from) {
        return Ok(());
    }
    let newest = members.iter().map(|m| m.place.member).max().unwrap_or_default();
    let used = running.raft.view().roster().was_used(from);
    if from <= newest || used { Err(Refused::Dead(from)) } else { Ok(()) }
}

/// The messages of a stream until it breaks, or this member stops: what has arrived is answered yet.
fn readable<T: Message + 'static>(
    stream: Streaming<T>,
    traffic: Arc<PeerTraffic>,
    mut stopping: Stopping,
) -> impl Stream<Item = T> + Send + Unpin {
    Box::pin(
        stream
            .inspect(move |message| match message {
                Ok(message) => traffic.received(message),
                Err(_) => traffic.receive_failures.increment(),
            })
            .take_while(|message| std::future::ready(message.is_ok()))
            .filter_map(|message| std::future::ready(message.ok()))
            .take_until(async move { stopping.wait().await }),
    )
}

async fn first<T>(stream: &mut Streaming<T>) -> Result<T, Status> {
    stream.message().await?.ok_or_else(|| Refused::NoHello.into())
}

fn failed(e: &PeerError) -> Status {
    match e {
        PeerError::Unreadable(_) => Status::invalid_argument(e.to_string()),
        PeerError::Stopped(_) => Status::unavailable(e.to_string()),
        PeerError::Snapshot(_) => Status::aborted(e.to_string()),
    }
}

/// The stream counts as open for as long as there may be replies.
fn outgoing<T: Message + 'static>(
    stream: BoxStream<'static, Result<T, PeerError>>,
    traffic: Arc<PeerTraffic>,
) -> BoxStream<'static, Result<T, Status>> {
    let open = traffic.open();
    let reply = move |reply: Result<T, PeerError>| {
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
        let mut first = first(&mut stream).await?;
        let from = sender(first.hello.as_ref());
        let running = self.admit(first.hello.take())?;
        let traffic = self.inner.metrics.of(from);
        traffic.received(&first);
        let rest = readable(stream, traffic.clone(), self.inner.stopping.clone());
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
        let mut first = first(&mut stream).await?;
        let from = sender(first.hello.as_ref());
        let running = self.admit(first.hello.take())?;
        let traffic = self.inner.metrics.of(from);
        traffic.received(&first);
        let rest = readable(stream, traffic.clone(), self.inner.stopping.clone());
        Ok(Response::new(outgoing(running.raft.handle_snapshot(first, rest), traffic)))
    }

    async fn forward(
        &self,
        request: Request<Streaming<peer::ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let mut stream = request.into_inner();
        let first = first(&mut stream).await?;
        let from = sender(first.hello.as_ref());
        let running = self.admit(first.hello)?;
        check_alive(running, from)?;
        let traffic = self.inner.metrics.of(from);
        let requests = readable(stream, traffic.clone(), self.inner.stopping.clone());
        let replies = running.node.handle_forward(requests).map(Ok).boxed();
        Ok(Response::new(outgoing(replies, traffic)))
    }

    async fn promise(
        &self,
        request: Request<peer::PromiseRequest>,
    ) -> Result<Response<peer::PromiseReply>, Status> {
        let formation = self.inner.formation.clone();
        let request = request.into_inner();
        let kept = self.inner.lanes.run("promise", move || formation.handle_promise(request)).await;
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
        let identity = self.inner.formation.identity();
        let (Some(running), Some(identity)) = (self.inner.running.get(), &identity) else {
            let not_formed = peer::NotFormed {
                pristine: self.inner.formation.is_pristine(),
                // It will answer as a member soon.
                starting: identity.is_some_and(|identity| identity.stage == Stage::Member),
            };
            let result = peer::join_reply::Result::NotFormed(not_formed);
            return Ok(Response::new(peer::JoinReply { result: Some(result) }));
        };
        let request = request.into_inner();
        let house = House {
            cluster: identity.cluster,
            home: &identity.home,
            dialable: self.inner.addresses.of(Ordinal(request.ordinal)).is_some(),
        };
        let door = &self.inner.door;
        let reply = door.handle_join(request, house, &running.raft, &running.node).await;
        Ok(Response::new(reply))
    }

    async fn standing(
        &self,
        request: Request<peer::StandingRequest>,
    ) -> Result<Response<peer::StandingReply>, Status> {
        let identity = self.inner.formation.identity();
        let (Some(running), Some(identity)) = (self.inner.running.get(), identity) else {
            return Err(Status::unavailable("this member is starting"));
        };
        let door = &self.inner.door;
        let reply = door.handle_standing(request.into_inner(), identity.cluster, &running.raft);
        Ok(Response::new(reply.await))
    }

    async fn may_stop(
        &self,
        request: Request<peer::MayStopRequest>,
    ) -> Result<Response<peer::MayStopReply>, Status> {
        use peer::may_stop_reply::Result as Reply;
        let hello = request.into_inner().hello;
        let (from, boot) = (sender(hello.as_ref()), hello.as_ref().map_or(0, |hello| hello.boot));
        let running = self.admit(hello)?;
        let result = match running.steward.may_stop(from, boot) {
            MayStop::Yes => Reply::Granted(peer::Granted {}),
            MayStop::NotLeader => Reply::NotLeader(peer::NotLeader { leader: 0 }),
            MayStop::Wait(why) => Reply::Wait(why),
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
        check_alive(running, from)?;
        let change = change.ok_or_else(|| Status::invalid_argument("no change is named"))?;
        Ok(Response::new(running.steward.handle_change(change).await))
    }
}
