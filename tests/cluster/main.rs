//! Clusters of real processes: killed, stopped, damaged, and never forgetful.
//!
//! Every test starts `kvd serve` processes of its own on 127.0.0.1, each with a directory under
//! cargo's scratch space. When a test fails, its directory stays, and the end of each member's log
//! is printed. The [`Workload`](workload::Workload) writes while members come and go, and its
//! [`Oracle`](oracle::Oracle) remembers what was promised; [`check`] compares that with what the
//! cluster holds in the end.
//!
//! SIGKILL keeps the page cache: what is lost without an fsync, the simulated disk shows
//! (`wal::tests`, `storage::tests`), not these tests.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::disallowed_methods, reason = "the ports are the members'; this is their outside")]

mod check;
mod cluster;
mod dice;
mod history;
mod oracle;
mod process;
mod workload;

mod crash;
mod damage;
mod join;
#[cfg(debug_assertions)]
mod leader;
mod leases;
mod members;
mod restart;
mod watching;
