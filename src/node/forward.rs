//! Requests on their way to the leader: one stream, many requests under way, each with an id.
//!
//! The task owns the stream. When the stream ends, or somebody else leads, whatever was sent and is
//! not answered is *unknown*, at once; what was not sent can be sent elsewhere.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt, future::BoxFuture, stream::BoxStream};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::{
    proto::peer::{self, forward_reply, forward_request},
    raft::{Leadership, LeadershipWatch},
    stop::Stopping,
    types::PeerPlace,
};

/// A stream to the leader could not be opened, or broke.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct LinkError(pub String);

/// The leader's answers.
pub type Answers = BoxStream<'static, Result<peer::ForwardReply, LinkError>>;

/// Opens forward streams. `peer` implements it.
pub trait LeaderLink: Clone + Send + Sync + 'static {
    fn open(
        &self,
        to: PeerPlace,
        requests: BoxStream<'static, peer::ForwardRequest>,
    ) -> BoxFuture<'static, Result<Answers, LinkError>>;
}

/// What became of a forwarded request.
#[derive(Debug)]
pub(super) enum Outcome {
    Proposed(peer::Proposed),
    ReadIndex(u64),
    Leases(peer::LeaseAnswers),
    /// Not appended: safe to send again, to whoever leads.
    NotAppended,
    /// Not appended: the leader has too much in flight.
    Busy,
    Unknown,
}

/// A request, and where its outcome goes.
#[derive(Debug)]
pub(super) struct Forward {
    pub(super) request: forward_request::Request,
    pub(super) outcome: oneshot::Sender<Outcome>,
}

impl Forward {
    pub(super) fn propose(batch: Bytes) -> (Forward, oneshot::Receiver<Outcome>) {
        Forward::new(forward_request::Request::Propose(batch))
    }

    pub(super) fn read_index() -> (Forward, oneshot::Receiver<Outcome>) {
        Forward::new(forward_request::Request::ReadIndex(peer::ReadIndex {}))
    }

    pub(super) fn leases(queries: peer::LeaseQueries) -> (Forward, oneshot::Receiver<Outcome>) {
        Forward::new(forward_request::Request::Leases(queries))
    }

    fn new(request: forward_request::Request) -> (Forward, oneshot::Receiver<Outcome>) {
        let (outcome, rx) = oneshot::channel();
        (Forward { request, outcome }, rx)
    }

    fn ends(self, outcome: Outcome) {
        // Whoever asked may have given up.
        let _ = self.outcome.send(outcome);
    }
}

/// An open stream.
struct Link {
    to: PeerPlace,
    /// Unbounded, because what is in flight is bounded where it comes from (`proposals`, `reads`);
    /// waiting here for the leader to read could keep us from reading its answers.
    requests: mpsc::UnboundedSender<peer::ForwardRequest>,
    replies: Answers,
    pending: BTreeMap<u64, oneshot::Sender<Outcome>>,
    next_id: u64,
}

impl Link {
    async fn open<L: LeaderLink>(opener: &L, to: PeerPlace) -> Result<Link, LinkError> {
        let (requests, rx) = mpsc::unbounded_channel();
        let replies = opener.open(to, UnboundedReceiverStream::new(rx).boxed()).await?;
        Ok(Link { to, requests, replies, pending: BTreeMap::new(), next_id: 1 })
    }

    fn send(&mut self, forward: Forward) {
        let id = self.next_id;
        self.next_id += 1;
        let request = peer::ForwardRequest { hello: None, id, request: Some(forward.request) };
        match self.requests.send(request) {
            Ok(()) => {
                self.pending.insert(id, forward.outcome);
            }
            // The stream's sending side is gone: this one never left.
            Err(_) => {
                let _ = forward.outcome.send(Outcome::NotAppended);
            }
        }
    }

    fn receive(&mut self, reply: peer::ForwardReply) {
        let Some(outcome) = self.pending.remove(&reply.id) else { return };
        let result = match reply.result {
            Some(forward_reply::Result::Proposed(p)) => Outcome::Proposed(p),
            Some(forward_reply::Result::ReadIndex(index)) => Outcome::ReadIndex(index),
            Some(forward_reply::Result::Leases(answers)) => Outcome::Leases(answers),
            Some(forward_reply::Result::NotLeader(_)) => Outcome::NotAppended,
            Some(forward_reply::Result::Busy(_)) => Outcome::Busy,
            Some(forward_reply::Result::Unknown(_)) | None => Outcome::Unknown,
        };
        let _ = outcome.send(result);
    }

    fn broke(self) {
        for (_, outcome) in self.pending {
            let _ = outcome.send(Outcome::Unknown);
        }
    }
}

/// Runs until told to stop, or all senders are gone.
pub(super) async fn run<L: LeaderLink>(
    opener: L,
    mut inbox: mpsc::UnboundedReceiver<Forward>,
    mut leadership: LeadershipWatch,
    mut stopping: Stopping,
) {
    let mut link: Option<Link> = None;
    let mut now = leadership.now();
    loop {
        let reply = async {
            match &mut link {
                Some(link) => link.replies.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stopping.wait() => break,
            changed = leadership.changed() => {
                let Some(changed) = changed else { break };
                now = changed;
                if link.as_ref().is_some_and(|l| Some(l.to) != now.leader)
                    && let Some(link) = link.take()
                {
                    link.broke();
                }
            }
            reply = reply => match (reply, &mut link) {
                (Some(Ok(reply)), Some(link)) => link.receive(reply),
                (ended, _) => {
                    if let Some(Err(e)) = ended {
                        tracing::debug!(error = %e, "the stream to the leader broke");
                    }
                    if let Some(link) = link.take() {
                        link.broke();
                    }
                }
            },
            forward = inbox.recv() => {
                let Some(forward) = forward else { break };
                if link.is_none() {
                    link = connect(&opener, &now).await;
                }
                match &mut link {
                    Some(link) => link.send(forward),
                    None => forward.ends(Outcome::NotAppended),
                }
            }
        }
    }
    if let Some(link) = link {
        link.broke();
    }
}

/// Dialling has its own limit in `peer`; a leader that does not answer is soon no leader.
async fn connect<L: LeaderLink>(opener: &L, now: &Leadership) -> Option<Link> {
    let to = now.leader.filter(|_| !now.is_mine())?;
    match Link::open(opener, to).await {
        Ok(link) => Some(link),
        Err(e) => {
            tracing::debug!(leader = %to.member, error = %e, "the leader cannot be reached");
            None
        }
    }
}
