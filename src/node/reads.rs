//! Linearizable reads: one read index for all reads that wait, on every member.
//!
//! Two batchers, one behind the other: `confirm` runs rounds on the leader, for its own reads and
//! for those that other members ask about; `index` asks the leader (ours or another) on behalf of
//! all reads of this member. Each takes everything that waited before its request goes out, so that
//! no read is answered by an index older than itself (Raft dissertation, §6.4).

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use tracing::{Instrument, Span, field::Empty};

use super::{
    forward::{Forward, Outcome},
    metrics::NodeMetrics,
    port::NodeError,
};
use crate::{
    raft::{Raft, ReadError},
    stop::Stopping,
};

/// So many waiting reads share one round, at most.
const ROUND_READS: usize = 4096;
/// Before asking again, when there was no leader to ask.
const PAUSE: Duration = Duration::from_millis(20);

/// Wants the read index; as the leader only.
pub(super) type Confirm = oneshot::Sender<Result<u64, ReadError>>;
/// Wants to read: told when everything up to the read index is applied here.
pub(super) type Read = oneshot::Sender<Result<(), NodeError>>;

/// The leader's rounds.
pub(super) async fn confirm(
    raft: Raft,
    mut inbox: mpsc::UnboundedReceiver<Confirm>,
    mut stopping: Stopping,
) {
    let mut waiting: Vec<Confirm> = Vec::new();
    loop {
        tokio::select! {
            () = stopping.wait() => return,
            n = inbox.recv_many(&mut waiting, ROUND_READS) => if n == 0 { return },
        }
        let limit = raft.timing().election_timeout;
        let index = match tokio::time::timeout(limit, raft.read_index()).await {
            Ok(result) => result,
            Err(_) => Err(ReadError::NoQuorum),
        };
        for confirm in waiting.drain(..) {
            // Whoever asked may have given up.
            let _ = confirm.send(index.clone());
        }
    }
}

/// What a round needs.
pub(super) struct Ways {
    pub(super) raft: Raft,
    pub(super) confirm: mpsc::UnboundedSender<Confirm>,
    pub(super) forward: mpsc::UnboundedSender<Forward>,
    pub(super) metrics: Arc<NodeMetrics>,
}

/// This member's reads.
pub(super) async fn index(
    ways: Ways,
    mut inbox: mpsc::UnboundedReceiver<Read>,
    mut stopping: Stopping,
) {
    let mut waiting: Vec<Read> = Vec::new();
    loop {
        tokio::select! {
            () = stopping.wait() => return,
            n = inbox.recv_many(&mut waiting, ROUND_READS) => if n == 0 { return },
        }
        let span = tracing::debug_span!(
            parent: None, "read_index", reads = waiting.len(), term = Empty, index = Empty
        );
        let result = tokio::select! {
            () = stopping.wait() => Err(NodeError::Stopped),
            result = round(&ways).instrument(span) => result,
        };
        if result.is_err() {
            ways.metrics.read_indexes_failed.increment();
        }
        for read in waiting.drain(..) {
            let _ = read.send(result.clone());
        }
    }
}

/// One read index, and the wait until it is applied. Asking again is harmless: reads change nothing.
async fn round(ways: &Ways) -> Result<(), NodeError> {
    let Ways { raft, confirm, forward, metrics } = ways;
    let mut leadership = raft.watch_leadership();
    let start = Instant::now();
    let deadline = start + raft.timing().request_timeout();
    let no_leader_after = start + raft.timing().leader_wait();
    loop {
        let now = leadership.now();
        let asked = match now.leader {
            None => Err(Retry::NoLeader),
            Some(_) if now.is_mine() => ask_here(confirm).await,
            Some(_) => ask_there(forward, deadline).await,
        };
        let why = match asked {
            Ok(index) => {
                Span::current().record("term", now.term.0).record("index", index);
                let applied = tokio::time::timeout_at(deadline, raft.applied_at_least(index));
                return match applied.await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) => Err(NodeError::Stopped),
                    Err(_) => Err(NodeError::Timeout),
                };
            }
            Err(why) => why,
        };
        let now = Instant::now();
        match why {
            Retry::Stopped => return Err(NodeError::Stopped),
            Retry::NoLeader if now >= no_leader_after => return Err(NodeError::NoLeader),
            Retry::NoLeader => {}
            Retry::Unconfirmed => metrics.slow_read_indexes.increment(),
        }
        if now >= deadline {
            return Err(NodeError::Timeout);
        }
        if let Ok(None) = tokio::time::timeout(PAUSE, leadership.changed()).await {
            return Err(NodeError::Stopped);
        }
    }
}

enum Retry {
    NoLeader,
    /// The leader is there, but could not confirm that it leads.
    Unconfirmed,
    Stopped,
}

async fn ask_here(confirm: &mpsc::UnboundedSender<Confirm>) -> Result<u64, Retry> {
    let (tx, rx) = oneshot::channel();
    confirm.send(tx).map_err(|_| Retry::Stopped)?;
    match rx.await {
        Ok(Ok(index)) => Ok(index),
        Ok(Err(ReadError::NotLeader(_))) => Err(Retry::NoLeader),
        Ok(Err(ReadError::NoQuorum)) => Err(Retry::Unconfirmed),
        Ok(Err(ReadError::Stopped)) | Err(_) => Err(Retry::Stopped),
    }
}

async fn ask_there(
    forward: &mpsc::UnboundedSender<Forward>,
    deadline: Instant,
) -> Result<u64, Retry> {
    let (request, outcome) = Forward::read_index();
    forward.send(request).map_err(|_| Retry::Stopped)?;
    match tokio::time::timeout_at(deadline, outcome).await {
        Ok(Ok(Outcome::ReadIndex(index))) => Ok(index),
        Ok(Ok(Outcome::NotAppended)) => Err(Retry::NoLeader),
        _ => Err(Retry::Unconfirmed),
    }
}
