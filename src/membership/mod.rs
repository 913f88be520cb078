//! Cluster membership: identity, bootstrap, joining, reconciliation and shutdown.
//!
//! An ordinal names a pod. An *incarnation* is one volume's membership in Raft, and its id is the member
//! id. A volume that lost its data gets a new id: under the old one it could vote twice in a term.
//!
//! ```text
//!            promise, fsynced                 all promised: the founder initializes
//! pristine ───────────────────▶ promised ───────────────────────────────────▶ member
//!    │                                                                          ▲
//!    ╰── join: an id, fsynced ──▶ assigned ── added as a learner, contacted ────╯
//! ```
//!
//! Invariants:
//! - The `identity` file is durable before anything else is written. It says `member` only once a log
//!   exists: from then on a missing log is a lost log, and the member refuses to start.
//! - A cluster forms only when *every* founder has promised itself to it: a founder that lost its
//!   disk cannot form a second cluster while any other founder is a member.
//! - Every member joins as a learner, and votes once it has caught up.

mod admin;
mod bootstrap;
mod datadir;
mod identity;
mod join_service;
mod member_rpc;
mod orchestrator;
mod other_formed;
pub mod planner;
mod quorum_hint;
mod reconcile;
mod record_guard;
mod reminder;
mod removal;
mod restored_set;
mod shutdown;
mod stop_permits;
#[cfg(test)]
mod tests;

pub use admin::{AdminContext, MemberAdmin, describe_volume};
pub use bootstrap::{
    Bootstrap, BootstrapConfig, BootstrapRpc, Bootstrapped, FOUNDER_TAKEOVER_TIMEOUT,
    FoundingOrderError,
};
pub use datadir::DataDir;
pub use identity::{Identity, Stage};
pub use join_service::{JoinContext, JoinService};
pub use member_rpc::MemberRpc;
#[cfg(feature = "k8s")]
pub use orchestrator::{
    BootstrapRecord, ClaimOrigin, FormerClaim, FoundingOrder, Intent, OrchestratorError,
    StoredRecord, Termination,
};
pub use orchestrator::{ClusterEvent, LeaderUpdate, Orchestrator, PodCreation, last_leader};
pub use reconcile::MembershipReconciler;
pub use record_guard::{Fenced, wait_until_fenced};
pub use reminder::Reminder;
pub use removal::{
    LocalIndexes, MemberStatus, STARTUP_STATUS_TIMEOUT, ask_member_status, wait_until_removed,
};
pub use shutdown::{GracePeriod, GracefulShutdown, OwnSet, ShutdownKind};
pub use stop_permits::StopPermit;
