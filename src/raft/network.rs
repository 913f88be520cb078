//! The sending side: openraft's network over the [`Transport`] port.
//!
//! Replication is one long stream to each peer, pipelined. Heartbeats have a stream of their own,
//! so that a large batch or a snapshot never delays the proof that the leader lives.

use std::{
    collections::VecDeque,
    future::Future,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream};
use openraft::{
    Instant as _, OptionalSend,
    async_runtime::watch::WatchReceiver as _,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
        StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
        VoteResponse,
    },
    type_config::alias::{SnapshotOf, WatchReceiverOf},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    Types,
    convert::{
        RaftVote, Unreadable, entry_to_wire, log_id_from_wire, log_id_to_wire,
        stored_membership_to_wire, vote_from_wire, vote_to_wire,
    },
    machine::SnapshotData,
    metrics::{ConsensusMetrics, PeerCounts},
    store::Snapshot,
    transport::{Transport, TransportError},
};
use crate::{
    proto::peer::{self, append_reply, snapshot_reply},
    types::{MemberId, Ordinal, PeerPlace},
};

type BoxFuture<'a, T> = futures_util::future::BoxFuture<'a, T>;
type BoxStream<'a, T> = futures_util::stream::BoxStream<'a, T>;

/// One message of a snapshot.
const CHUNK_BYTES: usize = 256 << 10;
/// A snapshot transfer that made no progress for so long is given up, and begun anew.
const SNAPSHOT_STALL: Duration = Duration::from_secs(30);
/// A heartbeat so many intervals after the one before is late: this member was busy, since the peer
/// has answered that one (etcd's measure).
const HEARTBEATS_LATE: u32 = 2;
/// Chunks under way at once.
const SNAPSHOT_WINDOW: usize = 8;

/// When a quorum was last heard from: by us if we lead, else as the leader's messages say. And how
/// far the log is committed, as they say.
#[derive(Clone, Default)]
pub(super) struct QuorumClock {
    told: Arc<Mutex<Option<Instant>>>,
    committed: Arc<AtomicU64>,
    own: Arc<OnceLock<WatchReceiverOf<Types, openraft::RaftMetrics<Types>>>>,
}

impl std::fmt::Debug for QuorumClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("QuorumClock").field(&self.age()).finish()
    }
}

impl QuorumClock {
    /// As the leader: from Raft's own metrics, once Raft runs.
    pub(super) fn follow(&self, metrics: WatchReceiverOf<Types, openraft::RaftMetrics<Types>>) {
        // Set once, by whoever starts Raft.
        let _ = self.own.set(metrics);
    }

    /// The index up to which a leader has said that the log is committed.
    pub(super) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    pub(super) fn note_told(&self, age: Option<u64>, committed: Option<u64>) {
        self.committed.fetch_max(committed.unwrap_or(0), Ordering::Relaxed);
        let Some(age) = age else { return };
        let at = Instant::now().checked_sub(Duration::from_millis(age));
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        *told = at.max(*told);
    }

    pub(super) fn age(&self) -> Option<Duration> {
        let own = self.own.get().and_then(|m| {
            let m = m.borrow_watched();
            // Alone, nobody else is heard from, and nobody else is needed.
            let alone = m.membership_config.membership().voter_ids().all(|id| id == m.id);
            let age = || m.last_quorum_acked.map(|at| at.elapsed());
            m.state.is_leader().then(|| if alone { Some(Duration::ZERO) } else { age() })
        });
        match own {
            Some(age) => age,
            None => {
                let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                told.map(|at| at.elapsed())
            }
        }
    }
}

/// Makes a client for each peer.
#[derive(Debug, Clone)]
pub(super) struct Network<T> {
    pub(super) transport: T,
    pub(super) clock: QuorumClock,
    pub(super) metrics: Arc<ConsensusMetrics>,
    pub(super) me: MemberId,
    pub(super) heartbeat: Duration,
}

impl<T: Transport> RaftNetworkFactory<Types> for Network<T> {
    type Network = Peer<T>;

    async fn new_client(&mut self, target: MemberId, node: &Ordinal) -> Peer<T> {
        let to = PeerPlace { member: target, ordinal: *node };
        let counts = self.metrics.peers.of(target);
        let (heartbeats, last_heartbeat) = (None, Heartbeat::None);
        Peer { net: self.clone(), to, counts, on_heartbeats: false, heartbeats, last_heartbeat }
    }

    async fn new_heartbeat_client(&mut self, target: MemberId, node: &Ordinal) -> Peer<T> {
        Peer { on_heartbeats: true, ..self.new_client(target, node).await }
    }
}

/// The way to one peer.
pub(super) struct Peer<T> {
    net: Network<T>,
    to: PeerPlace,
    counts: Arc<PeerCounts>,
    on_heartbeats: bool,
    /// Kept open from heartbeat to heartbeat.
    heartbeats: Option<HeartbeatStream>,
    last_heartbeat: Heartbeat,
}

/// What became of the last heartbeat.
enum Heartbeat {
    /// There was none, or it failed.
    None,
    /// Still so when the next one is sent: nobody waited for its answer any longer.
    UnderWay,
    /// Sent at this moment.
    Answered(Instant),
}

struct HeartbeatStream {
    requests: mpsc::Sender<peer::AppendRequest>,
    /// In a mutex that is never locked: openraft wants the whole to be `Sync`.
    replies: Mutex<BoxStream<'static, Result<peer::AppendReply, TransportError>>>,
}

type Rpc = RPCError<Types>;

fn rpc_error(e: TransportError) -> Rpc {
    match e {
        TransportError::Unreachable(..) => Rpc::Unreachable(Unreachable::new(&e)),
        TransportError::Broken(..) => Rpc::Network(NetworkError::new(&e)),
    }
}

fn unreadable(e: Unreadable) -> Rpc {
    Rpc::Network(NetworkError::new(&e))
}

fn append_result(reply: peer::AppendReply) -> Result<StreamAppendResult<Types>, Rpc> {
    match reply.result.ok_or_else(|| unreadable(Unreadable("append reply")))? {
        append_reply::Result::Matched(m) => Ok(Ok(log_id_from_wire(m.position))),
        append_reply::Result::Conflict(at) => match log_id_from_wire(Some(at)) {
            Some(at) => Ok(Err(StreamAppendError::Conflict(at))),
            None => Err(unreadable(Unreadable("conflict"))),
        },
        append_reply::Result::HigherVote(vote) => {
            let vote = vote_from_wire(Some(vote)).map_err(unreadable)?;
            Ok(Err(StreamAppendError::HigherVote(vote)))
        }
    }
}

impl<T: Transport> Peer<T> {
    fn request(&self, rpc: AppendEntriesRequest<Types>) -> peer::AppendRequest {
        append_request(&self.net.clock, self.on_heartbeats, rpc)
    }

    fn failed(&self, e: TransportError) -> Rpc {
        self.counts.send_failures.increment();
        rpc_error(e)
    }

    /// Sends a heartbeat and notes what became of it.
    async fn heartbeat(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
    ) -> Result<StreamAppendResult<Types>, Rpc> {
        let begun = Instant::now();
        match std::mem::replace(&mut self.last_heartbeat, Heartbeat::UnderWay) {
            Heartbeat::Answered(last) if begun - last > self.net.heartbeat * HEARTBEATS_LATE => {
                self.net.metrics.late_heartbeats.increment();
            }
            Heartbeat::UnderWay => self.counts.send_failures.increment(),
            Heartbeat::Answered(_) | Heartbeat::None => {}
        }
        let result = self.ask_for_life(rpc).await;
        self.last_heartbeat = match result {
            Ok(_) => {
                self.counts.round_trip.observe(begun.elapsed());
                Heartbeat::Answered(begun)
            }
            Err(_) => {
                self.counts.send_failures.increment();
                Heartbeat::None
            }
        };
        result
    }

    /// One request, one reply, on the stream that stays open; reopened when it broke.
    async fn ask_for_life(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
    ) -> Result<StreamAppendResult<Types>, Rpc> {
        let request = self.request(rpc);
        let broken = || rpc_error(TransportError::Broken(self.to.member, "stream ended".into()));
        // Taken out, and put back only after a good reply: a late answer to a heartbeat that was
        // given up must not be taken for the answer to the next.
        let mut open = match self.heartbeats.take() {
            Some(open) => {
                open.requests.send(request).await.map_err(|_| broken())?;
                open
            }
            None => self.open_heartbeats(request).await?,
        };
        let replies = open.replies.get_mut().unwrap_or_else(PoisonError::into_inner);
        let reply = replies.next().await.ok_or_else(broken)?.map_err(rpc_error)?;
        self.heartbeats = Some(open);
        append_result(reply)
    }

    /// The first request goes along: the other side answers the opening only once it has read it.
    async fn open_heartbeats(&self, first: peer::AppendRequest) -> Result<HeartbeatStream, Rpc> {
        let (requests, rest) = mpsc::channel(1);
        let sent = stream::once(std::future::ready(first)).chain(ReceiverStream::new(rest));
        let replies = self.net.transport.append(self.to, true, sent.boxed()).await;
        let replies = Mutex::new(replies.map_err(rpc_error)?);
        Ok(HeartbeatStream { requests, replies })
    }

    fn late(&self, action: RPCTypes, timeout: Duration) -> Rpc {
        Rpc::Timeout(Timeout { action, id: self.net.me, target: self.to.member, timeout })
    }

    async fn ask_vote(
        &self,
        rpc: VoteRequest<Types>,
        pre_vote: bool,
    ) -> Result<VoteResponse<Types>, Rpc> {
        let request = peer::VoteRequest {
            hello: None,
            vote: Some(vote_to_wire(&rpc.vote)),
            last: log_id_to_wire(rpc.last_log_id),
            leadership_transfer: rpc.leadership_transfer,
            pre_vote,
        };
        // A vote costs the peer an fsync: more than a heartbeat's patience.
        let limit = self.net.heartbeat * 4;
        let reply = self.net.transport.vote(self.to, request, limit).await;
        let reply = reply.map_err(|e| self.failed(e))?;
        Ok(VoteResponse {
            vote: vote_from_wire(reply.vote).map_err(unreadable)?,
            vote_granted: reply.granted,
            last_log_id: log_id_from_wire(reply.last),
        })
    }
}

fn append_request(
    clock: &QuorumClock,
    heartbeats: bool,
    rpc: AppendEntriesRequest<Types>,
) -> peer::AppendRequest {
    peer::AppendRequest {
        hello: None,
        vote: Some(vote_to_wire(&rpc.vote)),
        previous: log_id_to_wire(rpc.prev_log_id),
        entries: rpc.entries.into_iter().map(entry_to_wire).collect(),
        committed: log_id_to_wire(rpc.leader_commit),
        quorum_age_ms: clock.age().map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        heartbeats,
    }
}

impl<T: Transport> RaftNetworkV2<Types> for Peer<T> {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, Rpc> {
        let sent = stream::once(std::future::ready(rpc)).boxed();
        let limit = option.soft_ttl();
        let reply = async {
            let mut replies = self.stream_append(sent, option).await?;
            replies.next().await.transpose()
        };
        match tokio::time::timeout(limit, reply).await {
            Ok(Ok(Some(result))) => Ok(result.into()),
            Ok(Ok(None)) => {
                Err(rpc_error(TransportError::Broken(self.to.member, "no reply".into())))
            }
            Ok(Err(e)) => Err(e),
            Err(_) => Err(self.late(RPCTypes::AppendEntries, limit)),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, Rpc>>, Rpc>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            if self.on_heartbeats {
                let Some(rpc) = input.next().await else { return Ok(stream::empty().boxed()) };
                let result = self.heartbeat(rpc).await;
                return Ok(stream::once(std::future::ready(result)).boxed());
            }
            let clock = self.net.clock.clone();
            let requests = input.map(move |rpc| append_request(&clock, false, rpc)).boxed();
            let replies = self.net.transport.append(self.to, false, requests).await;
            let replies = replies.map_err(|e| self.failed(e))?;
            let this = &*self;
            let reply = move |reply: Result<_, _>| {
                reply.map_err(|e| this.failed(e)).and_then(append_result)
            };
            Ok(replies.map(reply).boxed())
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, Rpc> {
        self.ask_vote(rpc, false).await
    }

    /// The default grants: a peer that cannot be reached must not count as one that would vote.
    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, Rpc> {
        self.ask_vote(rpc, true).await
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, Rpc> {
        let request = peer::TransferLeaderRequest {
            hello: None,
            from_leader: Some(vote_to_wire(req.from_leader())),
            to: req.to_node_id().0,
            last: log_id_to_wire(req.last_log_id().copied()),
        };
        let limit = option.hard_ttl().max(self.net.heartbeat * 4);
        let reply = self.net.transport.transfer_leader(self.to, request, limit).await;
        let reply = reply.map_err(|e| self.failed(e))?;
        match reply.accepted {
            true => Ok(Ok(())),
            // The reasons differ only in words; openraft tries again either way.
            false => Err(rpc_error(TransportError::Broken(self.to.member, reply.why_not))),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: SnapshotOf<Types, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let SnapshotData::Local(local) = snapshot.snapshot else {
            return Err(broken_snapshot(self.to, "a received snapshot is not sent on"));
        };
        let offer = peer::SnapshotOffer {
            position: log_id_to_wire(snapshot.meta.last_log_id),
            membership: Some(stored_membership_to_wire(&snapshot.meta.last_membership)),
            files: local.files(),
        };
        tracing::info!(
            to = %self.to.member, index = position_index(local.as_ref()),
            files = offer.files.len(), "sending a snapshot"
        );
        let send = send_snapshot(&self.net.transport, self.to, vote, offer, local);
        let begun = Instant::now();
        let _sending = self.counts.sent.under_way.raise();
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = send => {
                self.counts.sent.ended(sent.is_ok(), begun.elapsed());
                if sent.is_err() {
                    self.counts.send_failures.increment();
                }
                sent
            }
        }
    }
}

fn position_index(snapshot: &dyn Snapshot) -> u64 {
    snapshot.position().index
}

fn broken_snapshot(to: PeerPlace, why: impl Into<String>) -> StreamingError<Types> {
    StreamingError::Network(NetworkError::new(&TransportError::Broken(to.member, why.into())))
}

/// Offers, learns what is wanted, sends that, and waits until it is installed.
async fn send_snapshot<T: Transport>(
    transport: &T,
    to: PeerPlace,
    vote: RaftVote,
    offer: peer::SnapshotOffer,
    local: Arc<dyn Snapshot>,
) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
    let files = offer.files.clone();
    let (chunks, rx) = mpsc::channel(SNAPSHOT_WINDOW);
    let first = peer::SnapshotChunk {
        vote: Some(vote_to_wire(&vote)),
        offer: Some(offer),
        ..Default::default()
    };
    let gone = || broken_snapshot(to, "stream ended");
    chunks.send(first).await.map_err(|_| gone())?;
    let mut replies = transport
        .snapshot(to, ReceiverStream::new(rx).boxed())
        .await
        .map_err(|e| StreamingError::from(rpc_error(e)))?;
    let mut todo = VecDeque::new();
    let mut chunks = Some(chunks);
    loop {
        // Whatever comes first: room for the next chunk, or a reply.
        let sending = async {
            match (&chunks, todo.front()) {
                (Some(tx), Some(_)) => tx.reserve().await.is_ok(),
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            ok = sending => {
                let (Some(tx), true) = (&chunks, ok) else { return Err(gone()) };
                let Some((file, offset, end)) = todo.pop_front() else { continue };
                let data = local.read(file, offset, CHUNK_BYTES).await
                    .map_err(|e| broken_snapshot(to, e.to_string()))?;
                let next = offset + data.len() as u64;
                let chunk = peer::SnapshotChunk {
                    file: u32::try_from(file).unwrap_or(u32::MAX), offset, data,
                    ..Default::default()
                };
                tx.send(chunk).await.map_err(|_| gone())?;
                if next < end { todo.push_front((file, next, end)); }
                if todo.is_empty() { chunks = None; }
            }
            reply = tokio::time::timeout(SNAPSHOT_STALL, replies.next()) => {
                let reply = reply.map_err(|_| broken_snapshot(to, "no progress"))?;
                let reply = reply.ok_or_else(gone)?;
                let reply = reply.map_err(|e| StreamingError::from(rpc_error(e)))?;
                match reply.result {
                    Some(snapshot_reply::Result::Want(want)) => {
                        for (i, (file, from)) in files.iter().zip(want.from).enumerate() {
                            if from < file.bytes { todo.push_back((i, from, file.bytes)); }
                        }
                        if todo.is_empty() { chunks = None; }
                    }
                    Some(snapshot_reply::Result::Received(_)) => {}
                    Some(snapshot_reply::Result::Done(vote)) => {
                        let vote = vote_from_wire(Some(vote))
                            .map_err(|e| broken_snapshot(to, e.to_string()))?;
                        return Ok(SnapshotResponse::new(vote));
                    }
                    None => return Err(broken_snapshot(to, "unreadable reply")),
                }
            }
        }
    }
}
