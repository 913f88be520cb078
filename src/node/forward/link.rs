//! The port that opens streams to the leader.

use std::time::Duration;

use futures_util::{future::BoxFuture, stream::BoxStream};

use crate::{proto::peer, types::MemberRef};

/// Wait between two attempts to reach a leader, unless the leader changes first.
pub const LEADER_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// A stream to the leader could not be opened, or broke.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct LinkError(pub String);

/// The leader's replies on one stream.
pub type ForwardReplies = BoxStream<'static, Result<peer::ForwardReply, LinkError>>;

/// Opens forward streams. `peer` implements it.
pub trait LeaderLink: Clone + Send + Sync + 'static {
    fn open(
        &self,
        to: MemberRef,
        requests: BoxStream<'static, peer::ForwardRequest>,
    ) -> BoxFuture<'static, Result<ForwardReplies, LinkError>>;
}
