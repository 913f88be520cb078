//! Time of the last contact between the leader of the current term and a quorum.
//!
//! ```text
//! the leader     openraft's time of quorum acknowledgement, or its election, whichever is later
//! each follower  the age in the leader's newest message, plus the time since its arrival
//! ```
//!
//! - A contact belongs to a leader and its term. A contact of an earlier leader never counts for the
//!   current one.
//! - An election is a contact: a majority has just voted for the leader. So a new leader and its
//!   followers are in contact without a further round.
//! - A single voter is always in contact with itself.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use openraft::{
    Instant as _, RaftMetrics, async_runtime::watch::WatchReceiver as _,
    type_config::alias::WatchReceiverOf,
};
use tokio::time::Instant;

use super::type_config::Types;
use crate::types::{MemberId, Term, Vote};

/// A time at which a quorum followed this leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Contact {
    term: Term,
    leader: MemberId,
    at: Instant,
}

/// Quorum contact as this member knows it, and the first and the highest commit index that a leader has
/// sent.
#[derive(Clone, Default)]
pub struct QuorumContact {
    /// From the messages of the newest leader.
    received: Arc<Mutex<Option<Contact>>>,
    /// The last election that this member has won.
    elected: Arc<Mutex<Option<(Term, Instant)>>>,
    committed: Arc<AtomicU64>,
    /// Zero until a leader has sent one.
    first_committed: Arc<AtomicU64>,
    own: Arc<OnceLock<WatchReceiverOf<Types, RaftMetrics<Types>>>>,
}

impl std::fmt::Debug for QuorumContact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("QuorumContact").field(&self.age()).finish()
    }
}

impl QuorumContact {
    /// Connects openraft's metrics, which have the leader's own contact.
    pub fn follow(&self, metrics: WatchReceiverOf<Types, RaftMetrics<Types>>) {
        // Raft is started once.
        let _ = self.own.set(metrics);
    }

    /// The highest commit index that a leader has sent.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// The first commit index that a leader has sent since this member started. Zero: none has.
    pub fn first_committed(&self) -> u64 {
        self.first_committed.load(Ordering::Relaxed)
    }

    /// Records a message of a leader: its vote, the age of its last quorum contact, its commit index.
    pub fn record_message(&self, vote: Vote, age_ms: Option<u64>, committed: Option<u64>) {
        let index = committed.unwrap_or(0);
        self.committed.fetch_max(index, Ordering::Relaxed);
        // Fails once the first one is recorded.
        let _ =
            self.first_committed.compare_exchange(0, index, Ordering::Relaxed, Ordering::Relaxed);
        let (Some(age_ms), Some(leader), true) = (age_ms, vote.voted_for, vote.committed) else {
            return;
        };
        let Some(at) = Instant::now().checked_sub(Duration::from_millis(age_ms)) else { return };
        let mut received = lock(&self.received);
        let at = match *received {
            Some(known) if known.term > vote.term => return,
            Some(known) if known.term == vote.term => at.max(known.at),
            _ => at,
        };
        *received = Some(Contact { term: vote.term, leader, at });
    }

    /// As the leader of `term`: the age of the last quorum contact, for a message to a follower. The
    /// first message of a term directly follows the election, so it marks the time of the election.
    pub fn age_as_leader(&self, term: Term) -> Duration {
        let elected = {
            let mut elected = lock(&self.elected);
            match *elected {
                Some((known, at)) if known == term => at,
                // A task of an earlier term that has not ended yet: its election is long past.
                Some((known, at)) if known > term => at,
                _ => elected.insert((term, Instant::now())).1,
            }
        };
        let acknowledged = self.own.get().and_then(|m| {
            let m = m.borrow_watched();
            // The metrics may still be those of the follower that this member was.
            let leads = m.state.is_leader() && m.current_term == term.0;
            if leads { acknowledged(&m) } else { None }
        });
        let since_election = elected.elapsed();
        acknowledged.map_or(since_election, |age| age.min(since_election))
    }

    /// Time since the leader in `m` was last in contact with a quorum. `None`: `m` has no leader, or
    /// no contact of it is known.
    pub fn age_of_leader(&self, m: &RaftMetrics<Types>) -> Option<Duration> {
        let leader = m.current_leader?;
        if m.state.is_leader() {
            return self.own_age(m);
        }
        // The term in the metrics is the last synced one, and may be behind.
        let of_it = |c: &Contact| c.leader == leader && c.term >= Term(m.vote.leader_id.term);
        lock(&self.received).filter(of_it).map(|contact| contact.at.elapsed())
    }

    /// Time since the last known contact of any leader with a quorum.
    pub fn age(&self) -> Option<Duration> {
        if let Some(m) = self.own.get() {
            let m = m.borrow_watched();
            if m.state.is_leader() {
                return self.own_age(&m);
            }
        }
        lock(&self.received).map(|contact| contact.at.elapsed())
    }

    /// As the leader.
    fn own_age(&self, m: &RaftMetrics<Types>) -> Option<Duration> {
        let elected = lock(&self.elected).filter(|(term, _)| term.0 == m.current_term);
        acknowledged(m).into_iter().chain(elected.map(|(_, at)| at.elapsed())).min()
    }
}

/// Time since this leader sent the last message that a quorum has acknowledged. Zero for a single voter.
fn acknowledged(m: &RaftMetrics<Types>) -> Option<Duration> {
    if m.membership_config.membership().voter_ids().all(|id| id == m.id) {
        return Some(Duration::ZERO);
    }
    m.last_quorum_acked.map(|at| at.elapsed())
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
