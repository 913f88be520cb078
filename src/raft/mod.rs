//! Consensus. Wraps openraft, so that no other module depends on it.
//!
//! ```text
//! node ──propose──▶ Raft ──append──▶ log_store ──▶ wal      (one frame, one fdatasync)
//!                    │ ╲──entries──▶ rpc_client ──▶ Transport  (one stream per peer)
//!                    ╰──committed──▶ state_machine ──▶ apply lane ──▶ state ──▶ storage
//! ```
//!
//! Invariants:
//! - `enable_leader_restore` is always off. Replication starts before the local flush, so a killed
//!   leader that resumed its old term after a restart could append different entries under log ids
//!   that followers have already committed (see `timing`).
//! - A vote is durable before its reply; an append is durable before its acknowledgement.
//! - The state never persists an entry that the local WAL has not fsynced: the WAL's durable index
//!   gates the storage's writer.
//! - A snapshot is durable before the log purges any entry that the snapshot covers.
//! - Every error of a proposal except [`ProposeError::NotLeader`] leaves its outcome unknown.

mod apply;
mod convert;
mod error;
mod force_new_cluster;
mod handle;
mod heartbeat;
mod leadership;
mod log_store;
mod membership;
mod metrics;
mod pending_age;
mod quorum_contact;
mod replay;
mod retention;
mod rpc_client;
mod rpc_error;
mod rpc_server;
mod snapshot_receiver;
mod snapshot_sender;
mod start;
mod state_machine;
mod store;
mod timing;
mod transport;
mod type_config;

pub use apply::WARNING_APPLY_DURATION;
pub use error::{ProposeError, ReadIndexError, RpcError};
pub use force_new_cluster::force_new_cluster;
pub use handle::{Proposed, Raft};
pub use leadership::{Leadership, LeadershipWatch};
pub use membership::{PeerProgress, RaftMember, RaftMembership};
pub use metrics::PeerMetrics;
pub use pending_age::PendingAge;
pub use retention::Retention;
pub use start::{RaftOptions, RaftParts, RaftTasks};
pub use store::{RecoveredState, Snapshot, SnapshotReceiver, SnapshotStore};
pub use timing::Timing;
pub use transport::{OpeningStream, Transport, TransportError};
