//! Linearizable reads: one read index serves all waiting reads, on every member.
//!
//! Two batchers work in sequence. The *leader batcher* runs read-index rounds on the leader, for its
//! own reads and for those that other members forward. The *member batcher* asks the leader (this
//! member or another) on behalf of all reads of this member. Each takes only requests that arrived
//! before its round starts, so no read is answered by an index older than itself (Raft dissertation,
//! §6.4).

use std::sync::Arc;

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use tracing::{Instrument, Span, field::Empty};

use super::{
    forward::{ForwardCall, ForwardOutcome, LEADER_RETRY_INTERVAL},
    metrics::NodeMetrics,
    port::NodeError,
};
use crate::{
    raft::{Raft, ReadIndexError},
    shutdown::ShutdownSignal,
};

/// Waiting requests that share one round, at most.
const ROUND_REQUESTS_MAX: usize = 4096;

/// A request for the leader's read index; it fails on a member that does not lead.
pub type ReadIndexRequest = oneshot::Sender<Result<u64, ReadIndexError>>;
/// A read that waits until its member has applied everything up to the read index.
pub type LinearizableRead = oneshot::Sender<Result<(), NodeError>>;

/// Runs the leader's read-index rounds until shutdown.
pub async fn run_leader_batcher(
    raft: Raft,
    mut inbox: mpsc::UnboundedReceiver<ReadIndexRequest>,
    mut shutdown: ShutdownSignal,
) {
    let mut waiting: Vec<ReadIndexRequest> = Vec::new();
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            n = inbox.recv_many(&mut waiting, ROUND_REQUESTS_MAX) => if n == 0 { return },
        }
        let limit = raft.timing().election_timeout;
        let index = match tokio::time::timeout(limit, raft.read_index()).await {
            Ok(result) => result,
            Err(_) => Err(ReadIndexError::NoQuorum),
        };
        for request in waiting.drain(..) {
            // The caller may have given up.
            let _ = request.send(index.clone());
        }
    }
}

/// What the member batcher needs to reach the leader.
pub struct ReadIndexRouter {
    pub raft: Raft,
    pub leader_batcher: mpsc::UnboundedSender<ReadIndexRequest>,
    pub forward: mpsc::UnboundedSender<ForwardCall>,
    pub metrics: Arc<NodeMetrics>,
}

/// Serves this member's linearizable reads until shutdown.
pub async fn run_member_batcher(
    router: ReadIndexRouter,
    mut inbox: mpsc::UnboundedReceiver<LinearizableRead>,
    mut shutdown: ShutdownSignal,
) {
    let mut waiting: Vec<LinearizableRead> = Vec::new();
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            n = inbox.recv_many(&mut waiting, ROUND_REQUESTS_MAX) => if n == 0 { return },
        }
        let span = tracing::debug_span!(
            parent: None, "read_index", reads = waiting.len(), term = Empty, index = Empty
        );
        let result = tokio::select! {
            () = shutdown.wait() => Err(NodeError::Stopped),
            result = read_index_applied(&router).instrument(span) => result,
        };
        if result.is_err() {
            router.metrics.read_indexes_failed.increment();
        }
        for read in waiting.drain(..) {
            let _ = read.send(result.clone());
        }
    }
}

/// Gets one read index and waits until it is applied. A retry is harmless: reads change nothing.
async fn read_index_applied(router: &ReadIndexRouter) -> Result<(), NodeError> {
    let ReadIndexRouter { raft, leader_batcher, forward, metrics } = router;
    let mut leadership = raft.watch_leadership();
    let start = Instant::now();
    let deadline = start + raft.timing().request_timeout();
    let no_leader_after = start + raft.timing().leader_wait();
    loop {
        let now = leadership.now();
        let index = match now.leader {
            None => Err(LeaderQueryFailure::NoLeader),
            Some(_) if now.is_mine() => ask_locally(leader_batcher).await,
            Some(_) => ask_remotely(forward, deadline).await,
        };
        let failure = match index {
            Ok(index) => {
                Span::current().record("term", now.term.0).record("index", index);
                let applied = tokio::time::timeout_at(deadline, raft.wait_applied(index));
                return match applied.await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) => Err(NodeError::Stopped),
                    Err(_) => Err(NodeError::Timeout),
                };
            }
            Err(failure) => failure,
        };
        let now = Instant::now();
        match failure {
            LeaderQueryFailure::Stopped => return Err(NodeError::Stopped),
            LeaderQueryFailure::NoLeader if now >= no_leader_after => {
                return Err(NodeError::NoLeader);
            }
            LeaderQueryFailure::NoLeader => {}
            LeaderQueryFailure::Unconfirmed => metrics.slow_read_indexes.increment(),
        }
        if now >= deadline {
            return Err(NodeError::Timeout);
        }
        if let Ok(None) = tokio::time::timeout(LEADER_RETRY_INTERVAL, leadership.changed()).await {
            return Err(NodeError::Stopped);
        }
    }
}

/// Why the leader did not answer a query that changes nothing.
pub enum LeaderQueryFailure {
    NoLeader,
    /// There is a leader, but it could not confirm its leadership, or has only just begun to lead.
    Unconfirmed,
    Stopped,
}

impl From<ReadIndexError> for LeaderQueryFailure {
    fn from(error: ReadIndexError) -> LeaderQueryFailure {
        match error {
            ReadIndexError::NotLeader(_) => LeaderQueryFailure::NoLeader,
            ReadIndexError::NoQuorum => LeaderQueryFailure::Unconfirmed,
            ReadIndexError::Stopped => LeaderQueryFailure::Stopped,
        }
    }
}

async fn ask_locally(
    leader_batcher: &mpsc::UnboundedSender<ReadIndexRequest>,
) -> Result<u64, LeaderQueryFailure> {
    let (tx, rx) = oneshot::channel();
    leader_batcher.send(tx).map_err(|_| LeaderQueryFailure::Stopped)?;
    match rx.await {
        Ok(index) => Ok(index?),
        Err(_) => Err(LeaderQueryFailure::Stopped),
    }
}

async fn ask_remotely(
    forward: &mpsc::UnboundedSender<ForwardCall>,
    deadline: Instant,
) -> Result<u64, LeaderQueryFailure> {
    let (call, outcome) = ForwardCall::read_index();
    forward.send(call).map_err(|_| LeaderQueryFailure::Stopped)?;
    match tokio::time::timeout_at(deadline, outcome).await {
        Ok(Ok(ForwardOutcome::ReadIndex(index))) => Ok(index),
        Ok(Ok(ForwardOutcome::NotAppended)) => Err(LeaderQueryFailure::NoLeader),
        _ => Err(LeaderQueryFailure::Unconfirmed),
    }
}
