//! The leader's side of forwarding: what other members ask of it.

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::BoxStream};
use tokio::{sync::oneshot, time::Instant};

use super::member::Node;
use crate::{
    proto::{
        convert,
        peer::{self, forward_reply, forward_request},
    },
    raft::{ProposeError, ReadError},
};

/// Requests of one other member that are worked on at once. Each proposal is a batch already.
const CONCURRENT: usize = 256;

impl Node {
    /// Answers a forward stream, in whatever order the answers come.
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
                        Some(forward_request::Request::Propose(batch)) => node.serve(batch).await,
                        Some(forward_request::Request::ReadIndex(_)) => node.serve_index().await,
                        Some(forward_request::Request::Leases(queries)) => {
                            node.serve_leases(&queries).await
                        }
                        None => forward_reply::Result::Unknown("empty request".into()),
                    };
                    peer::ForwardReply { id: request.id, result: Some(result) }
                }
            })
            .buffer_unordered(CONCURRENT)
            .boxed()
    }

    async fn serve(&self, batch: Bytes) -> forward_reply::Result {
        if self.refuses_writes().is_some() {
            return forward_reply::Result::Busy(peer::Busy {});
        }
        // Once committed, an entry that cannot be applied stops every member, at each start anew.
        if let Err(e) = convert::decode_commands(batch.clone()) {
            tracing::warn!(error = %e, "a forwarded batch is unreadable");
            return forward_reply::Result::Unknown(e.to_string());
        }
        // Kept in the log's tail: a slice of the message it came in would keep all of that.
        let proposed = self.raft().propose(Bytes::copy_from_slice(&batch));
        // Without a quorum there may never be an answer; the asker has given up by then.
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

    async fn serve_index(&self) -> forward_reply::Result {
        let (tx, rx) = oneshot::channel();
        let asked = self.confirmations().send(tx);
        let index = match asked {
            Ok(()) => rx.await.unwrap_or(Err(ReadError::Stopped)),
            Err(_) => Err(ReadError::Stopped),
        };
        match index {
            Ok(index) => forward_reply::Result::ReadIndex(index),
            Err(error) => unanswered(&error),
        }
    }

    async fn serve_leases(&self, queries: &peer::LeaseQueries) -> forward_reply::Result {
        let deadline = Instant::now() + self.raft().timing().request_timeout();
        match self.leader_side().answer(queries, deadline).await {
            Ok(answers) => forward_reply::Result::Leases(answers),
            Err(error) => unanswered(&error),
        }
    }
}

fn unanswered(error: &ReadError) -> forward_reply::Result {
    match error {
        ReadError::NotLeader(leader) => {
            let leader = leader.map_or(0, |l| l.member.0);
            forward_reply::Result::NotLeader(peer::NotLeader { leader })
        }
        _ => forward_reply::Result::Unknown(error.to_string()),
    }
}
