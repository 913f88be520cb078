//! What the header of an answer says, and what the metadata of a request asks.

use futures_util::future::BoxFuture;
use tonic::{Request, Status};

use crate::{
    node::{Header, NodeError, NodePort},
    proto::etcdserverpb::ResponseHeader,
    types::{Revision, Term},
};

/// The header of an answer about the store as it was at `revision`, given now.
pub(super) fn at(now: Header, revision: Revision) -> ResponseHeader {
    ResponseHeader {
        cluster_id: now.cluster.0,
        member_id: now.member.0,
        revision: revision.0,
        raft_term: now.term.0,
    }
}

/// The header of the answer to a command, applied in `term`.
pub(super) fn applied(now: Header, term: Term, revision: Revision) -> ResponseHeader {
    ResponseHeader { raft_term: term.0, ..at(now, revision) }
}

/// The header of an answer that has nothing to do with the store's revision.
pub(super) fn without_revision(now: Header) -> ResponseHeader {
    at(now, Revision::ZERO)
}

/// Refuses a request that asked, with the metadata `hasleader: true`, to be refused by a member that
/// knows no leader.
pub(super) fn require_leader<N: NodePort, T>(node: &N, request: &Request<T>) -> Result<(), Status> {
    if asks_for_leader(request) && !node.has_leader() {
        return Err(NodeError::NoLeader.into());
    }
    Ok(())
}

/// For a stream: refuses it as [`require_leader`] does; later, resolves when it is to end because
/// there has been no leader for long. Never, if the request did not ask for that.
pub(super) fn leader_lost<N: NodePort, T>(
    node: &N,
    request: &Request<T>,
) -> Result<BoxFuture<'static, ()>, Status> {
    require_leader(node, request)?;
    Ok(match asks_for_leader(request) {
        true => Box::pin(node.leader_lost()),
        false => Box::pin(std::future::pending()),
    })
}

fn asks_for_leader<T>(request: &Request<T>) -> bool {
    request.metadata().get("hasleader").is_some_and(|value| value == "true")
}
