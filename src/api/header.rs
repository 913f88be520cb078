//! Headers of responses, and the `hasleader` metadata of requests.

use futures_util::future::BoxFuture;
use tonic::{Request, Status};

use crate::{
    node::{Header, NodeError, NodePort},
    proto::etcdserverpb::ResponseHeader,
    types::{Revision, Term},
};

/// The header of a response about the store at `revision`.
pub fn at(now: Header, revision: Revision) -> ResponseHeader {
    ResponseHeader {
        cluster_id: now.cluster.0,
        member_id: now.member.0,
        revision: revision.0,
        raft_term: now.term.0,
    }
}

/// The header of the response to a command applied in `term`.
pub fn applied(now: Header, term: Term, revision: Revision) -> ResponseHeader {
    ResponseHeader { raft_term: term.0, ..at(now, revision) }
}

/// The header of a response that does not depend on the store's revision.
pub fn without_revision(now: Header) -> ResponseHeader {
    at(now, Revision::ZERO)
}

/// Refuses a request with the metadata `hasleader: true` if this member knows no leader.
pub fn require_leader<N: NodePort, T>(node: &N, request: &Request<T>) -> Result<(), Status> {
    if requires_leader(request) && !node.has_leader() {
        return Err(NodeError::NoLeader.into());
    }
    Ok(())
}

/// The same for a stream. The future resolves when the stream must end, because there has been no leader
/// for long. Without `hasleader: true` it never resolves.
pub fn leader_lost<N: NodePort, T>(
    node: &N,
    request: &Request<T>,
) -> Result<BoxFuture<'static, ()>, Status> {
    require_leader(node, request)?;
    Ok(match requires_leader(request) {
        true => Box::pin(node.leader_lost()),
        false => Box::pin(std::future::pending()),
    })
}

fn requires_leader<T>(request: &Request<T>) -> bool {
    request.metadata().get("hasleader").is_some_and(|value| value == "true")
}
