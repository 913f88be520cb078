//! What Raft asks of the network, in protobuf messages: a port that `peer` implements over gRPC.
//!
//! Every call says who it is for; the implementation adds who it is from, and resolves the ordinal
//! to an address at each dial.

use std::{future::Future, time::Duration};

use futures_util::{future::BoxFuture, stream::BoxStream};

use crate::{
    proto::peer,
    types::{MemberId, PeerPlace},
};

/// A message that got no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    /// Nobody there, or it refused us: wait before the next try.
    #[error("member {0} cannot be reached: {1}")]
    Unreachable(MemberId, String),
    /// The connection broke, or the answer was late.
    #[error("member {0}: {1}")]
    Broken(MemberId, String),
}

/// A stream of replies.
pub type Replies<T> = BoxStream<'static, Result<T, TransportError>>;
/// A stream that is being opened.
pub type Opening<T> = BoxFuture<'static, Result<Replies<T>, TransportError>>;

/// Sends messages to other members. Cheap to clone.
pub trait Transport: Clone + Send + Sync + 'static {
    /// Opens a replication stream, or one of heartbeats, which nothing else may delay. Answers come
    /// in the order of the requests.
    fn append(
        &self,
        to: PeerPlace,
        heartbeats: bool,
        requests: BoxStream<'static, peer::AppendRequest>,
    ) -> Opening<peer::AppendReply>;

    fn vote(
        &self,
        to: PeerPlace,
        request: peer::VoteRequest,
        limit: Duration,
    ) -> impl Future<Output = Result<peer::VoteReply, TransportError>> + Send;

    fn transfer_leader(
        &self,
        to: PeerPlace,
        request: peer::TransferLeaderRequest,
        limit: Duration,
    ) -> impl Future<Output = Result<peer::TransferLeaderReply, TransportError>> + Send;

    /// Sends a snapshot: an offer, then what of it is wanted.
    fn snapshot(
        &self,
        to: PeerPlace,
        chunks: BoxStream<'static, peer::SnapshotChunk>,
    ) -> Opening<peer::SnapshotReply>;
}
