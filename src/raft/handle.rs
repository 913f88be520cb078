//! The handle of one member's Raft: proposals, read index, and waiting for progress.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use openraft::{
    ReadPolicy,
    async_runtime::watch::WatchReceiver as _,
    errors::{ClientWriteError, LinearizableReadError, RaftError},
};
use tracing::{Instrument as _, field::Empty};

use super::{
    apply::ApplyProgress,
    convert::{self, leader_ref},
    error::{ProposeError, ReadIndexError},
    metrics::ConsensusMetrics,
    quorum_contact::QuorumContact,
    state_machine::Openraft,
    store::SnapshotStore,
    timing::Timing,
    type_config::EncodedCommands,
};
use crate::{
    state::View,
    types::{CommandError, LogPosition, MemberId, Reply, Revision},
    wal::{DiskSpace, Log},
};

/// An applied proposal, with one reply per command.
#[derive(Debug)]
pub struct Proposed {
    pub position: LogPosition,
    pub replies: Vec<Result<Reply, CommandError>>,
}

/// A handle to one member's Raft. Cheap to clone.
///
/// Clones may outlive [`Raft::stop`]; their calls then fail with `Stopped` or `Unknown`.
#[derive(Clone)]
pub struct Raft {
    pub(super) raft: Openraft,
    pub(super) store: Arc<dyn SnapshotStore>,
    pub(super) quorum: QuorumContact,
    pub(super) metrics: Arc<ConsensusMetrics>,
    pub(super) log: Log,
    pub(super) progress: ApplyProgress,
    pub(super) timing: Timing,
    pub(super) me: MemberId,
}

impl std::fmt::Debug for Raft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Raft").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Raft {
    /// Replicates an encoded `CommandBatch`, waits until this member has applied it, and returns the
    /// replies.
    pub async fn propose(&self, commands: Bytes) -> Result<Proposed, ProposeError> {
        let bytes = commands.len();
        let span = tracing::debug_span!("replicate", bytes, term = Empty, index = Empty);
        let written =
            self.raft.client_write(EncodedCommands(commands)).instrument(span.clone()).await;
        match written {
            Ok(done) => {
                let position = convert::position(&done.log_id);
                span.record("term", position.term.0).record("index", position.index);
                Ok(Proposed { position, replies: done.data.0 })
            }
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                Err(ProposeError::NotLeader(leader_ref(to.leader_id, to.leader_node)))
            }
            Err(e) => Err(ProposeError::Unknown(e.to_string())),
        }
    }

    /// Confirms that this member leads, and returns the index that a linearizable read must wait for
    /// (Raft dissertation, §6.4).
    pub async fn read_index(&self) -> Result<u64, ReadIndexError> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
                Err(ReadIndexError::NotLeader(leader_ref(to.leader_id, to.leader_node)))
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(ReadIndexError::NoQuorum)
            }
            Err(RaftError::Fatal(_)) => Err(ReadIndexError::Stopped),
        }
    }

    /// Waits until this member has applied the log up to `index`.
    pub async fn wait_applied(&self, index: u64) -> Result<(), ReadIndexError> {
        let mut applied = self.progress.applied.clone();
        let reached = |at: &Option<LogPosition>| at.is_some_and(|at| at.index >= index);
        applied.wait_for(reached).await.map(|_| ()).map_err(|_| ReadIndexError::Stopped)
    }

    /// Waits until this member has applied `revision`.
    pub async fn wait_revision(&self, revision: Revision) -> Result<(), ReadIndexError> {
        let mut applied = self.progress.applied.clone();
        loop {
            // Marked as seen before the check, so that a later apply wakes this loop.
            applied.borrow_and_update();
            if self.progress.view.revision() >= revision {
                return Ok(());
            }
            applied.changed().await.map_err(|_| ReadIndexError::Stopped)?;
        }
    }

    /// Waits until the compaction up to `revision` has removed all superseded versions from the index.
    pub async fn wait_pruned(&self, revision: Revision) -> Result<(), ReadIndexError> {
        let mut pruned = self.progress.pruned.clone();
        pruned.wait_for(|at| *at >= revision).await.map(|_| ()).map_err(|_| ReadIndexError::Stopped)
    }

    /// Whether applied changes that the storage has not written yet fill its write buffer. Proposals
    /// must wait meanwhile.
    pub fn is_write_buffer_full(&self) -> bool {
        self.store.is_full()
    }

    /// Whether the disk lacks room for the next WAL segment. The rest of the active segment is for
    /// commands that free space.
    pub fn is_log_space_low(&self) -> bool {
        *self.log.space().borrow() == DiskSpace::Low
    }

    /// Index of the last entry that this member knows to be committed.
    pub fn committed_index(&self) -> Option<u64> {
        self.raft.metrics().borrow_watched().local_committed.map(|id| id.index())
    }

    pub fn metrics(&self) -> &ConsensusMetrics {
        &self.metrics
    }

    pub fn view(&self) -> &View {
        &self.progress.view
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// Number of entries that a leader has reported as committed and this member has not applied.
    pub fn apply_lag(&self) -> u64 {
        let applied = self.progress.view.applied().map_or(0, |at| at.index);
        self.quorum.committed().saturating_sub(applied)
    }

    /// Number of entries that were committed when this member first heard of a leader, and that it has
    /// not applied.
    pub fn initial_lag(&self) -> u64 {
        let applied = self.progress.view.applied().map_or(0, |at| at.index);
        self.quorum.first_committed().saturating_sub(applied)
    }

    /// Time since the last known contact of any leader with a quorum, for deadlines longer than an
    /// election timeout. [`Raft::active_leadership`] decides whether there is a leader.
    pub fn quorum_age(&self) -> Option<Duration> {
        self.quorum.age()
    }

    pub fn last_index(&self) -> Option<u64> {
        self.raft.metrics().borrow_watched().last_log_index
    }
}
