//! When to take a snapshot, and how much log to keep behind it. Decided by bytes.
//!
//! A snapshot is cheap: a list of blocks that are on disk already. So Raft takes one when the log
//! since the last snapshot outweighs a share of the state. Behind the snapshot the log keeps enough
//! entries for a follower that was away for a moment, so that it does not need the snapshot.

use std::{sync::Arc, time::Duration};

use openraft::async_runtime::watch::WatchReceiver as _;

use super::{apply::ApplyProgress, state_machine::Openraft, store::SnapshotStore};
use crate::{
    fault::Fault,
    shutdown::ShutdownSignal,
    types::Revision,
    wal::{DiskSpace, Log},
};

/// How much log is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// No snapshot before the log since the last one has grown to this.
    pub snapshot_log_bytes_min: u64,
    /// Log that is kept behind a snapshot, at least, for followers that lag.
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
    /// For a disk that is almost full: keeps no entry that a snapshot covers.
    fn when_space_is_low(self) -> Retention {
        Retention { snapshot_log_bytes_min: 0, keep_log_bytes: 0, ..self }
    }
}

/// The task that applies a [`Retention`], and gets compacted space back.
pub struct RetentionTask {
    pub raft: Openraft,
    pub log: Log,
    pub store: Arc<dyn SnapshotStore>,
    pub progress: ApplyProgress,
    pub retention: Retention,
    pub fault: Fault,
}

impl RetentionTask {
    /// Checks every [`Retention::check_every`], until shutdown.
    pub async fn run(self, mut shutdown: ShutdownSignal) {
        let mut tick = tokio::time::interval(self.retention.check_every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut reclaimed = self.progress.pruned();
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = shutdown.wait() => return,
            }
            if self.fault.is_stopped() {
                return;
            }
            self.progress.resume_compaction();
            tokio::select! {
                () = self.reclaim(&mut reclaimed) => {}
                () = shutdown.wait() => return,
            }
            if self.enforce().await.is_err() {
                return;
            }
        }
    }

    /// Flushes the storage after a compaction: its deletions are few bytes to write, and free much
    /// space.
    async fn reclaim(&self, reclaimed: &mut Revision) {
        let pruned = self.progress.pruned();
        if pruned <= *reclaimed {
            return;
        }
        *reclaimed = pruned;
        if let Err(e) = self.store.flush().await {
            tracing::warn!(error = %e, "flush after compaction failed");
        }
    }

    /// Takes a snapshot and purges the log, where due. Fails once Raft has stopped.
    async fn enforce(&self) -> Result<(), ()> {
        let low = *self.log.space().borrow() == DiskSpace::Low;
        if low {
            self.log.retry_space();
        }
        let retention = if low { self.retention.when_space_is_low() } else { self.retention };
        if self.snapshot_due(retention) {
            self.raft.trigger().snapshot().await.map_err(drop)?;
        }
        if let Some(upto) = self.purgeable(retention) {
            self.raft.trigger().purge_log(upto).await.map_err(drop)?;
        }
        Ok(())
    }

    /// Whether the log since the last snapshot weighs at least half as much as the state.
    fn snapshot_due(&self, retention: Retention) -> bool {
        let Some(applied) = self.progress.view.applied() else { return false };
        let covered = self.store.latest().map_or(0, |s| s.position().index);
        if applied.index <= covered {
            return false;
        }
        let log_bytes = self.log.bytes_since(covered);
        log_bytes >= retention.snapshot_log_bytes_min.max(self.state_bytes() / 2)
    }

    /// The last index that the log can lose: covered by the snapshot, behind the kept bytes, and
    /// replicated to the slowest peer. A peer that lags by more than the whole state does not count,
    /// since a snapshot is the shorter way for it.
    fn purgeable(&self, retention: Retention) -> Option<u64> {
        let covered = self.store.latest()?.position().index;
        let log = &self.log;
        let first = log.first_index();
        let kept = last_index_before(log, retention.keep_log_bytes)?;
        let lag_bytes_max = self.state_bytes().max(retention.keep_log_bytes);
        let slowest = self
            .matched()
            .into_iter()
            .filter(|&at| log.bytes_since(at) <= lag_bytes_max)
            .min()
            .unwrap_or(u64::MAX);
        let upto = covered.min(kept).min(slowest);
        (upto > first).then_some(upto)
    }

    fn state_bytes(&self) -> u64 {
        self.progress.view.size().live_bytes
    }

    /// As the leader: the last index that each peer is known to hold. Empty on other members.
    fn matched(&self) -> Vec<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let peers = metrics.replication.iter().flatten();
        peers.map(|(_, at)| at.as_ref().map_or(0, |at| at.index)).collect()
    }
}

/// The last index with at least `bytes` of log behind it, by binary search.
fn last_index_before(log: &Log, bytes: u64) -> Option<u64> {
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
