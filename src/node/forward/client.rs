//! The sending side: one task owns the stream to the leader.
//!
//! When the stream ends, or another member leads, the outcome of every request that was sent and is not
//! answered is *unknown*, at once. A request that was not sent may be sent to another leader.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::link::{ForwardReplies, LeaderLink, LinkError};
use crate::{
    proto::peer::{self, forward_reply, forward_request},
    raft::{Leadership, LeadershipWatch},
    shutdown::ShutdownSignal,
    types::MemberRef,
};

/// How a forwarded request ended.
#[derive(Debug)]
pub enum ForwardOutcome {
    Proposed(peer::Proposed),
    ReadIndex(u64),
    Leases(peer::LeaseAnswers),
    /// Not appended: the request may be sent again, to any leader.
    NotAppended,
    /// Not appended: the leader has too much in flight.
    Busy,
    Unknown,
}

/// A request to the leader, and the channel for its outcome.
#[derive(Debug)]
pub struct ForwardCall {
    request: forward_request::Request,
    outcome: oneshot::Sender<ForwardOutcome>,
}

impl ForwardCall {
    pub fn propose(batch: Bytes) -> (ForwardCall, oneshot::Receiver<ForwardOutcome>) {
        ForwardCall::new(forward_request::Request::Propose(batch))
    }

    pub fn read_index() -> (ForwardCall, oneshot::Receiver<ForwardOutcome>) {
        ForwardCall::new(forward_request::Request::ReadIndex(peer::ReadIndex {}))
    }

    pub fn leases(queries: peer::LeaseQueries) -> (ForwardCall, oneshot::Receiver<ForwardOutcome>) {
        ForwardCall::new(forward_request::Request::Leases(queries))
    }

    fn new(request: forward_request::Request) -> (ForwardCall, oneshot::Receiver<ForwardOutcome>) {
        let (outcome, rx) = oneshot::channel();
        (ForwardCall { request, outcome }, rx)
    }

    fn finish(self, outcome: ForwardOutcome) {
        // The caller may have given up.
        let _ = self.outcome.send(outcome);
    }
}

/// An open stream to the leader.
struct LeaderStream {
    to: MemberRef,
    /// Unbounded, because requests in flight are bounded at their source (`proposals`, `reads`). A
    /// bounded queue could block this task on a leader that does not read, and so keep it from
    /// reading that leader's replies.
    requests: mpsc::UnboundedSender<peer::ForwardRequest>,
    replies: ForwardReplies,
    pending: BTreeMap<u64, oneshot::Sender<ForwardOutcome>>,
    next_id: u64,
}

impl LeaderStream {
    async fn open<L: LeaderLink>(link: &L, to: MemberRef) -> Result<LeaderStream, LinkError> {
        let (requests, rx) = mpsc::unbounded_channel();
        let replies = link.open(to, UnboundedReceiverStream::new(rx).boxed()).await?;
        Ok(LeaderStream { to, requests, replies, pending: BTreeMap::new(), next_id: 1 })
    }

    fn send(&mut self, call: ForwardCall) {
        let id = self.next_id;
        self.next_id += 1;
        let request = peer::ForwardRequest { hello: None, id, request: Some(call.request) };
        match self.requests.send(request) {
            Ok(()) => {
                self.pending.insert(id, call.outcome);
            }
            // The stream's sending side is gone: this request never left.
            Err(_) => {
                let _ = call.outcome.send(ForwardOutcome::NotAppended);
            }
        }
    }

    fn receive(&mut self, reply: peer::ForwardReply) {
        let Some(outcome) = self.pending.remove(&reply.id) else { return };
        let result = match reply.result {
            Some(forward_reply::Result::Proposed(p)) => ForwardOutcome::Proposed(p),
            Some(forward_reply::Result::ReadIndex(index)) => ForwardOutcome::ReadIndex(index),
            Some(forward_reply::Result::Leases(answers)) => ForwardOutcome::Leases(answers),
            Some(forward_reply::Result::NotLeader(_)) => ForwardOutcome::NotAppended,
            Some(forward_reply::Result::Busy(_)) => ForwardOutcome::Busy,
            Some(forward_reply::Result::Unknown(_)) | None => ForwardOutcome::Unknown,
        };
        let _ = outcome.send(result);
    }

    fn fail_pending(self) {
        for (_, outcome) in self.pending {
            let _ = outcome.send(ForwardOutcome::Unknown);
        }
    }
}

/// Forwards calls until shutdown, or until all senders are gone.
pub async fn run_client<L: LeaderLink>(
    link: L,
    mut inbox: mpsc::UnboundedReceiver<ForwardCall>,
    mut leadership: LeadershipWatch,
    mut shutdown: ShutdownSignal,
) {
    let mut stream: Option<LeaderStream> = None;
    let mut now = leadership.now();
    loop {
        let reply = async {
            match &mut stream {
                Some(stream) => stream.replies.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.wait() => break,
            changed = leadership.changed() => {
                let Some(changed) = changed else { break };
                now = changed;
                if stream.as_ref().is_some_and(|stream| Some(stream.to) != now.leader)
                    && let Some(stream) = stream.take()
                {
                    stream.fail_pending();
                }
            }
            reply = reply => match (reply, &mut stream) {
                (Some(Ok(reply)), Some(stream)) => stream.receive(reply),
                (ended, _) => {
                    if let Some(Err(e)) = ended {
                        tracing::debug!(error = %e, "stream to the leader failed");
                    }
                    if let Some(stream) = stream.take() {
                        stream.fail_pending();
                    }
                }
            },
            call = inbox.recv() => {
                let Some(call) = call else { break };
                if stream.is_none() {
                    stream = connect(&link, &now).await;
                }
                match &mut stream {
                    Some(stream) => stream.send(call),
                    None => call.finish(ForwardOutcome::NotAppended),
                }
            }
        }
    }
    if let Some(stream) = stream {
        stream.fail_pending();
    }
}

/// `peer` limits the time to connect; a leader that does not answer soon loses its leadership.
async fn connect<L: LeaderLink>(link: &L, now: &Leadership) -> Option<LeaderStream> {
    let to = now.leader.filter(|_| !now.is_mine())?;
    match LeaderStream::open(link, to).await {
        Ok(stream) => Some(stream),
        Err(e) => {
            tracing::debug!(leader = %to.member, error = %e, "leader unreachable");
            None
        }
    }
}
