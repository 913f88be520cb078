//! One member as its services see it: proposals and linearizable reads work on any member.
//!
//! ```text
//! propose ─▶ admission ─▶ proposals: one batch of all waiting commands ─▶ leader? ─▶ raft
//!                                                                       ╰─ else ───▶ forward ─▶ the leader's node
//! range ──▶ reads: one read index for all waiting reads ─▶ applied? ─▶ state's view, or read_pool
//! ```
//!
//! Invariants:
//! - A proposal is retried only if it certainly was never appended: the leader said so, or the frame
//!   never left this host. In all other cases it fails with [`NodeError::LeaderChanged`]: unknown.
//! - A read index serves only reads that arrived before it was requested.
//! - Requests in flight are bounded by count and bytes; beyond that, [`NodeError::TooManyRequests`].

mod admission;
mod forward;
mod leader_loss;
mod leases;
mod membership;
mod metrics;
#[expect(clippy::module_inception, reason = "the file of the main type")]
mod node;
mod port;
mod proposals;
mod quota;
mod read_pool;
mod reads;
mod start;

pub use forward::{ForwardReplies, LeaderLink, LinkError};
pub use leases::Lessor;
pub use membership::{
    ClusterOverview, LeaderOverview, LocalOverview, MemberChange, MemberOverview, MembershipError,
    MembershipPort,
};
pub use node::{Node, NodeOptions};
pub use port::{Applied, Header, MemberInfo, NodeError, NodePort, RangeResult, Status, TimeToLive};
pub use start::NodeTasks;
