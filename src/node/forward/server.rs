//! The leader's side: answers the requests that other members forward.

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::BoxStream};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    node::node::Node,
    proto::{
        convert,
        peer::{self, forward_reply, forward_request},
    },
    raft::{ProposeError, ReadIndexError},
};

/// Requests of one stream that are handled at once. Each proposal is a batch already.
const CONCURRENT_REQUESTS_MAX: usize = 256;

impl Node {
    /// Answers a forward stream, in the order in which the answers become known.
    pub fn handle_forward<S>(&self, requests: S) -> BoxStream<'static, peer::ForwardReply>
    where
        S: Stream<Item = peer::ForwardRequest> + Send + 'static,
    {
        let node = self.clone();
        requests
            .map(move |request| {
                let node = node.clone();
                async move {
                    let result = match request.request {
                        Some(forward_request::Request::Propose(batch)) => {
                            node.serve_propose(batch).await
                        }
                        Some(forward_request::Request::ReadIndex(_)) => {
                            node.serve_read_index().await
                        }
                        Some(forward_request::Request::Leases(queries)) => {
                            node.serve_leases(&queries).await
                        }
                        None => forward_reply::Result::Unknown("empty request".into()),
                    };
                    peer::ForwardReply { id: request.id, result: Some(result) }
                }
            })
            .buffer_unordered(CONCURRENT_REQUESTS_MAX)
            .boxed()
    }

    async fn serve_propose(&self, batch: Bytes) -> forward_reply::Result {
        if self.refuses_writes().is_some() {
            return forward_reply::Result::Busy(peer::Busy {});
        }
        // Once committed, an entry that cannot be applied stops every member, at each restart again.
        if let Err(e) = convert::decode_commands(batch.clone()) {
            tracing::warn!(error = %e, "forwarded batch malformed");
            return forward_reply::Result::Unknown(e.to_string());
        }
        // The log keeps recent entries in memory. A slice would keep the whole received message.
        let proposed = self.raft().propose(Bytes::copy_from_slice(&batch));
        // Without a quorum there may never be an answer. The sender has given up by this deadline.
        let limit = self.raft().timing().request_timeout();
        let Ok(proposed) = tokio::time::timeout(limit, proposed).await else {
            return forward_reply::Result::Unknown("no quorum in time".into());
        };
        match proposed {
            Ok(done) => forward_reply::Result::Proposed(peer::Proposed {
                position: Some(peer::LogPosition {
                    term: done.position.term.0,
                    index: done.position.index,
                }),
                replies: done.replies.into_iter().map(Into::into).collect(),
            }),
            Err(ProposeError::NotLeader(leader)) => {
                let leader = leader.map_or(0, |l| l.member.0);
                forward_reply::Result::NotLeader(peer::NotLeader { leader })
            }
            Err(ProposeError::Unknown(why)) => forward_reply::Result::Unknown(why),
        }
    }

    async fn serve_read_index(&self) -> forward_reply::Result {
        let (tx, rx) = oneshot::channel();
        let index = match self.read_index_requests().send(tx) {
            Ok(()) => rx.await.unwrap_or(Err(ReadIndexError::Stopped)),
            Err(_) => Err(ReadIndexError::Stopped),
        };
        match index {
            Ok(index) => forward_reply::Result::ReadIndex(index),
            Err(error) => read_failure(&error),
        }
    }

    async fn serve_leases(&self, queries: &peer::LeaseQueries) -> forward_reply::Result {
        let deadline = Instant::now() + self.raft().timing().request_timeout();
        match self.lease_server().answer(queries, deadline).await {
            Ok(answers) => forward_reply::Result::Leases(answers),
            Err(error) => read_failure(&error),
        }
    }
}

fn read_failure(error: &ReadIndexError) -> forward_reply::Result {
    match error {
        ReadIndexError::NotLeader(leader) => {
            let leader = leader.map_or(0, |l| l.member.0);
            forward_reply::Result::NotLeader(peer::NotLeader { leader })
        }
        _ => forward_reply::Result::Unknown(error.to_string()),
    }
}
