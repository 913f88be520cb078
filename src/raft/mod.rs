//! Consensus: the only importer of openraft, wrapped so that nothing above or below knows it.
//!
//! ```text
//! node ──propose──▶ Raft ──append──▶ log_store ──▶ wal      (one frame, one fdatasync)
//!                    │ ╲──entries──▶ network ──▶ Transport  (one stream to each peer)
//!                    ╰──committed──▶ machine ──▶ apply lane ──▶ state ──▶ storage
//! ```
//!
//! Invariants:
//! - `enable_leader_restore` is off, always: replication starts before the local flush, so a leader
//!   that is killed and restarted would lead its old term again and mint other entries under ids
//!   that followers may have committed (see `timing`).
//! - A vote is durable before it is answered; an append before it is acknowledged.
//! - The state never persists an entry that the local WAL has not fsynced: the WAL's durable index
//!   gates the storage's writer.
//! - A snapshot is durable before anything it covers is purged from the log.
//! - Whatever ends a proposal other than [`ProposeError::NotLeader`] leaves its outcome unknown.

mod apply;
mod convert;
mod handle;
mod leadership;
mod log_store;
mod machine;
mod membership;
mod metrics;
mod network;
mod peer_side;
mod recover;
mod retention;
mod store;
mod timing;
mod transport;

use openraft::impls::leader_id_std::LeaderId;

pub use apply::SLOW;
pub use convert::Unreadable;
pub use handle::{ProposeError, Proposed, Raft, RaftOptions, RaftTasks, ReadError, StartError};
pub use leadership::{Leadership, LeadershipWatch};
pub use membership::{PeerProgress, RaftMember, RaftMembership};
pub use metrics::{ConsensusMetrics, Operations, PeerCounts, SnapshotCounts};
pub use peer_side::PeerError;
pub use recover::{RecoverError, go_on_alone};
pub use retention::Retention;
pub use store::{Incoming, Recovered, Snapshot, SnapshotStore};
pub use timing::{Timing, TimingError};
pub use transport::{Opening, Replies, Transport, TransportError};

use crate::types::{Command, CommandError, MemberId, Ordinal, Reply};

openraft::declare_raft_types!(
    /// How openraft is bound: standard Raft (one leader a term), our ids, the ordinal as all the
    /// metadata a node has.
    pub(crate) Types:
        D = Commands,
        R = Answers,
        NodeId = MemberId,
        Node = Ordinal,
        Term = u64,
        LeaderId = LeaderId<u64, MemberId>,
);

/// An encoded `CommandBatch`: the payload of a normal entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Commands(pub(crate) bytes::Bytes);

impl std::fmt::Display for Commands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What applying one entry answered, command by command.
#[derive(Debug, Default)]
pub(crate) struct Answers(pub(crate) Vec<Result<Reply, CommandError>>);

/// Decodes the commands of an entry; an entry that a quorum accepted and we cannot read stops us.
fn decode_commands(data: &bytes::Bytes) -> Result<Vec<Command>, crate::proto::convert::WireError> {
    crate::proto::convert::decode_commands(data.clone())
}
