//! When leases end. The state knows which leases there are; the leader's [`Lessor`] keeps their time.
//!
//! ```text
//! state ──what each chunk changed──▶ lessor: a deadline for each lease, on the leader only
//! expiry: what is due ─▶ LeaseExpire, LeaseCheckpoint ─▶ raft ─▶ state
//! queries: renewals and questions that wait ─▶ leader? ─▶ answers: read index, lessor
//!                                            ╰─ else ───▶ forward ─▶ the leader's answers
//! ```
//!
//! Invariants:
//! - A lease never ends before its time. Its deadline is counted from the moment when the leader
//!   granted or renewed it, by a clock that only goes forward; and who takes over leadership counts
//!   anew, after everything that was committed before him is applied.
//! - A renewal is answered only by who has just proved that he leads, and only if nothing that is
//!   in the log, or on its way there, makes the lease shorter than was answered: see
//!   [`timers::Renewal::Void`].
//! - What a deposed leader decided is refused by the state: it names its term.
//!
//! So a change of leader may lengthen a lease, by one checkpoint interval and the election.

mod answers;
mod expiry;
mod lessor;
mod queries;
mod timers;

pub use lessor::{LeaseCounters, Lessor};

pub(super) use answers::LeaderSide;
pub(super) use expiry::run as expire;
pub(super) use queries::{Answer, Query, Want, run as ask};
