//! Plans the next membership change: a pure function of the leader's observations.
//!
//! ```text
//! members, contact, lag, desired ──▶ plan() ──▶ Settled │ Do(one step) │ Wait(blocked by)
//! ```
//!
//! The leader plans again after every step and after every new observation; the planner keeps no
//! state between calls. So each step must bring the membership closer to its target, and the next
//! call must not undo it.
//!
//! Invariants:
//! - A change starts only after the previous one is committed, and a joint configuration is left first.
//! - Contact is not progress: a member that answers heartbeats may need a snapshot, or its disk may hang.
//!   Voters change only if majorities of the current and of the next set acknowledge entries and are
//!   caught up. The planner never proposes an empty set of voters, or one without a live majority.
//! - Only a caught-up learner gets a vote, and only a learner is removed: a leaving member loses its
//!   vote first.
//! - Of two members at one ordinal, the one with the higher id is the current incarnation.
//! - A reachable voter that is not leaving keeps its vote, regardless of its ordinal, unless it is stalled
//!   and a learner is not. So a flapping member costs one change each time it fails, and none when it
//!   returns. A voter that catches up is not stalled.
//! - A leader whose own disk hangs hands over. Only the next leader can take its vote.
//!
//! Growing from one member to three, with the third still behind:
//!
//! ```text
//! voters {0}      learners 1, 2    Wait: 2 must catch up (two voters are worse than one)
//! voters {0}      learners 1, 2    Do: change voters, add 1 and 2
//! voters {0,1,2}                   Settled
//! ```

mod blocked;
mod observed;
mod plan;
mod quorum;
mod target;
#[cfg(test)]
mod tests;

pub use blocked::{Blocked, BlockedBy};
pub use observed::{Member, Observed};
pub use plan::{Plan, Step, plan};
pub use quorum::{may_stop, tolerates};
