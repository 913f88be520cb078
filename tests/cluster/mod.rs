//! Clusters of real processes that are killed, stopped and damaged under load.
//!
//! Every test starts its own `kvd serve` processes on 127.0.0.1, each with a directory under
//! cargo's scratch space. A test that fails keeps its directory and prints the end of each member's
//! log. The [`Workload`](workload::Workload) writes while members come and go, its
//! [`Oracle`](crate::support::oracle::Oracle) records every attempt and outcome, and [`check`]
//! compares that record with the final contents of the cluster.
//!
//! SIGKILL keeps the page cache. Missing fsyncs are the subject of the simulated disk
//! (`wal::tests`, `storage::tests`), not of these tests.

mod check;
mod harness;
mod member;
mod workload;

mod addresses;
mod crash;
mod damage;
#[cfg(debug_assertions)]
mod hung_disk;
mod join;
#[cfg(debug_assertions)]
mod leader;
mod leases;
mod members;
mod no_leader;
#[cfg(feature = "k8s")]
mod pod;
mod restart;
mod watching;
