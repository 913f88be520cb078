//! When to take a snapshot, and how much log to keep behind it. Decided by bytes.
//!
//! A snapshot is cheap (a list of blocks that are on disk already), so it is taken when the log
//! since the last one outweighs a share of the state. Behind it the log keeps what a follower that
//! was away for a moment needs, so that it does not need the snapshot.

use std::time::Duration;

use super::handle::Raft;
use crate::{
    fault::Fault,
    stop::Stopping,
    wal::{Log, Space},
};

/// How much log is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// No snapshot before the log since the last one has grown to this.
    pub snapshot_log_bytes_min: u64,
    /// Log kept behind a snapshot, at least, for followers that lag.
    pub keep_log_bytes: u64,
    pub check_every: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            snapshot_log_bytes_min: 64 << 20,
            keep_log_bytes: 256 << 20,
            check_every: Duration::from_secs(1),
        }
    }
}

impl Retention {
    /// For a disk that is almost full: nothing is kept that a snapshot covers.
    fn sparing(self) -> Retention {
        Retention { snapshot_log_bytes_min: 0, keep_log_bytes: 0, ..self }
    }
}

/// Checks again and again until told to stop.
pub(super) async fn run(raft: Raft, retention: Retention, mut stopping: Stopping, fault: Fault) {
    let mut tick = tokio::time::interval(retention.check_every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut reclaimed = raft.pruned();
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stopping.wait() => return,
        }
        if fault.is_stopped() {
            return;
        }
        raft.nudge_compaction();
        let pruned = raft.pruned();
        if pruned > reclaimed {
            reclaimed = pruned;
            // What was discarded is only a few bytes to write, and much space to get back.
            tokio::select! {
                flushed = raft.store.flush() => if let Err(e) = flushed {
                    tracing::warn!(error = %e, "what a compaction freed is not written yet");
                },
                () = stopping.wait() => return,
            }
        }
        let low = *raft.log().space().borrow() == Space::Low;
        if low {
            raft.log().retry_space();
        }
        let retention = if low { retention.sparing() } else { retention };
        if snapshot_due(&raft, retention) && raft.trigger().snapshot().await.is_err() {
            return;
        }
        if let Some(upto) = purgeable(&raft, retention)
            && raft.trigger().purge_log(upto).await.is_err()
        {
            return;
        }
    }
}

/// The log since the last snapshot weighs as much as half of the state, and enough to bother.
fn snapshot_due(raft: &Raft, retention: Retention) -> bool {
    let Some(applied) = raft.view().applied() else { return false };
    let covered = raft.store.latest().map_or(0, |s| s.position().index);
    if applied.index <= covered {
        return false;
    }
    let log_bytes = raft.log().bytes_since(covered);
    let state_bytes = raft.view().size().live_bytes;
    log_bytes >= retention.snapshot_log_bytes_min.max(state_bytes / 2)
}

/// The last index that nobody is likely to need: covered by the snapshot, behind what is kept, and
/// behind the slowest peer (unless that one lags by more than the whole state: then a snapshot is
/// the shorter way).
fn purgeable(raft: &Raft, retention: Retention) -> Option<u64> {
    let covered = raft.store.latest()?.position().index;
    let log = raft.log();
    let first = log.first_index();
    let kept = last_beyond(log, retention.keep_log_bytes)?;
    let state_bytes = raft.view().size().live_bytes;
    let slowest = raft
        .progress()
        .iter()
        .map(|p| p.matched.unwrap_or(0))
        .filter(|&at| log.bytes_since(at) <= state_bytes.max(retention.keep_log_bytes))
        .min()
        .unwrap_or(u64::MAX);
    let upto = covered.min(kept).min(slowest);
    (upto > first).then_some(upto)
}

/// The last index that has at least so many bytes of log behind it, found by halving.
fn last_beyond(log: &Log, bytes: u64) -> Option<u64> {
    let (mut low, mut high) = (log.first_index(), log.last()?.index);
    if low > high || log.bytes_since(low) < bytes {
        return None;
    }
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if log.bytes_since(middle) >= bytes { low = middle } else { high = middle - 1 }
    }
    Some(low)
}
