//! The calls of a volume that is no member yet. `peer` implements them.

use std::future::Future;

use crate::{proto::peer, types::Ordinal};

pub trait BootstrapRpc: Send + Sync {
    /// Asks a founder to promise itself to a cluster.
    fn promise(
        &self,
        to: Ordinal,
        request: peer::PromiseRequest,
    ) -> impl Future<Output = Result<peer::PromiseReply, String>> + Send;

    /// Asks a member for an id, or for admission under it.
    fn join(
        &self,
        to: Ordinal,
        request: peer::JoinRequest,
    ) -> impl Future<Output = Result<peer::JoinReply, String>> + Send;
}
