//! Heartbeats to one peer, on a stream of their own: neither a large batch of entries nor a snapshot
//! delays the proof that the leader is alive.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use openraft::raft::StreamAppendResult;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    convert::append_reply_from_wire,
    metrics::{ConsensusMetrics, PeerMetrics},
    rpc_error::{Rpc, invalid, rpc_error},
    transport::{ReplyStream, Transport, TransportError},
    type_config::Types,
};
use crate::{proto::peer, types::MemberRef};

/// Intervals after the previous heartbeat from which the next one counts as late (etcd's measure).
/// The peer has answered the previous one, so the delay is this member's own.
const LATE_INTERVALS: u32 = 2;

/// Sends heartbeats to one peer.
pub struct HeartbeatClient<T> {
    transport: T,
    to: MemberRef,
    interval: Duration,
    metrics: Arc<ConsensusMetrics>,
    counts: Arc<PeerMetrics>,
    stream: Option<HeartbeatStream>,
    last: LastHeartbeat,
}

/// Outcome of the last heartbeat.
enum LastHeartbeat {
    /// None was sent, or it failed.
    None,
    /// When the next one is sent, the caller has given up on this one.
    Pending,
    /// Sent at this time, and answered.
    Answered(Instant),
}

struct HeartbeatStream {
    requests: mpsc::Sender<peer::AppendRequest>,
    /// Never locked; openraft requires the client to be `Sync`.
    replies: Mutex<ReplyStream<peer::AppendReply>>,
}

impl<T: Transport> HeartbeatClient<T> {
    pub fn new(
        transport: T,
        to: MemberRef,
        interval: Duration,
        metrics: Arc<ConsensusMetrics>,
    ) -> HeartbeatClient<T> {
        let counts = metrics.peers.of(to.member);
        let (stream, last) = (None, LastHeartbeat::None);
        HeartbeatClient { transport, to, interval, metrics, counts, stream, last }
    }

    /// Sends a heartbeat, and counts its outcome.
    pub async fn heartbeat(
        &mut self,
        request: peer::AppendRequest,
    ) -> Result<StreamAppendResult<Types>, Rpc> {
        let begun = Instant::now();
        match std::mem::replace(&mut self.last, LastHeartbeat::Pending) {
            LastHeartbeat::Answered(last) if begun - last > self.interval * LATE_INTERVALS => {
                self.metrics.late_heartbeats.increment();
            }
            LastHeartbeat::Pending => self.counts.send_failures.increment(),
            LastHeartbeat::Answered(_) | LastHeartbeat::None => {}
        }
        let result = self.send_heartbeat(request).await;
        self.last = match result {
            Ok(_) => {
                self.counts.round_trip.observe(begun.elapsed());
                LastHeartbeat::Answered(begun)
            }
            Err(_) => {
                self.counts.send_failures.increment();
                LastHeartbeat::None
            }
        };
        result
    }

    /// One request and its reply, on a stream that stays open between heartbeats. Reopens a broken
    /// stream.
    async fn send_heartbeat(
        &mut self,
        request: peer::AppendRequest,
    ) -> Result<StreamAppendResult<Types>, Rpc> {
        let broken = || rpc_error(TransportError::Broken(self.to.member, "stream ended".into()));
        // The stream is put back only after a good reply: a late reply to an abandoned heartbeat
        // must not be taken for the reply to the next one.
        let mut open = match self.stream.take() {
            Some(open) => {
                open.requests.send(request).await.map_err(|_| broken())?;
                open
            }
            None => self.open(request).await?,
        };
        let replies = open.replies.get_mut().unwrap_or_else(PoisonError::into_inner);
        let reply = replies.next().await.ok_or_else(broken)?.map_err(rpc_error)?;
        self.stream = Some(open);
        append_reply_from_wire(reply).map_err(invalid)
    }

    /// Opens the stream with its first request: the peer accepts the stream only after reading one.
    async fn open(&self, first: peer::AppendRequest) -> Result<HeartbeatStream, Rpc> {
        let (requests, rest) = mpsc::channel(1);
        let sent = stream::once(std::future::ready(first)).chain(ReceiverStream::new(rest));
        let replies = self.transport.append(self.to, true, sent.boxed()).await;
        let replies = Mutex::new(replies.map_err(rpc_error)?);
        Ok(HeartbeatStream { requests, replies })
    }
}
