//! When leases end. The state knows which leases exist; the leader's [`Lessor`] keeps their deadlines.
//!
//! ```text
//! state ──lease changes of each chunk──▶ lessor: a deadline for each lease, on the leader only
//! expiry: due leases ─▶ LeaseExpire, LeaseCheckpoint ─▶ raft ─▶ state
//! queries: waiting renewals and TTL queries ─▶ leader? ─▶ server: read index, lessor
//!                                            ╰─ else ───▶ forward ─▶ the leader's server
//! ```
//!
//! Invariants:
//! - A lease never ends before its time. Its deadline is counted from the moment when the leader
//!   granted or renewed it, by a monotonic clock. A new leader restarts every countdown, after it has
//!   applied everything that was committed before its term.
//! - A renewal is answered only by a leader that has just confirmed its leadership, and only if no
//!   entry in the log, or on its way there, makes the lease shorter than the answer: see
//!   [`timers::Renewal::RenewedCheckpointed`].
//! - The state refuses the expiry and checkpoints of a deposed leader: they name its term.
//!
//! So a change of leader may lengthen a lease, by one checkpoint interval and the election.

mod expiry;
mod lessor;
mod queries;
mod server;
mod timers;

pub use expiry::run as run_expiry;
pub use lessor::{LeaseCounters, Lessor};
pub use queries::{LeaseQuery, LeaseQueryAnswer, LeaseQueryKind, run_query_batcher};
pub use server::LeaseServer;
