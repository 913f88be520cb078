//! openraft's network over the [`Transport`] port: one RPC client per peer.
//!
//! Replication is one long stream to each peer, pipelined. Heartbeats and snapshots have streams of
//! their own.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::{
    Stream, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use openraft::{
    OptionalSend,
    errors::{ReplicationClosed, StreamingError, Timeout},
    network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
    type_config::alias::SnapshotOf,
};
use tokio::time::Instant;

use super::{
    convert::{
        RaftVote, append_reply_from_wire, entry_to_wire, log_id_from_wire, log_id_to_wire,
        stored_membership_to_wire, vote_from_wire, vote_to_wire,
    },
    heartbeat::HeartbeatClient,
    metrics::{ConsensusMetrics, PeerMetrics},
    quorum_contact::QuorumContact,
    rpc_error::{Rpc, broken_snapshot, invalid, rpc_error},
    snapshot_sender::send_snapshot,
    state_machine::SnapshotData,
    transport::{Transport, TransportError},
    type_config::Types,
};
use crate::{
    proto::peer,
    types::{MemberId, MemberRef, Ordinal, Term},
};

/// Heartbeat intervals that a peer has for its reply to a vote request or a leadership transfer,
/// which cost it an fsync.
const VOTE_TIMEOUT_HEARTBEATS: u32 = 4;

/// Makes a client for each peer.
#[derive(Debug, Clone)]
pub struct RpcClientFactory<T> {
    pub transport: T,
    pub quorum: QuorumContact,
    pub metrics: Arc<ConsensusMetrics>,
    pub me: MemberId,
    pub heartbeat: Duration,
}

impl<T: Transport> RaftNetworkFactory<Types> for RpcClientFactory<T> {
    type Network = RpcClient<T>;

    async fn new_client(&mut self, target: MemberId, node: &Ordinal) -> RpcClient<T> {
        let to = MemberRef { member: target, ordinal: *node };
        let counts = self.metrics.peers.of(target);
        RpcClient { factory: self.clone(), to, counts, heartbeats: None }
    }

    async fn new_heartbeat_client(&mut self, target: MemberId, node: &Ordinal) -> RpcClient<T> {
        let client = self.new_client(target, node).await;
        let (transport, metrics) = (self.transport.clone(), self.metrics.clone());
        let heartbeats = HeartbeatClient::new(transport, client.to, self.heartbeat, metrics);
        RpcClient { heartbeats: Some(heartbeats), ..client }
    }
}

/// Sends RPCs to one peer.
pub struct RpcClient<T> {
    factory: RpcClientFactory<T>,
    to: MemberRef,
    counts: Arc<PeerMetrics>,
    /// Only in clients that openraft makes for heartbeats.
    heartbeats: Option<HeartbeatClient<T>>,
}

impl<T: Transport> RpcClient<T> {
    fn failed(&self, e: TransportError) -> Rpc {
        self.counts.send_failures.increment();
        rpc_error(e)
    }

    fn vote_timeout(&self) -> Duration {
        self.factory.heartbeat * VOTE_TIMEOUT_HEARTBEATS
    }

    fn timed_out(&self, action: RPCTypes, timeout: Duration) -> Rpc {
        Rpc::Timeout(Timeout { action, id: self.factory.me, target: self.to.member, timeout })
    }

    async fn request_vote(
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
        let reply = self.factory.transport.vote(self.to, request, self.vote_timeout()).await;
        let reply = reply.map_err(|e| self.failed(e))?;
        Ok(VoteResponse {
            vote: vote_from_wire(reply.vote).map_err(invalid)?,
            vote_granted: reply.granted,
            last_log_id: log_id_from_wire(reply.last),
        })
    }
}

fn append_request(
    quorum: &QuorumContact,
    heartbeats: bool,
    rpc: AppendEntriesRequest<Types>,
) -> peer::AppendRequest {
    let age = quorum.age_as_leader(Term(rpc.vote.leader_id.term));
    peer::AppendRequest {
        hello: None,
        vote: Some(vote_to_wire(&rpc.vote)),
        previous: log_id_to_wire(rpc.prev_log_id),
        entries: rpc.entries.into_iter().map(entry_to_wire).collect(),
        committed: log_id_to_wire(rpc.leader_commit),
        quorum_age_ms: Some(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        heartbeats,
    }
}

impl<T: Transport> RaftNetworkV2<Types> for RpcClient<T> {
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
            Err(_) => Err(self.timed_out(RPCTypes::AppendEntries, limit)),
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
            if let Some(heartbeats) = &mut self.heartbeats {
                let Some(rpc) = input.next().await else { return Ok(stream::empty().boxed()) };
                let request = append_request(&self.factory.quorum, true, rpc);
                let result = heartbeats.heartbeat(request).await;
                return Ok(stream::once(std::future::ready(result)).boxed());
            }
            let quorum = self.factory.quorum.clone();
            let requests = input.map(move |rpc| append_request(&quorum, false, rpc)).boxed();
            let replies = self.factory.transport.append(self.to, false, requests).await;
            let replies = replies.map_err(|e| self.failed(e))?;
            let this = &*self;
            let reply = move |reply: Result<_, _>| {
                let reply = reply.map_err(|e| this.failed(e))?;
                append_reply_from_wire(reply).map_err(invalid)
            };
            Ok(replies.map(reply).boxed())
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, Rpc> {
        self.request_vote(rpc, false).await
    }

    /// Overrides openraft's default, which grants without asking: an unreachable peer must not count as
    /// a vote.
    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, Rpc> {
        self.request_vote(rpc, true).await
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
        let limit = option.hard_ttl().max(self.vote_timeout());
        let reply = self.factory.transport.transfer_leader(self.to, request, limit).await;
        let reply = reply.map_err(|e| self.failed(e))?;
        match reply.accepted {
            true => Ok(Ok(())),
            // openraft retries for any reason.
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
            return Err(broken_snapshot(self.to, "a received snapshot cannot be sent"));
        };
        let offer = peer::SnapshotOffer {
            position: log_id_to_wire(snapshot.meta.last_log_id),
            membership: Some(stored_membership_to_wire(&snapshot.meta.last_membership)),
            files: local.files(),
        };
        tracing::info!(
            to = %self.to.member, index = local.position().index,
            files = offer.files.len(), "sending snapshot"
        );
        let acknowledged = &self.counts.sent.acknowledged_bytes;
        let transport = &self.factory.transport;
        let send = send_snapshot(transport, self.to, vote, offer, local, acknowledged);
        let begun = Instant::now();
        let _sending = self.counts.sent.under_way.track();
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = send => {
                self.counts.sent.record(sent.is_ok(), begun.elapsed());
                if sent.is_err() {
                    self.counts.send_failures.increment();
                }
                sent
            }
        }
    }
}
