//! The receiving side of a snapshot transfer.
//!
//! ```text
//! sender:   offer (position, membership, files) ──▶ chunks ──────────────────────▶
//! receiver: ◀── want (an offset per file) ◀── received bytes, as keepalive ◀── done (vote)
//! ```
//!
//! Files that this member has already are not sent again.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use tokio::sync::mpsc;

use super::{
    convert::{
        InvalidMessage, leader_vote_from_wire, log_id_from_wire, stored_membership_from_wire,
        vote_to_wire,
    },
    error::RpcError,
    state_machine::{Openraft, SnapshotData},
    store::{SnapshotReceiver, SnapshotStore},
    type_config::Types,
};
use crate::proto::peer::{self, snapshot_reply};

/// Received bytes between two progress replies.
const PROGRESS_BYTES: u64 = 4 << 20;
/// Interval of replies during long file operations, well within the sender's stall timeout.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Bound on replies in flight to a sender.
pub const REPLY_WINDOW: usize = 8;

type Replies = mpsc::Sender<Result<peer::SnapshotReply, RpcError>>;

/// Receives the files of the snapshot that `first` offers, and installs it.
pub async fn receive_snapshot<S>(
    raft: Openraft,
    store: Arc<dyn SnapshotStore>,
    first: peer::SnapshotChunk,
    rest: S,
    replies: &Replies,
) -> Result<(), RpcError>
where
    S: Stream<Item = peer::SnapshotChunk> + Send + Unpin,
{
    let vote = leader_vote_from_wire(first.vote)?;
    let offer = first.offer.ok_or(InvalidMessage("snapshot offer"))?;
    let meta = SnapshotMetaOf::<Types> {
        last_log_id: log_id_from_wire(offer.position),
        last_membership: stored_membership_from_wire(offer.membership.unwrap_or_default())?,
    };
    let (incoming, received) = receive_files(store, offer.files, rest, replies).await?;
    tracing::info!(bytes = received, "snapshot received");
    let snapshot =
        SnapshotOf::<Types, SnapshotData> { meta, snapshot: SnapshotData::Received(incoming) };
    let done = with_keepalive(raft.install_full_snapshot(vote, snapshot), replies, received).await;
    let done = done.map_err(|e| RpcError::Stopped(e.to_string()))?;
    send(replies, snapshot_reply::Result::Done(vote_to_wire(&done.vote))).await
}

/// Asks for the parts that are missing here, writes and checks them. Returns the bytes received.
async fn receive_files<S>(
    store: Arc<dyn SnapshotStore>,
    files: Vec<peer::SnapshotFile>,
    mut chunks: S,
    replies: &Replies,
) -> Result<(Box<dyn SnapshotReceiver>, u64), RpcError>
where
    S: Stream<Item = peer::SnapshotChunk> + Send + Unpin,
{
    let failed = |e: &dyn std::fmt::Display| RpcError::Snapshot(e.to_string());
    let lengths: Vec<u64> = files.iter().map(|f| f.bytes).collect();
    let receive = store.receive(files);
    let mut incoming = with_keepalive(receive, replies, 0).await.map_err(|e| failed(&e))?;
    let want = incoming.want();
    let mut missing = lengths
        .iter()
        .zip(&want)
        .try_fold(0u64, |sum, (len, from)| sum.checked_add(len - from.min(len)))
        .ok_or(InvalidMessage("snapshot offer"))?;
    send(replies, snapshot_reply::Result::Want(peer::SnapshotWant { from: want })).await?;
    let (mut received, mut reported) = (0u64, 0u64);
    while missing > 0 {
        let chunk = chunks.next().await.ok_or_else(|| failed(&SENDER_GONE))?;
        let bytes = chunk.data.len() as u64;
        incoming
            .write(chunk.file as usize, chunk.offset, chunk.data)
            .await
            .map_err(|e| failed(&e))?;
        missing = missing.checked_sub(bytes).ok_or(InvalidMessage("snapshot chunk"))?;
        received += bytes;
        if received - reported >= PROGRESS_BYTES {
            reported = received;
            send(replies, snapshot_reply::Result::Received(received)).await?;
        }
    }
    with_keepalive(incoming.finish(), replies, received).await.map_err(|e| failed(&e))?;
    Ok((incoming, received))
}

const SENDER_GONE: &str = "the sender went away";

async fn send(replies: &Replies, result: snapshot_reply::Result) -> Result<(), RpcError> {
    let reply = peer::SnapshotReply { result: Some(result) };
    replies.send(Ok(reply)).await.map_err(|_| RpcError::Snapshot(SENDER_GONE.into()))
}

/// Awaits work on whole files, and sends keepalive replies meanwhile.
async fn with_keepalive<T>(work: impl Future<Output = T>, replies: &Replies, received: u64) -> T {
    let mut work = std::pin::pin!(work);
    let mut beat = tokio::time::interval(KEEPALIVE_INTERVAL);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = beat.tick() => {
                let result = Some(snapshot_reply::Result::Received(received));
                // A full window is a sign of life by itself.
                let _ = replies.try_send(Ok(peer::SnapshotReply { result }));
            }
        }
    }
}
