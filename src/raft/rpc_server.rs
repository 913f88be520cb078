//! Serves the RPCs of other members: append, vote, leadership transfer, snapshot.

use futures_util::{Stream, StreamExt, stream, stream::BoxStream};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    convert::{
        InvalidMessage, append_reply_to_wire, append_request_from_wire, log_id_from_wire,
        log_id_to_wire, vote_from_wire, vote_to_wire,
    },
    error::RpcError,
    handle::Raft,
    snapshot_receiver::{REPLY_WINDOW, receive_snapshot},
    type_config::Types,
};
use crate::{proto::peer, types::MemberId};

impl Raft {
    /// Serves one stream of the leader, of replication or of heartbeats. `first` is its first message,
    /// which the caller has read for its hello.
    pub fn handle_append<S>(
        &self,
        first: peer::AppendRequest,
        rest: S,
    ) -> BoxStream<'static, Result<peer::AppendReply, RpcError>>
    where
        S: Stream<Item = peer::AppendRequest> + Send + 'static,
    {
        let heartbeats = first.heartbeats;
        let quorum = self.quorum.clone();
        let requests = stream::once(std::future::ready(first)).chain(rest).map(move |wire| {
            if let Some(vote) = wire.vote {
                let committed = wire.committed.map(|at| at.index);
                quorum.record_message(vote.into(), wire.quorum_age_ms, committed);
            }
            append_request_from_wire(wire)
        });
        if heartbeats { self.answer_each(requests) } else { self.answer_pipelined(requests) }
    }

    /// Answers heartbeats one by one, so that a conflict in one of them does not end the stream.
    fn answer_each<S>(&self, requests: S) -> BoxStream<'static, Result<peer::AppendReply, RpcError>>
    where
        S: Stream<Item = Result<AppendEntriesRequest<Types>, InvalidMessage>> + Send + 'static,
    {
        let raft = self.raft.clone();
        let answer = move |request: Result<AppendEntriesRequest<Types>, InvalidMessage>| {
            let raft = raft.clone();
            async move {
                let request = request?;
                let previous = request.prev_log_id;
                let last = request.entries.last().map(|e| e.log_id).or(previous);
                let reply = raft.append_entries(request).await;
                let reply = reply.map_err(|e| RpcError::Stopped(e.to_string()))?;
                // openraft reads a conflict's position from the request, which has none here.
                if previous.is_none() && matches!(reply, AppendEntriesResponse::Conflict) {
                    return Err(RpcError::InvalidMessage(InvalidMessage("conflict")));
                }
                Ok(append_reply_to_wire(reply.into_stream_result(previous, last)))
            }
        };
        requests.then(answer).boxed()
    }

    fn answer_pipelined<S>(
        &self,
        requests: S,
    ) -> BoxStream<'static, Result<peer::AppendReply, RpcError>>
    where
        S: Stream<Item = Result<AppendEntriesRequest<Types>, InvalidMessage>> + Send + 'static,
    {
        // An invalid message ends the stream. The leader notices and opens another.
        let readable = requests
            .take_while(|request| {
                if let Err(e) = request {
                    tracing::warn!(error = %e, "replication stream closed: invalid message");
                }
                std::future::ready(request.is_ok())
            })
            .filter_map(|request| std::future::ready(request.ok()));
        self.raft
            .stream_append(readable)
            .map(|result| {
                result.map(append_reply_to_wire).map_err(|e| RpcError::Stopped(e.to_string()))
            })
            .boxed()
    }

    pub async fn handle_vote(&self, wire: peer::VoteRequest) -> Result<peer::VoteReply, RpcError> {
        let mut request = VoteRequest::new(vote_from_wire(wire.vote)?, log_id_from_wire(wire.last));
        request.leadership_transfer = wire.leadership_transfer;
        let reply = match wire.pre_vote {
            true => self.raft.pre_vote(request).await,
            false => self.raft.vote(request).await,
        };
        let reply = reply.map_err(|e| RpcError::Stopped(e.to_string()))?;
        Ok(peer::VoteReply {
            vote: Some(vote_to_wire(&reply.vote)),
            granted: reply.vote_granted,
            last: log_id_to_wire(reply.last_log_id),
        })
    }

    pub async fn handle_transfer_leader(
        &self,
        wire: peer::TransferLeaderRequest,
    ) -> Result<peer::TransferLeaderReply, RpcError> {
        let request = TransferLeaderRequest::new(
            vote_from_wire(wire.from_leader)?,
            MemberId(wire.to),
            log_id_from_wire(wire.last),
        );
        let reply = self.raft.handle_transfer_leader(request).await;
        let reply = reply.map_err(|e| RpcError::Stopped(e.to_string()))?;
        Ok(peer::TransferLeaderReply {
            accepted: reply.is_ok(),
            why_not: reply.err().map(|e| e.to_string()).unwrap_or_default(),
        })
    }

    /// Receives a snapshot and installs it. The transfer ends with the returned stream.
    pub fn handle_snapshot<S>(
        &self,
        first: peer::SnapshotChunk,
        rest: S,
    ) -> BoxStream<'static, Result<peer::SnapshotReply, RpcError>>
    where
        S: Stream<Item = peer::SnapshotChunk> + Send + Unpin + 'static,
    {
        let (replies, rx) = mpsc::channel(REPLY_WINDOW);
        let (raft, store) = (self.raft.clone(), self.store.clone());
        let sender = first.vote.map(|vote| MemberId(vote.voted_for)).unwrap_or_default();
        let counts = self.metrics.peers.of(sender);
        let receive = async move {
            let begun = Instant::now();
            let _receiving = counts.received.under_way.track();
            let received = receive_snapshot(raft, store, first, rest, &replies).await;
            counts.received.record(received.is_ok(), begun.elapsed());
            if let Err(e) = received {
                tracing::warn!(error = %e, "receiving snapshot failed");
                // The sender may be gone.
                let _ = replies.send(Err(e)).await;
            }
        };
        // Polled by the reader of the replies, so that the transfer ends with its stream.
        let driver = stream::once(receive).filter_map(|()| std::future::ready(None));
        stream::select(ReceiverStream::new(rx), driver).boxed()
    }
}
