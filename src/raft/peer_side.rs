//! The receiving side: what other members' messages do to this one.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt, stream, stream::BoxStream};
use openraft::{
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult,
        TransferLeaderRequest, VoteRequest,
    },
    type_config::alias::{SnapshotMetaOf, SnapshotOf},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    Types,
    convert::{
        RaftVote, Unreadable, entry_from_wire, log_id_from_wire, log_id_to_wire,
        stored_membership_from_wire, vote_from_wire, vote_to_wire,
    },
    handle::Raft,
    machine::SnapshotData,
    store::SnapshotStore,
};
use crate::{
    proto::peer::{self, append_reply, snapshot_reply},
    types::MemberId,
};

/// Why a message of a peer was not handled.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PeerError {
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("raft has stopped: {0}")]
    Stopped(String),
    #[error("snapshot: {0}")]
    Snapshot(String),
}

/// A progress reply after so many bytes of a snapshot.
const PROGRESS_BYTES: u64 = 4 << 20;
/// A sign of life, well within the sender's patience.
const STILL_HERE: Duration = Duration::from_secs(5);
/// Replies on their way to a sender.
const REPLY_WINDOW: usize = 8;

/// Refuses what no leader sends: the log below takes it for an error of ours, and ends the process.
fn append_from_wire(wire: peer::AppendRequest) -> Result<AppendEntriesRequest<Types>, Unreadable> {
    let vote = leader_from_wire(wire.vote)?;
    let mut last = wire.previous;
    for entry in &wire.entries {
        let next = last.map_or(Some(0), |last| last.index.checked_add(1));
        let terms = last.map_or(0, |last| last.term)..=vote.leader_id.term;
        if next != Some(entry.index) || !terms.contains(&entry.term) {
            return Err(Unreadable("order of entries"));
        }
        last = Some(peer::LogPosition { term: entry.term, index: entry.index });
    }
    Ok(AppendEntriesRequest {
        vote,
        prev_log_id: log_id_from_wire(wire.previous),
        entries: wire.entries.into_iter().map(entry_from_wire).collect::<Result<_, _>>()?,
        leader_commit: log_id_from_wire(wire.committed),
    })
}

/// The vote of somebody who was elected.
fn leader_from_wire(wire: Option<peer::Vote>) -> Result<RaftVote, Unreadable> {
    let vote = vote_from_wire(wire)?;
    if vote.committed { Ok(vote) } else { Err(Unreadable("vote of a leader")) }
}

fn append_to_wire(result: StreamAppendResult<Types>) -> peer::AppendReply {
    let result = match result {
        Ok(at) => append_reply::Result::Matched(peer::Matched { position: log_id_to_wire(at) }),
        Err(StreamAppendError::Conflict(at)) => append_reply::Result::Conflict(peer::LogPosition {
            term: at.leader_id.term,
            index: at.index,
        }),
        Err(StreamAppendError::HigherVote(vote)) => {
            append_reply::Result::HigherVote(vote_to_wire(&vote))
        }
    };
    peer::AppendReply { result: Some(result) }
}

impl Raft {
    /// A replication stream of the leader's, or one of heartbeats. `first` is its first message,
    /// which the caller has read for its hello.
    pub fn handle_append<S>(
        &self,
        first: peer::AppendRequest,
        rest: S,
    ) -> BoxStream<'static, Result<peer::AppendReply, PeerError>>
    where
        S: Stream<Item = peer::AppendRequest> + Send + 'static,
    {
        let heartbeats = first.heartbeats;
        let clock = self.clock.clone();
        let requests = stream::once(std::future::ready(first)).chain(rest).map(move |wire| {
            clock.note_told(wire.quorum_age_ms, wire.committed.map(|at| at.index));
            append_from_wire(wire)
        });
        if heartbeats { self.answer_each(requests) } else { self.answer_pipelined(requests) }
    }

    /// Heartbeats are answered one by one: a conflict in one of them does not end the stream.
    fn answer_each<S>(
        &self,
        requests: S,
    ) -> BoxStream<'static, Result<peer::AppendReply, PeerError>>
    where
        S: Stream<Item = Result<AppendEntriesRequest<Types>, Unreadable>> + Send + 'static,
    {
        let raft = self.raft.clone();
        let answer = move |request: Result<AppendEntriesRequest<Types>, Unreadable>| {
            let raft = raft.clone();
            async move {
                let request = request?;
                let previous = request.prev_log_id;
                let last = request.entries.last().map(|e| e.log_id).or(previous);
                let reply = raft.append_entries(request).await;
                let reply = reply.map_err(|e| PeerError::Stopped(e.to_string()))?;
                // openraft takes a conflict's place from the request; without one there is none.
                if previous.is_none() && matches!(reply, AppendEntriesResponse::Conflict) {
                    return Err(PeerError::Unreadable(Unreadable("conflict")));
                }
                Ok(append_to_wire(reply.into_stream_result(previous, last)))
            }
        };
        requests.then(answer).boxed()
    }

    fn answer_pipelined<S>(
        &self,
        requests: S,
    ) -> BoxStream<'static, Result<peer::AppendReply, PeerError>>
    where
        S: Stream<Item = Result<AppendEntriesRequest<Types>, Unreadable>> + Send + 'static,
    {
        // An unreadable message ends the stream: the leader sees it end and opens another.
        let readable = requests
            .take_while(|request| {
                if let Err(e) = request {
                    tracing::warn!(error = %e, "a replication stream ends");
                }
                std::future::ready(request.is_ok())
            })
            .filter_map(|request| std::future::ready(request.ok()));
        self.raft
            .stream_append(readable)
            .map(|result| result.map(append_to_wire).map_err(|e| PeerError::Stopped(e.to_string())))
            .boxed()
    }

    pub async fn handle_vote(&self, wire: peer::VoteRequest) -> Result<peer::VoteReply, PeerError> {
        let mut request = VoteRequest::new(vote_from_wire(wire.vote)?, log_id_from_wire(wire.last));
        request.leadership_transfer = wire.leadership_transfer;
        let reply = match wire.pre_vote {
            true => self.raft.pre_vote(request).await,
            false => self.raft.vote(request).await,
        };
        let reply = reply.map_err(|e| PeerError::Stopped(e.to_string()))?;
        Ok(peer::VoteReply {
            vote: Some(vote_to_wire(&reply.vote)),
            granted: reply.vote_granted,
            last: log_id_to_wire(reply.last_log_id),
        })
    }

    pub async fn handle_transfer_leader(
        &self,
        wire: peer::TransferLeaderRequest,
    ) -> Result<peer::TransferLeaderReply, PeerError> {
        let request = TransferLeaderRequest::new(
            vote_from_wire(wire.from_leader)?,
            MemberId(wire.to),
            log_id_from_wire(wire.last),
        );
        let reply = self.raft.handle_transfer_leader(request).await;
        let reply = reply.map_err(|e| PeerError::Stopped(e.to_string()))?;
        Ok(peer::TransferLeaderReply {
            accepted: reply.is_ok(),
            why_not: reply.err().map(|e| e.to_string()).unwrap_or_default(),
        })
    }

    /// Receives a snapshot and installs it. The task ends with its stream.
    pub fn handle_snapshot<S>(
        &self,
        first: peer::SnapshotChunk,
        rest: S,
    ) -> BoxStream<'static, Result<peer::SnapshotReply, PeerError>>
    where
        S: Stream<Item = peer::SnapshotChunk> + Send + Unpin + 'static,
    {
        let (replies, rx) = mpsc::channel(REPLY_WINDOW);
        let (raft, store) = (self.raft.clone(), self.store.clone());
        let sender = first.vote.map(|vote| MemberId(vote.voted_for)).unwrap_or_default();
        let counts = self.metrics.peers.of(sender);
        let receive = async move {
            let begun = Instant::now();
            let _receiving = counts.received.under_way.raise();
            let received = receive_snapshot(raft, store, first, rest, &replies).await;
            counts.received.ended(received.is_ok(), begun.elapsed());
            if let Err(e) = received {
                tracing::warn!(error = %e, "a snapshot was not received");
                // The sender may be gone; then it knows.
                let _ = replies.send(Err(e)).await;
            }
        };
        // Driven by whoever reads the replies, so that it ends with its stream.
        let driver = stream::once(receive).filter_map(|()| std::future::ready(None));
        stream::select(ReceiverStream::new(rx), driver).boxed()
    }
}

type Openraft = openraft::Raft<Types, super::machine::Machine>;

async fn receive_snapshot<S>(
    raft: Openraft,
    store: Arc<dyn SnapshotStore>,
    first: peer::SnapshotChunk,
    mut rest: S,
    replies: &mpsc::Sender<Result<peer::SnapshotReply, PeerError>>,
) -> Result<(), PeerError>
where
    S: Stream<Item = peer::SnapshotChunk> + Send + Unpin,
{
    let failed = |e: &dyn std::fmt::Display| PeerError::Snapshot(e.to_string());
    let vote = leader_from_wire(first.vote)?;
    let offer = first.offer.ok_or(Unreadable("snapshot offer"))?;
    let meta = SnapshotMetaOf::<Types> {
        last_log_id: log_id_from_wire(offer.position),
        last_membership: stored_membership_from_wire(offer.membership.unwrap_or_default())?,
    };
    let lengths: Vec<u64> = offer.files.iter().map(|f| f.bytes).collect();
    let receive = store.receive(offer.files);
    let mut incoming = while_telling(receive, replies, 0).await.map_err(|e| failed(&e))?;
    let want = incoming.want();
    let mut missing = lengths
        .iter()
        .zip(&want)
        .try_fold(0u64, |sum, (len, from)| sum.checked_add(len - from.min(len)))
        .ok_or(Unreadable("snapshot offer"))?;
    let reply = |result| Ok(peer::SnapshotReply { result: Some(result) });
    let gone = |_| PeerError::Snapshot("the sender went away".into());
    let wanted = snapshot_reply::Result::Want(peer::SnapshotWant { from: want });
    replies.send(reply(wanted)).await.map_err(gone)?;
    let (mut received, mut told) = (0u64, 0u64);
    while missing > 0 {
        let chunk = rest.next().await.ok_or_else(|| failed(&"the sender went away"))?;
        let bytes = chunk.data.len() as u64;
        incoming
            .write(chunk.file as usize, chunk.offset, chunk.data)
            .await
            .map_err(|e| failed(&e))?;
        missing = missing.checked_sub(bytes).ok_or(Unreadable("snapshot chunk"))?;
        received += bytes;
        if received - told >= PROGRESS_BYTES {
            told = received;
            replies.send(reply(snapshot_reply::Result::Received(received))).await.map_err(gone)?;
        }
    }
    while_telling(incoming.finish(), replies, received).await.map_err(|e| failed(&e))?;
    tracing::info!(bytes = received, "a snapshot was received");
    let snapshot =
        SnapshotOf::<Types, SnapshotData> { meta, snapshot: SnapshotData::Received(incoming) };
    let done = while_telling(raft.install_full_snapshot(vote, snapshot), replies, received).await;
    let done = done.map_err(|e| PeerError::Stopped(e.to_string()))?;
    replies.send(reply(snapshot_reply::Result::Done(vote_to_wire(&done.vote)))).await.map_err(gone)
}

/// Waits for something that reads or writes whole files, and tells the sender that we live.
async fn while_telling<T>(
    work: impl Future<Output = T>,
    replies: &mpsc::Sender<Result<peer::SnapshotReply, PeerError>>,
    received: u64,
) -> T {
    let mut work = std::pin::pin!(work);
    let mut beat = tokio::time::interval(STILL_HERE);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = beat.tick() => {
                let result = Some(snapshot_reply::Result::Received(received));
                // Full: then the sender has something to read anyway.
                let _ = replies.try_send(Ok(peer::SnapshotReply { result }));
            }
        }
    }
}
