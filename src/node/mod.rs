//! One member as its services see it: propose, read linearizably, on any member.
//!
//! ```text
//! propose ─▶ proposals: coalesce what waits ─▶ leader? ─▶ raft
//!                                           ╰─ else ───▶ forward ─▶ the leader's node
//! range ──▶ reads: one read index for all that wait ─▶ applied? ─▶ state's view
//! ```
//!
//! Invariants:
//! - A proposal is made again only if it certainly was never appended: the leader said so, or the
//!   frame never left this host. Everything else is [`NodeError::LeaderChanged`]: unknown.
//! - A read index answers only reads that arrived before it was asked for.
//! - What is in flight is bounded by count and bytes; beyond that, [`NodeError::TooManyRequests`].

mod forward;
mod leader;
mod leases;
mod member;
mod membership;
mod metrics;
mod port;
mod proposals;
mod reads;
mod served;

pub use forward::{Answers, LeaderLink, LinkError};
pub use leases::{LeaseCounters, Lessor};
pub use member::{Node, NodeOptions, NodeTasks};
pub use membership::{
    Leading, MemberChange, MemberOverview, MembershipError, MembershipPort, Overview, OwnOverview,
};
pub use metrics::NodeMetrics;
pub use port::{Applied, Header, Member, NodeError, NodePort, RangeAt, Status, TimeToLive};
