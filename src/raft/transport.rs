//! The port through which Raft sends messages, in protobuf. `peer` implements it over gRPC.
//!
//! Every call names its receiver. The implementation adds the sender, and resolves the ordinal to an
//! address at each dial.

use std::{future::Future, time::Duration};

use futures_util::{future::BoxFuture, stream::BoxStream};

use crate::{
    proto::peer,
    types::{MemberId, MemberRef},
};

/// A message without a reply.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    /// No process answers there, or it rejects this member. openraft backs off before the next try.
    #[error("member {0} cannot be reached: {1}")]
    Unreachable(MemberId, String),
    /// The connection broke, or the reply was late.
    #[error("member {0}: {1}")]
    Broken(MemberId, String),
}

/// A stream of replies.
pub type ReplyStream<T> = BoxStream<'static, Result<T, TransportError>>;
/// A reply stream that is being opened.
pub type OpeningStream<T> = BoxFuture<'static, Result<ReplyStream<T>, TransportError>>;

/// Sends messages to other members. Cheap to clone.
pub trait Transport: Clone + Send + Sync + 'static {
    /// Opens a stream of replication, or of heartbeats, which no other message may delay. Replies
    /// arrive in the order of the requests.
    fn append(
        &self,
        to: MemberRef,
        heartbeats: bool,
        requests: BoxStream<'static, peer::AppendRequest>,
    ) -> OpeningStream<peer::AppendReply>;

    fn vote(
        &self,
        to: MemberRef,
        request: peer::VoteRequest,
        limit: Duration,
    ) -> impl Future<Output = Result<peer::VoteReply, TransportError>> + Send;

    fn transfer_leader(
        &self,
        to: MemberRef,
        request: peer::TransferLeaderRequest,
        limit: Duration,
    ) -> impl Future<Output = Result<peer::TransferLeaderReply, TransportError>> + Send;

    /// Sends a snapshot: an offer, then the parts that the receiver wants.
    fn snapshot(
        &self,
        to: MemberRef,
        chunks: BoxStream<'static, peer::SnapshotChunk>,
    ) -> OpeningStream<peer::SnapshotReply>;
}
