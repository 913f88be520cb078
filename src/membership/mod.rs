//! Who is a member: the identity on disk, how a cluster forms, how a member joins.
//!
//! The ordinal is a place; the *incarnation* (one life of one volume) is the member. An id is never
//! used again by an empty disk: Raft could not tell that it forgot its vote.
//!
//! ```text
//!            promise, fsynced                 all promised: the founder initializes
//! pristine ───────────────────▶ promised ───────────────────────────────────▶ member
//!    │                                                                          ▲
//!    ╰── join: an id, fsynced ──▶ assigned ── added as a learner, contacted ────╯
//! ```
//!
//! Invariants:
//! - `identity` is fsynced before anything else is written, and says `member` only once a log
//!   exists: from then on a missing log is a lost log, and the member refuses to start.
//! - A cluster forms only when *every* founder has promised itself to it: a founder that lost its
//!   disk cannot form a second one while any of the others is a member.
//! - A member joins as a learner, always; it votes once it has caught up.

mod by_hand;
mod datadir;
mod door;
mod fellows;
mod formation;
mod identity;
mod orchestrator;
mod overview;
mod part;
pub mod planner;
mod standing;
mod steward;
#[cfg(test)]
mod tests;
mod waking;

pub use by_hand::ByHand;
pub use datadir::{DataDir, DataDirError};
pub use door::{Door, House};
pub use fellows::Fellows;
pub use formation::{Formation, FormationConfig, FormationError, Formed, Peers, TAKE_OVER};
pub use identity::{Identity, IdentityError, Stage};
pub use orchestrator::{
    Claim, Claimed, Intent, LeaderNews, News, Orchestrator, OrchestratorError, led_last,
};
pub use part::{Parted, Parting};
pub use standing::{Kept, PATIENCE_AT_START, Standing, ask as ask_standing, dead};
pub use steward::{MayStop, Steward};
