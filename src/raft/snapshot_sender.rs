//! The sending side of a snapshot transfer. `snapshot_receiver` has the protocol.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::StreamExt;
use openraft::{errors::StreamingError, raft::SnapshotResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{
    convert::{RaftVote, vote_from_wire, vote_to_wire},
    rpc_error::{broken_snapshot, rpc_error},
    store::Snapshot,
    transport::Transport,
    type_config::Types,
};
use crate::{
    metrics::Counter,
    proto::peer::{self, snapshot_reply},
    types::MemberRef,
};

/// Bytes of a file in one message.
const CHUNK_BYTES: usize = 256 << 10;
/// Bound on chunks in flight.
const WINDOW_CHUNKS: usize = 8;
/// A transfer without progress for this long fails. openraft then starts another one.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

type TransferError = StreamingError<Types>;

/// Offers a snapshot, sends the parts that the peer lacks, and waits until the peer has installed it.
/// Adds the bytes that the peer acknowledges to `acknowledged`.
pub async fn send_snapshot<T: Transport>(
    transport: &T,
    to: MemberRef,
    vote: RaftVote,
    offer: peer::SnapshotOffer,
    snapshot: Arc<dyn Snapshot>,
    acknowledged: &Counter,
) -> Result<SnapshotResponse<Types>, TransferError> {
    let (chunks, rx) = mpsc::channel(WINDOW_CHUNKS);
    let files = offer.files.clone();
    let first = peer::SnapshotChunk {
        vote: Some(vote_to_wire(&vote)),
        offer: Some(offer),
        ..Default::default()
    };
    let mut transfer =
        Transfer { to, snapshot, files, missing: VecDeque::new(), chunks: Some(chunks.clone()) };
    chunks.send(first).await.map_err(|_| transfer.closed())?;
    drop(chunks);
    let mut replies = transport
        .snapshot(to, ReceiverStream::new(rx).boxed())
        .await
        .map_err(|e| StreamingError::from(rpc_error(e)))?;
    let mut received = 0;
    loop {
        tokio::select! {
            open = transfer.writable() => {
                if !open {
                    return Err(transfer.closed());
                }
                transfer.send_next().await?;
            }
            reply = tokio::time::timeout(STALL_TIMEOUT, replies.next()) => {
                let reply = reply.map_err(|_| broken_snapshot(to, "no progress"))?;
                let reply = reply.ok_or_else(|| transfer.closed())?;
                let reply = reply.map_err(|e| StreamingError::from(rpc_error(e)))?;
                if let Some(snapshot_reply::Result::Received(bytes)) = &reply.result {
                    // A keepalive repeats the number.
                    acknowledged.add(bytes.saturating_sub(received));
                    received = received.max(*bytes);
                }
                if let Some(done) = transfer.handle_reply(reply)? {
                    return Ok(SnapshotResponse::new(done));
                }
            }
        }
    }
}

/// A part of a file, by its index in the offer.
struct Part {
    file: usize,
    start: u64,
    end: u64,
}

/// One transfer in progress.
struct Transfer {
    to: MemberRef,
    snapshot: Arc<dyn Snapshot>,
    files: Vec<peer::SnapshotFile>,
    /// Parts that the peer wants and that are not sent yet.
    missing: VecDeque<Part>,
    /// `None` once every wanted part is sent: this ends the request stream.
    chunks: Option<mpsc::Sender<peer::SnapshotChunk>>,
}

impl Transfer {
    /// Resolves when there is a part to send and room in the window; `false`: the stream is closed.
    async fn writable(&self) -> bool {
        match (&self.chunks, self.missing.front()) {
            (Some(chunks), Some(_)) => chunks.reserve().await.is_ok(),
            _ => std::future::pending().await,
        }
    }

    async fn send_next(&mut self) -> Result<(), TransferError> {
        let (Some(chunks), Some(part)) = (&self.chunks, self.missing.pop_front()) else {
            return Ok(());
        };
        let Part { file, start, end } = part;
        let data = self.snapshot.read(file, start, CHUNK_BYTES).await;
        let data = data.map_err(|e| broken_snapshot(self.to, e.to_string()))?;
        let next = start + data.len() as u64;
        let chunk = peer::SnapshotChunk {
            file: u32::try_from(file).unwrap_or(u32::MAX),
            offset: start,
            data,
            ..Default::default()
        };
        chunks.send(chunk).await.map_err(|_| self.closed())?;
        if next < end {
            self.missing.push_front(Part { file, start: next, end });
        }
        self.close_if_complete();
        Ok(())
    }

    /// Returns the peer's vote once the peer has installed the snapshot.
    fn handle_reply(
        &mut self,
        reply: peer::SnapshotReply,
    ) -> Result<Option<RaftVote>, TransferError> {
        match reply.result {
            Some(snapshot_reply::Result::Want(want)) => {
                for (i, (file, from)) in self.files.iter().zip(want.from).enumerate() {
                    if from < file.bytes {
                        self.missing.push_back(Part { file: i, start: from, end: file.bytes });
                    }
                }
                self.close_if_complete();
                Ok(None)
            }
            Some(snapshot_reply::Result::Received(_)) => Ok(None),
            Some(snapshot_reply::Result::Done(vote)) => {
                let vote = vote_from_wire(Some(vote));
                vote.map(Some).map_err(|e| broken_snapshot(self.to, e.to_string()))
            }
            None => Err(broken_snapshot(self.to, "invalid reply")),
        }
    }

    fn close_if_complete(&mut self) {
        if self.missing.is_empty() {
            self.chunks = None;
        }
    }

    fn closed(&self) -> TransferError {
        broken_snapshot(self.to, "stream ended")
    }
}
