//! The session token: with it, serializable reads never go back in time, on any member.
//!
//! A request carries the metadata `ordinal-session: CLUSTER_ID:REVISION`, both from the header of the last
//! response that the client received. The ID is hexadecimal, as `kvctl` and `etcdctl` print it. A member
//! that has not applied the revision waits for it before a serializable read and before a watch starts.
//! Linearizable reads need no wait.

use tonic::{Code, Request, Status, metadata::MetadataMap};

use crate::{
    node::{NodeError, NodePort},
    types::{ClusterId, Revision},
};

const METADATA: &str = "ordinal-session";

/// The revision that a client has seen. `None`: the request has no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session(Option<Revision>);

/// The session of a request.
///
/// # Errors
/// If the token is malformed, or names another cluster.
pub fn of<N: NodePort, T>(node: &N, request: &Request<T>) -> Result<Session, Status> {
    read(request.metadata(), || node.header().cluster)
}

fn read(metadata: &MetadataMap, ours: impl FnOnce() -> ClusterId) -> Result<Session, Status> {
    let Some(token) = metadata.get(METADATA) else { return Ok(Session(None)) };
    let parsed = token.to_str().ok().and_then(|token| {
        let (cluster, revision) = token.split_once(':')?;
        let cluster = u64::from_str_radix(cluster, 16).ok()?;
        Some((ClusterId(cluster), revision.parse().ok().filter(|revision| *revision >= 0)?))
    });
    let Some((cluster, revision)) = parsed else {
        return Err(Status::invalid_argument(format!(
            "ordinal: {METADATA} must be CLUSTER_ID:REVISION (the ID hexadecimal) from the header of a \
             response, not {token:?}"
        )));
    };
    let ours = ours();
    if cluster != ours {
        return Err(Status::failed_precondition(format!(
            "ordinal: the session belongs to cluster {cluster}, this is cluster {ours}; if this is the right \
             cluster, start a new session without {METADATA}"
        )));
    }
    Ok(Session(Some(Revision(revision))))
}

impl Session {
    /// Waits until this member has applied the session's revision.
    pub async fn wait_until_applied<N: NodePort>(self, node: &N) -> Result<(), Status> {
        let Some(revision) = self.0 else { return Ok(()) };
        if node.header().revision >= revision {
            return Ok(());
        }
        match node.caught_up(revision).await {
            Ok(()) => Ok(()),
            Err(NodeError::Timeout) => Err(Status::new(
                Code::DeadlineExceeded,
                format!(
                    "ordinal: this member has applied revision {}, the session has seen {revision}; ask another \
                     member, or read linearizably",
                    node.header().revision
                ),
            )),
            Err(e) => Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(token: &'static str) -> Result<Session, Code> {
        let mut metadata = MetadataMap::new();
        metadata.insert(METADATA, token.parse().unwrap());
        read(&metadata, || ClusterId(0xc1)).map_err(|status| status.code())
    }

    #[test]
    fn a_token_is_cluster_and_revision() {
        assert_eq!(session("c1:7"), Ok(Session(Some(Revision(7)))));
        assert_eq!(session("c1:0"), Ok(Session(Some(Revision(0)))));
        assert_eq!(session("c2:7"), Err(Code::FailedPrecondition));
        for token in ["", "c1", "c1:", ":7", "c1:-7", "c1:x", "xyz:7", "c1:7:7"] {
            assert_eq!(session(token), Err(Code::InvalidArgument), "{token}");
        }
    }

    #[test]
    fn without_a_token_there_is_no_wait() {
        assert_eq!(read(&MetadataMap::new(), || ClusterId(1)).unwrap(), Session(None));
    }
}
